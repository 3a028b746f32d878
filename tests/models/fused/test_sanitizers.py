"""The loops under AddressSanitizer and UBSan: no access outside an array, no undefined behaviour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tools.sanitizing import checked

COUNT = 300


@pytest.mark.slow
def test_no_wrong_access(tmp_path: Path) -> None:
    assert checked("tests.tools.sanitized_loops", COUNT, tmp_path, 900) == f"{COUNT}\n"
