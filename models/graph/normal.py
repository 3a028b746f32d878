"""The normal form of a network: standard modules under the network's own names, and the graph that runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from engine.errors import UserError

Size = tuple[int, int, int]
"""Of a picture: channels, height, width."""


@dataclass
class Form:
    """What a normal form knows besides its modules.

    Args:
        graph: calls of modules and of ATen operations, one input, one output. The `meta` of a node holds `owner`, the
            module whose forward ran it, `shape`, sizes with None for the number of pictures, `line`, where the code
            stands, and `follows`, whether it makes numbers of the network's type or on its device.
        picture: what it reads; another size is another graph.
        aliases: keys of parameters whose owner is no module of its own, and those of the network that was captured.
        vanished: modules that evaluation does not run.
        whole: see channels.Channels, where another network's is to be kept to: that of the one it was cut of.
        gates: see channels.gates; None as long as nobody has asked.
        detector: of the core of a detector the code around it, models.detectors.shell.Shell.
    """

    graph: fx.Graph
    picture: Size
    aliases: dict[str, str] = field(default_factory=dict)
    vanished: tuple[str, ...] = ()
    whole: frozenset[str] | None = None
    gates: tuple[str, ...] | None = None
    detector: Any = None

    @property
    def answer(self) -> tuple[int | None, ...]:
        """The shape of the output, None for the number of pictures."""
        return tuple(cast(fx.Node, self.graph.output_node().args[0]).meta["shape"])


class NormalForm(nn.Module):
    """A network whose `captured.graph` says what is computed. models.graph.capture.form.capture makes it.

    Its state_dict has the keys of the network that was captured. Tensors that evaluation does not use stand in it as
    buffers, so it loads strictly into the user's own class and is trained and counted without them.

    Shapes: (B, *picture) -> that of the network's output; UserError for pictures of another size.

    Attributes:
        cfg: the widths that its function is called with to make a network of this size; empty: it takes none.
        arch_args: what else it is called with.
    """

    captured: Form
    cfg: list[int]
    arch_args: dict[str, Any]

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.captured = form
        self.cfg, self.arch_args = [], {}
        self._run: Callable[[nn.Module, Tensor], Tensor] | None = None
        self.register_state_dict_post_hook(_to_own_keys)
        self.register_load_state_dict_pre_hook(_from_own_keys)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or tuple(x.shape[1:]) != self.captured.picture:
            raise UserError(
                f"the network was captured for pictures of {_by(self.captured.picture)}, not {_by(tuple(x.shape[1:]))}",
                f"add --image_size {self.captured.picture[2]}",
            )
        if self._run is None:
            self.update()
        return cast(Callable, self._run)(self, x)

    def replace(self, name: str, module: nn.Module) -> None:
        """Put a module in the place of another, and into it what the graph reads below that name.

        timm's batch norms hold the activation behind them; a user's convolution may hold a factor of its own.
        """
        old = self.get_submodule(name)
        below = {
            str(node.target).removeprefix(f"{name}.").partition(".")[0]
            for node in self.captured.graph.nodes
            if node.op in ("call_module", "get_attr") and str(node.target).startswith(f"{name}.")
        }
        for leaf in sorted(below):
            if not hasattr(module, leaf):
                held = getattr(old, leaf)
                if isinstance(held, nn.Module | nn.Parameter):
                    setattr(module, leaf, held)
                else:
                    module.register_buffer(leaf, held, leaf not in old._non_persistent_buffers_set)
        self.set_submodule(name, module)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """As nn.Module's. Calls that make numbers of the network's type, or on its device, follow it."""
        before = type_and_device(self)
        super()._apply(*args, **kwargs)
        moves = dict(zip(before, type_and_device(self), strict=True))
        if torch.device("meta") not in moves.values() and any(old != new for old, new in moves.items()):
            for node in self.captured.graph.nodes:
                if node.meta.get("follows"):
                    node.args, node.kwargs = fx.node.map_aggregate(
                        (node.args, node.kwargs),
                        lambda value: cast(Argument, moves[value]) if is_kind(value) and value in moves else value,
                    )
            self._run = None
        return self

    def update(self) -> None:
        """Run what the graph says from now on: to be called after a change of it."""
        self._run = type(fx.GraphModule(self, self.captured.graph)).forward


def type_and_device(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """The type of a network's numbers, and where it is."""
    tensors = (*model.parameters(), *model.buffers())
    return next(((t.dtype, t.device) for t in tensors if t.is_floating_point()), (torch.float32, torch.device("cpu")))


def is_kind(value: Any) -> bool:
    """Whether an argument of a call is a type or a device."""
    return isinstance(value, torch.dtype | torch.device)


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _to_own_keys(model: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key, own in model.captured.aliases.items():
        if prefix + key in state:  # a merged layer holds codes in its place
            state[prefix + own] = state.pop(prefix + key)


def _from_own_keys(model: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key, own in model.captured.aliases.items():
        if prefix + own in state:
            state[prefix + key] = state[prefix + own]
    held = {name for name, _ in (*model.named_parameters(remove_duplicate=False), *model.named_buffers())}
    for own in {*model.captured.aliases.values()} - held:
        state.pop(prefix + own, None)


def picture_of(model: nn.Module, side: int) -> Size:
    """What a network reads: a captured one its own picture, others coloured ones of this side."""
    return model.captured.picture if isinstance(model, NormalForm) else (3, side, side)


def pictures(picture: Size, count: int) -> Tensor:
    """A few made-up pictures, (count, *picture), the same each time and without a draw from the global generator."""
    return torch.randn(count, *picture, generator=torch.Generator().manual_seed(0))


def stored(form: nn.Module) -> set[int]:
    """The ids of the tensors that a file holds: constants of the code are in none."""
    return {id(tensor) for tensor in form.state_dict(keep_vars=True).values()}
