"""The kernels under AddressSanitizer and UBSan: no access outside an array, no undefined behaviour."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.native import compiler
from tests.tools.sanitizing import checked

COUNT = 200


@pytest.mark.slow
def test_no_wrong_access_on_any_instruction_set(tmp_path: Path, engine: compiler.Engine) -> None:
    here = compiler.instruction_sets()
    said = checked("tests.tools.sanitized", COUNT, tmp_path, 3000)
    assert said.splitlines() == [f"{kernels} {COUNT}" for kernels in here]
