"""Bias correction: the mean error that coded weights and inputs bring into each channel is taken off its bias.

Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, arXiv 1906.04721, section 4.2, with
errors measured on pictures. Layers are corrected in the order of the graph, each with those before it corrected.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from engine.data.augment import generator
from engine.data.info import Split
from engine.errors import UserError
from models.graph.chains import chains
from models.graph.flow import is_shared, places
from models.graph.normal import NormalForm
from models.layers.bnfold import BNFoldConv2d
from models.layers.conv_q import QuantConv2d, QuantLinear
from models.layers.fold import affine
from models.layers.quantizers.base import Quantized, Quantizer

PIXELS = 2**21
"""Of all pictures looked at together: the values of a layer for all of them are in memory at once."""


@torch.no_grad()
def correct_biases(model: NormalForm, split: Split, pictures: int, seed: int = 1) -> list[str]:
    """Correct a quantized, calibrated network in place, in evaluation. Returns the names of the layers that were not corrected.

    Those have no bias and no batch norm behind them, share it with another layer, or run at several places.

    Args:
        pictures: training pictures to look at; fewer where they are large.

    Raises:
        UserError: exit 2 for a network without quantized layers.
    """
    calls = places(model)
    layers = {n: m for n in calls if isinstance(m := model.get_submodule(n), (QuantConv2d, QuantLinear))}
    if not layers:
        raise UserError("no layer of the network is quantized", "leave --bias_correction out")
    norms = {chain.layer: model.get_submodule(chain.norm) for chain in chains(model)}
    correctable = {n: t for n in layers if len(calls[n]) == 1 and (t := _correctable(model, n, norms)) is not None}
    height, width = model.captured.picture[1:]
    count = min(pictures, max(PIXELS // (height * width), 32))
    order = torch.randperm(len(split), generator=generator(seed, 0))[:count]
    images = torch.cat([batch for batch, _ in split.batches(128, order)])
    was_training = model.training
    model.eval()
    try:
        _walk(model, images.to(next(iter(model.parameters())).dtype), correctable)
    finally:
        model.train(was_training)
    return [name for name in layers if name not in correctable]


Correctable = tuple[Tensor, Tensor | int]
"""What takes up the error of a layer's channels, and what the error is multiplied by: a bias by 1, the running mean of the
batch norm behind it by -1; of one that is folded into the layer by -sigma / gamma, as the error is that of gamma z / sigma.
"""


def _correctable(model: NormalForm, name: str, norms: dict[str, nn.Module]) -> Correctable | None:
    layer: Any = model.get_submodule(name)
    norm: Any = norms.get(name)
    folded = isinstance(layer, BNFoldConv2d)
    bias = (norm if folded else layer).bias
    if bias is not None:
        return None if is_shared(model, bias) else (bias, 1)
    if norm is None or is_shared(model, norm.running_mean):
        return None
    if not folded:
        return norm.running_mean, -1
    factor = affine(norm).multiplier
    return norm.running_mean, torch.where(factor == 0, 0, -1 / factor)


def _walk(model: NormalForm, images: Tensor, correctable: dict[str, Correctable]) -> None:
    """Run the float and the quantized network side by side, an operation at a time."""
    exact, coded, errors = _Run(model, images), _Run(model, images), {}
    for node in model.captured.graph.nodes:
        with _quantizers_off(model):
            meant = exact.step(node)
        found = coded.step(node)
        if node.op == "call_module" and node.target in correctable:
            last = isinstance(model.get_submodule(str(node.target)), nn.Linear)
            axes = [axis for axis in range(meant.ndim) if axis != (meant.ndim - 1 if last else 1)]
            error = (meant - found).mean(axes, keepdim=True)
            coded.env[node] = found + error
            errors[str(node.target)] = error.flatten()
        for run in (exact, coded):
            run.forget(node)
    for name, error in errors.items():  # not before: the float run reads the same tensors
        tensor, factor = correctable[name]
        tensor += factor * error


class _Run(fx.Interpreter):
    """One run of a graph, to be taken step by step."""

    def __init__(self, model: NormalForm, images: Tensor) -> None:
        super().__init__(model, graph=model.captured.graph)
        self.args_iter = iter([images])

    def step(self, node: fx.Node) -> Any:
        self.env[node] = self.run_node(node)
        return self.env[node]

    def forget(self, node: fx.Node) -> None:
        """Let go of the values that nothing reads after this operation."""
        for last in self.user_to_last_uses.get(node, []):
            del self.env[last]


@contextmanager
def _quantizers_off(model: nn.Module) -> Iterator[None]:
    """Let every quantizer give what it is given."""

    def passing(module: nn.Module, inputs: tuple[Tensor], output: Quantized) -> Quantized:
        return Quantized(inputs[0], None)

    handles = [m.register_forward_hook(passing) for m in model.modules() if isinstance(m, Quantizer)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
