"""A second build of a user's network: each later command builds it afresh, and a file holds only its state_dict."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest

import numpy as np
from torch import Tensor, fx, nn

from engine.numerics import random_state
from engine.numerics.trials import same
from engine.system.messages import some
from models.check import Misdeclared
from models.graph.capture.form import capture
from models.graph.normal import NormalForm

_HINT = "hold what it draws in the state_dict: self.register_buffer(name, tensor)"


def check(form: NormalForm, make: Callable[[], nn.Module], arch: str) -> None:
    """Build the network a second time, with other random numbers, and check that only its state_dict differs.

    Args:
        form: the normal form of the first build.
        make: builds the network.
        arch: its name in messages.

    Raises:
        Misdeclared: exit 2 for another graph, or other values in tensors outside the state_dict.
    """
    with _generators_kept():
        again = capture(make(), form.captured.picture, arch, check=False)
    for one, other in zip_longest(form.captured.graph.nodes, again.captured.graph.nodes):
        if _text(one, form) != _text(other, again):
            place = (one or other).meta.get("line") or "its graph"
            raise Misdeclared(f"--arch {arch}: it is another network each time it is built: {place}", _HINT)
    before, after = _outside(form), _outside(again)
    if moved := [name for name in before if not same(before[name].cpu(), after[name].cpu())]:
        places = [name if _is_own(name) else _reader(form, name) for name in moved]
        raise Misdeclared(
            f"--arch {arch}: numbers outside its state_dict differ each time it is built, and no file keeps them: "
            + some([*dict.fromkeys(places)]),
            _HINT,
        )


@contextmanager
def _generators_kept() -> Iterator[None]:
    """Restore the random generators of PyTorch, Python and NumPy after a build inside the context."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with random_state.kept():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _text(node: fx.Node | None, form: NormalForm) -> str:
    """Return a node as text, a module with its settings."""
    if node is None:
        return ""
    return f"{node.format_node()} {form.get_submodule(str(node.target)) if node.op == 'call_module' else ''}"


def _outside(form: NormalForm) -> dict[str, Tensor]:
    state = form.state_dict()
    return {name: tensor for name, tensor in form.named_buffers(remove_duplicate=False) if name not in state}


def _is_own(name: str) -> bool:
    """Return whether a tensor has a name in the user's code, not one that torch.export made up."""
    return not name.rpartition(".")[2].startswith("lifted_tensor")


def _reader(form: NormalForm, name: str) -> str:
    """Return the line of the user's code that reads a tensor."""
    readers = (user for node in form.captured.graph.find_nodes(op="get_attr", target=name) for user in node.users)
    return next((line for reader in readers if (line := reader.meta.get("line"))), name)
