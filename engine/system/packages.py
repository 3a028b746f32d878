"""The packages that the toolkit uses, by extra, and the commands that install them. A test compares them with setup.py.

A hint names the packages themselves: `pip install '.[onnx]'` works in a clone alone and would replace an editable
install of the toolkit by a copy.
"""

from __future__ import annotations

CORE = ("torch", "torchvision", "numpy", "tqdm", "scikit-learn", "scipy", "safetensors")
"""The packages without which no command works."""

EXTRAS = {
    "report": ("matplotlib", "bokeh"),
    "timm": ("timm",),
    "onnx": ("onnx", "onnxruntime"),
    "openvino": ("openvino",),
    "mnn": ("MNN",),
    "detect": ("pycocotools",),
}
"""The packages of each extra, except those of developers."""

MODULES = {"_tools": "MNN"}
"""The package of each module with another name."""


def install(extra: str) -> str:
    """Return the command that installs the packages of an extra."""
    return f"pip install {' '.join(EXTRAS[extra])}"


def install_core() -> str:
    """Return the command that installs the packages without which no command works."""
    return f"pip install {' '.join(CORE)}"


def package(module: str) -> str:
    """Return the package of a module that cannot be imported."""
    return MODULES.get(module, module)
