"""Run the code that README and docs show, with small networks. test_pages.py checks what they say of the code."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torchvision.io import write_png

import models
from engine.data import digits
from tests.conftest import NARROW
from tests.tools import shell
from tests.tools.library import with_few_blocks
from tests.tools.readme import (
    MODULES,
    README,
    ROOT,
    Block,
    blocks,
    lines,
    marked,
    options,
    shortened,
)

Command = Callable[..., object]


def run_all(block: Block, command: Command) -> None:
    """Run every command of a block in one folder."""
    for module, argv, leaves in lines(block):
        pictures = ("--image_size", "32") if "pictures" in argv and "--dataset" in argv else ()
        done = command(MODULES.get(module, module), *shortened(module, argv), *pictures)
        assert done.code == 0, f"python -m {module} {' '.join(argv)}\n{done.err}"
        if leaves:
            assert Path(done.path) == Path("models_save", leaves)
        if "--save" in options(module):
            assert Path(done.path).is_file(), f"the last line of stdout is no file: {done.path}"


def test_blocks_name_the_files_that_they_write() -> None:
    assert sum(line.leaves is not None for block in marked("chain") for line in lines(block)) >= 12


@pytest.mark.parametrize("numbers", [(0, 1, 3), (2,)], ids=["nin", "nin_gc"])
def test_the_chain(numbers: tuple[int, ...], workplace: Path, command: Command) -> None:
    """README's chain, and what docs/commands.md adds to it, reports too, in one folder; then the grouped network's."""
    found = marked("chain")
    assert len(found) == 4
    for number in numbers:
        run_all(found[number], command)


def test_the_ladder_command(workplace: Path, command: Command) -> None:
    """Here it only prints the published rows; tests/scripts/test_results.py runs a small ladder."""
    shutil.copytree(ROOT / "results", workplace / "results")
    ((module, argv, _),) = lines(marked("ladder")[0])
    done = command(module, *argv, "--table")
    assert done.code == 0, done.err
    assert len(re.findall(r"\d %  +[\d,]{9,} ", done.out)) == 7  # accuracy, MACs
    assert "Not run" not in done.out


def test_in_a_program_of_ones_own(workplace: Path, command: Command) -> None:
    flags = ("--dataset", "digits", "--cfg", NARROW, "--epochs", "1", "--quiet", "--cpu", "--precision", "fp32")
    assert command("quant.wqaq", "--Wbits", "4", "--Abits", "4", *flags).code == 0
    (block,) = marked("in-python")
    exec(block.text, {})
    run_all(marked("inspect")[0], command)


def test_deployment(workplace: Path, command: Command) -> None:
    pytest.importorskip("onnx")
    flags = ("--dataset", "digits", "--cfg", NARROW, "--epochs", "1", "--quiet", "--cpu", "--precision", "fp32")
    assert command("quant.wqaq", "--Wbits", "4", "--Abits", "4", *flags).code == 0
    write_png(torch.zeros(3, 40, 50, dtype=torch.uint8), "photo.jpg")  # PIL reads the contents, not the name
    (block,) = marked("deploy")
    for module, argv, _ in lines(block):
        quick = (
            ("--seconds", "0.1", "--batches", "1", "--without", "torch.compile*") if module == "deploy.bench" else ()
        )
        done = command(module, *argv, *quick)
        assert done.code == 0, f"python -m {module} {' '.join(argv)}\n{done.err}"
    assert {path.suffix for path in Path("models_save").iterdir()} == {".pth", ".safetensors", ".onnx", ".png"}


def test_the_int8_layers_by_themselves() -> None:
    (block,) = marked("int8-layers")
    exec(block.text, {})


def test_a_network_of_ones_own(workplace: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    (source,) = marked("own-network: my_net.py")
    name = source.marker.removeprefix("own-network: ")
    (workplace / name).write_text(source.text)
    monkeypatch.syspath_prepend(workplace)  # as `python -m` does with the working folder
    try:
        run_all(marked("own-network")[0], command)
        run_all(marked("own-network: deploy")[0], command)
    finally:
        sys.modules.pop(Path(name).stem, None)
    assert Path("models_save/residual_w4a4_merged.pth").is_file()


@pytest.fixture(params=["few blocks", pytest.param("whole", marks=pytest.mark.slow)])
def _library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use torchvision's networks with few blocks, or in full."""
    if request.param == "few blocks":
        with_few_blocks(monkeypatch)


@pytest.mark.usefixtures("_library")
def test_any_network(workplace: Path, command: Command) -> None:
    run_all(marked("any-network")[0], command)
    assert Path("models_save/resnet18_w4a4_merged.pth").is_file()


@pytest.fixture
def pictures(workplace: Path) -> Path:
    """Write an image folder from some of the digits."""
    train, test, _ = digits.read_digits(Path(), 32)
    for part, (images, labels) in (("train", train), ("test", test)):
        for number, (image, label) in enumerate(zip(images[:60], labels[:60], strict=True)):
            path = workplace / "pictures" / part / str(int(label)) / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(image.permute(2, 0, 1).contiguous(), str(path))
    return workplace / "pictures"


@pytest.mark.usefixtures("_library")
def test_pictures_and_weights_of_ones_own(pictures: Path, command: Command) -> None:
    run_all(marked("own-pictures")[0], command)
    assert Path("models_save/mobilenet_v3_small_ptq_mse_bc_merged.pth").is_file()
    torch.save(models.build("torchvision:resnet18").state_dict(), "my_resnet18.pth")
    run_all(marked("own-weights")[0], command)
    assert Path("models_save/resnet18_ptq_mse.pth").is_file()


@pytest.fixture(params=["forks", pytest.param("processes", marks=pytest.mark.slow)])
def programs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """Return the folder of a `python` that runs quick versions of commands."""
    folder = tmp_path / "bin"
    folder.mkdir()
    if request.param == "forks":
        with shell.forking(folder):
            yield folder
    else:
        shell.write(folder, shell.PROCESS)
        yield folder


def test_the_pipeline_in_a_shell(tmp_path: Path, programs: Path) -> None:
    """Each command is a process and takes its file from the last line of the previous command's stdout."""
    work = tmp_path / "work"
    work.mkdir()
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    (block,) = marked("pipeline")
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", block.text],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    files = {path.name for path in (work / "models_save").iterdir()}
    assert files == {f"nin_{end}.pth" for end in ("preprune", "prune", "refine", "w8a8", "w8a8_merged")}
    assert done.stdout.splitlines()[-1] == "models_save/nin_w8a8_merged.pth"
    assert "error:" not in done.stderr


def test_the_scripts_it_names_can_be_run() -> None:
    named = re.findall(r"^\./(\S+)", blocks(README)[0].text, re.M)
    assert named == ["scripts/quickstart.sh", "scripts/test.sh"]
    for name in named:
        assert (ROOT / name).stat().st_mode & stat.S_IXUSR
        subprocess.run(["/bin/sh", "-n", ROOT / name], check=True)
