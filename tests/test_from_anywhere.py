"""Commands in a user's project with its own `models/`, `engine/`, `scripts/` and `quant/`."""

from __future__ import annotations

import argparse
import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import model_compression
import models
from engine.checkpoint import archive
from engine.cli import argtypes
from engine.errors import USAGE
from models import check, forms, user_code
from models.blocks import ConvBNAct
from models.graph.capture import again  # noqa: F401, imported before modules are compared
from quant.prepare import prepare
from quant.spec import QuantSpec
from scripts import console
from tests.conftest import assert_refused
from tests.tools.house import commands

ROOT = Path(__file__).parents[1]
TRAIN = ("--dataset", "digits", "--image_size", "8", "--epochs", "1", "--cfg", "8,8", "--cpu", "--quiet")
NET = """
from torch import nn
from {imports} import conv
from engine import SIDE

class Net(nn.Module):
    def __init__(self, cfg=None, classes=10):
        super().__init__()
        self.cfg, self.ends = list(cfg or (4, 4)), ("first", "head")
        self.first, self.second = conv(3, self.cfg[0], SIDE), conv(self.cfg[0], self.cfg[1], SIDE)
        self.head = nn.Linear(self.cfg[1], classes)

    def forward(self, x):
        from scripts.late import mean
        return self.head(mean(self.second(self.first(x))))

    def channel_groups(self):
        import quant
        return list(quant.GROUPS)

def count(cfg=None, classes=10):
    raise KeyError("cfg")
"""
FILES = {
    "models/net.py": NET.format(imports="models.parts"),  # models/ has no __init__.py, as in many projects
    "models/parts.py": "from torch import nn\ndef conv(a, b, k):\n    return nn.Conv2d(a, b, k, padding=k // 2)\n",
    "package/__init__.py": "from .net import Net\n",
    "package/net.py": NET.format(imports=".parts"),
    "package/parts.py": "from models.parts import conv\n",
    "engine/__init__.py": "SIDE = 3\n",
    "scripts/__init__.py": "",
    "scripts/late.py": "def mean(x):\n    return x.mean((2, 3))\n",
    "quant.py": "GROUPS = ()\n",
}
"""A project whose forward and channel_groups import when they are called."""


def written(files: dict[str, str], place: Path) -> Path:
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


@pytest.fixture
def clean(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty working folder; its modules and sys.path entries are removed after the test."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield workplace
    for name in set(sys.modules) - before:
        if str(workplace) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def project(clean: Path) -> Path:
    return written(FILES, clean)


def ours() -> dict[str, object]:
    return {name: m for name, m in sys.modules.items() if name.partition(".")[0] in model_compression.PACKAGES}


def run(project: Path, *line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, *line], cwd=project, env=environment, capture_output=True, text=True, check=False
    )


def test_python_m_works_beside_packages_of_the_same_names(project: Path) -> None:
    done = run(project, "-m", "prune.train", "--arch", "models.net:Net", *TRAIN, PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["models_save/Net.pth"]), done.stderr


ISOLATED = """
import sys
sys.path.append(sys.argv.pop(1))
import model_compression
code = model_compression.console()
print(sys.modules["models"].__file__, sys.modules["prune"].__file__)
sys.exit(code)
"""


def test_the_console_script_works_whatever_lies_in_the_working_folder(project: Path) -> None:
    """With -I the working folder is not in sys.path, as for a console script; the project's packages must not come first."""
    written({f"{name}/__init__.py": "raise OSError('the user')" for name in ("prune", "bn_merge", "deploy")}, project)
    line = ("-I", "-c", ISOLATED, str(ROOT), "prune.train", "--arch", "models/net.py:Net", *TRAIN)
    done = run(project, *line)
    assert done.returncode == 0, done.stderr
    *_, path, modules = done.stdout.splitlines()
    assert path == "models_save/Net.pth"
    recorded = archive.load(project / path).value["provenance"]["command"]
    assert recorded.startswith("python -m prune.train --arch models/net.py:Net --dataset")
    assert modules == f"{ROOT}/models/__init__.py {ROOT}/prune/__init__.py"


@pytest.mark.parametrize("arch", ["models.net:Net", "models/net.py:Net", "package.net:Net", "package/net.py:Net"])
def test_a_network_finds_its_own_packages_whenever_it_runs(arch: str, project: Path) -> None:
    before, folders, hooks = ours(), [*sys.path], [*sys.meta_path]
    model = forms.build(arch, [4, 6], side=8)
    twin = copy.deepcopy(model)
    quantized = prepare(model, QuantSpec())
    x = torch.rand(2, 3, 8, 8)
    assert torch.equal(twin(x), model(x))
    assert torch.equal(quantized(x), model(x))
    assert set(model.state_dict()) == {f"{n}.{w}" for n in ("first", "second", "head") for w in ("weight", "bias")}
    twin.head.bias.data += 1
    assert torch.allclose(twin(x), model(x) + 1)  # a copy uses its own weights
    assert ours() == before
    assert sys.meta_path == hooks
    assert sys.path[: len(folders)] == folders


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt])
def test_whatever_ends_a_forward_pass_ours_stand_again(stop: type[BaseException], project: Path) -> None:
    model, before = models.build("models.net:Net"), ours()

    def end(*_: object) -> None:
        assert sys.modules["models"] is not models
        raise stop

    model.head.register_forward_hook(end)
    with pytest.raises(stop), user_code.running("models.net:Net"):
        model(torch.rand(2, 3, 8, 8))
    assert ours() == before


def test_every_stage_takes_it(project: Path, command: Callable[..., SimpleNamespace]) -> None:
    own = ("--arch", f"{project}/models/net.py:Net")
    trained = command("prune.train", *own, *TRAIN)
    assert trained.code == 0, trained.err
    few = [flag for flag in TRAIN if flag not in ("--cfg", "8,8")]
    quantized = command("quant.wqaq", "--Wbits", 4, "--Abits", 4, "--refine", trained.path, *own, *few)
    assert quantized.code == 0, quantized.err
    merged = command("bn_merge.__main__", "--model", quantized.path, "--cpu", *own)
    assert (merged.code, merged.path) == (0, "models_save/Net_w4a4_merged.pth"), merged.err
    assert_refused(command("prune.train", "--evaluate", trained.path, "--cpu"), USAGE, "models/net.py:Net")
    other = command("prune.train", "--evaluate", trained.path, "--cpu", "--arch", "models.net:Net")
    assert_refused(other, USAGE, "the file holds models/net.py:Net, but --arch is models.net:Net")


def test_without_packages_of_its_own_a_project_has_ours(clean: Path) -> None:
    """A folder `models/` with weights is not a package, and a network of such a project is not changed."""
    written({"models/weights.pth": "", "plain.py": "from tests.tools.residual import residual as net\n"}, clean)
    model = models.build("plain.py:net")
    assert type(model.stem) is ConvBNAct
    assert "forward" not in vars(model)


FAULTS = {
    "gone.py:Net": ("gone.py:Net: there is no such file", ""),
    "gone:Net": ("No module named 'gone'", ""),
    "models.net:Nett": ("models.net has no Nett", ""),
    "models/net.py:NET": ("models/net.py has no NET", ""),
    "models/net.py:__name__": ("__name__ is not a function", ""),
    "models/net.py:count": ("models/net.py:22: KeyError: 'cfg'", ""),
    "broken.py:Net": ("broken.py:2: SyntaxError", "x = 1\ndef Net(:\n"),
    "models/lost.py:Net": ("models/lost.py:1: No module named 'engine.gone'", "from engine.gone import x\n"),
    "leaves.py:Net": ("leaves.py:2: SystemExit: 3", "import sys\nsys.exit(3)\n"),
    "queue.py:Net": ("Python has another module called queue", "def Net(cfg=None, classes=10): pass\n"),
}


@pytest.mark.parametrize("arch", FAULTS)
def test_code_that_cannot_be_imported_is_refused_with_its_place(
    arch: str, project: Path, command: Callable[..., SimpleNamespace]
) -> None:
    words, text = FAULTS[arch]
    if text:
        written({arch.partition(":")[0]: text}, project)
    before = ours()
    assert_refused(command("prune.train", "--arch", arch, *TRAIN), USAGE, words)
    assert ours().items() >= before.items()


@pytest.mark.parametrize("package", model_compression.PACKAGES)
def test_a_line_of_ours_is_not_shown_as_the_users(package: str) -> None:
    with pytest.raises(ZeroDivisionError) as fault:
        eval(compile("1 / 0", str(ROOT / package / "file.py"), "eval"))
    assert fault.value.__traceback__ is not None
    only = fault.value.with_traceback(fault.value.__traceback__.tb_next)  # without the frame of this test
    assert check.one_line(only) == "ZeroDivisionError: division by zero"


def test_one_file_has_one_name(workplace: Path) -> None:
    forms = ("./net.py:Net", f"{workplace}/net.py:Net", "sub/../net.py:Net")
    assert {argtypes.arch(form) for form in forms} == {"net.py:Net"}
    assert argtypes.arch(f"{workplace.parent}/net.py:Net") == "../net.py:Net"
    assert argtypes.arch("package.net:Net") == "package.net:Net"


def test_the_console_script_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(console.COMMANDS) == {name.removesuffix(".__main__") for name in commands()}
    for argv in ([], ["--help"], ["-h"]):
        try:
            code = console.run(argv)
        except SystemExit as end:
            code = end.code
        words = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
        listed = {line[0]: line[1] for line in words if len(line) == 2 and line[0] in console.COMMANDS}
        assert code == 0
        assert tuple(listed) == console.COMMANDS
        assert listed["prune.train"].startswith("train in float, plain or sparse")


def test_the_console_script_tells_its_version(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    for version, told in ((lambda name: "1.2.3", "1.2.3"), (absent, "not installed")):
        monkeypatch.setattr(metadata, "version", version)
        assert console.run(["--version"]) == 0
        assert capsys.readouterr().out == f"model-compression {told}\n"


def test_an_unknown_command_is_refused_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    for name, hint in (
        ("prune.trian", "did you mean prune.train?"),
        ("x", "list all commands: model-compression --help"),
    ):
        code = console.run([name, "-sr"])
        result = SimpleNamespace(code=code, **capsys.readouterr()._asdict())
        assert_refused(result, USAGE, f"unknown command {name!r}")
        assert result.err.splitlines()[1] == f"hint: {hint}"


@pytest.mark.parametrize(("text", "lacks"), [("net.py", "function"), ("net.py:", "function"), (":Net", "module")])
def test_half_a_name_is_refused(text: str, lacks: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=f"{text!r} names no {lacks}\npackage.module:function, or "):
        argtypes.arch(text)


@pytest.mark.slow
def test_a_wheel_brings_the_console_script(project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Build the wheel from this tree and unpack it with pip into its own folder."""
    place = tmp_path_factory.mktemp("installed")
    pip = ("-m", "pip", "--disable-pip-version-check")
    source = place / "source"  # a copy, because a build leaves files in the tree
    for package in filter(Path.is_dir, (ROOT / name for name in model_compression.PACKAGES)):
        shutil.copytree(package, source / package.name)
    for name in ("setup.py", "pyproject.toml", "model_compression.py"):
        shutil.copy(ROOT / name, source)
    built = run(place, *pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(place), str(source))
    assert built.returncode == 0, built.stderr
    wheel = next(place.glob("*.whl"))
    done = run(place, *pip, "install", "--no-deps", "--target", str(place / "lib"), str(wheel))
    assert done.returncode == 0, done.stderr
    written({"prune/__init__.py": "raise OSError('the user')"}, project)
    script = str(place / "lib" / "bin" / "model-compression")
    done = run(project, script, "prune.train", "--arch", "models.net:Net", *TRAIN, PYTHONPATH=str(place / "lib"))
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["models_save/Net.pth"]), done.stderr
