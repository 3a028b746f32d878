"""Truths, counts and masks in programs: as PyTorch computes them, or refused by name."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from engine.errors import UserError
from tests.deploy.lowering.calling import Call, assert_same, captured, lowered, network

attention = F.scaled_dot_product_attention
ROW = torch.zeros(8, 8).bool()
ROW[3] = True

RIGHT: dict[str, Call] = {
    "a mask of one key for all queries": lambda s, x: attention(
        x, x, x, attn_mask=(x[:, :1, :1] >= x[:, :1, :1].mean(-1, keepdim=True)).expand(-1, 8, 8, 8)
    ),
    "a product of masks": lambda s, x: attention(x, x, x, attn_mask=(x > -1) * (x < 2)),
    "a mask turned round": lambda s, x: attention(x, x, x, attn_mask=(x > -1).flip(-1)),
    "a mask repeated": lambda s, x: attention(x, x, x, attn_mask=(x[:, :1, :1] > -0.5).repeat(1, 8, 8, 1)),
    "a query from which all keys are hidden": lambda s, x: attention(x, x, x, attn_mask=~ROW),
    "all keys hidden by -inf": lambda s, x: attention(
        x, x, x, attn_mask=torch.zeros(8, 8).masked_fill(ROW, -torch.inf)
    ),
    "keys hidden by the picture": lambda s, x: attention(x, x, x, attn_mask=x[:, :1] > 1),
    "a sum of moved truths": lambda s, x: ((x > 0).flip(1) + (x > 1)).float(),
    "a sum of three truths": lambda s, x: ((x > 0) + (x > 1) + (x > 2)).float(),
    "a sum of products of truths": lambda s, x: ((x > 0) * s.hidden + (x > 1)).float(),
    "a sum of expanded truths": lambda s, x: ((x[:, :1] > 0).expand_as(x) + (x > 0)).float(),
    "truths joined with numbers": lambda s, x: torch.cat([x > 0, x], 1) + torch.cat([x > 0, x > 0], 1),
    "counts": lambda s, x: (x > 0).cumsum(2).float() + (x > 0).int().sum(1, keepdim=True),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_it_is_computed_as_pytorch_does(name: str) -> None:
    made = network(RIGHT[name])
    assert_same(lowered(captured(made)), made)


REFUSED: dict[str, tuple[Call, str]] = {
    "truths by conversion of a sum": (lambda s, x: (x > 0).sum(1, dtype=torch.bool).float(), "sum: it gives truths"),
    "a number in truths": (lambda s, x: (x > 0).masked_fill(x > 1, 2).float(), "masked_fill: it gives truths"),
    "a number in whole numbers": (
        lambda s, x: (x > 0).int().masked_fill(x > 1, 0.7).float(), "masked_fill: it gives whole numbers"
    ),
    "whole numbers that wrap": (lambda s, x: ((x > 0) * s.places[0].to(torch.uint8)).float(), "mul: it gives whole numbers"),
    "whole numbers that fp32 does not hold": (lambda s, x: x + s.places[0] * 2**24, "whole numbers fp32 does not hold"),
    "logic on numbers": (
        lambda s, x: torch.logical_and(torch.cat([x > 0, x], 1), torch.cat([x > 0, x > 0], 1)).float(),
        "logical_and: numbers that are not the result of a comparison",
    ),
    "keys hidden by a computed -inf": (
        lambda s, x: attention(x, x, x, attn_mask=torch.where(x > 5, 0.0, -torch.inf)), "where: it holds a number that fp32"
    ),
    "a mask that is subtracted": (lambda s, x: (x - s.masked).softmax(-1), "sub: it holds a number that fp32 cannot hold"),
    "long cumulative sums": (lambda s, x: x.repeat(1, 1, 8, 8).flatten(2).cumsum(2), "sums up to each of 4,096 places"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_other_arithmetic_is_refused(name: str) -> None:
    call, words = REFUSED[name]
    with pytest.raises(UserError) as fault:
        lowered(captured(network(call)))
    assert words in str(fault.value)
