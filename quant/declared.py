"""Files of the user's networks that were quantized when networks declared their channels.

What was declared said which ReLUs leave the network and which pools move. A file does not hold it, so such a file is
opened by the declarations that still stand in the network's code. Files that are made now say that they need none.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from torch import nn

from engine.checkpoint.format import Checkpoint
from engine.cli.archs import is_users_code
from engine.errors import BAD_CHECKPOINT, UserError
from models import files, user_code
from models.blocks import ConvBNAct
from models.layers.quantizers import kinds
from quant.rewire import RECTIFIERS
from quant.spec import QuantSpec


@dataclass(frozen=True)
class Declared:
    """What a network declares, as quantization reads it.

    Args:
        readers: of each activation by name, the layers that read its channel group.
        rectifiers: those of the activations that are ReLUs.
        ends: the layers at the picture and at the classes; None: by the graph.
        pools: the pools that the order bacp moves.
    """

    readers: dict[str, frozenset[str]] = field(default_factory=dict)
    rectifiers: frozenset[str] = frozenset()
    ends: frozenset[str] | None = None
    pools: frozenset[str] = frozenset()

    def unread(self, quantized: Collection[str]) -> list[str]:
        """The activations that leave the network where these layers read signed codes."""
        return [act for act in self.rectifiers if self.readers[act] & {*quantized}]

    @property
    def rectified(self) -> set[str]:
        """Layers that read what a ReLU gives."""
        return {layer for act in self.rectifiers for layer in self.readers[act]}


def declared(checkpoint: Checkpoint, spec: QuantSpec, arch: str | None) -> Declared | None:
    """What a file's network declares, where the file was quantized by that; None where its graph decides.

    Raises:
        UserError: exit 3 where codes depend on declarations that are no longer there.
    """
    if spec.by_graph or not is_users_code(checkpoint.arch):
        return None
    network = files.plain(checkpoint, arch)
    if hasattr(network, "channel_groups"):
        with user_code.running(checkpoint.arch):
            return _read(network)
    signed = kinds.lookup(spec.activation.kind).activation(spec.activation, False).signed
    if signed or spec.activation.traits.follows_sign:
        raise UserError(
            f"the file was quantized as its network's channel_groups() said, and {checkpoint.arch} has none any more",
            "open it with the network's old code, or quantize the network again",
            BAD_CHECKPOINT,
        )
    return Declared(pools=_pools(network))


def _read(network: nn.Module) -> Declared:
    readers: dict[str, frozenset[str]] = {}
    rectifiers = set()
    for group in network.channel_groups():  # type: ignore[operator]  # the user's
        block = group.gate.rpartition(".")[0]
        act = getattr(network.get_submodule(block), "act", None)
        if isinstance(act, nn.Module):
            name = f"{block}.act".lstrip(".")
            readers[name] = frozenset(consumer.layer for consumer in group.consumers)
            if isinstance(act, RECTIFIERS):
                rectifiers.add(name)
    ends = getattr(network, "ends", None)
    return Declared(readers, frozenset(rectifiers), None if ends is None else frozenset(ends), _pools(network))


def _pools(network: nn.Module) -> frozenset[str]:
    """The pools of blocks, which knew how to pool first."""
    return frozenset(
        f"{name}.pool".lstrip(".") for name, block in network.named_modules() if isinstance(block, ConvBNAct)
    )
