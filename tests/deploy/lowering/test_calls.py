"""Every module and call between layers that programs support: lowered, it computes the same as PyTorch on both executors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from bn_merge.merge import merge
from deploy.lowering.calls import CALLS
from deploy.lowering.composed import COMPOSED
from deploy.lowering.computed import COMPUTED
from deploy.lowering.deciding import DECIDING
from deploy.lowering.growing import GROWING
from deploy.lowering.modules import MODULES
from deploy.lowering.moves import MOVES
from deploy.lowering.picking import PICKING
from deploy.lowering.products import PRODUCTS
from deploy.lowering.reductions import REDUCTIONS
from deploy.lowering.resampling import RESAMPLING
from deploy.lowering.walk import RULES
from deploy.lowering.windows import WINDOWS
from deploy.native.executor import Native
from deploy.operations.functions import Function, Softmax
from deploy.reference.run import run
from engine.system.compiled import Unavailable
from models.graph.calls import packet
from models.graph.capture import lift
from tests.deploy.lowering.calling import Call, assert_same, captured, lowered, network

aten = torch.ops.aten

CALLED: dict[Any, list[Call]] = {
    aten.max: [lambda s, x: torch.max(x, 1)[0],
               lambda s, x: x.max(-1, keepdim=True).values],
    aten.min: [lambda s, x: torch.min(x, 2)[0]],
    aten.selu: [lambda s, x: F.selu(x * 3)], aten.rsqrt: [lambda s, x: (x.abs() + 0.1).rsqrt()],
    aten.reciprocal: [lambda s, x: (x.abs() + 0.1).reciprocal()],
    aten.glu: [lambda s, x: F.glu(x, 1), lambda s, x: F.glu(x)],
    aten.lerp: [lambda s, x: torch.lerp(x, x.abs(), 0.25), lambda s, x: torch.lerp(s.column, x, s.row), lambda s, x: x.lerp(s.map, x)],
    aten.roll: [lambda s, x: x.roll(3, 1), lambda s, x: x.roll((-1, 10), (2, 3)), lambda s, x: x.roll(8, -1) + x.roll(1, 2)],
    aten.flip: [lambda s, x: x.flip(2), lambda s, x: x.flip((1, -1))], aten.unfold: [lambda s, x: x.unfold(2, 3, 2).unfold(3, 4, 1), lambda s, x: x.flatten(2).unfold(-1, 5, 3)],
    aten.index: [lambda s, x: x[:, s.places], lambda s, x: x[:, [0, 2, 1]], lambda s, x: x[:, :, s.places[:, None], s.places[None, 1:]], lambda s, x: x[:, :, :, s.places[:, None] + s.places % 2]],
    aten.index_select: [lambda s, x: x.index_select(2, s.places % 8)],
    **{getattr(aten, kind): [(lambda k: lambda s, x: getattr(torch, k)((x * 3).round(), 1) * x)(kind), (lambda k: lambda s, x: getattr(torch, k)(x.round(), s.column.round()).float())(kind)]
       for kind in ("eq", "ne", "gt", "ge", "lt", "le")},
    aten.logical_and: [lambda s, x: torch.logical_and(x > 0, x.mean(1, keepdim=True) > 0) * x], aten.logical_or: [lambda s, x: torch.logical_or(x > 1, s.hidden).float()],
    aten.logical_xor: [lambda s, x: torch.logical_xor(x > 0, x > 1) * x], aten.logical_not: [lambda s, x: torch.logical_not(x > 1).reshape(-1, 8, 64).to(torch.bool).double()],
    aten.bitwise_and: [lambda s, x: ((x > 0) & (x < 1)) * x], aten.bitwise_or: [lambda s, x: ((x > 1) | s.hidden).long() * x], aten.bitwise_xor: [lambda s, x: ((x > 0) ^ (x > 1)).int() * 0.5],
    aten.bitwise_not: [lambda s, x: (~(x > 0)).flatten(2).sum(2) / 64],
    aten.where: [lambda s, x: torch.where(x > 0, x, 0.1 * x), lambda s, x: torch.where(s.hidden, x, 0.0), lambda s, x: torch.where(x > s.column, 1.5, x),
                 lambda s, x: torch.where(x > 0, 2.0, -1.0), lambda s, x: torch.where(s.hidden, -torch.inf, x).softmax(-1)],
    aten.masked_fill: [lambda s, x: x.masked_fill(x < 0, 0.5), lambda s, x: x.flatten(1, 2).masked_fill(x.flatten(1, 2) > 9, 1.0), lambda s, x: x.masked_fill(s.hidden, float("-inf")).softmax(-1)],
    aten.threshold: [lambda s, x: F.threshold(x, 0.3, -2.0)], aten.hardshrink: [lambda s, x: F.hardshrink(x, 0.4)], aten.rrelu: [lambda s, x: F.rrelu(x, 0.1, 0.4)],
    aten.addcmul: [lambda s, x: torch.addcmul(x, x, s.column, value=0.5)], aten.addcdiv: [lambda s, x: torch.addcdiv(s.column, x, x.abs() + 1)],
    aten.addmm: [lambda s, x: torch.addmm(s.row, x.mean((2, 3)), s.map, beta=2, alpha=0.5)], aten.baddbmm: [lambda s, x: torch.baddbmm(x[:, 0], x[:, 1], x[:, 2])],
    aten.var: [lambda s, x: x.var((2, 3)), lambda s, x: x.var(1, unbiased=False, keepdim=True), lambda s, x: x.unflatten(1, (2, 4)).var((1, 3), correction=2)],
    aten.std: [lambda s, x: x.std(1, keepdim=True)], aten.var_mean: [lambda s, x: torch.add(*torch.var_mean(x, (2, 3)))], aten.std_mean: [lambda s, x: torch.sub(*torch.std_mean(x, 1))],
    aten.logsumexp: [lambda s, x: x.logsumexp((1, 2)), lambda s, x: (x * 50).logsumexp(-1, keepdim=True)], aten.cumsum: [lambda s, x: x.cumsum(1), lambda s, x: x.cumsum(-1), lambda s, x: x.cumsum(2)],
    aten.avg_pool3d: [lambda s, x: F.local_response_norm(x, 3, alpha=0.5), lambda s, x: F.avg_pool3d(x.unsqueeze(1), (3, 1, 1), (2, 1, 1), (1, 0, 0)).squeeze(1)],
    aten.repeat: [lambda s, x: x.repeat(1, 2, 1, 3), lambda s, x: x[:, :1].repeat(1, 3, 1, 1)],
    aten.im2col: [lambda s, x: F.unfold(x, 3, padding=1), lambda s, x: F.unfold(x, (2, 3), (2, 1), (0, 1), (3, 2)), lambda s, x: F.unfold(x, 4, stride=4)],
    aten.col2im: [lambda s, x: F.fold(x.reshape(-1, 32, 16), (8, 8), 2, stride=2), lambda s, x: F.fold(F.unfold(x, 3, padding=1), (8, 8), 3, padding=1),
                  lambda s, x: F.fold(F.unfold(x, (3, 2), (2, 1), (1, 0), (3, 2)), (8, 8), (3, 2), (2, 1), (1, 0), (3, 2))],
    aten.pixel_unshuffle: [lambda s, x: F.pixel_unshuffle(x, 2)],
    aten.instance_norm: [lambda s, x: F.instance_norm(x, weight=s.row, bias=s.row), lambda s, x: F.instance_norm(x.flatten(2), eps=0.1)],
    aten.matmul: [lambda s, x: x @ x, lambda s, x: x.flatten(2) @ x.flatten(2).transpose(1, 2) / 64, lambda s, x: s.map @ x, lambda s, x: x @ s.all,
                  lambda s, x: x @ x.mean(1, keepdim=True), lambda s, x: x.flatten(2).transpose(1, 2) @ s.map, lambda s, x: x.mean((2, 3)) @ s.map],
    aten.bmm: [lambda s, x: torch.bmm(x[:, 0], x[:, 1])],
    aten.mm: [lambda s, x: torch.mm(x.mean((2, 3)), s.map)],
    aten.einsum: [lambda s, x: torch.einsum("bchw,bdhw->bcd", x, x), lambda s, x: torch.einsum("bchw,bcwk->bkhc", x, x),
                  lambda s, x: torch.einsum("bchw,bc->bhw", x, x.mean((2, 3))), lambda s, x: torch.einsum("bc, bh->bch", x.mean((2, 3)), x[:, 0, 0]),
                  lambda s, x: torch.einsum("bchw,hkc->bkhw", x, s.all[0]), lambda s, x: torch.einsum("ck,bchw->bkhw", s.map, x)],
    aten.scaled_dot_product_attention: [
        lambda s, x: F.scaled_dot_product_attention(x, 2 * x, x + 1),
        lambda s, x: F.scaled_dot_product_attention(x.flatten(2), x[:, :5].flatten(2), x[:, :5, :, 3], scale=0.5),
        lambda s, x: F.scaled_dot_product_attention(x, x, x, attn_mask=s.map),
        lambda s, x: F.scaled_dot_product_attention(x, x, x, attn_mask=~s.hidden), lambda s, x: F.scaled_dot_product_attention(x, x, x, attn_mask=s.masked),
        lambda s, x: F.scaled_dot_product_attention(x, x[:, :, :5], x[:, :, :5], is_causal=True), lambda s, x: F.scaled_dot_product_attention(x, x, x, attn_mask=(x > x.amax(-1, True) - 2))],
    aten.celu: [lambda s, x: F.celu(x * 3, 0.4)], aten.softshrink: [lambda s, x: F.softshrink(x, 0.3)],
    aten.log_sigmoid: [lambda s, x: F.logsigmoid(x * 40), lambda s, x: F.logsigmoid(x.flatten(1))],
    aten.log_softmax: [lambda s, x: F.log_softmax(x, 1), lambda s, x: x.flatten(1).log_softmax(-1)],
    aten._log_softmax: [lambda s, x: aten._log_softmax(x, 3, False)],
    aten.add: [lambda s, x: torch.add(x, x.abs(), alpha=2), lambda s, x: torch.add(x, s.column, alpha=-0.5), lambda s, x: torch.add(s.map, x, alpha=3),
               lambda s, x: x + 1.5, lambda s, x: s.column + x, lambda s, x: x + x.mean(1, keepdim=True), lambda s, x: x + s.map,
               lambda s, x: x.mean(1, keepdim=True) + s.column, lambda s, x: x + torch.arange(8, device=x.device), lambda s, x: (x + s.masked).flatten(1, 2).softmax(-1),
               lambda s, x: ((x > 0) + (x > -1)).flatten(2).sum(2) / 64],
    aten.sub: [lambda s, x: torch.sub(x, x.abs(), alpha=2), lambda s, x: x - s.row, lambda s, x: s.column - x, lambda s, x: x - x.amax(1, keepdim=True)],
    aten.rsub: [lambda s, x: 2 - x, lambda s, x: torch.rsub(x, s.column, alpha=3)],
    aten.mul: [lambda s, x: x * s.column, lambda s, x: x * s.all, lambda s, x: x * x.mean((2, 3), keepdim=True),
               lambda s, x: x.mean((2, 3)) * s.row],
    aten.div: [lambda s, x: x / 3, lambda s, x: x / s.column, lambda s, x: s.map / (x.abs() + 1)],
    aten.maximum: [lambda s, x: torch.maximum(x, s.column), lambda s, x: torch.max(x, s.column),
                   lambda s, x: torch.max(x, x.mean(2, keepdim=True))],
    aten.minimum: [lambda s, x: torch.minimum(s.row, x), lambda s, x: torch.min(s.row, x), lambda s, x: torch.minimum(x, x.mean(2, keepdim=True))],
    **{getattr(aten, kind): [(lambda k: lambda s, x: getattr(torch, k)(x * 3))(kind)] for kind in ("ceil", "erf", "expm1", "floor", "round", "sign")},
    aten.log: [lambda s, x: (x.abs() + 0.1).log()], aten.log1p: [lambda s, x: x.abs().log1p()],
    aten.abs: [lambda s, x: x.abs()], aten.exp: [lambda s, x: x.exp()], aten.sqrt: [lambda s, x: (x.abs() + 0.1).sqrt()],
    aten.neg: [lambda s, x: -x], aten.square: [lambda s, x: x.square()], aten.pow: [lambda s, x: x**2, lambda s, x: x**2.0, lambda s, x: x**5, lambda s, x: x.abs() ** 0.5,
               lambda s, x: x.abs() ** 1.5, lambda s, x: (x.abs() + 0.1) ** -1, lambda s, x: 2.0**x, lambda s, x: (x.abs() + 0.1) ** x, lambda s, x: x ** -3.0 / 1e6,
               lambda s, x: x.clamp(min=1e-6).pow(s.row[0] + 3).mean((2, 3)).pow(1 / (s.row[0] + 3))],
    aten.clamp: [lambda s, x: x.clamp(-0.5, 0.25), lambda s, x: x.clamp(max=0.25), lambda s, x: x.clamp_(0, 1),
                 lambda s, x: x.clamp(x.mean(1, keepdim=True), s.column)],
    aten.clamp_min: [lambda s, x: x.clamp_min(0.25), lambda s, x: x.clamp_min(s.row)], aten.clamp_max: [lambda s, x: x.clamp_max(0.25)],
    aten.mean: [lambda s, x: x.mean((2, 3)), lambda s, x: x.mean(-1, keepdim=True), lambda s, x: x.mean((-1, 1, 2))],
    aten.sum: [lambda s, x: x.sum(1), lambda s, x: x.sum((3, 1), keepdim=True)],
    aten.linalg_vector_norm: [lambda s, x: F.normalize(x), lambda s, x: torch.linalg.vector_norm(x, dim=(1, 3)),
                              lambda s, x: F.normalize(x, p=1.0), lambda s, x: x.norm(p=float("inf"), dim=2, keepdim=True), lambda s, x: torch.linalg.vector_norm(x, 2.5, dim=1)],
    aten.amax: [lambda s, x: x.amax((1, 2))], aten.amin: [lambda s, x: x.amin(-1)],
    aten.softmax: [lambda s, x: x.softmax(1), lambda s, x: x.flatten(1).softmax(-1) * 100],
    aten._softmax: [lambda s, x: aten._softmax(x, 3, False)],
    aten.layer_norm: [lambda s, x: F.layer_norm(x, (8, 8)), lambda s, x: F.layer_norm(x, (8,), s.row, s.row, 0.5),
                      lambda s, x: F.layer_norm(x.permute(0, 2, 3, 1), (8,), s.row), lambda s, x: F.layer_norm(x, (8, 8), s.map, s.map)],
    aten.rms_norm: [lambda s, x: F.rms_norm(x, (8, 8)), lambda s, x: F.rms_norm(x.permute(0, 2, 3, 1), (8,), s.row, 0.5)],
    aten.group_norm: [lambda s, x: F.group_norm(x, 4, s.row, s.row, 0.1), lambda s, x: F.group_norm(x.flatten(2), 2)],
    aten.adaptive_max_pool2d: [lambda s, x: F.adaptive_max_pool2d(x, (3, 5)), lambda s, x: F.adaptive_max_pool2d(x, 2)],
    aten.contiguous: [lambda s, x: x.permute(0, 2, 3, 1).contiguous()], aten.clone: [lambda s, x: x.clone()],
    aten.detach: [lambda s, x: x.detach()], aten.alias: [lambda s, x: aten.alias(x)],
    aten.to: [lambda s, x: x.double().float()],
    aten._to_copy: [lambda s, x: aten._to_copy(aten._to_copy(x, dtype=torch.float64), dtype=torch.float32)],
    aten.flatten: [lambda s, x: x.flatten(1), lambda s, x: x.flatten(1, 2)],
    aten.reshape: [lambda s, x: x.view(-1, 4, 128), lambda s, x: x.transpose(1, 3).reshape(-1, 16, 4, 8)],
    aten._unsafe_view: [lambda s, x: aten._unsafe_view(x, [x.shape[0], 8, 64])], aten.unflatten: [lambda s, x: x.unflatten(1, (2, 4))],
    aten.reshape_as: [lambda s, x: x.flatten(2).transpose(1, 2).reshape_as(x)], aten.view_as: [lambda s, x: x.flatten(2).view_as(x)],
    aten.squeeze: [lambda s, x: x.mean((2, 3), keepdim=True).squeeze(), lambda s, x: x[:, 3:4].squeeze(1)],
    aten.unsqueeze: [lambda s, x: x.unsqueeze(2), lambda s, x: x.unsqueeze(-1)],
    aten.permute: [lambda s, x: x.permute(0, 2, 3, 1), lambda s, x: x.permute(0, -1, 1, 2), lambda s, x: x.permute(0, 1, 2, 3)],
    aten.transpose: [lambda s, x: x.transpose(1, -1), lambda s, x: x.transpose(3, 2)],
    aten.cat: [lambda s, x: torch.cat([x, -x, x], 1), lambda s, x: torch.cat([x, x.mean(-1, keepdim=True)], -1)],
    aten.split: [lambda s, x: torch.chunk(x, 3, 1)[2], lambda s, x: x.chunk(2, -1)[0] * x.chunk(2, -1)[1], lambda s, x: torch.split(x, 3, 1)[2], lambda s, x: x.split(3, 2)[1]],
    aten.split_with_sizes: [lambda s, x: torch.split(x, [1, 5, 2], 1)[1], lambda s, x: x.split([3, 5], -2)[0]],
    aten.unbind: [lambda s, x: x.unbind(2)[3], lambda s, x: x.unbind(-1)[7]],
    aten.slice: [lambda s, x: x[:, 1:7:2], lambda s, x: x[:, :, -3:], lambda s, x: x[..., 5:100], lambda s, x: x[:, :-2]],
    aten.select: [lambda s, x: x[:, 3], lambda s, x: x[..., -2]],
    aten.pad: [lambda s, x: F.pad(x, (1, 2, 0, 1)), lambda s, x: F.pad(x, (1, 2, 0, 1, 3, 4), value=0.5), lambda s, x: F.pad(x, (-1, 2)),
               lambda s, x: F.pad(x, (1, 2, 0, 3), mode="reflect"), lambda s, x: F.pad(x, (1, 9, 0, 1), mode="replicate"),
               lambda s, x: F.pad(x, (1, 8, 0, 3), mode="circular"), lambda s, x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=float("-inf")), 3, 2),
               lambda s, x: F.pad(x.flatten(2), (1, 2, 3, 4), value=0.5), lambda s, x: F.pad(x.flatten(2), (3, 1), mode="reflect"),
               lambda s, x: F.pad(x, (0, 0, 0, 0, -1, 2)), lambda s, x: F.pad(x, (1, 0, 0, 0, 1, -3), value=2.0)],
    aten.constant_pad_nd: [lambda s, x: aten.constant_pad_nd(x, [1, 2, 3, 4], 2.0)],
    aten.reflection_pad2d: [lambda s, x: aten.reflection_pad2d(x, [1, 2, 0, 3])],
    aten.replication_pad2d: [lambda s, x: aten.replication_pad2d(x, [1, 2, 0, 3])],
    aten.upsample_nearest2d: [lambda s, x: F.interpolate(x, scale_factor=2.0), lambda s, x: F.interpolate(x, size=(5, 11)),
                              lambda s, x: F.interpolate(x, scale_factor=(1.5, 3)), lambda s, x: F.interpolate(x, scale_factor=1.3)],
    aten.upsample_nearest1d: [lambda s, x: F.interpolate(x.flatten(2), size=37)], aten._upsample_nearest_exact1d: [lambda s, x: F.interpolate(x.flatten(2), size=37, mode="nearest-exact")],
    aten._upsample_nearest_exact2d: [lambda s, x: F.interpolate(x, size=(13, 5), mode="nearest-exact")],
    aten.upsample_linear1d: [lambda s, x: F.interpolate(x.flatten(2), scale_factor=0.3, mode="linear")],
    aten.upsample_bicubic2d: [lambda s, x: F.interpolate(x, size=(13, 5), mode="bicubic"), lambda s, x: F.interpolate(x, scale_factor=1.7, mode="bicubic", align_corners=True),
                              lambda s, x: F.interpolate(x[:, :1, :5], scale_factor=0.4, mode="bicubic")],
    aten._upsample_bilinear2d_aa: [lambda s, x: F.interpolate(x, size=(3, 11), mode="bilinear", antialias=True)],
    aten._upsample_bicubic2d_aa: [lambda s, x: F.interpolate(x, size=(5, 12), mode="bicubic", antialias=True)],
    aten.upsample_bilinear2d: [lambda s, x: F.interpolate(x, size=(5, 11), mode="bilinear"),
                               lambda s, x: F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), lambda s, x: F.interpolate(x, scale_factor=1.3, mode="bilinear")],
    aten.pixel_shuffle: [lambda s, x: F.pixel_shuffle(x, 2)], aten.channel_shuffle: [lambda s, x: F.channel_shuffle(x, 4)],
    aten.expand: [lambda s, x: x.expand(-1, 8, 8, 8), lambda s, x: x * x.mean((2, 3), keepdim=True).expand(-1, -1, 8, 8),
                  lambda s, x: x.mean(1, keepdim=True).expand(-1, 5, 8, 8), lambda s, x: x.mean(3, keepdim=True).expand(-1, 8, 8, 4),
                  lambda s, x: x.repeat_interleave(2, 1)],
    aten.expand_as: [lambda s, x: x * x.mean((2, 3), keepdim=True).expand_as(x)],
    aten.stack: [lambda s, x: torch.stack([x, -x], 2), lambda s, x: torch.stack([x, x + 1], -1)],
    aten.max_pool2d_with_indices: [lambda s, x: F.max_pool1d(x.flatten(2), 3, 2, 1), lambda s, x: F.max_pool2d(x, 3, 2, 1, return_indices=True)[0]],
    aten.batch_norm: [lambda s, x: F.batch_norm(x, s.row.detach(), s.row.detach().exp(), s.row, s.row, eps=0.1), lambda s, x: F.batch_norm(x.flatten(2), s.row.detach(), s.row.detach().exp()),
                      lambda s, x: F.batch_norm(x.mean((2, 3)), s.row.detach(), s.row.detach().exp(), s.row)],
    aten.linear: [lambda s, x: F.linear(x, F.normalize(s.map)), lambda s, x: F.linear(F.normalize(x.mean((2, 3))), s.map.tanh()[:5], s.row[:5].exp())],
    aten.conv1d: [lambda s, x: F.conv1d(x.flatten(2), s.all.reshape(8, 8, 8)[:, :4, :3].tanh(), s.row.exp(), 2, 1, 3, 2), lambda s, x: F.conv1d(x.flatten(2), s.map[:, :, None].tanh())],
    aten.conv_transpose2d: [lambda s, x: F.conv_transpose2d(x, s.all.reshape(8, 8, 2, 4).tanh(), s.row.exp(), 2, 1, 1),
                            lambda s, x: F.conv_transpose2d(x, s.all.reshape(8, 2, 4, 8).tanh(), None, (1, 2), groups=2, dilation=(2, 1))],
    aten.conv2d: [lambda s, x: F.conv2d(x, (s.all.tanh() * s.map[:, :, None, None])[..., :4], s.row.exp(), (2, 1), (1, 2), groups=1, dilation=(1, 2)),
                  lambda s, x: F.conv2d(x, s.all.tanh().reshape(8, 1, 8, 8)[..., :3, :2], groups=8, padding=1),
                  lambda s, x: F.conv2d(x, s.all.tanh().reshape(8, 8, 2, 4), padding="same")],
}  # fmt: skip
"""By operation, calls whose captured graph contains it."""

UNREACHED = {
    **{call: "capture makes a module of it" for call in lift.WITHOUT_WEIGHT if call in RULES},
}


def test_every_rule_is_listed_for_users() -> None:
    page = (
        (Path(__file__).parents[3] / "docs/deployment.md")
        .read_text()
        .partition("## Operations")[2]
        .partition("\n## ")[0]
    )
    names = {"BatchNorm1d", "BatchNorm2d", "Conv1d", "Conv2d", "ConvTranspose2d", "Linear"}
    names.add("view")  # capture makes a reshape of it
    names |= {each.__name__ for each in (*RULES, *MODULES) if not each.__name__.startswith("_")}
    listed = {*re.findall(r"`(\w+)`", page)}
    assert listed == names


def test_every_rule_for_calls_is_here() -> None:
    assert {*RULES} - {*UNREACHED} == {*CALLED}
    assert len(RULES) == sum(
        map(
            len,
            (CALLS, REDUCTIONS, COMPOSED, MOVES, PICKING, GROWING, RESAMPLING, WINDOWS, PRODUCTS, COMPUTED, DECIDING),
        )
    )


@pytest.mark.parametrize(
    ("what", "call"), [pytest.param(w, c, id=f"{w.__name__}-{i}") for w, cs in CALLED.items() for i, c in enumerate(cs)]
)
def test_a_call_computes_what_it_did(what: Any, call: Call) -> None:
    made = network(call)
    form = captured(made)
    assert what in [packet(node) for node in form.captured.graph.nodes]
    assert_same(lowered(form), made)


@torch.no_grad()
def test_logarithms_of_sigmoid_keep_to_infinite_numbers() -> None:
    made = network(lambda s, x: torch.cat([F.logsigmoid(y := (x * 1e4 + s.column * 1e4).exp()), F.softplus(-y)], 1))
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = made(x)
    assert made.stem(x).mul(1e4).exp().isinf().any()
    assert torch.allclose(run(lowered(captured(made)), x), expected, atol=1e-5)


def test_functions_of_a_tensor_of_the_network_are_constants() -> None:
    made = network(lambda s, x: x * F.softplus(s.column) + torch.sigmoid(s.map) * F.gelu(s.row))
    program = lowered(captured(made))
    assert not any(isinstance(op, (Function, Softmax)) for op in program.operations)
    assert_same(program, made)


ENGINES = [
    *COMPOSED, *COMPUTED, *WINDOWS, *PICKING, *RESAMPLING, *REDUCTIONS, *DECIDING, *PRODUCTS, aten.repeat, aten.add, aten.sub,
    aten.rsub, aten.log_softmax, aten.pow, aten.avg_pool3d,
]  # fmt: skip
"""Calls that become several operations, or settings of one, compared on other engines, too."""


@pytest.mark.parametrize(
    "call", [pytest.param(c, id=f"{w.__name__}-{i}") for w in ENGINES for i, c in enumerate(CALLED[w])]
)
def test_engines_compute_composed_calls(call: Call) -> None:
    """The native engine gives the bits of the reference, ONNX Runtime the same up to fp32's rounding."""
    program = lowered(captured(network(call)))
    x = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = run(program, x)
    try:
        native = Native(program)
    except Unavailable as fault:
        pytest.skip(str(fault))
    assert torch.equal(native(x), expected)
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from tests.deploy.exporting.sessions import answers

    assert (answers(program, x) - expected).abs().max() <= 1e-5 * expected.abs().max()


MADE: dict[type[nn.Module], list[nn.Module | Call]] = {
    nn.Identity: [nn.BatchNorm2d(8)],  # merge replaces it by this
    nn.Dropout: [nn.Dropout()], nn.Dropout2d: [nn.Dropout2d()], nn.AlphaDropout: [nn.AlphaDropout()],
    _BatchNorm: [nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)), nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8, affine=False)),
                 nn.Sequential(nn.Flatten(2), nn.BatchNorm1d(8)), nn.Sequential(nn.Flatten(), nn.BatchNorm1d(512))],
    nn.ReLU: [nn.ReLU(), lambda s, x: F.relu_(x) + x], nn.ReLU6: [nn.ReLU6()], nn.Hardtanh: [nn.Hardtanh(-0.5, 0.25)],
    nn.LeakyReLU: [nn.LeakyReLU(0.3)], nn.ELU: [nn.ELU(0.5)], nn.GELU: [nn.GELU(), nn.GELU("tanh")], nn.SiLU: [nn.SiLU()],
    nn.Softplus: [nn.Softplus(), nn.Softplus(2, 16), lambda s, x: F.softplus(x * 40)],
    nn.Mish: [nn.Mish()], nn.Sigmoid: [nn.Sigmoid()], nn.Tanh: [nn.Tanh()], nn.Hardswish: [nn.Hardswish()],
    nn.Hardsigmoid: [nn.Hardsigmoid()], nn.PReLU: [nn.PReLU(), nn.PReLU(8, 0.7), nn.Sequential(nn.Flatten(2), nn.PReLU(8))],
    nn.MaxPool2d: [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d((2, 3), ceil_mode=True), nn.MaxPool2d(2, 1, 0, 2), lambda s, x: F.max_pool2d(x, 2)],
    nn.AvgPool2d: [nn.AvgPool2d((3, 2), (2, 1), (1, 0), count_include_pad=False), nn.AvgPool2d(3, 2, 1, True),
                   nn.AvgPool2d(2, divisor_override=3)],
    nn.AdaptiveAvgPool2d: [nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((3, None)), nn.AdaptiveAvgPool2d((5, 16))],
}  # fmt: skip


def test_every_rule_for_modules_is_here() -> None:
    """The only exception is nn.Dropout1d, which capture turns into nn.Dropout2d."""
    assert {*MODULES} - {nn.Dropout1d} == {*MADE}


@pytest.mark.parametrize(
    ("kind", "inner"), [pytest.param(k, m, id=f"{k.__name__}-{i}") for k, ms in MADE.items() for i, m in enumerate(ms)]
)
def test_a_module_computes_what_it_did(kind: type[nn.Module], inner: nn.Module | Call) -> None:
    made = network(inner)
    form = merge(captured(made))
    called = [form.get_submodule(str(node.target)) for node in form.captured.graph.find_nodes(op="call_module")]
    assert any(isinstance(module, kind) for module in called)
    assert_same(lowered(form), made)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize(
    "inner",
    [
        nn.Linear(8, 5), nn.Conv2d(8, 6, 3, 2, 1, groups=2), nn.Conv2d(8, 6, (2, 3), padding="same", dilation=2), nn.Conv2d(8, 6, 4, padding="same"),
        nn.Conv2d(8, 6, 3, padding=1, padding_mode="reflect"), nn.Conv2d(8, 6, 4, padding="same", padding_mode="circular"),
        nn.ConvTranspose2d(8, 6, 3, 2, 1, 1, groups=2), nn.ConvTranspose2d(8, 6, (2, 4), 3, dilation=2, bias=False),
        nn.Sequential(nn.Flatten(2), nn.Linear(64, 3, bias=False)),
        nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 6, 3, 2, 1, groups=2)), nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 6, 4, padding="same", bias=False)),
        nn.Sequential(nn.Flatten(2), nn.Conv1d(8, 6, 3, padding=2, dilation=2, padding_mode="circular")),
    ],
    ids=str,
)  # fmt: skip
def test_a_float_layer_computes_what_it_did(inner: nn.Module) -> None:
    made = network(inner)
    assert_same(lowered(captured(made)), made)
