"""The arithmetic of a network: --precision, and the precision in force now.

Integer codes are exact in bf16 up to 256, and a sum of their products is exact in fp32 below 2^24. So a product of codes
may be computed faster than in fp32, with the same result; see models/layers/products.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

from engine.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "exact"]
"""
* fp32: for every operation, including products of codes.
* bf16: a float network runs under autocast. In a quantized network only products of codes use bf16, with results
  rounded to bf16; all else is fp32.
* exact: as fp32, but products of codes without any rounding. On a CPU with bf16, gradients of bytes' products, and of
  codes from the loops between layers, are rounded to bf16.
"""
CHOICES = ("auto", *get_args(Precision))
HELP = (
    "arithmetic of training: bf16 rounds a layer's results, exact computes products of codes without rounding "
    "(default: bf16 if the hardware has it, else fp32); scores always use exact"
)

_in_force: Precision = "fp32"


def resolved(name: str, device: torch.device) -> Precision:
    """Return the precision that `--precision` means on a device.

    Raises:
        UserError: for bf16 that the hardware would emulate (exit 2).
    """
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name == "bf16" and not has_bf16(device):
        raise UserError(f"--precision bf16: this {device.type} has no bf16 arithmetic", "leave --precision at auto")
    return next(known for known in get_args(Precision) if known == name)


def has_bf16(device: torch.device) -> bool:
    """Return whether the hardware computes in bfloat16 without emulation."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available():
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check)


def codes_in_bf16(device: torch.device) -> bool:
    """Return whether the loops between layers return codes in bf16, which represents them exactly in half of the memory.

    The gradients of these codes are in bf16, too. With `exact`, a GPU's products are proven for fp32, and a CPU without
    bf16 has no use for it.
    """
    return _in_force == "bf16" or (_in_force == "exact" and device.type == "cpu" and has_bf16(device))


def in_force() -> Precision:
    """Return the precision that layers with codes compute in."""
    return _in_force


@contextmanager
def computing(precision: Precision) -> Iterator[None]:
    """Set the precision of layers with codes within the block."""
    global _in_force
    before, _in_force = _in_force, precision
    try:
        yield
    finally:
        _in_force = before


@contextmanager
def training(precision: Precision, device: torch.device, codes: bool) -> Iterator[None]:
    """Set the arithmetic of a training step within the block.

    Args:
        codes: whether the network computes with codes; its other operations are then in fp32.
    """
    import torch

    with computing(precision), torch.autocast(device.type, torch.bfloat16, precision == "bf16" and not codes):
        yield
