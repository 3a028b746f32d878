"""The schema, arguments and shapes of calls of ATen operations in a graph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx

_PYTORCH = f'File "{Path(torch.__file__).parent}{os.sep}'

aten = torch.ops.aten

SIZES = frozenset({aten.sym_size, aten.sym_numel})
"""Operations that return sizes of a value."""

BATCH = 2
"""Pictures of the walks over a graph: more than one, to detect operations that mix pictures."""

Values = dict[str, Any]
"""The arguments of a call by the names of its schema, defaults filled in."""


def packet(node: fx.Node) -> Any:
    """Return the operation without its overload, such as torch.ops.aten.add; None if the node calls no operation."""
    return getattr(node.target, "overloadpacket", None) if node.op == "call_function" else None


def schema(node: fx.Node) -> Any:
    """Return the operation's schema: argument names, defaults, shared and written memory. None for other nodes."""
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def values(node: fx.Node) -> Values:
    """Return the arguments of a call of an operation, by name."""
    found = {}
    for place, argument in enumerate(schema(node).arguments):
        default = argument.default_value if argument.has_default_value() else None
        found[argument.name] = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name, default)
    return found


def takes_all(told: Values) -> bool:
    """Return whether a slice, with these arguments, is the whole axis of any length."""
    stop = told.get("end")
    return (
        "end" in told
        and not told["start"]
        and told["step"] == 1
        and (stop is None or (isinstance(stop, int) and stop >= 2**31))
    )


def source(node: fx.Node) -> Any:
    """Return the first argument of a call."""
    return node.args[0]


COMPARISONS = {getattr(aten, name): name for name in ("eq", "ne", "gt", "ge", "lt", "le")}
"""The comparisons by their names; in an order of their own, so that tests of the rules run in one order."""
LOGIC = {
    aten.logical_and: "and", aten.bitwise_and: "and", aten.logical_or: "or", aten.bitwise_or: "or",
    aten.logical_xor: "xor", aten.bitwise_xor: "xor",
}  # fmt: skip
"""The calls on two truths, and what they compute; on integers, the bitwise ones compute with bits."""
NOT = (aten.logical_not, aten.bitwise_not)


def is_truth(value: Any) -> bool:
    """Return whether a value of a captured graph holds truths."""
    return isinstance(value, fx.Node) and value.meta.get("type") is torch.bool


def changes(node: fx.Node) -> bool:
    """Return whether a call writes into one of its arguments."""
    said = schema(node)
    return said is not None and any(getattr(a.alias_info, "is_write", False) for a in said.arguments)


def is_constant(node: fx.Node) -> bool:
    """Return whether a call returns the same tensor for any pictures, such as torch.arange of a fixed size."""
    seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return packet(node) is not None and not node.all_input_nodes and not seeded and not changes(node)


def owner(node: fx.Node) -> str:
    """Return the name of the module whose forward made a call of an exported graph. Repeated runs share one name."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    return next(reversed(stack.values()))[0].partition("@")[0]


def shape(node: fx.Node) -> tuple[int | None, ...] | None:
    """Return the sizes of an exported node's value, with None for sizes that depend on the number of pictures."""
    value = node.meta.get("val")
    return tuple(n if isinstance(n, int) else None for n in value.shape) if isinstance(value, Tensor) else None


def sizes(node: fx.Node) -> tuple[int, ...] | None:
    """Return the sizes of an exported node's value for BATCH pictures; None if it is not a tensor."""
    value = node.meta.get("val")
    return tuple(map(_size, value.shape)) if isinstance(value, Tensor) else None


def _size(size: int | torch.SymInt) -> int:
    if isinstance(size, int):
        return size
    formula = size.node.expr  # such as 8 * s0 where code lays channels beside pictures
    return int(formula.subs(dict.fromkeys(formula.free_symbols, BATCH)))


def typed(node: fx.Node) -> dict[str, Any]:
    """Return the keyword arguments of a call. Calls that create a tensor from no other tensor get an explicit dtype."""
    value, schema = node.meta.get("val"), getattr(node.target, "_schema", None)
    if schema is None or not isinstance(value, Tensor) or node.kwargs.get("dtype") is not None:
        return dict(node.kwargs)
    of_none = not any(isinstance(n.meta.get("val"), Tensor) for n in node.all_input_nodes)
    told = of_none and any(argument.name == "dtype" and argument.kwarg_only for argument in schema.arguments)
    return {**node.kwargs, "dtype": value.dtype} if told else dict(node.kwargs)


def unspecific(node: fx.Node) -> tuple[Any, tuple[Any, ...]]:
    """Return a call's operation and arguments for any memory format and any number of pictures.

    The axes of `x.squeeze()` are those of size 1 in the export, where the axis of pictures is larger: with one picture,
    the call would remove it, too.
    """
    if packet(node) not in (aten.squeeze, aten.squeeze_):
        return aten.reshape.default if node.target is aten.view.default else node.target, node.args
    given, told = shape(source(node)) or (), values(node).get("dim")
    asked = range(len(given)) if told is None else told if isinstance(told, (list, tuple)) else (told,)
    axes = {axis % len(given) for axis in asked if given}
    return packet(node).dims, (source(node), sorted(axis for axis in axes if given[axis] == 1))


def line(node: fx.Node) -> str | None:
    """Return the file and line of the code of a call, as in a traceback: the last line outside PyTorch."""
    lines = [text.strip() for text in (node.meta.get("stack_trace") or "").splitlines()]
    found = [text for text in lines if text.startswith("File ")]
    own = [text for text in found if not text.startswith(_PYTORCH)]
    return next(reversed(own or found), None)


def converts_nothing(node: fx.Node) -> bool:
    """Return whether a conversion keeps a value's type and device. In a float64 copy it would convert to float32."""
    if getattr(packet(node), "__name__", "") not in ("to", "_to_copy"):
        return False
    before, after = source(node).meta["val"], node.meta["val"]
    return before.dtype == after.dtype and before.device == after.device
