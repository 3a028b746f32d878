"""Binary weights and activations (XNOR-Net, arXiv 1603.05279; BNN, arXiv 1602.02830): signs."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from models.layers.quantizers.base import (
    Quantized,
    Quantizer,
    Rule,
    Signs,
    clip,
    filters,
    sign,
    slope,
    straight_through,
)
from models.layers.quantizers.kinds import Kind, Traits, register

TRAITS = Traits(
    name="binary",
    bits=(1,),
    short_name="b",
    prefix="",
    family="ternary and binary",
    settings=("scale", "ste", "order", "ends"),
    input_ste="saturate",
    order="bacp",
    optimizer="adam",
    lr=5e-3,
    refining_lr=5e-3,
    weight_decay=0.0,
)


def sign_ste(x: Tensor, kind: str = "saturate") -> Tensor:
    """Return binary codes of `x`, with sign(0) = +1 (arXiv 1602.02830) and a gradient by `kind`, see `slope`.

    >>> x = torch.tensor([-2.0, 0.0, 0.5], requires_grad=True)
    >>> y = sign_ste(x, "saturate"); y.sum().backward(); y.tolist(), x.grad.tolist()
    ([-1.0, 1.0, 1.0], [0.0, 1.0, 1.0])
    """
    return straight_through(x, sign(x.detach()), slope(x, kind))


def centred(weight: Tensor) -> Tensor:
    """Subtract from each filter its mean over the input channels; a single channel is unchanged, as it would become 0.

    If a mean overflows, it is the largest number instead, or 0 if both signs overflow.
    """
    return weight if weight.shape[1] == 1 else weight - weight.mean(1, keepdim=True).nan_to_num()


def binary_weight(weight: Tensor, scale: bool = True, kind: str = "ste") -> Quantized:
    """Return binary weights (XNOR-Net, arXiv 1603.05279): the sign of each centred weight times its filter's mean |w|.

    Gradient: through the codes by `kind`, and through the scale. All-zero filter: codes +1, scale 0.

    Args:
        weight: (out, in / groups, ...).
        scale: False returns codes without a scale, for hardware that cannot multiply.
    """
    middle = centred(weight)
    codes = sign_ste(middle, kind)
    factor = clip(middle, -1, 1).abs().mean(filters(weight), keepdim=True) if scale else None
    return Quantized(codes, factor)


class BinaryWeight(Quantizer):
    """See binary_weight."""

    bits = 1
    repeats = True
    latent = (-1, 1)  # arXiv 1602.02830

    def __init__(self, scale: bool = True, ste: str = "ste") -> None:
        super().__init__()
        self.scale, self.ste, self.scales = scale, ste, int(scale)

    def forward(self, weight: Tensor) -> Quantized:
        return binary_weight(weight, self.scale, self.ste)


class BinaryActivation(Quantizer):
    """See sign_ste."""

    bits = 1
    signed = True
    sign_alone = True

    def __init__(self, ste: str = "saturate") -> None:
        super().__init__()
        self.ste = ste

    def grid(self) -> Signs:
        return Signs()

    def codes_now(self) -> bool:
        return True

    def span(self) -> tuple[int, int]:
        return -1, 1

    def ready(self) -> bool:
        return True

    def rule(self, *_: Any) -> Rule:
        return Rule("sign", slope=self.ste)

    def forward(self, x: Tensor) -> Quantized:
        return Quantized(sign_ste(x, self.ste), None)


register(
    Kind(
        traits=TRAITS,
        weight=lambda spec, weight: BinaryWeight(spec.scale, spec.ste),
        activation=lambda spec, signed: BinaryActivation(spec.ste),
        codes=lambda bits: (-1, 1),
    )
)
