"""The packages that hints name: those of setup.py."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools

from engine.cli import command
from engine.system import packages

SETUP = Path(__file__).resolve().parents[3] / "setup.py"


def test_hints_name_the_packages_of_setup(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", lambda **given: told.update(given))
    runpy.run_path(str(SETUP))
    assert named(told["install_requires"]) == packages.CORE
    extras = {extra: named(wanted) for extra, wanted in told["extras_require"].items()}
    assert extras.pop("dev")
    assert extras == packages.EXTRAS


def named(requirements: list[str]) -> tuple[str, ...]:
    return tuple(re.split("[<>=!~;[ ]", each)[0] for each in requirements)


def test_hints_work_in_any_folder() -> None:
    hints = [*command.INSTALL.values(), *map(packages.install, packages.EXTRAS), packages.install_core()]
    for hint in hints:
        words = hint.rpartition("pip install ")[2].split()
        assert words
        assert all(re.fullmatch(r"[A-Za-z][A-Za-z-]+", word) for word in words), hint  # no path and no extra
    assert command.INSTALL["onnxruntime"] == "pip install onnx onnxruntime"
    assert command.INSTALL["torch"].startswith("activate the environment")


def test_a_module_with_another_name_leads_to_its_package() -> None:
    assert [packages.package(module) for module in ("_tools", "openvino")] == ["MNN", "openvino"]
