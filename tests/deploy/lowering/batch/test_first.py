"""Networks that move the axis of the pictures compute what they did, or are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn_merge.merge import merge
from deploy.lowering.batch.first import batch_first
from deploy.lowering.batch.rules import RULES
from deploy.native.executor import Native
from deploy.operations.base import Codes
from deploy.operations.layers import Linear
from deploy.reference.run import run
from engine.errors import USAGE, UserError
from engine.system.compiled import Unavailable
from models.graph.calls import packet
from models.graph.capture.form import capture
from tests.deploy.lowering.batch.attentions import ATTENTIONS, CALLS, laid, moved
from tests.deploy.lowering.batch.checking import assert_computes
from tests.deploy.lowering.calling import captured, lowered, network
from tests.deploy.quantized import SIDE, SPECS, pictures, trained
from tests.tools.cases import conv_bn

aten = torch.ops.aten


@pytest.mark.parametrize("name", ATTENTIONS)
def test_attention(name: str) -> None:
    assert_computes(network(ATTENTIONS[name]()))


@pytest.mark.parametrize("name", CALLS)
def test_a_call(name: str) -> None:
    assert_computes(network(CALLS[name]))


def test_every_rule_is_used() -> None:
    found = {packet(n) for call in CALLS.values() for n in captured(network(call)).captured.graph.nodes}
    # capture makes a reshape of view; composite operations that it writes out call the others
    assert {*RULES} - found <= {
        aten.view,
        aten._unsafe_view,
        aten._softmax,
        aten._log_softmax,
        aten.split_with_sizes,
        aten.constant_pad_nd,
    }


@pytest.mark.parametrize("name", ["timm", "torch", "windows"])
def test_the_engine_gives_the_bits_of_the_reference(name: str) -> None:
    program = lowered(captured(network(ATTENTIONS[name]())))
    try:
        native = Native(program)
    except Unavailable as fault:
        pytest.skip(str(fault))
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(native(x), run(program, x))


def test_other_networks_keep_their_graph() -> None:
    form = captured(network(lambda s, x: (x.flatten(2).transpose(1, 2) + s.row).mean((1, 2))))
    nodes = list(form.captured.graph.nodes), list(batch_first(form).captured.graph.nodes)
    said = [[(n.op, n.target, str(n.args), n.meta.get("shape")) for n in each] for each in nodes]
    assert said[0] == said[1]


ELSEWHERE = "it reads a value whose pictures are not in its first axis"
ACROSS = "it works across pictures"
REFUSED: dict[str, tuple[Callable[[Any, Tensor], Tensor], str]] = {
    "slopes of channels": (lambda s, x: F.prelu(laid(x), s.row[:4]).reshape(-1, 8, 8, 8), f"prelu: {ELSEWHERE}"),
    "an einsum": (lambda s, x: torch.einsum("nbc,nbd->bcd", moved(x)[..., 0], moved(x)[..., 1]), f"einsum: {ELSEWHERE}"),
    "a softmax over pictures": (lambda s, x: laid(x).softmax(0).reshape(-1, 8, 8, 8), f"softmax: {ACROSS}"),
    "a mean over pictures": (lambda s, x: x + moved(x).mean(1, keepdim=True).transpose(0, 1), f"mean: {ACROSS}"),
    "one picture": (lambda s, x: x + moved(x)[:, 0], f"select: {ACROSS}"),
    "values of different axes": (lambda s, x: (laid(x) + x.reshape(-1, 2, 4, 8, 8).transpose(0, 1).reshape(-1, 4, 8, 8)).reshape(-1, 8, 8, 8), "in different axes"),
    "products of two pictures": (lambda s, x: (moved(x)[..., 0] @ moved(x)[..., 0].transpose(1, 2)).mean(2).transpose(0, 1), "in different axes"),
    "attention of pictures": (lambda s, x: F.scaled_dot_product_attention(*[moved(x).flatten(2)] * 3).transpose(0, 1), "the pictures are in one of them"),
    "a product with pictures in the matrix": (lambda s, x: (x.permute(2, 3, 0, 1) @ s.all[0]).permute(2, 0, 1, 3), "the pictures are in one of them"),
    "a mean of all": (lambda s, x: x / moved(x).abs().mean(), ACROSS), "a sum of all": (lambda s, x: x / moved(x).abs().sum(), ACROSS),
    "tokens for each picture": (lambda s, x: (s.all[0][:, None].expand(-1, x.shape[0], -1, -1) + moved(x)).transpose(0, 1), "which is repeated for each picture"),
    "a repeated value": (lambda s, x: (laid(x) + x[:, :4].repeat(2, 1, 1, 1)).reshape(-1, 8, 8, 8), "reads repeat_default, of which the axis of the pictures is not known"),
    "a product with a repeated value": (lambda s, x: (laid(x) @ x[:, :4].repeat(2, 1, 1, 1)).reshape(-1, 8, 8, 8), "reads repeat_default, of which"),
    "an answer beside the pictures": (lambda s, x: laid(x), "reshape: the answer does not have the pictures in its first axis"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    call, words = REFUSED[name]
    with pytest.raises(UserError) as fault:
        lowered(captured(network(call)))
    assert fault.value.code == USAGE
    assert words in str(fault.value)


@pytest.mark.parametrize("name", ["timm", "windows", "torch"])
@pytest.mark.parametrize("kind", ["w8a8", "w4a4", "lsq", "int8", "int8 folded", "wbab bacp", "wta8"])
def test_quantized_attention(name: str, kind: str) -> None:
    """Projections read codes while the pictures are elsewhere. In fp32, a number next to a code's edge may get the other code."""
    torch.manual_seed(0)
    made = nn.Sequential(conv_bn(3, 8, 3, 2), ATTENTIONS[name](), nn.ReLU(), nn.Flatten(), nn.Linear(512, 16))
    form = capture(made.eval(), (3, SIDE, SIDE), "a test", check=False)
    merged = merge(trained(form, SPECS[kind]))
    program = lowered(merged)
    assert any(isinstance(op, Linear) and isinstance(op.matrix.weight, Codes) for op in program.operations)
    x = pictures(8)
    found, exact = run(program, x).double(), merged.double()
    expected = exact(x.double())
    assert torch.equal(batch_first(exact)(x.double()), expected)
    assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.9
