"""A network that cannot be a program is refused before anything is written; the error names the layer and the operation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deploy.lowering.walk import lower
from engine.errors import USAGE, UserError
from models.graph.capture.form import capture
from models.graph.normal import NormalForm


class Calling(nn.Module):
    """A module whose forward is a call."""

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(64, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.lstm(x.flatten(2))[0]


class Indexed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor([1, 0, 2, 5]))

    def forward(self, x: Tensor) -> Tensor:
        return x[:, self.order, :, self.order]


def captured(inner: nn.Module | Callable[[Tensor], Tensor]) -> NormalForm:
    made = nn.Sequential()
    made.stem, made.inner = nn.Conv2d(3, 8, 1), inner if isinstance(inner, nn.Module) else Calling(inner)
    return capture(made.eval(), (3, 8, 8), "a test", check=False)


def refused(form: NormalForm, *words: str) -> None:
    with pytest.raises(UserError) as fault:
        lower(form, (0.5,) * 3, (0.25,) * 3)
    assert fault.value.code == USAGE
    assert fault.value.hint
    for word in words:
        assert word in str(fault.value)


ACROSS = "works across pictures"
ANSWER = "the answer does not have the pictures in its first axis"


@pytest.mark.parametrize(
    ("call", "operation", "why"),
    [
        (lambda x: x.flip(0), "flip", ""),
        (lambda x: x.mean(0), "mean", ACROSS),
        (lambda x: x - x.mean((0, 2, 3), keepdim=True), "mean", ACROSS),
        (lambda x: x * x.amax(), "amax", ACROSS),
        (lambda x: x * x.max(), "max", ACROSS),
        (lambda x: x.max(0)[0] + x, "max", ACROSS),
        (lambda x: x.roll(1, 0), "roll", ACROSS),
        (lambda x: x + x.sum(), "sum", ACROSS),
        (lambda x: x.softmax(0), "softmax", ACROSS),
        (lambda x: x.softmax(-4), "softmax", ACROSS),
        (lambda x: x[0], "select", ACROSS),
        (lambda x: x[:2], "slice", ACROSS),
        (lambda x: torch.cat([x, x]), "cat", ACROSS),
        (lambda x: x.transpose(0, 1), "transpose", ANSWER),
        (lambda x: x.permute(1, 0, 2, 3), "permute", ANSWER),
        (lambda x: x.unsqueeze(0), "unsqueeze", ANSWER),
        (lambda x: x.reshape(-1, 4, 8, 8), "reshape", ANSWER),
        (lambda x: x.flatten(0, 1), "flatten", ANSWER),
        (lambda x: F.batch_norm(x, None, None, training=True), "batch_norm", ""),
    ],
)
def test_what_mixes_pictures(call: Callable[[Tensor], Tensor], operation: str, why: str) -> None:
    """An engine may run any number of pictures, one by one."""
    refused(captured(call), f"inner.{operation}: a program has no operation {operation}", why)


def test_a_slice_that_leaves_out_the_first_picture() -> None:
    """x[1:] cannot be captured; this is the node it would become."""
    form = captured(lambda x: x[:, 1:])
    (node,) = [n for n in form.captured.graph.nodes if n.target is torch.ops.aten.slice.Tensor]
    node.args = (node.args[0], 0, 1, 2**63 - 1)
    refused(form, "inner.slice: a program has no operation slice", ACROSS)


@pytest.mark.parametrize(
    ("inner", "words"),
    [
        (nn.BatchNorm2d(8, track_running_stats=False), "inner: a program has no operation BatchNorm2d: it keeps no running statistics"),
        (nn.Softplus(0), "inner: a program has no operation Softplus: a beta of 0"),
        (nn.CELU(-0.5), "inner.celu: a program has no operation celu: an alpha that is not above 0"),
        (nn.Softplus(1, 5), "inner: a program has no operation Softplus: a threshold below 16"),
        (nn.Sequential(nn.Unflatten(1, (2, 4)), nn.Conv3d(2, 4, 3)), "inner.1: a program has no operation Conv3d"),
        (nn.InstanceNorm2d(8, track_running_stats=True), "inner.instance_norm: a program has no operation instance_norm: statistics of training"),
        (lambda x: torch.max(x, 1)[1].float(), "it reads value 1 of max_dim, which a program does not have"),
        (lambda x: x + x.roll(5), "inner.roll: a program has no operation roll: it works across pictures"),
        (Recurrent(), "inner.lstm."),  # its initial state depends on the number of pictures
        (lambda x: x.gather(1, x.argmax(1, keepdim=True)), "inner.argmax: a program has no operation argmax"),
        (Indexed(), "inner.index: a program has no operation index: an index beside the pictures, or of axes that are not side by side"),
        (lambda x: x[:, :, (x[0, 0, 0] > 0).long()], "inner.select: a program has no operation select: it works across pictures"),
        (lambda x: x.mean((2, 3)) @ x[:, 0], "inner.matmul: a program has no operation matmul: it works across pictures"),
        (lambda x: torch.einsum("bchw,dchw->bd", x, x), "no operation einsum: other than a product of two values, picture by picture"),
        (lambda x: torch.einsum("bchh,bcw->bcw", x, x[:, 0]), "no operation einsum: other than a product of two values, picture by picture"),
        (lambda x: torch.einsum("bchw,bchw->bc", x.mean(2, keepdim=True), x.amax(3, keepdim=True)), "einsum: a letter of two lengths"),
        (lambda x: torch.einsum("bchw,bcw->bc", x, x[:, 0]), "no operation einsum: a sum over an axis of one factor alone"),
        (lambda x: torch.div(x, 2, rounding_mode="floor"), "inner.div: a program has no operation div: a rounding mode"),
        (lambda x: x.view(torch.int32).view(torch.float32), "inner.view: a program has no operation view"),
        (lambda x: x.round(decimals=1), "inner.round: a program has no operation round: rounding to decimals"),
        (lambda x: torch.linalg.vector_norm(x, 0, dim=1), "linalg_vector_norm: a norm in another type, or of an order that is not above 0"),
        (lambda x: x[:, :1].var(1), "inner.var: a program has no operation var: a variance of 1 numbers"),
        (lambda x: torch.logical_and(x, x > 0).float(), "logical_and: numbers that are not the result of a comparison"),
        (lambda x: torch.logical_not(x).float(), "logical_not: numbers that are not the result of a comparison"),
        (lambda x: x.masked_fill(x > 0, -torch.inf).exp(), "inner.masked_fill: a program has no operation masked_fill: it reads"),
        (lambda x: (x > 0).half().float(), "inner.to: a program has no operation to: a conversion to torch.float16"),
        (lambda x: F.avg_pool3d(x.unsqueeze(1), (3, 2, 1)).squeeze(1), "avg_pool3d: windows of several rows or columns"),
        (lambda x: F.conv_transpose2d(x, x.mean(0).reshape(8, 1, 8, 8), groups=8), "inner.mean: a program has no operation mean: it works across pictures"),
        (lambda x: torch.cat([x, x]).repeat(2, 1, 1, 1)[: x.shape[0]], "inner.cat: a program has no operation cat"),
        (lambda x: x.repeat(2, 1, 1, 1).unflatten(0, (2, -1))[0], "inner.repeat: a program has no operation repeat: it works across pictures"),
        (lambda x: x.mean((2, 3)).repeat(1, 8, 1).mean(1), "inner.repeat: a program has no operation repeat: it works across pictures"),
        (lambda x: x * x.shape[0], "inner.mul: a program has no operation mul: it reads sym_size"),
        (lambda x: x.half().float(), "inner.to: a program has no operation to: a conversion to torch.float16"),
        (lambda x: x.long().float(), "inner.to: a program has no operation to: a conversion to torch.int64"),
        (lambda x: F.pad(x, (0, 0, 0, 0, 0, 0, 0, 1)), "inner.pad: a program has no operation pad: other axes than"),
        (lambda x: F.adaptive_max_pool2d(x, 2, return_indices=True)[1].float(), "it reads value 1 of adaptive_max_pool2d_default, which a program does not have"),
        (lambda x: F.layer_norm(x, (8, 8), eps=0.0), "inner.layer_norm: a program has no operation layer_norm: Standardize: eps 0.0"),
    ],
)  # fmt: skip
def test_what_has_no_operation(inner: nn.Module | Callable[[Tensor], Tensor], words: str) -> None:
    refused(captured(inner), words)


def test_a_call_that_changes_a_part_of_a_value() -> None:
    """Readers of the whole value would see the change, but a program's values never change."""

    def call(x: Tensor) -> Tensor:
        x[:, 2:8].pow_(3)
        return x

    refused(captured(call), "inner.pow_: a program has no operation pow_")


def test_the_line_of_the_code_is_named() -> None:
    refused(captured(lambda x: x.cumprod(1)), __file__)


@pytest.mark.parametrize("number", [1e39, -1e300])
def test_a_number_that_fp32_does_not_hold(number: float) -> None:
    refused(captured(lambda x: x * number), "a number that fp32 cannot hold", "inner.mul")


def test_a_weight_that_fp32_does_not_hold() -> None:
    form = captured(nn.Conv2d(8, 4, 1)).double()
    with torch.no_grad():
        form.inner.weight[2, 3] = 1e39
    refused(form, "a number that fp32 cannot hold", "inner")


def test_a_network_that_does_nothing() -> None:
    form = capture(nn.Identity(), (3, 8, 8), "a test", check=False)
    refused(form, "the network cannot be a program")
