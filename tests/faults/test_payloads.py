"""Opening a file never runs code in it: twelve payloads, three containers, every command that reads files."""

from __future__ import annotations

import ast
import os
import pickle
import random
from pathlib import Path

import pytest
import torch

from engine.checkpoint import archive
from engine.errors import BAD_CHECKPOINT, UserError
from tests.tools.forge import (
    CONTAINERS,
    PLACES,
    Call,
    from_memo,
    hidden,
    in_child,
    packed,
    payloads,
    rezipped,
    run_watched,
    tiny,
)
from tests.tools.house import commands, sources, tree

READS = {
    "prune.train": ["--refine", "F"],
    "prune.normal_regular": ["--model", "F"],
    "prune.gc": ["--model", "F"],
    "quant.wqaq": ["--refine", "F"],
    "quant.wbwtab": ["--refine", "F"],
    "quant.ptq": ["--model", "F"],
    "bn_merge.__main__": ["--model", "F"],
    "bn_merge.compare": ["F", "F"],
    "deploy.pack": ["--model", "F"],
    "deploy.onnx": ["--model", "F"],
    "deploy.bench": ["--model", "F"],
    "scripts.report": ["F"],
    "scripts.summary": ["F"],
    "scripts.histograms": ["F"],
    "scripts.convert": ["F", "new.pth"],
    "engine.checkpoint.__main__": ["inspect", "F"],
}
READ_NONE = {
    "scripts.quickstart",
    "scripts.curves",
    "scripts.benchmark",
    "scripts.combinations",
    "scripts.results",
    "deploy.run",
    "deploy.build",
}
"""deploy.run reads only packed files, which hold no pickle; deploy.build reads no files."""
ALSO = [
    ("prune.train", ["--evaluate", "F"]),
    ("prune.train", ["--from_scratch", "F"]),
    ("quant.wqaq", ["--evaluate", "F"]),
    ("bn_merge.compare", ["F"]),
    ("scripts.summary", ["--sensitivity", "F"]),
]
"""Other inputs of the same commands, tested with one payload of each container."""
RESUMED = ["--dataset", "digits", "--image_size", "8", "--epochs", "1", "--cfg", "8,8,8,8,8,8,8,8", "--cpu", "--resume"]


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder with the 36 files; `sentinel` appears in it if a payload runs."""
    folder = tmp_path_factory.mktemp("evil")
    content = tiny()
    for number, (name, call) in enumerate(payloads(folder).items()):
        for container in CONTAINERS:
            value = hidden(content, PLACES[number % len(PLACES)], call)
            (folder / f"{name}-{container}.pth").write_bytes(packed(value, container))
    assert len(list(folder.glob("*.pth"))) == 36
    return folder


def test_the_traps_do_spring(tmp_path: Path) -> None:
    for number, (name, call) in enumerate(payloads(tmp_path).items()):
        sentinel = tmp_path / "sentinel"
        raw = packed(hidden(tiny(), PLACES[number % len(PLACES)], call), "pickle")
        in_child(lambda raw=raw: bool(pickle.loads(raw)))
        assert sentinel.exists(), name
        sentinel.rmdir() if sentinel.is_dir() else sentinel.unlink()


def assert_nothing_ran(module: str, lines: list[list[str]], folder: Path) -> None:
    codes, events, errors = in_child(lambda: run_watched(module, lines))
    assert not (folder / "sentinel").exists()
    assert not events
    assert codes == [BAD_CHECKPOINT] * len(lines), errors
    for error in errors:
        assert error.startswith("error: ")
        assert "could run code" in error
        assert error.count("\n") == 2


def test_every_command_is_looked_at() -> None:
    assert set(READS) | READ_NONE >= set(commands())


@pytest.mark.parametrize("unsafe", ["0", "1"])
@pytest.mark.parametrize("module", READS)
def test_no_command_runs_what_a_file_holds(
    module: str, unsafe: str, evil: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment variable turns torch's default off; only the argument in the call still counts."""
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", unsafe)
    lines = [[str(file) if word == "F" else word for word in READS[module]] for file in sorted(evil.glob("*.pth"))]
    assert_nothing_ran(module, lines, evil)
    assert not (workplace / "new.pth").exists()


@pytest.mark.parametrize(("module", "line"), ALSO)
def test_other_ways_in(module: str, line: list[str], evil: Path, workplace: Path) -> None:
    files = [evil / f"os.system-{container}.pth" for container in CONTAINERS]
    assert_nothing_ran(module, [[str(file) if word == "F" else word for word in line] for file in files], evil)


@pytest.mark.parametrize("module", ["prune.train", "quant.wqaq", "quant.wbwtab"])
def test_a_state_to_resume_from_runs_nothing(module: str, evil: Path, workplace: Path) -> None:
    files = [evil / f"os.system-{container}.pth" for container in CONTAINERS]
    assert_nothing_ran(module, [[*RESUMED, str(file), "--run_dir", "run", "--quiet"] for file in files], evil)


def test_torch_itself_still_refuses_what_the_first_look_would_miss(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are two checks: without the list of names, weights_only still refuses."""
    monkeypatch.setattr(archive.pickles, "first_forbidden_name", lambda content, count: None)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    for file in evil.glob("*.pth"):
        with pytest.raises(UserError) as fault:
            archive.load(file)
        assert fault.value.code == BAD_CHECKPOINT
    assert not (evil / "sentinel").exists()


def test_the_first_look_refuses_before_torch_sees_a_byte(evil: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch has seen it"))
    for file in evil.glob("*.pth"):
        with pytest.raises(UserError, match="could run code"):
            archive.load(file)


def test_a_name_that_comes_from_the_memo_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The strings before the call are torch.Size, but the call is os.mkdir."""
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch has seen it"))
    sentinel, path = tmp_path / "sentinel", tmp_path / "a.pth"
    raw = from_memo("posix.mkdir", str(sentinel))
    in_child(lambda: pickle.loads(raw) is None)
    assert sentinel.is_dir()
    sentinel.rmdir()
    for file in (raw, rezipped(packed(tiny(), "zip"), lambda name, data: raw if name.endswith("data.pkl") else data)):
        path.write_bytes(file)
        with pytest.raises(UserError, match=r"holds torch\.Size") as fault:
            archive.load(path)
        assert fault.value.code == BAD_CHECKPOINT
    assert not sentinel.exists()


def test_a_pickle_in_capitals_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch finds archive/DATA.PKL when it asks for archive/data.pkl."""
    evil = packed({"state_dict": Call(os.mkdir, str(tmp_path / "sentinel"))}, "zip").replace(b"data.pkl", b"DATA.PKL")
    (tmp_path / "a.pth").write_bytes(evil)
    monkeypatch.setattr(torch, "load", lambda *args, **kwargs: pytest.fail("torch has seen it"))
    with pytest.raises(UserError, match="could run code"):
        archive.load(tmp_path / "a.pth")


def test_unpicklers_live_in_one_place() -> None:
    """The only unpickler is for CIFAR's batch files and allows four names."""
    found = [
        name
        for name in sources()
        for node in ast.walk(tree(name))
        if isinstance(node, ast.ClassDef) and any("Unpickler" in ast.unparse(base) for base in node.bases)
    ]
    assert found == ["engine.data.cifar"]


@pytest.mark.slow
def test_500_generated_payloads(tmp_path: Path) -> None:
    draws, path, refused = random.Random(0), tmp_path / "a.pth", 0
    calls = list(payloads(tmp_path).values())
    for _ in range(500):
        evil = draws.choice(calls)
        for _ in range(draws.randrange(4)):  # wrapped in lists, dicts, arguments of harmless calls
            evil = draws.choice([lambda x: [1, x], lambda x: {"k": x}, lambda x: Call(list, (x,)), lambda x: (x, x)])(
                evil
            )
        container, protocol = draws.choice(CONTAINERS), draws.choice([2, 2, 3, 4, 5])
        path.write_bytes(packed(hidden(tiny(), draws.choice(PLACES), evil), container, protocol))
        before = set(os.listdir(tmp_path))
        with pytest.raises(UserError) as fault:
            archive.load(path)
        refused += fault.value.code == BAD_CHECKPOINT
        assert set(os.listdir(tmp_path)) == before
    assert refused == 500
