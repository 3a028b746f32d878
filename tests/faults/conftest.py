"""Fixtures for the tests of faults: few small pictures, and a server that starts commands quickly."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NARROW, run_stages
from tests.tools import folders
from tests.tools.children import Server


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an image folder of two classes: 28 training pictures, which are 3 steps of 8 and one of 4; 8 test pictures."""
    return folders.write(tmp_path_factory.mktemp("pictures"), {"train": 14, "test": 4}, ("ant", "bee"), 8)


def flags_of(pictures: Path) -> tuple[str, ...]:
    """Return flags for 4 epochs of 4 steps, evaluated in batches of 4."""
    return (
        "--dataset", "imagefolder", "--data", str(pictures), "--image_size", "8", "--epochs", "4",
        "--train_batch_size", "8", "--eval_batch_size", "4", "--quiet", "--cpu", "--precision", "fp32",
    )  # fmt: skip


@pytest.fixture
def flags(pictures: Path, workplace: Path) -> tuple[str, ...]:
    """Return flags for a training command on these pictures, in an empty folder."""
    return flags_of(pictures)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Return a children.Server."""
    server = Server(tmp_path_factory.mktemp("log"))
    yield server
    server.close()


@pytest.fixture
def line(flags: tuple[str, ...]) -> tuple[str, ...]:
    """Return a training command of a narrow network."""
    return ("prune.train", "--cfg", NARROW, *flags)


@pytest.fixture(scope="session")
def _whole(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    place = tmp_path_factory.mktemp("whole")
    run_stages(place, [("prune.train", "--cfg", NARROW, *flags_of(pictures))])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        return taken()


@pytest.fixture
def whole(_whole: tuple[bytes, bytes], line: tuple[str, ...]) -> tuple[bytes, bytes]:
    """Return the outputs of `line` when it is not interrupted."""
    return _whole


def taken() -> tuple[bytes, bytes]:
    """Return the file and the metrics of a finished run, and remove them."""
    assert not list(Path().rglob(".*"))  # no temporary files, no lock
    found = Path("models_save/nin.pth").read_bytes(), Path("runs/nin/metrics.csv").read_bytes()
    shutil.rmtree("models_save")
    shutil.rmtree("runs")
    return found
