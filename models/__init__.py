"""Networks: geometry, layers, and the files that hold them.

The names for users are loaded on first use, because --help reads the table of quantizers (layers/quantizers/kinds.py)
without importing torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import model_compression  # noqa: F401  Python then finds the toolkit's own packages

if TYPE_CHECKING:
    from models.files import load_weights, rebuild, restore
    from models.layers.int8 import BNFold_Conv2d_Q, Conv2d_Q
    from models.registry import NETWORKS, build, names, size

__all__ = ["NETWORKS", "BNFold_Conv2d_Q", "Conv2d_Q", "build", "load_weights", "names", "rebuild", "restore", "size"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'models' has no attribute {name!r}")
    from models import files, registry
    from models.layers import int8

    return next(getattr(module, name) for module in (registry, files, int8) if hasattr(module, name))
