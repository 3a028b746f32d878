"""Rules for products of two values: matmul, bmm, einsum and attention. Those of a value and a weight are linear layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from deploy.lowering.builder import Builder, Rule, numbers
from deploy.lowering.calls import softmaxed
from deploy.lowering.combining import Operand, combined, laid, operand, opposite
from deploy.lowering.masks import LOWEST
from deploy.lowering.moves import permuted
from deploy.operations.base import Shape
from deploy.operations.functions import Constant, Product, Reduce
from deploy.operations.layers import Affine
from models.graph.calls import Values, is_truth, values

aten = torch.ops.aten


def matmul(builder: Builder, node: fx.Node) -> int:
    """Multiply two values with a matrix for each picture, or one of them with a tensor of the network."""
    told = values(node)
    return _product(builder, told["self"], told["mat2"] if "mat2" in told else told["other"])


def added_product(builder: Builder, node: fx.Node) -> int:
    """Add beta self + alpha (one other), as addmm and baddbmm."""
    told, rank = values(node), len(builder.given())
    one, other = (told[name] for name in (("mat1", "mat2") if "mat1" in told else ("batch1", "batch2")))
    beta, alpha = (numbers(float(told[name])).reshape((1,) * rank) for name in ("beta", "alpha"))
    product = _product(builder, one, other, ".product")
    scaled = [
        each if factor.item() == 1 else combined(builder, "mul", [each, factor], part)
        for each, factor, part in (
            (operand(builder, told["self"], rank), beta, ".beta"), (product, alpha, ".alpha"),
        )
    ]  # fmt: skip
    return combined(builder, "add", scaled)


def _product(builder: Builder, one: fx.Node, other: fx.Node, part: str = "") -> int:
    ranks = {len(builder.shape(builder.source(each))) for each in (one, other) if each not in builder.held}
    held = [builder.tensor(each).ndim for each in (one, other) if each in builder.held]
    if ranks == {1} and held == [2] and other in builder.held:  # a row of numbers for each picture
        row = builder.source(one)
        row = builder.reshaped(row, (1, *builder.shape(row)), ".row")
        found = builder.add(Product, row, _factor(builder, other, 2), part=part)
        return builder.reshaped(found, builder.given(), f"{part}.shape")
    if len(ranks) > 1 or min(ranks) < 2 or min(held, default=2) < 2:
        raise builder.refused("it works across pictures, or a factor is no matrix")
    return builder.add(Product, *(_factor(builder, each, *ranks) for each in (one, other)), part=part)


def _factor(builder: Builder, value: fx.Node, rank: int) -> int:
    found = operand(builder, value, rank)
    return found if isinstance(found, int) else builder.add(Constant, part=f".{value}", numbers=found)


def attention(builder: Builder, node: fx.Node) -> int:
    """Add softmax(query key^T scale + mask) value, as scaled_dot_product_attention in evaluation."""
    told = values(node)
    if told.get("enable_gqa") or told.get("dropout_p"):
        raise builder.refused("groups of queries or dropout in evaluation")
    query, key, value = (builder.source(told[name]) for name in ("query", "key", "value"))
    rank = len(builder.shape(query))
    size = builder.shape(query)[-1]
    factor = 1 / math.sqrt(size) if told.get("scale") is None else float(told["scale"])
    turned = permuted(builder, key, [*range(rank - 2), rank - 1, rank - 2], ".turned")
    found = builder.add(Product, query, turned, part=".products")
    found = builder.add(Affine, found, part=".scaled", multiplier=numbers(factor))
    mask, shown = _mask(builder, told, rank)
    if mask is not None:
        found = combined(builder, "add", [found, mask], ".masked")
    shares = softmaxed(builder, found, rank - 1, part=".shares")
    if shown is not None:
        shares = combined(builder, "mul", [shares, shown], ".shown")
    return builder.add(Product, shares, value)


def _mask(builder: Builder, told: Values, rank: int) -> tuple[Operand | None, Operand | None]:
    """Return what attention adds to its products, and what it multiplies shares by: 0 for queries from which all keys are hidden."""
    if told.get("is_causal"):
        rows, columns = (builder.shape(builder.source(told[name]))[-2] for name in ("query", "key"))
        return np.triu(np.full((1,) * (rank - 2) + (rows, columns), LOWEST, np.float32), 1), None
    given = told.get("attn_mask")
    if given is None:
        return None, None
    if given not in builder.held:
        mask = operand(builder, given, rank)
        if not is_truth(given):
            return mask, None
        assert isinstance(mask, int)
        hidden = builder.add(Affine, opposite(builder, mask), part=".hidden", multiplier=numbers(LOWEST))
        return hidden, builder.add(Reduce, mask, part=".any", kind="max", axes=(rank - 1,))
    held = laid(builder, builder.held[given], rank)
    seen = held if held.dtype is torch.bool else held != -math.inf
    shown = numbers(seen.any(-1, keepdim=True))
    whole = numbers(torch.where(seen, 0.0 if held.dtype is torch.bool else held, LOWEST))
    return whole, None if shown.all() else shown


def einsum(builder: Builder, node: fx.Node) -> int:
    """Multiply two values whose first letter is that of the pictures, or one of them by a tensor of the network.

    Letters in both factors and the result count matrices; letters in both factors alone are summed over.
    """
    told = values(node)
    equation, operands = str(told["equation"]).replace(" ", ""), told["tensors"]
    both, _, result = equation.partition("->")
    letters = both.split(",")
    plain = len(letters) == 2 and all(each.isalpha() and len({*each}) == len(each) for each in (*letters, result))
    of_pictures = [word for word, each in zip(letters, operands, strict=False) if each not in builder.held]
    alone = [word for word in letters if word not in of_pictures]
    if not plain or len({word[0] for word in (*of_pictures, result)}) > 1 or any(result[0] in word for word in alone):
        raise builder.refused(
            "other than a product of two values, picture by picture, of which each letter has one axis"
        )
    one, other = (word if each in builder.held else word[1:] for word, each in zip(letters, operands, strict=True))
    result = result[1:]
    kept = [letter for letter in one if letter in other and letter in result]
    summed = [letter for letter in one if letter in other and letter not in result]
    rows, columns = ([c for c in mine if c not in its] for mine, its in ((one, other), (other, one)))
    if {*kept, *rows, *columns} != {*result}:
        raise builder.refused("a sum over an axis of one factor alone")
    sources = [
        builder.add(Constant, part=f".{each}", numbers=numbers(builder.tensor(each)))
        if each in builder.held
        else builder.source(each)
        for each in operands
    ]
    one_sizes, other_sizes = (
        dict(zip(word, builder.shape(each), strict=True)) for word, each in zip((one, other), sources, strict=True)
    )
    if any(one_sizes.get(letter, size) != size for letter, size in other_sizes.items()):
        raise builder.refused("a letter of two lengths")  # torch would repeat the shorter one
    sizes = {**one_sizes, **other_sizes}
    factors = [
        _grouped(builder, source, word, groups, sizes, f".{place}")
        for place, (source, word, groups) in enumerate(
            zip(sources, (one, other), ((kept, rows, summed), (kept, summed, columns)), strict=True)
        )
    ]
    found = builder.add(Product, *factors)
    order = [*kept, *rows, *columns]
    whole = builder.reshaped(found, tuple(sizes[c] for c in order), ".axes")
    return permuted(builder, whole, [order.index(c) for c in result], ".order")


def _grouped(
    builder: Builder, source: int, word: str, groups: Sequence[Sequence[str]], sizes: dict[str, int], part: str
) -> int:
    """Bring a factor's axes into the order of three groups of letters, and make one axis of each group."""
    order = [word.index(letter) for group in groups for letter in group]
    shape: Shape = tuple(math.prod(sizes[letter] for letter in group) for group in groups)
    return builder.reshaped(permuted(builder, source, order, f"{part}.order"), shape, f"{part}.matrix")


PRODUCTS: dict[Any, Rule] = {
    aten.matmul: matmul, aten.bmm: matmul, aten.mm: matmul, aten.addmm: added_product, aten.baddbmm: added_product,
    aten.einsum: einsum, aten.scaled_dot_product_attention: attention,
}  # fmt: skip
