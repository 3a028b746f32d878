"""Parameters that a network's code uses but the network does not hold: no command would train or save them."""

from __future__ import annotations

from torch import Tensor, nn

from engine.system.messages import some
from models.check import Misdeclared


def check(model: nn.Module, output: Tensor, arch: str) -> None:
    """Check that an output was computed from no parameter outside the network.

    Args:
        output: computed with gradients.
        arch: the network's name in messages.

    Raises:
        Misdeclared: exit 2 for such parameters, with their shapes.
    """
    held = {id(parameter) for parameter in model.parameters()}
    if shapes := [str(tuple(leaf.shape)) for leaf in _leaves(output) if id(leaf) not in held]:
        raise Misdeclared(
            f"--arch {arch}: its code uses parameters that the network does not hold, of shape {some(shapes)}",
            "hold layers in nn.ModuleList or nn.ModuleDict, and parameters in nn.ParameterList",
        )


def _leaves(output: Tensor) -> list[Tensor]:
    """Return the tensors that a backward of an output would give gradients to."""
    found, seen, ahead = [], set(), [output.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [after for after, _ in node.next_functions]
        if hasattr(node, "variable"):
            found.append(node.variable)
    return found
