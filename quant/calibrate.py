"""Calibration: choose clipping ranges of activations from a few hundred pictures, without training.

`METHODS` turn a histogram into a range. All other steps are the same for each method.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial

import torch
from torch import Tensor, nn

from engine.data.augment import generator
from engine.data.info import Split
from engine.errors import BAD_CHECKPOINT, BAD_DATA, UserError
from engine.system.messages import notice
from models.layers.quantizers.affine import AffineActivation, affine, affine_range
from models.layers.quantizers.base import Quantized

BINS = 2048
PERCENTILE = 0.9999
CHUNK = 2**22
"""Values counted at a time. torch.histc counts in float32, in which a bin cannot grow beyond 2^24."""


class Histogram:
    """The histogram of a layer's input: float64 counts (BINS,) over [low, high], a range that is fixed at the start."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = min(low, 0.0), max(high, 0.0)
        if self.low == self.high:
            self.high = 1.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        for part in x.float().cpu().flatten().split(CHUNK):
            self.counts += torch.histc(part, BINS, self.low, self.high).double()

    @property
    def centres(self) -> Tensor:
        """The middle of each bin, (BINS,)."""
        width = (self.high - self.low) / BINS
        return self.low + width * (torch.arange(BINS, dtype=torch.float64) + 0.5)


def minmax(h: Histogram, bits: int, symmetric: bool) -> tuple[float, float]:
    """Return the full range of the values seen."""
    return h.low, h.high


def percentile(h: Histogram, bits: int, symmetric: bool) -> tuple[float, float]:
    """Return the range without the outermost 0.01 % of values on each side (symmetric: of |x|); arXiv 2004.09602."""
    total, width = h.counts.sum(), (h.high - h.low) / BINS
    if symmetric:
        order = h.centres.abs().sort()
        reached = int((h.counts[order.indices].cumsum(0) < PERCENTILE * total).sum())
        clip = float(order.values[min(reached, BINS - 1)]) + width / 2
        return -clip, clip
    above = int((h.counts.cumsum(0) < PERCENTILE * total).sum())
    below = int((h.counts.flip(0).cumsum(0) < PERCENTILE * total).sum())
    return min(h.high - width * (below + 1), 0.0), max(h.low + width * (above + 1), 0.0)


def mse(h: Histogram, bits: int, symmetric: bool) -> tuple[float, float]:
    """Return the range with the smallest mean squared error of quantized values, among 100 shares of the full range.

    This is the range search of arXiv 2106.08295, section 3.1.
    """
    values, best = h.centres, (float("inf"), 1.0)
    for share in torch.linspace(0.01, 1, 100).tolist():
        error = float((h.counts * (_quantized(values, h, share, bits, symmetric) - values) ** 2).sum())
        best = min(best, (error, share))
    return h.low * best[1], h.high * best[1]


def _quantized(values: Tensor, h: Histogram, share: float, bits: int, symmetric: bool) -> Tensor:
    low, high = values.new_tensor(h.low * share), values.new_tensor(h.high * share)
    codes, scale = affine(values, *affine_range(low, high, bits, symmetric), bits, symmetric)
    return codes if scale is None else codes * scale


def kl(h: Histogram, bits: int, symmetric: bool) -> tuple[float, float]:
    """Return the range of entropy calibration as in TensorRT (Migacz, GTC 2017).

    It is the clip at which the histogram in 2^k levels diverges least from the clipped histogram. Values beyond a clip
    count at its edge, as in inference. Both sides are clipped by the same share. Signed values are judged on |x|, with
    the levels of the wider side.
    """
    counts, reach = h.counts.clone(), max(-h.low, h.high)
    if symmetric or h.low < 0:
        place = (h.centres.abs() / reach * BINS).long().clamp_max(BINS - 1)
        counts = torch.zeros_like(counts).index_add_(0, place, h.counts)
    zero = counts[0].item()
    counts[0] = counts[1]  # a ReLU's zeros are exact at any scale; counted, they would hide all other values
    levels = 2 ** (bits - 1) if symmetric else round(2**bits * reach / (h.high - h.low))
    best = (float("inf"), BINS)
    if zero + counts.sum() > 0:
        for bins in (*range(levels, BINS, BINS // 256), BINS):  # the full range is a candidate at any number of levels
            best = min(best, (_divergence(counts, bins, levels), bins), key=lambda item: item[0])
    share = best[1] / BINS
    if symmetric:
        return -reach * share, reach * share
    return h.low * share, h.high * share


def _divergence(counts: Tensor, bins: int, levels: int) -> float:
    """Return KL(P || Q) of the first `bins` bins.

    P adds all further bins to its last one. Q spreads each level over the level's filled bins.
    """
    part = counts[:bins]
    p = part.clone()
    p[-1] += counts[bins:].sum()
    level = (torch.arange(bins) * levels // bins).clamp_max(levels - 1)
    filled = (part > 0).double()
    sums = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, part)
    sizes = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, filled)
    q = (sums / sizes.clamp_min(1))[level] * filled
    p, q = p / p.sum().clamp_min(1e-12), q / q.sum().clamp_min(1e-12)
    seen = p > 0
    return float((p[seen] * (p[seen] / q[seen].clamp_min(1e-12)).log()).sum())


METHODS: dict[str, Callable[[Histogram, int, bool], tuple[float, float]]] = {
    "minmax": minmax, "percentile": percentile, "mse": mse, "kl": kl,
}  # fmt: skip


Look = Callable[[int, Tensor], None]
"""A function called with a quantizer's number and one batch of its input."""


@torch.no_grad()
def calibrate(
    model: nn.Module, split: Split, method: str, pictures: int, seed: int = 1, batch: int = 128,
    negative: Collection[str] = (),
) -> None:  # fmt: skip
    """Set every AffineActivation range of `model`, in place, in two passes in eval mode.

    Inputs stay float during both passes: their quantizers return them. Weights are already quantized, so the ranges
    are those of the inputs that the quantized weights give.

    Args:
        split: training pictures.
        method: a key of METHODS.
        pictures: number of pictures, drawn with `seed`.
        negative: names of layers whose input may be negative, see quant.placement.may_be_negative. Without a ReLU,
            values are dense around 0 and thin in the tails that matter. kl clips them too hard, so mse is used instead.

    Raises:
        UserError: exit 4 without pictures, exit 3 for non-finite activations.
    """
    quantizers = {n.rpartition(".")[0]: m for n, m in model.named_modules() if isinstance(m, AffineActivation)}
    if not len(split) or pictures < 1:
        raise UserError("calibration needs at least one picture", "give more with --calibration_pictures", BAD_DATA)
    if not quantizers:
        return
    # a random draw: in folders the first pictures are all of one class
    order = torch.randperm(len(split), generator=generator(seed, 0))[:pictures]
    watch = partial(_watch, model, list(quantizers.values()), split, order, batch)
    histograms = [Histogram(*edges) for edges in _ranges(list(quantizers), watch)]
    watch(lambda number, x: histograms[number].add(x))
    signed = {id(m) for n, m in model.named_modules(remove_duplicate=False) if n.rpartition(".")[0] in negative}
    by_mse = [layer for layer, m in quantizers.items() if method == "kl" and id(m) in signed]
    if by_mse:
        notice(f"inputs without a ReLU before them are clipped by mse: {', '.join(by_mse)}")
    for (layer, quantizer), histogram in zip(quantizers.items(), histograms, strict=True):
        low, high = METHODS["mse" if layer in by_mse else method](histogram, quantizer.bits, quantizer.symmetric)
        quantizer.set_range(torch.tensor(low), torch.tensor(high))


def _ranges(layers: list[str], watch: Callable[[Look], None]) -> list[tuple[float, float]]:
    """Return the smallest and the largest value of each layer's input, widened to include 0."""
    ranges = [(0.0, 0.0)] * len(layers)

    def widen(number: int, x: Tensor) -> None:
        low, high = (edge.item() for edge in x.aminmax())
        # min(NaN, x) keeps the NaN in this argument order; it is caught below
        low, high = min(low, ranges[number][0]), max(high, ranges[number][1])
        if not high - low <= torch.finfo(torch.float32).max:
            raise UserError(
                f"the network's activations are not finite at {layers[number]}",
                "calibrate another checkpoint",
                BAD_CHECKPOINT,
            )
        ranges[number] = low, high

    watch(widen)
    return ranges


def _watch(
    model: nn.Module, quantizers: list[AffineActivation], split: Split, order: Tensor, batch: int, look: Look
) -> None:
    """Run pictures through the network, call `look` with each quantizer's input, and leave the input unquantized."""

    def hook(number: int) -> Callable:
        def passing(module: nn.Module, inputs: tuple[Tensor], output: Quantized) -> Quantized:
            look(number, inputs[0])
            return Quantized(inputs[0], None)

        return passing

    handles = [m.register_forward_hook(hook(n)) for n, m in enumerate(quantizers)]
    was_training, dtype = model.training, quantizers[0].low.dtype
    model.eval()
    try:
        for images, _ in split.batches(batch, order):
            model(images.to(dtype))
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
