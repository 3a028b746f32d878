"""In which arithmetic a network computes: --precision, and what is in force now.

Integer codes are exact in bf16 up to 256, and a sum of their products is exact in fp32 below 2^24. So a product of codes may be
computed faster than in fp32 and come out the same; models/layers/products.py does it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from engine.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["fp32", "bf16", "exact"]
"""
* fp32: every operation, products of codes as those of any numbers.
* bf16: a float network under autocast. In a quantized network products of codes alone, whose results are rounded to bf16; all
  else is fp32.
* exact: as fp32, and products of codes without any rounding.
"""
CHOICES = ("auto", *get_args(Precision))
HELP = (
    "of training: bf16 rounds what a layer gives, exact computes products of codes without rounding (default: bf16 where the "
    "hardware has it, else fp32); scores are always exact"
)

_in_force: Precision = "fp32"


def resolved(name: str, device: torch.device) -> Precision:
    """What `--precision` means on a device.

    Raises:
        UserError: exit 2 for a bf16 that the hardware would have to emulate.
    """
    if name == "auto":
        return "bf16" if has_bf16(device) else "fp32"
    if name == "bf16" and not has_bf16(device):
        raise UserError(f"--precision bf16: this {device.type} has no such arithmetic", "leave --precision at auto")
    return next(known for known in get_args(Precision) if known == name)


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic is done by the hardware, not emulated."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available():
        return False
    checks = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    return any(check() for check in checks if check)


def in_fp32(conv: Any) -> bool:
    """Whether a convolution of a CPU computes in fp32 where others do in bf16: see engine/training/onednn.py."""
    return conv.groups > 1 and max(conv.stride) > 1


def in_force() -> Precision:
    """The precision that layers with codes compute in."""
    return _in_force


@contextmanager
def computing(precision: Precision) -> Iterator[None]:
    """Let layers with codes compute so, inside."""
    global _in_force
    before, _in_force = _in_force, precision
    try:
        yield
    finally:
        _in_force = before


@contextmanager
def training(precision: Precision, device: torch.device, codes: bool) -> Iterator[None]:
    """The arithmetic of a training step.

    Args:
        codes: whether the network computes with codes. What it does without them is fp32 then.
    """
    import torch

    with computing(precision), torch.autocast(device.type, torch.bfloat16, precision == "bf16" and not codes):
        yield
