"""The view of a network that training and evaluation run: the same parameters, with segments for the operations between layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from engine.errors import UserError
from engine.numerics import evaluator
from engine.system import ranks
from engine.system.compiled import Unavailable
from engine.system.messages import notice
from models.fused import loops, settled
from models.fused.segment import Segment
from models.fused.segments import has_hooks, numbers, pools, segments
from models.fused.shuffles import shuffles
from models.graph.flow import writes
from models.graph.normal import NormalForm, check_size, type_and_device

MANY = {"cpu": 2e10, "cuda": 4e11}
"""The fewest numbers between layers, in a whole training, for which loops save time: they take some seconds to compile."""
MANY_EVALUATED = 4e9
"""The fewest in an evaluation."""


def chosen(form: NormalForm, asked: str, pictures: int, batch: int) -> nn.Module | None:
    """Return the view that a training runs, on the device of `form`; None: it runs `form` itself.

    Args:
        asked: the value of --fused: "auto", "on" or "off".
        pictures: number of pictures in the whole training, all epochs counted.
        batch: number of pictures in a batch.

    Raises:
        UserError: exit 2 for "on" without a working compiler, or with more than one rank.
    """
    device = type_and_device(form)[1]
    if ranks.count() > 1:
        if asked == "on":
            raise UserError(
                "--fused on: its loops know the pictures of one process", "leave --fused at auto under torchrun"
            )
        return None
    if asked == "off" or (asked == "auto" and not _pays(form, device, pictures, batch)):
        return None
    try:
        loops.trial(device)
    except Unavailable as fault:
        if asked == "on":
            raise UserError(f"--fused on: {fault}", "leave --fused at auto: training is slower then") from fault
        notice(f"training is slower than it could be: {fault}")
        return None
    return View(form, batch if asked == "auto" else None)


def evaluating(model: nn.Module, pictures: int, batch: int) -> View | None:
    """Return the view that evaluates a network on a CPU, bit for bit as the network does; None: it would save no time.

    Args:
        pictures: number of pictures in the whole evaluation.
        batch: number of pictures at a time.
    """
    if not isinstance(model, NormalForm) or type_and_device(model) != (torch.float32, torch.device("cpu")):
        return None
    if pictures * _numbers(model) < MANY_EVALUATED or has_hooks(model) or _has_global_hooks():
        return None
    view = View(model, batch).eval()
    has_segments = any(isinstance(module, Segment) for module in view.children())
    return view if has_segments and not settled.trusted() else None


def _has_global_hooks() -> bool:
    """Return whether hooks of all modules are registered; a torch without this private function counts as without them."""
    return bool(getattr(nn.modules.module, "_has_any_global_hook", bool)())


evaluator.register(evaluating)


def _pays(form: NormalForm, device: torch.device, pictures: int, batch: int) -> bool:
    """Return whether there is something to replace, and numbers enough to repay the compiling."""
    if pictures * _numbers(form) < MANY[device.type] or writes(form):
        return False
    return bool(pools(form)) or next(segments(form, batch, shuffles(form)), None) is not None


def _numbers(form: NormalForm) -> int:
    """Return the count of numbers in the outputs of all nodes, for one picture."""
    return sum(numbers(node) for node in form.captured.graph.nodes if isinstance(node.meta.get("shape"), tuple))


class View(nn.Module):
    """A replacement for a normal form in training and evaluation: it computes the same, with the form's parameters and statistics.

    Operations other than batch norm, max-pool, activation, quantizer and channel shuffle run unchanged. If a call changes
    a value in place, all run unchanged.

    Args:
        form: the network, already on its device; it is not changed.
        batch: number of pictures in a batch: loops that do not pay with it are left out. None: take all.
    """

    def __init__(self, form: NormalForm, batch: int | None = None) -> None:
        super().__init__()
        self._form = (form,)  # in a tuple, so that nn.Module does not register it
        graph, new = fx.Graph(), dict[fx.Node, fx.Node]()
        found, own = {}, {}
        if not writes(form):
            moves = shuffles(form)
            every: list[tuple[list[fx.Node], nn.Module]] = [*moves.values(), *segments(form, batch, moves)]
            found = {chain[-1]: (chain, module) for chain, module in every}
            own = pools(form)
        inside = {node for chain, _ in found.values() for node in chain[:-1]}
        prefix = "segment"
        while any(str(node.target).startswith(prefix) for node in form.captured.graph.nodes):
            prefix += "_"
        for node in form.captured.graph.nodes:
            name = f"{prefix}{len(new)}"
            if node in found:
                chain, module = found[node]
                self.add_module(name, module)
                new[node] = graph.call_module(name, (new[chain[0].all_input_nodes[0]],))
            elif node in own:
                self.add_module(name, Pooling(own[node]))
                new[node] = graph.call_module(name, (new[node.all_input_nodes[0]],))
            elif node not in inside:
                new[node] = graph.node_copy(node, new.__getitem__)
        # a GraphModule would register the form's tensors a second time
        self._interpreter = fx.Interpreter(self, graph=graph)
        self._interpreter.extra_traceback = False  # it would change the texts of errors

    def __getattr__(self, name: str) -> Any:
        """Return the form's attribute, for names of the graph that this module lacks."""
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(self.__dict__["_form"][0], name)

    def forward(self, x: Tensor) -> Tensor:
        check_size(x, self._form[0].captured.picture)
        return self._interpreter.run(x)


class Pooling(nn.Module):
    """A max-pool that runs the kernel of pool.py if it takes the input."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        super().__init__()
        self._pool = (pool,)

    def forward(self, x: Any) -> Any:
        fits = isinstance(x, Tensor) and x.dtype in (torch.float32, torch.bfloat16) and x.requires_grad
        return loops.pooled(self._pool[0], x) if fits else self._pool[0](x)
