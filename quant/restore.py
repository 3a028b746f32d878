"""Any network of any checkpoint of this toolkit: float, pruned, quantized or merged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import models
from engine import checkpoint
from engine.errors import BAD_CHECKPOINT, UserError
from models import legacy
from models.channels import Network
from models.layers.fold import Flip, merged
from quant.prepare import prepare, replace_child
from quant.spec import QuantSpec


def spec_of(content: dict[str, Any]) -> QuantSpec | None:
    """The quantization of a checkpoint, None for a float network."""
    specs = [t["spec"] for t in content["transforms"] if t["stage"] == "quantize"]
    return QuantSpec.from_dict(specs[-1]) if specs else None


def restore(content: dict[str, Any], arch: str | None = None) -> Network:
    """Rebuild the network of a checkpoint.

    Args:
        arch: what --arch says; needed for a network of the user's, see models.restore.

    Raises:
        UserError: exit 3 for weights that do not fit, exit 2 for another --arch.
    """
    model = models.rebuild(content, arch)
    if spec := spec_of(content):
        try:
            model = prepare(model, spec)
        except UserError as fault:
            raise UserError(
                f"the file's quantization does not fit its network: {fault}", fault.hint, BAD_CHECKPOINT
            ) from fault
    if any(t["stage"] == "merge" for t in content["transforms"]):
        merged_shell(model, content["state_dict"])
    models.load_weights(model, content["state_dict"])
    return model


def merged_shell(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give a network the layers of a merged one, in place; their contents are loaded afterwards.

    What is in the file decides: `codes` make a merged layer, a missing BN an identity, `flip` a sign change.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear)) and f"{name}.codes" in state:
            codes, bias, scale = (state.get(f"{name}.{part}") for part in ("codes", "bias", "scale"))
            if codes is None or bias is None:
                continue  # load_weights says what is missing
            bits, quantizer = getattr(module, "weight_bits", 32), getattr(module, "input_quantizer", None)
            codes, bias = torch.empty_like(codes), torch.empty_like(bias)
            scale = None if scale is None else torch.empty_like(scale)
            replace_child(model, name, merged(module, codes, scale, bias, bits, quantizer))
        elif isinstance(module, nn.BatchNorm2d) and f"{name}.running_mean" not in state:
            flip = state.get(f"{name}.flip")
            replace_child(model, name, nn.Identity() if flip is None else Flip(flip))


def load(path: Path, arch: str | None = None) -> tuple[Network, dict[str, Any]]:
    """Read, check and rebuild a file; returns the network and its checkpoint."""
    content = legacy.adopt(checkpoint.load(path), path)
    return restore(content, arch), content
