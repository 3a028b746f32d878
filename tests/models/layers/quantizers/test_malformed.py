"""Malformed files of quantizers end a command with one `error:` and one `hint:` line that name the file and the cause."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import models.layers.quantizers as folder
from engine.errors import USAGE, UserError
from models.layers.quantizers import kinds, made, promises, traits
from models.layers.quantizers.base import Quantized, Quantizer
from models.layers.quantizers.identity import Identity
from models.layers.quantizers.kinds import Kind
from quant.quantizer_spec import QuantizerSpec
from tests.conftest import NARROW, SMALL, assert_refused

ROOT = Path(__file__).parents[4]
TRAITS = 'TRAITS = Traits(name="toy", bits=(2, 3))\n'
HEAD = f"from models.layers.quantizers.kinds import Kind, Traits, register\n{TRAITS}"
NEVER = 'TRAITS = Traits(name="toy", bits=(2, 3), {})\nregister(None)'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("TRAITS = Traits(name=", "toy.py:1: SyntaxError: '(' was never closed"),
        ("a = '\xff'".encode("latin-1"), "toy.py:1: SyntaxError: "),
        ("\0", "toy.py: SyntaxError: source code string cannot contain null bytes"),
        ("(" * 5000, "toy.py"),
        (TRAITS * 2 + "register(None)", "toy.py: its traits cannot be read: 2 assignments to TRAITS"),
        ('TRAITS = Traits(name="toy", bits=4)\nregister(None)', "bits is 4, not tuple[int, ...]"),
        ('TRAITS = Traits(name="toy", bits=())\nregister(None)', "name and bits must not be empty"),
        ('TRAITS = Traits(name="", bits=(2,))\nregister(None)', "name and bits must not be empty"),
        ('TRAITS = Traits(name=["toy"], bits=(2,))\nregister(None)', "name is ['toy'], not str"),
        (NEVER.format("mixes=1"), "mixes is 1, not bool"),
        (NEVER.format("lr='fast'"), "lr is 'fast', not float"),
        (NEVER.format("settings='scale'"), "settings is 'scale', not tuple[str, ...]"),
        (NEVER.format("optimizer='lion'"), "optimizer is 'lion', not Literal['sgd', 'adam']"),
        (NEVER.format("end_bits=8.0"), "end_bits is 8.0, not int | None"),
        (NEVER.format("lr=RATE"), "lr=RATE is not a literal"),
        (NEVER.format("**more"), "**more is not a literal"),
        (NEVER.format("speed=3"), "unexpected keyword argument 'speed'"),
    ],
)
def test_a_file_that_cannot_be_read(text: str | bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as found:
        traits.declared(tmp_path / "toy.py")
    assert words in str(found.value)
    assert found.value.code == USAGE


def test_numbers_of_traits_may_be_integers(tmp_path: Path) -> None:
    (tmp_path / "toy.py").write_text(NEVER.format("lr=1, end_bits=None, prefix=None"))
    assert traits.declared(tmp_path / "toy.py") == kinds.Traits("toy", (2, 3), lr=1)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch, workplace: Path) -> Iterator[Callable[..., None]]:
    """Yield a function that makes this folder the one of quantizers, with these files beside the built-in ones."""
    own = Path(kinds.__file__).parent
    monkeypatch.setattr(kinds, "TABLE", dict(kinds.TABLE))
    monkeypatch.setattr(kinds, "__file__", str(workplace / "kinds.py"))
    monkeypatch.setattr(folder, "__path__", [str(workplace)])

    def write(**texts: str) -> None:
        for path in own.glob("*.py"):
            shutil.copy(path, workplace)
        for name, text in texts.items():
            Path(f"{name}.py").write_text(text)
        kinds._own.cache_clear()

    with contextlib.ExitStack() as stack:
        stack.callback(kinds._own.cache_clear)
        stack.callback(sys.modules.pop, "models.layers.quantizers.toy", None)
        yield write


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (TRAITS, "toy.py:1: NameError: name 'Traits' is not defined"),
        ("import nothing_of_this_name\n" + TRAITS, "toy.py:1: ModuleNotFoundError: No module named"),
        (HEAD, "toy.py: it does not register 'toy'"),
        (HEAD + "raise SystemExit(3)", "toy.py:3: SystemExit: 3"),
        (HEAD + "register(Kind(TRAITS, None, None, None))", "toy.py:3: TypeError: toy: weight and activation must be"),
        (HEAD + "register(Kind(TRAITS, print, print, lambda bits: range(99)))", "ValueError: toy: 99 codes do not fit"),
        (HEAD + "register(Kind(TRAITS, print, print, lambda bits: 1 / 0))", "toy.py:3: ZeroDivisionError"),
        (HEAD + "register(Kind(TRAITS, f := lambda spec: 1, f, None))", "toy.py:3: TypeError: <lambda>() takes 1"),
        (
            HEAD + "register(Kind(TRAITS, f := lambda *_: None, f, None))",
            "makes an object of type NoneType, not a Quantizer",
        ),
    ],
)
def test_a_file_that_cannot_be_used(text: str, words: str, files: Callable, command: Callable) -> None:
    files(toy=text)
    done = command("quant.wqaq", "--quantizer", "toy", "--Wbits", 2, "--Abits", 2, "--cfg", NARROW, *SMALL)
    assert_refused(done, USAGE, words)


def test_a_name_is_that_of_one_file(files: Callable, workplace: Path) -> None:
    files(toy=TRAITS, toy_2=TRAITS)
    with pytest.raises(UserError, match=r"^toy_2\.py: toy\.py has the name 'toy', too$"):
        kinds.all_traits()
    files(toy_2='TRAITS = Traits(name="other", bits=(2,), short_name="t")')
    with pytest.raises(UserError, match=r"^toy_2\.py: ternary\.py has the name 't', too$"):
        kinds.all_traits()


def test_what_is_no_module_is_not_read(files: Callable, workplace: Path) -> None:
    files(toy=TRAITS)
    (workplace / ".#toy.py").symlink_to("nowhere")  # the lock of an editor
    (workplace / "gone.py").symlink_to("nowhere")
    (workplace / "folder.py").mkdir()
    assert "toy" in kinds.all_traits()


class Toy(Quantizer):
    """A quantizer whose forward and grid return anything."""

    bits = 2

    def __init__(self, found: Callable, grid: Callable = lambda: None) -> None:
        super().__init__()
        self.found, self.told = found, grid

    def forward(self, x: torch.Tensor) -> Quantized:
        return self.found(x)

    def grid(self) -> None:
        return self.told()


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (lambda x: x, r"Toy\.forward returns a Tensor, not Quantized"),
        (lambda x: (x, None), r"Toy\.forward returns a tuple, not Quantized"),
        (lambda x: Quantized(x[:1], None), r"Toy\.forward returns codes of shape \(1,"),
        (lambda x: Quantized(2, None), "Toy.forward returns codes of shape int"),
        (lambda x: Quantized(x, 0.1), r"Toy\.forward returns a float as scale, not a Tensor or None"),
        (lambda x: Quantized(x, x.new_ones(7)), r"Toy\.forward returns a scale of shape \(7,\), not \(\)"),
        (lambda x: x.nothing, r"AttributeError: 'Tensor' object has no attribute 'nothing'"),
    ],
)
def test_modules_that_return_something_else(found: Callable, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    traits = kinds.Traits("toy", (2,))
    toy = Kind(traits, lambda *_: Toy(found), lambda *_: Toy(found), lambda _: (0, 1))
    monkeypatch.setitem(kinds.TABLE, "toy", toy)
    spec, weight = QuantizerSpec("toy", 2), torch.ones(2, 3, 1, 1)
    for ask in (lambda: made.weight_quantizer("toy", spec, weight), lambda: made.input_quantizer("toy", spec, False)):
        with pytest.raises(UserError, match=rf"test_malformed\.py.* {words}") as refused:
            ask()
        assert refused.value.code == USAGE
    scales = Toy(lambda x: Quantized(x, x.new_ones(2, 1, 1, 1)))
    monkeypatch.setitem(kinds.TABLE, "toy", replace(toy, weight=lambda *_: scales, activation=lambda *_: scales))
    assert made.weight_quantizer("toy", spec, weight) is scales
    with pytest.raises(UserError, match=r"a scale of shape \(2, 1, 1, 1\), not \(\)$"):
        made.input_quantizer("toy", spec, False)


def test_a_check_leaves_the_module_as_it_was() -> None:
    for name in kinds.all_traits():
        spec = QuantizerSpec(name, kinds.traits(name).bits[0])
        quantizer, fresh = (made.input_quantizer(name, spec, False) for _ in range(2))
        assert isinstance(quantizer, nn.Module)
        for key, value in quantizer.state_dict().items():
            assert torch.equal(value, fresh.state_dict()[key])
        assert quantizer.training


def test_grids_that_are_something_else() -> None:
    codes = Identity().forward
    assert "is a tuple, not Steps or Signs" in promises.fault_of_grid(Toy(codes, lambda: (1, 1, 0, 3)))
    with pytest.raises(UserError, match=r"test_malformed\.py:\d+: ZeroDivisionError"):
        promises.fault_of_grid(Toy(codes, lambda: 1 / 0))


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the toolkit with a quantizer whose file is malformed."""
    place = tmp_path_factory.mktemp("copied")
    for name in ("engine", "models", "quant", "bn_merge"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "model_compression.py", place)
    (place / "models/layers/quantizers/toy.py").write_text("TRAITS = Traits(name=")
    return place


@pytest.mark.parametrize("words", ["quant.wqaq", "quant.wbwtab --help", "quant.ptq", "bn_merge --W 2"])
def test_commands_that_list_quantizers(words: str, copied: Path) -> None:
    """The list is part of their flags, so the error comes before they run."""
    line = [sys.executable, "-m", *words.split()]
    env = {**os.environ, "PYTHONPATH": str(copied)}
    done = subprocess.run(line, cwd=copied, env=env, capture_output=True, text=True)
    place = Path("models", "layers", "quantizers", "toy.py")
    assert done.returncode == USAGE
    assert done.stderr.splitlines() == [
        f"error: {place}:1: SyntaxError: '(' was never closed",
        "hint: mend the file, or take it out of its folder; --debug shows the traceback",
    ]
    assert not done.stdout


def test_debug_shows_the_traceback(copied: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(copied)}
    line = [sys.executable, "-m", "quant.wqaq", "--debug"]
    done = subprocess.run(line, cwd=copied, env=env, capture_output=True, text=True)
    assert done.returncode == USAGE
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-2].startswith("error: ")


def test_other_programs_keep_their_report(copied: Path) -> None:
    env = {**os.environ, "PYTHONPATH": str(copied)}
    line = [sys.executable, "-c", "import quant.wqaq"]
    done = subprocess.run(line, cwd=copied, env=env, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
