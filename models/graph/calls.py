"""What a call of an ATen operation in a graph says of itself, by its schema."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

Values = dict[str, Any]
"""The arguments of a call by the names of its schema, defaults filled in."""


def packet(node: fx.Node) -> Any:
    """The operation, whatever the overload: torch.ops.aten.add; None for what is no call of one."""
    return getattr(node.target, "overloadpacket", None) if node.op == "call_function" else None


def schema(node: fx.Node) -> Any:
    """Its names, defaults and which memory it shares or writes; None for what is no call of an operation."""
    return getattr(node.target, "_schema", None) if node.op == "call_function" else None


def values(node: fx.Node) -> Values:
    """The arguments of a call of an operation."""
    found = {}
    for place, argument in enumerate(schema(node).arguments):
        default = argument.default_value if argument.has_default_value() else None
        found[argument.name] = node.args[place] if place < len(node.args) else node.kwargs.get(argument.name, default)
    return found


def source(node: fx.Node) -> Any:
    """The first argument."""
    return node.args[0]


def changes(node: fx.Node) -> bool:
    """Whether a call writes into a tensor that it is given."""
    said = schema(node)
    return said is not None and any(getattr(a.alias_info, "is_write", False) for a in said.arguments)


def is_constant(node: fx.Node) -> bool:
    """Whether a call gives the same tensor each time, whatever the pictures: torch.arange of a size."""
    seeded = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return packet(node) is not None and not node.all_input_nodes and not seeded and not changes(node)


def owner(node: fx.Node) -> str:
    """The module whose forward ran a call of an exported graph; one that runs twice has one name."""
    stack = node.meta.get("nn_module_stack") or {"": ("", "")}
    return next(reversed(stack.values()))[0].partition("@")[0]


def shape(node: fx.Node) -> tuple[int | None, ...] | None:
    """Sizes of the value of an exported node, None where they depend on the number of pictures."""
    value = node.meta.get("val")
    return tuple(n if isinstance(n, int) else None for n in value.shape) if isinstance(value, Tensor) else None


def typed(node: fx.Node) -> dict[str, Any]:
    """The named arguments of a call, its dtype among them where it makes a tensor of none and could be told one."""
    value, schema = node.meta.get("val"), getattr(node.target, "_schema", None)
    if schema is None or not isinstance(value, Tensor) or node.kwargs.get("dtype") is not None:
        return dict(node.kwargs)
    of_none = not any(isinstance(n.meta.get("val"), Tensor) for n in node.all_input_nodes)
    told = of_none and any(argument.name == "dtype" and argument.kwarg_only for argument in schema.arguments)
    return {**node.kwargs, "dtype": value.dtype} if told else dict(node.kwargs)


def line(node: fx.Node) -> str | None:
    """Where the code of a call stands, as tracebacks say it."""
    lines = [text.strip() for text in (node.meta.get("stack_trace") or "").splitlines()]
    return next((text for text in reversed(lines) if text.startswith("File ")), None)


def converts_nothing(node: fx.Node) -> bool:
    """Whether a conversion is to the type and device that a value has; in float64 it would be one to float32."""
    if getattr(packet(node), "__name__", "") not in ("to", "_to_copy"):
        return False
    before, after = source(node).meta["val"], node.meta["val"]
    return before.dtype == after.dtype and before.device == after.device
