"""The lists of CONTRIBUTING, "Adding things": what they name exists, they name every file, and one of each is added here."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bn_merge.merge import merge
from deploy import description, packed
from deploy.lowering import walk as lowering
from deploy.lowering.builder import Builder
from deploy.native import compiler
from deploy.operations.base import Codes, Operation, Value
from deploy.operations.layers import Convolution, Quantize
from deploy.reference import run as reference
from engine.cli import archs, argtypes, network as flags
from engine.data import catalogue
from engine.tasks.classification import CLASSIFICATION
from engine.training.loop import fit
from models import registry
from models.graph.capture import cache as captures
from models.graph.channels import labels
from models.graph.channels.classes import channels
from models.graph.surgery import copies
from models.layers import quantizers
from models.layers.quantizers import kinds
from models.layers.quantizers.base import Steps
from models.layers.quantizers.traits import declared
from models.networks import slimming
from tests.conftest import SMALL
from tests.tools.house import ROOT
from tests.tools.networks import captured, form
from tests.tools.readme import MODULES, blocks, lines, shortened
from tests.tools.training import RECIPE, config

PATH = re.compile(r"[\w./-]+/[\w./-]+\.(?:py|md|h|cpp)")
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def lists() -> dict[str, list[str]]:
    """The items of each list, by its heading."""
    found = re.findall(r"^### Add an? (.+)\n\n((?:.+\n)+)", TEXT, re.M)
    return {name: re.split(r"^\d+\. ", text, flags=re.M)[1:] for name, text in found}


LISTS = lists()


def spans(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def paths(name: str) -> set[str]:
    return {span for item in LISTS[name] for span in spans(item) if PATH.fullmatch(span)}


@cache
def names_in(path: str, example: bool = False) -> set[str]:
    """Return the names that a file defines or derives from; for an example, also the names that it calls."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return names_of(text, example) if path.endswith(".py") else names_of_cpp(text, example)


def names_of(text: str, calls: bool = False) -> set[str]:
    """Return classes and their bases, functions, arguments, variables, fields and keys of dicts, but not imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        match node:
            case ast.ClassDef(name=name, bases=bases):
                found |= {name, *(base.id for base in bases if isinstance(base, ast.Name))}
            case ast.FunctionDef(name=name) | ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()):
                found.add(name)
            case ast.Dict(keys=keys):
                found |= {key.value for key in keys if isinstance(key, ast.Constant) and isinstance(key.value, str)}
            case ast.Call(func=ast.Name(id=name)) if calls:
                found.add(name)
    return found


def names_of_cpp(text: str, calls: bool = False) -> set[str]:
    """Types, variables with a value, and functions with a body."""
    text = re.sub(r"//.*", "", text)
    kinds_of_names = [
        r"\b(?:struct|class|enum)\s+(\w+)", r"\b(\w+)\s*(?:\[\w*\]\s*)?=[^=]", r"\b(\w+)\([^;()]*\)\s*(?:const\s*)?{",
        *([r"\b(\w+)\s*(?:<[^;()]*>)?\("] if calls else []),
    ]  # fmt: skip
    return {name for pattern in kinds_of_names for name in re.findall(pattern, text)}


def test_an_import_or_a_use_is_not_a_definition() -> None:
    text = "from a import ROWS\nimport steps as CASES\nMADE: dict = {'sign': ROWS}\nclass X(Task):\n    kind = ask('MOVES')\n"
    assert names_of(text) == {"MADE", "sign", "X", "Task", "kind"}
    assert names_of(text, calls=True) == {"MADE", "sign", "X", "Task", "kind", "ask"}
    text = '// The table.\n#include "step.h"\nenum Kind : int { A };\nconst K all[] = { &other };\nint run(int a) { return find(a); }\n'
    assert names_of_cpp(text) == {"Kind", "all", "run"}
    assert names_of_cpp(text, calls=True) == {"Kind", "all", "run", "find"}


def test_there_is_a_list_for_each_thing() -> None:
    assert list(LISTS) == [
        "quantizer", "network", "data set", "task", "operation of the program", "operation on channels", "instruction set",
    ]  # fmt: skip
    assert all(len(items) >= 3 for items in LISTS.values())


@pytest.mark.parametrize("item", [item for items in LISTS.values() for item in items], ids=lambda item: item[:40])
def test_what_an_item_names_exists(item: str) -> None:
    """A name behind a path is one of that file's; behind a path with NAME, of the file that it is to be written as."""
    at, example = None, False
    for span in spans(item):
        if PATH.fullmatch(span):
            at, example = (None, True) if "NAME" in span else (span, example and at is None)
            assert (ROOT / span).parent.is_dir(), span
            assert at is None or (ROOT / at).is_file(), span
        elif at and span.isidentifier():
            assert span in names_in(at, example), f"{at} does not define {span}"


def test_paths_outside_the_lists_exist() -> None:
    paths = [span for span in spans(TEXT.partition("## Adding things")[0]) if PATH.fullmatch(span)]
    assert "tests/test_house.py" in paths
    for path in paths:
        assert (ROOT / path).exists(), path


EXAMPLES: dict[str, tuple[str, tuple[str, ...], set[str]]] = {
    "quantizer": (
        r"lsq|LSQ|lsq_w4a4",
        ("*.py",),
        {"quant/notices.py", "quant/ptq.py", "scripts/curves.py"},
    ),  # two hints, and an example of --help
    "network": (r"slimming(?! article)", ("models/**/*.py", "engine/cli/*.py"), {"models/legacy.py"}),  # old files
    "data set": (r"fashion_mnist", ("*.py",), set()),
    "task": (r"DETECTION|MAP|Detection", ("*.py",), {"engine/data/detection/sets.py"}),  # describes sets with boxes
    "operation of the program": (r"Upsample", ("deploy/**/*.py",), set()),
    "instruction set": (r"avxvnni|avx_vnni", ("*.py", "*.h", "*.cpp"), set()),
}
"""For each list: what names one thing of its kind, where, and files that name it for another reason."""
FOLDERS = ("engine", "models", "prune", "quant", "bn_merge", "deploy", "scripts")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_list_has_every_file(name: str) -> None:
    pattern, globs, others = EXAMPLES[name]
    files = {path for glob in globs for folder in FOLDERS for path in (
        (ROOT / folder).rglob(glob) if "/" not in glob else ROOT.glob(glob))}  # fmt: skip
    naming = {
        str(path.relative_to(ROOT))
        for path in files
        if re.search(rf"\b(?:{pattern})\b", path.read_text(encoding="utf-8"))
    }
    assert len(naming) >= 3
    assert naming - others <= paths(name)


# -- one of each, from outside; a quantizer from other code: tests/quant/test_toy.py, a task: tests/engine/tasks/test_another.py -----------


def test_the_quantizer_of_the_page(monkeypatch: pytest.MonkeyPatch, workplace: Path, command: Callable) -> None:
    """Commands find the quantizer in its folder: it trains, merges, and packs with integers between layers."""
    source, commands = (found for found in blocks(ROOT / "CONTRIBUTING.md") if found.language in ("python", "sh"))
    path = workplace / source.marker.removeprefix("quantizer: ")
    path.write_text(source.text)
    traits = declared(path)
    assert traits
    own = kinds._own()
    monkeypatch.setattr(kinds, "TABLE", {name: kinds.lookup(name) for name in own})
    monkeypatch.setattr(kinds, "_own", lambda: {**own, traits.name: (traits, path)})
    monkeypatch.setattr(quantizers, "__path__", [*quantizers.__path__, str(workplace)])
    for module, argv, leaves in lines(commands):
        done = command(MODULES.get(module, module), *shortened(module, argv))
        assert done.code == 0, done.err
        assert leaves in (None, Path(done.path).name)
    operations = packed.open(Path(done.path)).program.operations
    grids = [operation.grid for operation in operations if isinstance(operation, Quantize)]
    assert grids.count(Steps(inverse=1 / 0.1, scale=0.1, low=0, high=15)) == 7
    weights = [operation.matrix.weight for operation in operations if isinstance(operation, Convolution)]
    assert sum(isinstance(weight, Codes) and weight.levels == 16 for weight in weights) == 7


def test_a_network(monkeypatch: pytest.MonkeyPatch, workplace: Path, command: Callable) -> None:
    monkeypatch.setitem(
        registry.NETWORKS, "tiny", lambda cfg=None, classes=10: slimming.slimming(cfg or (4, 6, 8), classes)
    )
    monkeypatch.setitem(registry._WIDTHS, "tiny", slimming.widths)
    for module in (archs, argtypes, flags, captures, copies):
        monkeypatch.setattr(module, "ARCHS", (*archs.ARCHS, "tiny"))
    for line in (
        ("prune.train", "--arch", "tiny", "-sr", *SMALL),
        ("prune.normal_regular", "--arch", "tiny", "--percent", 0.3, "--cpu"),
        ("quant.wqaq", "--arch", "tiny", "--refine", "models_save/tiny_prune.pth", *SMALL),
        ("bn_merge.__main__", "--arch", "tiny", "--model", "models_save/tiny_w8a8.pth", "--cpu"),
    ):
        done = command(*line)
        assert done.code == 0, done.err
    assert done.path == "models_save/tiny_w8a8_merged.pth"


def test_a_data_set(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(root: Path, size: int | None) -> Any:
        train, test, info = catalogue.READERS["digits"](root, size)
        return (255 - train[0][:40], train[1][:40]), (255 - test[0][:20], test[1][:20]), info

    monkeypatch.setitem(catalogue.READERS, "dark", read)
    data = catalogue.load("dark", image_size=8)
    assert (len(data.train), len(data.test)) == (40, 20)
    assert fit(form("slimming", [4, 6, 8]), data, config(RECIPE), CLASSIFICATION)


@dataclass(frozen=True, eq=False)
class Sinh(Operation):
    """The hyperbolic sine of each number."""

    def value(self, *given: Value) -> Value:
        return Value(given[0].shape)


class Waves(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self[2](torch.sinh(self[1](self[0](x)))).mean((2, 3))


def test_an_operation_of_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = Waves().eval(), torch.randn(2, 3, 8, 8)
    monkeypatch.setitem(
        lowering.RULES, torch.ops.aten.sinh, lambda builder, _: Builder.add(builder, Sinh, builder.source())
    )
    monkeypatch.setitem(reference.RULES, Sinh, lambda op, kinds, value, count, x: x.sinh())
    monkeypatch.setitem(description.OPERATIONS, "Sinh", Sinh)
    program = lowering.lower(merge(captured(made)), (0.5,) * 3, (0.25,) * 3)
    again = description.read(*description.written(program))
    assert Sinh in map(type, again.operations)
    torch.testing.assert_close(reference.run(again, x), made(x))

    pytest.importorskip("onnx")
    from deploy.exporting import model

    def node(graph: Any, number: int, operation: Sinh) -> None:
        graph.at[number + 1] = graph.node("Sinh", graph.at[operation.sources[0]])

    monkeypatch.setitem(model.RULES, Sinh, node)
    assert "Sinh" in {each.op_type for each in model.exported(again).graph.node}


def test_an_operation_on_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    network = captured(Waves())

    def fixed() -> bool:
        found = channels(network)
        (place,) = (place for place in found.places if (place.tensor, place.axis) == ("0.weight", 0))
        return all(cls in found.fixed for cls in place.classes.tolist())

    monkeypatch.setattr(labels, "POINTWISE", labels.POINTWISE - {torch.ops.aten.sinh})
    assert fixed()
    monkeypatch.setattr(labels, "POINTWISE", labels.POINTWISE | {torch.ops.aten.sinh})
    assert not fixed()


@pytest.mark.parametrize("name", [*compiler.SETS, *compiler.EMULATED])
def test_an_instruction_set_has_its_lines(name: str) -> None:
    assert f"{name}_kernels" in names_in(f"deploy/native/source/{name}.cpp")
    text = (ROOT / "deploy/native/source/sets.h").read_text(encoding="utf-8")
    before, inside, after = re.split(r"\*const all\[\]|inline bool runs_here", text)
    assert all(f"{name}_kernels" in part for part in (before, inside, after))
    assert all(f"WITH_{name.upper()}\n" in part for part in (inside, after))
