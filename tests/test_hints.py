"""Typical mistakes of newcomers: a hint names the remedy, an error names the file, and nothing is assumed silently."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from engine.checkpoint import archive
from engine.cli.naming import input_file
from engine.data import catalogue
from engine.errors import UserError, prefix_path
from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools.contents import raw
from tests.tools.residual import residual

Command = Callable[..., SimpleNamespace]
QUIET = ("--cpu", "--quiet")
PRUNED = "models_save/nin_prune.pth"


def hint(result: SimpleNamespace) -> str:
    return result.err.splitlines()[-1]


@pytest.mark.parametrize(
    ("module", "argv", "path", "expected"),
    [
        ("prune.train", ("--refine",), PRUNED, "make it with: python -m prune.normal_regular --percent 0.5"),
        ("prune.train", ("--refine", "typo.pth"), "typo.pth", "check the path"),
        ("prune.train", ("--refine", PRUNED), PRUNED,
         "check the path, or make it with: python -m prune.normal_regular --percent 0.5"),
        ("prune.train", ("--from_scratch", "typo.pth"), "typo.pth", "check the path"),
        ("prune.train", ("--evaluate",), "models_save/nin.pth", "make it with: python -m prune.train"),
        ("prune.train", ("--evaluate", "--save", "a.pth"), "a.pth", "make it with: python -m prune.train --save a.pth"),
        ("prune.train", ("--evaluate", "a.pth"), "a.pth", "check the path"),
        ("prune.normal_regular", ("--model", "typo.pth"), "typo.pth", "check the path"),
        ("prune.gc", (), "models_save/nin_gc_preprune.pth", "make it with: python -m prune.train -sr --arch nin_gc"),
        ("quant.wqaq", ("--refine", "typo.pth"), "typo.pth", "check the path"),
        ("quant.wbwtab", ("--refine",), "models_save/nin_refine.pth", "make it with: python -m prune.train --refine"),
        ("quant.ptq", ("--model", "typo.pth"), "typo.pth", "check the path"),
        ("bn_merge.__main__", ("--model", "typo.pth"), "typo.pth", "check the path"),
        ("bn_merge.compare", ("typo.pth",), "typo.pth", "check the path"),
        ("bn_merge.compare", ("--arch", "nin_gc"), "models_save/nin_gc_wbab_merged.pth",
         "make it with: python -m bn_merge --arch nin_gc"),
        ("prune.train", ("--refine", "--dataset", "digits", "--epochs", "2"), PRUNED,
         "make it with: python -m prune.normal_regular --percent 0.5 --dataset digits"),
        ("prune.normal_regular", ("--dataset=imagefolder", "--data", "my pictures", "--percent", "0.5", "--image_size", "32"),
         "models_save/nin_preprune.pth",
         "make it with: python -m prune.train -sr --data 'my pictures' --dataset imagefolder --image_size 32"),
        ("prune.normal_regular", ("--arch", "my_net:net", "--dataset", "digits"), "models_save/net_preprune.pth",
         "make it with: python -m prune.train -sr --arch my_net:net --dataset digits"),
        ("quant.ptq", ("--dataset", "digits", "--val", "300"), "models_save/nin_refine.pth",
         "make it with: python -m prune.train --refine --dataset digits --val 300"),
        ("prune.train", ("--evaluate", "--dataset=digits"), "models_save/nin.pth",
         "make it with: python -m prune.train --dataset=digits"),
        ("prune.train", ("--refine", "typo.pth", "--dataset", "digits"), "typo.pth", "check the path"),
    ],
)  # fmt: skip
def test_a_missing_file(command: Command, module: str, argv: tuple[str, ...], path: str, expected: str) -> None:
    result = command(module, *argv)
    assert_refused(result, 3, f"{path}: no such file")
    assert hint(result) == f"hint: {expected}"
    assert not list(Path().iterdir())


def test_the_file_of_a_stage(workplace: Path) -> None:
    for name in ("given.pth", "default.pth"):
        Path(name).touch()
    default = Path("default.pth")
    assert input_file(Path("given.pth"), default, "it") == Path("given.pth")
    assert input_file(None, default, "it") == input_file(True, default, "it") == default


def test_what_failed_in_a_file_is_named_once() -> None:
    for text in ("no such layer", "a.pth: no such layer"):
        with pytest.raises(UserError, match=r"^a\.pth: no such layer$") as fault, prefix_path(Path("a.pth")):
            raise UserError(text, "help", 5)
        assert (fault.value.hint, fault.value.code) == ("help", 5)
    with pytest.raises(UserError, match=r"^b$"), prefix_path(None):
        raise UserError("b", "help")


def own_network(path: str, arch: str = "tests.tools.residual:residual") -> None:
    """Write a file with a user's network."""
    content = raw(Path("models_save/nin_refine.pth"))
    network = residual()
    content |= {
        "arch": arch,
        "cfg": network.cfg,
        "state_dict": network.state_dict(),
        "transforms": [{"stage": "train"}],
    }
    archive.save(Path(path), content)


def test_a_report_of_several_networks_needs_arch_for_the_users_own(refined: Command) -> None:
    own_network("own.pth")
    files = ("models_save/nin_refine.pth", "own.pth", PRUNED)
    result = refined("scripts.report", *files)
    assert_refused(result, 2, "own.pth: the file holds a network of tests.tools.residual:residual")
    assert hint(result) == "hint: if you trust that module, add --arch tests.tools.residual:residual"
    result = refined("scripts.report", *files, "--arch", "tests.tools.residual:residual", "--json")
    assert [row["file"] for row in json.loads(result.out)["rows"]] == list(files)


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("prune.normal_regular", ("--model",)), ("prune.train", ("--refine",)), ("quant.wqaq", ("--refine",)),
        ("quant.ptq", ("--model",)), ("bn_merge.__main__", ("--model",)), ("bn_merge.compare", ()), ("scripts.summary", ()),
    ],
)  # fmt: skip
def test_what_does_not_fit_names_the_file(refined: Command, module: str, argv: tuple[str, ...]) -> None:
    own_network("own.pth")
    assert_refused(refined(module, *argv, "own.pth"), 2, "own.pth: the file holds a network of tests.tools.residual")


def test_flags_without_a_value_reach_the_run_folder_as_such(refined: Command) -> None:
    assert refined("prune.train", "--refine", *SMALL).code == 0
    given = json.loads(Path("runs/nin_refine/flags.json").read_text())["flags"]
    assert (given["refine"], given["evaluate"], given["from_scratch"]) == (True, None, None)
    assert refined("prune.train", "--refine", PRUNED, *SMALL, "--save", "x.pth").code == 0
    assert json.loads(Path("runs/x/flags.json").read_text())["flags"]["refine"] == PRUNED


def test_pruning_says_what_is_stored_and_what_comes_next(refined: Command) -> None:
    result = refined("prune.normal_regular", "--percent", 0.25, "--save", "a b.pth", *QUIET)
    stored = raw(Path("a b.pth"))["best_acc"]
    assert "--data" not in result.out
    line = f"stored with the file: {stored:.2f} %, before any refining; next: python -m prune.train --refine 'a b.pth'"
    assert result.out.splitlines()[-2:] == [line, "a b.pth"]
    told = refined(
        "prune.normal_regular", "--data", "my pictures", "--dataset", "digits", "--image_size", 8, *QUIET
    ).out
    assert f"next: python -m prune.train --refine {PRUNED} --data 'my pictures'\n" in told


def test_pruning_twice_counts_from_the_first_network(refined: Command) -> None:
    first = refined("prune.normal_regular", "--percent", 0.25, *QUIET)
    assert "in all" not in first.out
    again = refined("prune.normal_regular", "--percent", 0.25, "--model", PRUNED, "--save", "x.pth", *QUIET)
    left = sum(raw(Path("x.pth"))["cfg"])
    assert (
        f"in all      64 -> {left} channels since the first pruning, {100 * (1 - left / 64):.2f} % dropped\n"
        in again.out
    )


def test_grouped_pruning_of_an_ungrouped_network_says_so(refined: Command) -> None:
    told = "notice: nin has no grouped convolutions"
    model = ("--model", "models_save/nin_preprune.pth", "--save", "x.pth")
    assert told in refined("prune.gc", *model, *QUIET).err
    assert told not in refined("prune.normal_regular", *model, *QUIET).err


def test_quantizing_from_scratch_says_so(refined: Command) -> None:
    told = "notice: without --refine, nin starts with fresh weights"
    loud = [flag for flag in SMALL if flag != "--quiet"]
    fresh = refined("quant.wqaq", "--cfg", NARROW, *loud, "--save", "x.pth").err
    assert f"{told}; --refine [F]" in fresh
    assert " parameters; 1 epoch of batch " in fresh
    assert told not in refined("quant.wqaq", "--cfg", NARROW, *SMALL, "--save", "x.pth").err
    assert told not in refined("quant.wqaq", "--refine", *loud).err


def test_a_cfg_that_does_not_fit_is_found_before_pictures_are_read(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("engine.data.catalogue.load", lambda *_, **__: pytest.fail("pictures were read"))
    for module in ("prune.train", "quant.wqaq", "quant.wbwtab"):
        result = command(module, "--arch", "nin_gc", "--cfg", "9,9,9,9,9,9,9,9")
        assert_refused(result, 2, "--cfg does not fit nin_gc")
        assert hint(result) == "hint: its own widths: --cfg 256,256,256,512,512,512,1024,1024"


def test_folders_of_pictures_are_noticed(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """--data alone does not select them: without --dataset, CIFAR-10 or the digits are used."""
    for part in ("train", "test"):
        place = Path("pets", part, "cat")
        place.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(place / "a.png")
    real = catalogue.load
    monkeypatch.setattr("engine.data.catalogue.load", lambda name, *more, **how: real("digits", *more, **how))
    told = "notice: pets holds train/ and test/ folders; to use their pictures, add --dataset imagefolder"
    small = ("--cfg", NARROW, "--image_size", 8, "--epochs", 1, "--train_batch_size", 500, "--cpu", "--quiet")
    assert told in command("prune.train", "--data", "pets", *small).err
    assert told not in command("prune.train", "--data", "pets", "--dataset", "digits", *small).err
    assert told not in command("prune.train", *small).err


@pytest.mark.parametrize("package", ["torch", "sklearn", "torchvision"])
def test_a_missing_package_is_a_hint(package: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The likeliest cause is an inactive environment."""

    def body(_: object) -> None:
        raise ModuleNotFoundError(f"No module named '{package}'", name=package)

    monkeypatch.setattr("scripts.summary.body", body)
    result = command("scripts.summary")
    assert_refused(result, 2, f"{package} is not installed")
    assert ". .venv/bin/activate" in hint(result)


@pytest.mark.parametrize(
    "fault", [MemoryError(), RuntimeError("CUDA out of memory. \x1b[1mTried\x1b[0m to allocate 2 GiB")]
)
def test_too_little_memory_is_a_hint(fault: Exception, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def body(_: object) -> None:
        raise fault

    monkeypatch.setattr("scripts.summary.body", body)
    result = command("scripts.summary")
    assert_refused(result, 2, "out of memory")
    assert hint(result) == "hint: take a smaller --eval_batch_size, or --cpu"  # it trains nothing


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(refined: Command) -> None:
    for module, *argv in (
        ("prune.normal_regular",),
        ("prune.train", "--refine"),
        ("quant.ptq",),
        ("bn_merge.__main__", "--model", PRUNED),
    ):
        assert_refused(refined(module, *argv, "--device", "cuda"), 2, "--device cuda: no GPU that torch can use")
    assert refined("prune.normal_regular", "--device", "auto").code == 0


def test_threads_are_those_asked_for(command: Command) -> None:
    assert command("scripts.summary", "--threads", 2).code == 0
    assert torch.get_num_threads() == 2
    assert command("scripts.summary", "--threads", 1).code == 0
    assert torch.get_num_threads() == 1
    assert command("scripts.summary").code == 0
    assert torch.get_num_threads() == 1  # --threads was not given


def test_odd_names_of_files_work_through_the_chain(refined: Command) -> None:
    """Each name is printed, read back and recorded in the run folder: spaces, other scripts, a dash, quotes."""
    for name in ("with space.pth", "模型.pth", "-dash.pth", "'quoted\".pth", "*.pth"):
        trained = refined("prune.train", "--refine", f"--save={name}", *SMALL)
        assert trained.code == 0, trained.err
        assert Path(name).is_file()
        judged = refined("prune.train", f"--evaluate={name}", "--cpu")
        assert (judged.code, judged.path) == (0, trained.path), judged.err


def test_a_folder_given_for_a_file(refined: Command) -> None:
    for module, flag in (("prune.normal_regular", "--model"), ("quant.wqaq", "--refine")):
        result = refined(module, flag, "models_save", "--dataset", "digits", *QUIET)
        assert_refused(result, 3, "models_save: not a regular file")
    result = refined(
        "prune.train", "--resume", "models_save", "--dataset", "digits", *QUIET
    )  # a run folder would be accepted
    assert_refused(result, 3, "models_save/state.pth: no such file")


@pytest.mark.parametrize("flag", ["--model", "--save", "--data"])
def test_very_long_paths(refined: Command, flag: str) -> None:
    result = refined("prune.normal_regular", flag, "x" * 300, *QUIET)
    assert result.code in ((0, 4) if flag == "--data" else (3, 6)), result.err
    assert "Traceback" not in result.err
