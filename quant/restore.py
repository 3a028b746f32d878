"""Any network of any checkpoint of this toolkit: float, pruned or quantized."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

import models
from engine import checkpoint
from models import legacy
from quant.prepare import prepare
from quant.spec import QuantSpec


def spec_of(content: dict[str, Any]) -> QuantSpec | None:
    """The quantization of a checkpoint, None for a float network."""
    specs = [t["spec"] for t in content["transforms"] if t["stage"] == "quantize"]
    return QuantSpec.from_dict(specs[-1]) if specs else None


def restore(content: dict[str, Any], arch: str | None = None) -> nn.Module:
    """Rebuild the network of a checkpoint.

    Args:
        arch: what --arch says; needed for a network of the user's, see models.restore.

    Raises:
        UserError: exit 3 for weights that do not fit, exit 2 for another --arch.
    """
    model = models.rebuild(content, arch)
    if spec := spec_of(content):
        model = prepare(model, spec)
    models.load_weights(model, content["state_dict"])
    return model


def load(path: Path, arch: str | None = None) -> tuple[nn.Module, dict[str, Any]]:
    """Read, check and rebuild a file; returns the network and its checkpoint."""
    content = legacy.adopt(checkpoint.load(path), path)
    return restore(content, arch), content
