"""Files of every stage of one tiny network, trained once for all tests of the commands that deploy them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from deploy.native import compiler
from engine.training.run_folder import RunFolder
from tests.conftest import run_stages
from tests.tools.contract import FAST

STAGES = (
    ("quant.wqaq", "--Wbits", "4", "--Abits", "4", "--refine", *FAST),
    ("quant.wqaq", "--quantizer", "lsq", "--Wbits", "4", "--Abits", "4", "--refine", *FAST),
    ("quant.wqaq", "--q_type", "0", "--refine", *FAST),
    ("quant.wbwtab", "--W", "2", "--A", "2", "--refine", *FAST),
    ("quant.wbwtab", "--W", "3", "--A", "2", "--refine", *FAST),
    ("quant.wbwtab", "--W", "3", "--A", "2", "--ends", "int8", "--refine", *FAST),
    ("quant.ptq", "--calibrate", "kl", "--cpu"),
    *(("bn_merge.__main__", "--model", f"models_save/nin_{stem}.pth", "--cpu") for stem in ("refine", "w4a4", "wbab", "wtab_ends", "ptq_kl")),
)  # fmt: skip


@pytest.fixture(scope="session")
def _stages(_chain: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run all stages, each on the refined network's file, and return their folder."""
    place = tmp_path_factory.mktemp("stages")
    shutil.copytree(_chain / "models_save", place / "models_save")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "draw", lambda *_: None)  # drawing takes longer than the run
        return run_stages(place, STAGES)


@pytest.fixture
def stocked(command: Callable[..., SimpleNamespace], workplace: Path, _stages: Path) -> Callable[..., SimpleNamespace]:
    """`command` in a folder whose models_save/ holds files of all stages."""
    shutil.copytree(_stages / "models_save", workplace / "models_save")
    return command


@pytest.fixture
def engine() -> compiler.Engine:
    """The native engine; without a compiler the test is skipped."""
    try:
        return compiler.engine()
    except compiler.Unavailable as fault:
        pytest.skip(str(fault))
