"""Old quantized files of your networks, from versions in which networks declared their channels.

The declarations decided which ReLUs are removed and which pools move. They are not stored in the file, so an old file
is opened with the declarations in the network's code. New files record that they need none (by_graph).
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
from models.layers.quantizers import made
from quant.rewire import RECTIFIERS
from quant.spec import QuantSpec


@dataclass(frozen=True)
class Declared:
    """A network's declarations, as far as quantization needs them.

    Args:
        readers: for each activation, by name, the layers that read its channel group.
        rectifiers: names of the activations that are ReLUs.
        ends: names of the first and the last layers; None if the graph decides.
        pools: names of the pools that the order bacp moves.
    """

    readers: dict[str, frozenset[str]] = field(default_factory=dict)
    rectifiers: frozenset[str] = frozenset()
    ends: frozenset[str] | None = None
    pools: frozenset[str] = frozenset()

    def unread(self, quantized: Collection[str]) -> list[str]:
        """Return the ReLUs to remove if these layers read signed codes."""
        return [act for act in self.rectifiers if self.readers[act] & {*quantized}]

    @property
    def rectified(self) -> set[str]:
        """Names of the layers that read a ReLU."""
        return {layer for act in self.rectifiers for layer in self.readers[act]}


def declared(checkpoint: Checkpoint, spec: QuantSpec, arch: str | None) -> Declared | None:
    """Return the declarations that a file was quantized by, None if its graph decides.

    Raises:
        UserError: exit 3 if the codes depend on declarations that the code no longer has.
    """
    if spec.by_graph or not is_users_code(checkpoint.arch):
        return None
    network = files.plain(checkpoint, arch)
    if hasattr(network, "channel_groups"):
        with user_code.running(checkpoint.arch):
            return _read(network)
    signed = made.input_quantizer(spec.activation.kind, spec.activation, False).signed
    if signed or spec.activation.traits.follows_sign:
        raise UserError(
            f"the file was quantized by its network's channel_groups(), and {checkpoint.arch} no longer has the method",
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
    """Return the names of the pools in ConvBNAct blocks, which could pool before their batch norm."""
    return frozenset(
        f"{name}.pool".lstrip(".") for name, block in network.named_modules() if isinstance(block, ConvBNAct)
    )
