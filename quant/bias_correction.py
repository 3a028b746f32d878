"""Bias correction: subtract from each channel's bias the mean error of quantized weights and inputs.

Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, arXiv 1906.04721, section 4.2.
Here the errors are measured on pictures. Layers are corrected in graph order, each after all layers before it.
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
from models.layers.fold import in_eval
from models.layers.quantizers.base import Quantized, Quantizer

PIXELS = 2**21
"""Most pixels of all pictures together: a layer's values for all pictures are in memory at once."""


@torch.no_grad()
def correct_biases(model: NormalForm, split: Split, pictures: int, seed: int = 1) -> list[str]:
    """Correct the biases of a quantized, calibrated network, in place and in eval mode.

    Args:
        split: training pictures.
        pictures: number of pictures to measure errors on, fewer if they are large (see PIXELS).
        seed: of the draw of pictures.

    Returns:
        The names of the quantized layers left uncorrected: they have neither a bias nor a batch norm behind them, share
        it with another layer, or run more than once.

    Raises:
        UserError: exit 2 if the network has no quantized layer.
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
"""The tensor that takes up the error of a layer's channels, and the factor of the error.

The factor is 1 for a bias and -1 for the running mean of the batch norm behind the layer. For a batch norm folded into
the layer it is -sigma / gamma, because the error is that of gamma z / sigma.
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
    factor = in_eval(norm).multiplier
    return norm.running_mean, torch.where(factor == 0, 0, -1 / factor)


def _walk(model: NormalForm, images: Tensor, correctable: dict[str, Correctable]) -> None:
    """Run the float and the quantized network side by side, one operation at a time, and correct the biases."""
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
    for name, error in errors.items():  # only after the run, as the float network reads the same tensors
        tensor, factor = correctable[name]
        tensor += factor * error


class _Run(fx.Interpreter):
    """A run of a graph, one step at a time."""

    def __init__(self, model: NormalForm, images: Tensor) -> None:
        super().__init__(model, graph=model.captured.graph)
        self.args_iter = iter([images])

    def step(self, node: fx.Node) -> Any:
        self.env[node] = self.run_node(node)
        return self.env[node]

    def forget(self, node: fx.Node) -> None:
        """Free the values that nothing reads after this operation."""
        for last in self.user_to_last_uses.get(node, []):
            del self.env[last]


@contextmanager
def _quantizers_off(model: nn.Module) -> Iterator[None]:
    """Make every quantizer return its input, inside the context."""

    def passing(module: nn.Module, inputs: tuple[Tensor], output: Quantized) -> Quantized:
        return Quantized(inputs[0], None)

    handles = [m.register_forward_hook(passing) for m in model.modules() if isinstance(m, Quantizer)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
