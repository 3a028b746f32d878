"""The rules of the house, checked over the whole tree: allowed imports, forbidden calls, required docstrings."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from model_compression import PACKAGES
from tests.tools.house import MAY_IMPORT, ROOT, arrows, calls, circles, commands, imported, sources, tree

KNOWN_COMMANDS = {
    "prune.train", "prune.normal_regular", "prune.gc", "quant.wqaq", "quant.wbwtab", "quant.ptq",
    "bn_merge.__main__", "bn_merge.compare", "scripts.report", "scripts.summary", "scripts.quickstart",
}  # fmt: skip
MOST_LINES = 300


def test_all_commands_are_found() -> None:
    assert set(commands()) >= KNOWN_COMMANDS


def test_imports_go_one_way() -> None:
    wrong = {
        f"{name} imports {target}"
        for name in sources()
        for target in imported(name)
        if (there := target.split(".")[0]) != (here := name.split(".")[0]) and there not in MAY_IMPORT[here]
    }
    assert not wrong, "\n".join(sorted(wrong))


ENGINE = ("errors", "system", "numerics", "cli", "data", "tasks", "checkpoint", "training")
LADDER = (
    "notes", "steps", "options", "result", "rows", "runner", "plots", "fingerprint", "fitting", "record", "table", "fill", "outcome",
)  # fmt: skip
PAGE = ("entry", "past", "results", "files", "overview", "scatter", "layers", "curves", "make", "ladder")
MODELS = (
    "blocks",
    "channels",
    "check",
    "graph",
    "cost",
    "layers",
    "fused",
    "legacy",
    "networks",
    "user_code",
    "detectors",
    "libraries",
    "registry",
    "weights",
    "forms",
    "files",
)
"""Floors from the ground up: a file imports from its own floor or from lower ones."""


@pytest.mark.parametrize(
    ("folder", "floors"),
    [("engine", ENGINE), ("models", MODELS), ("scripts.ladder", LADDER), ("scripts.page", PAGE)],
    ids=str,
)
def test_imports_inside_a_folder_go_one_way(folder: str, floors: tuple[str, ...]) -> None:
    inside = {
        name: name.removeprefix(f"{folder}.").split(".")[0] for name in sources() if name.startswith(f"{folder}.")
    }
    assert set(inside.values()) == set(floors)
    wrong = {
        f"{name} imports {target}"
        for name, floor in inside.items()
        for target in imported(name)
        if target in inside and floors.index(inside[target]) > floors.index(floor)
    }
    assert not wrong, "\n".join(sorted(wrong))


def test_no_imports_go_in_a_circle() -> None:
    """Imports inside functions count. A package's own __init__ is loaded with each of its modules, so it does not count."""
    assert not circles(arrows(sources()))
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [("a", "b", "c")]


def test_every_package_is_imported_from_where_the_toolkit_lies() -> None:
    """No package comes from the working folder, whichever `python -m` imports first; see model_compression."""
    assert set(PACKAGES) == set(MAY_IMPORT)
    for package in set(PACKAGES) & set(sources()):
        imports = [ast.unparse(node) for node in tree(package).body if isinstance(node, (ast.Import, ast.ImportFrom))]
        first = next(line for line in imports if not line.startswith(("from __future__", "from typing")))
        assert first == "import model_compression", package


def test_models_take_little_of_engine() -> None:
    """models may import checkpoints, errors, names of commands in hints, information about data, notices, packages in hints,
    signals, random numbers and networks that are kept, precision, what an evaluation keeps and runs, the compiler and sums over ranks."""
    used = {target for name in sources() if name.startswith("models") for target in imported(name)}
    inside = {target for target in used if target.startswith("engine.") and not target.startswith("engine.checkpoint")}
    assert inside <= {
        "engine.errors",
        "engine.cli",
        "engine.cli.naming",
        "engine.cli.archs",
        "engine.data",
        "engine.data.info",
        "engine.system",
        "engine.numerics",
        "engine.numerics.trials",
        "engine.system.compiled",
        "engine.numerics.random_state",
        "engine.numerics.reuse",
        "engine.numerics.evaluator",
        "engine.numerics.precision",
        "engine.system.packages",
        "engine.system.ranks",
        "engine.numerics.norm_statistics",
        "engine.numerics.onednn",
        "engine.numerics.sums",
        "engine.system.messages",
        "engine.system.signals",
    }


def test_nobody_imports_a_command() -> None:
    wrong = {f"{name} imports {target}" for name in sources() for target in set(imported(name)) & set(commands())}
    assert not wrong, "\n".join(sorted(wrong))


def named(name: str, node: ast.AST) -> bool:
    """Return whether a node is this name, bare or after a dot."""
    return (isinstance(node, ast.Attribute) and node.attr == name) or (isinstance(node, ast.Name) and node.id == name)


def test_parsed_arguments_are_options_below_the_command_line() -> None:
    """A Namespace is converted where flags are declared; other code could not know its fields."""
    places = {name for name in sources() if any(named("Namespace", node) for node in ast.walk(tree(name)))}
    assert places == {"engine.cli.flags", "quant.options"}


def test_the_dict_of_a_checkpoint_is_known_in_one_folder() -> None:
    """The test looks for keys that only a checkpoint has."""
    keys = {"best_acc", "transforms", "provenance", "format_version"}
    places = {
        name
        for name in sources()
        if any(isinstance(node, ast.Constant) and node.value in keys for node in ast.walk(tree(name)))
    }
    assert places <= {f"engine.checkpoint.{name}" for name in ("format", "history", "schema", "__main__")}


def test_modules_are_imported_by_name_in_few_places() -> None:
    """The places: one for user networks, one for quantizers, and the script that runs commands in sequence."""
    places = {
        name for name in sources() for called, _ in calls(name) if called.endswith(("import_module", "__import__"))
    }
    assert places <= {"models.user_code", "models.layers.quantizers.kinds", "scripts.chain"}


def test_the_walk_sees_imports_wherever_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests above can fail: a wrong import is noticed at the top, in a function and for types only."""
    path = tmp_path / "bad.py"
    path.write_text(
        "from quant import wqaq\ndef f():\n    import prune.plan as p\nif TYPE_CHECKING:\n    from models.blocks import ConvBNAct\n"
    )
    monkeypatch.setitem(sources(), "engine.bad", path)
    assert set(imported("engine.bad")) == {"quant", "quant.wqaq", "prune", "prune.plan", "models", "models.blocks"}


def importers_of_tests(folder: Path) -> list[str]:
    """Return the files test_*.py that import a test_*.py; shared code belongs into tests/tools."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for names in [[getattr(node, "module", None) or "", *(alias.name for alias in node.names)]]
        if any(part.startswith("test_") for name in names for part in name.split("."))
    ]


def test_no_test_imports_another(tmp_path: Path) -> None:
    assert not importers_of_tests(ROOT / "tests")
    for number, line in enumerate(
        ("import tests.a.test_b", "from tests.test_a import b", "from tests.a import test_b")
    ):
        (tmp_path / f"test_{number}.py").write_text(f"def f():\n    {line}\n")
    assert importers_of_tests(tmp_path) == ["test_0.py", "test_1.py", "test_2.py"]


def files() -> list[Path]:
    return [*sources().values(), *(ROOT / "tests").rglob("*.py"), ROOT / "setup.py", ROOT / "model_compression.py"]


def test_no_file_is_long() -> None:
    long = {
        str(p.relative_to(ROOT)): n
        for p in files()
        if (n := len(p.read_text(encoding="utf-8").splitlines())) > MOST_LINES
    }
    assert not long


def test_every_module_says_what_lives_there() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in files()
        if (text := path.read_text(encoding="utf-8").strip()) and not ast.get_docstring(ast.parse(text))
    ]
    assert not silent


def test_files_are_opened_by_torch_in_one_place_and_safely() -> None:
    """weights_only is torch's default, but an environment variable turns the default off."""
    loads = [
        (name, call) for name in sources() for called, call in calls(name) if called in ("torch.load", "load_file")
    ]
    assert [name for name, _ in loads] == ["engine.checkpoint.archive"]
    keywords = {keyword.arg: keyword.value for keyword in loads[0][1].keywords}
    assert isinstance(keywords["weights_only"], ast.Constant)
    assert keywords["weights_only"].value is True
    assert ast.literal_eval(keywords["map_location"]) == "cpu"
    names = {alias.name for name in sources() for node in ast.walk(tree(name)) if isinstance(node, ast.ImportFrom)
             and node.module == "torch" for alias in node.names}  # fmt: skip
    assert "load" not in names


@pytest.mark.parametrize(
    "called", ["eval", "exec", "compile", "os.system", "os.popen", "torch.hub.load", "torch.jit.load"]
)
def test_nothing_runs_text_as_code(called: str) -> None:
    assert not [f"{name}:{call.lineno}" for name in sources() for found, call in calls(name) if found == called]


def test_no_pickles_and_no_shells() -> None:
    for name in sources():
        for called, call in calls(name):
            where = f"{name}:{call.lineno}: {called}"
            module, _, function = called.rpartition(".")
            assert not (module in ("pickle", "cPickle", "dill", "joblib", "marshal") and "load" in function), where
            assert function != "Unpickler", where
            assert not any(k.arg == "shell" and getattr(k.value, "value", True) for k in call.keywords), where
            assert not any(k.arg == "allow_pickle" and getattr(k.value, "value", True) for k in call.keywords), where
        for node in ast.walk(tree(name)):
            if isinstance(node, ast.ImportFrom):
                assert node.module not in ("pickle", "marshal"), f"{name}:{node.lineno}"


IMPORTING = """
import importlib, io, os, sys
from contextlib import redirect_stderr, redirect_stdout
before = set(os.environ.items())
for name in sys.argv[1:]:
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        module = importlib.import_module(name)
    assert not out.getvalue(), f"{name} prints on import: {out.getvalue()}"
    assert "torch" not in sys.modules, f"{name} imports torch"
    with redirect_stdout(out):
        try:
            module.main(["--help"])
        except SystemExit as end:
            assert end.code == 0, name
    assert "torch" not in sys.modules, f"{name} --help imports torch"
    assert "examples:" in out.getvalue(), name
assert set(os.environ.items()) == before
assert not os.listdir(), os.listdir()
"""


def test_importing_a_command_has_no_effect_and_help_needs_no_torch(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING, *commands()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("folder", ["engine", "models", "prune", "quant", "bn_merge", "scripts"])
def test_public_classes_have_a_docstring(folder: str) -> None:
    """Functions are left to reviewers: a rule for all of them produced empty sentences."""
    silent = [
        f"{name}.{node.name}"
        for name in sources()
        if name.split(".")[0] == folder
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and not ast.get_docstring(node)
    ]
    assert not silent
