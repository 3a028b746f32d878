"""The normal form of a network: standard modules under the network's own names, and the graph that runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from engine.errors import UserError
from models.graph.calls import BATCH

Size = tuple[int, int, int]
"""The size of a picture: channels, height, width."""


@dataclass
class Form:
    """The graph of a normal form, and facts about it that its modules do not hold.

    Args:
        graph: calls of modules and of ATen operations, with one input and one output. The `meta` of a node holds
            `owner`, the module whose forward ran it; `shape`, its sizes with None for those that depend on the number
            of pictures; `sizes`, its sizes for calls.BATCH pictures; `type`, that of its numbers in the captured network;
            `line`, the place of its code; `follows`,
            whether its arguments name the network's type or device; and `held`, as in flow.is_held.
        picture: the size that it reads; another size needs another graph.
        aliases: maps the keys of parameters in this form to their keys in the captured network, where they differ.
        vanished: names of modules whose results evaluation does not use.
        whole: of a cut network, Channels.whole of the network that it was cut from.
        followed: of a cut network, the attributes of its code that follow its layers' widths; see surgery.following.
        gates: the result of channels.classes.gates, None before its first call and after a change of the network.
        detector: for the core of a detector, the code around it: a models.detectors.shell.Shell.
    """

    graph: fx.Graph
    picture: Size
    aliases: dict[str, str] = field(default_factory=dict)
    vanished: tuple[str, ...] = ()
    whole: frozenset[str] | None = None
    followed: tuple[str, ...] = ()
    gates: tuple[str, ...] | None = None
    detector: Any = None

    @property
    def answer(self) -> tuple[int | None, ...]:
        """The shape of the output, with None for the number of pictures."""
        return tuple(self._output.meta["shape"])

    @property
    def rows(self) -> float:
        """The rows of the output for each picture, 1 unless code lays pictures and other axes together."""
        sizes = self._output.meta["sizes"]
        return sizes[0] / BATCH if sizes else 1

    @property
    def _output(self) -> fx.Node:
        return cast(fx.Node, self.graph.output_node().args[0])


class NormalForm(nn.Module):
    """A network that computes its `captured.graph`. models.graph.capture.form.capture makes it.

    Its state_dict has the keys of the captured network. Tensors that evaluation does not use are kept as buffers. So
    the state_dict loads strictly into the user's class, and these tensors are neither trained nor counted.

    Shapes: (B, *picture) -> the shape of the network's output; UserError for pictures of another size.

    Attributes:
        cfg: the widths that the network's function needs to build a network of this size; empty if it takes none.
        arch_args: the other arguments of that function.
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
        check_size(x, self.captured.picture)
        if self._run is None:
            self._compile()
        return cast(Callable, self._run)(self, x)

    def replace(self, name: str, module: nn.Module) -> None:
        """Replace a module, and move into the new one the submodules and tensors below it that the graph reads.

        timm's batch norms hold the activation behind them; a convolution of your own may hold a factor.
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
        self.captured.gates = None

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Apply as nn.Module does, keep buffers of several names one, and move calls that name the network's type or device."""
        before, shared = type_and_device(self), _of_several_names(self)
        super()._apply(*args, **kwargs)
        for (first, its), *others in shared:
            for module, leaf in others:
                module._buffers[leaf] = first._buffers[its]
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
        """Recompile the graph. Call it after each change of the graph."""
        self._compile()
        self.captured.gates = None

    def _compile(self) -> None:
        # an empty one: a network's `code` or `graph` would clash with its own attributes
        compiled = fx.GraphModule({}, fx.Graph())
        compiled.graph = self.captured.graph
        self.captured.graph.owning_module = None  # its modules are those of this form
        self._run = type(compiled).forward


def check_size(x: Tensor, picture: Size) -> None:
    """Raise UserError for pictures of another size than those of the captured network."""
    if x.ndim != 4 or tuple(x.shape[1:]) != picture:
        raise UserError(
            f"the network was captured for pictures of {_by(picture)}, not {_by(tuple(x.shape[1:]))}",
            f"add --image_size {picture[2]}",
        )


def type_and_device(model: nn.Module) -> tuple[torch.dtype, torch.device]:
    """Return the type of a network's numbers and its device, float32 on the CPU if it has no floats."""
    tensors = (*model.parameters(), *model.buffers())
    return next(((t.dtype, t.device) for t in tensors if t.is_floating_point()), (torch.float32, torch.device("cpu")))


def _of_several_names(model: nn.Module) -> list[list[tuple[nn.Module, str]]]:
    """Return the modules and names of each buffer that has several. torch keeps such parameters one, but not buffers."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for module in model.modules():
        for leaf, tensor in module._buffers.items():
            if tensor is not None:
                found.setdefault(id(tensor), []).append((module, leaf))
    return [names for names in found.values() if len(names) > 1]


def is_kind(value: Any) -> bool:
    """Return whether an argument of a call is a type or a device."""
    return isinstance(value, torch.dtype | torch.device)


def _by(sizes: tuple[int, ...]) -> str:
    return "x".join(map(str, sizes))


def _to_own_keys(model: Any, state: dict[str, Any], prefix: str, _: Any) -> None:
    for key, own in model.captured.aliases.items():
        if prefix + key in state:  # a merged layer holds codes instead of this key
            state[prefix + own] = state.pop(prefix + key)


def _from_own_keys(model: Any, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for key, own in model.captured.aliases.items():
        if prefix + own in state:
            state[prefix + key] = state[prefix + own]
    held = {name for name, _ in (*model.named_parameters(remove_duplicate=False), *model.named_buffers())}
    for own in {*model.captured.aliases.values()} - held:
        state.pop(prefix + own, None)


def picture_of(model: nn.Module, side: int) -> Size:
    """Return the size of picture that a network reads: a normal form's own, else colour pictures of this side."""
    return model.captured.picture if isinstance(model, NormalForm) else (3, side, side)


def pictures(picture: Size, count: int) -> Tensor:
    """Return made-up pictures, (count, *picture), always the same ones and without using the global generator."""
    return torch.randn(count, *picture, generator=torch.Generator().manual_seed(0))


def stored(form: nn.Module) -> set[int]:
    """Return the ids of the tensors that a file would hold, which excludes constants of the code."""
    return {id(tensor) for tensor in form.state_dict(keep_vars=True).values()}
