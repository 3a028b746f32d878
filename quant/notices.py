"""Notices and warnings about a quantized network: layers that stay float, and inputs that suit their codes badly."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvTransposeNd

from engine.checkpoint.words import counted
from engine.system.messages import notice, some, warning
from models.graph.calls import packet
from models.graph.chains import unfolded
from models.graph.flow import computes, first_layers, module, never_negative, places, sources
from models.graph.normal import NormalForm
from models.layers.bnfold import FoldedNorm
from models.layers.quantizers.pixels import PixelCodes
from quant.placement import quantizable
from quant.prepare import input_quantizer
from quant.spec import QuantSpec


def say(plain: NormalForm, quantized: NormalForm, spec: QuantSpec) -> None:
    """Print to stderr what a spec leaves in float and which inputs suit their quantizer badly.

    Args:
        plain: the network before `prepare`.
        quantized: the network after it.
    """
    if left := stays_float(plain):
        notice(f"kept in float, with 32 bits a number: {some(left)}")
    shown = [name for name in first_layers(plain) if name in spec.coded_ends]
    if far := [n for n in shown if not isinstance(quantized.get_submodule(n).input_quantizer, PixelCodes)]:
        notice(f"{some(far)} cannot read the picture's bytes: something computes before them, so they read numbers")
    chosen = [n for n in quantizable(plain) if n not in (*spec.exceptions, *spec.float_inputs, *spec.coded_ends)]
    fixed = chosen if spec.activation.traits.fixed_range else []
    if low := _negative(plain, [name for name in fixed if name not in spec.measured_inputs]):
        warning(
            f"the inputs of {some(low)} can be negative; {spec.activation.kind} codes start at 0 and turn negative "
            "inputs into 0; --quantizer lsq and --quantizer affine keep them"
        )
    if input_quantizer(spec.activation).signed:
        negative = {*_negative(quantized, chosen)}
        if high := [name for name in chosen if name not in negative]:
            warning(
                f"the inputs of {some(high)} are never negative: {spec.activation.kind} codes lose most of their "
                "information"
            )
    if spec.bn_fold:
        say_unfolded(quantized)


def say_unfolded(form: NormalForm) -> None:
    """Print to stderr the batch norms of a folded network that still compute, with the reason."""
    norms = {name: form.get_submodule(name) for name in places(form)}
    left = [n for n, m in norms.items() if isinstance(m, _BatchNorm) and not isinstance(m, FoldedNorm)]
    outside = {*unfolded(form)}
    apart = [n for n in left if n in outside]
    blind = [n for n in apart if norms[n].running_mean is None]
    behind = [n for n in apart if n not in blind]
    upward = [n for n in behind if _is_behind(form, n, _ConvTransposeNd)]
    sideward = [n for n in behind if _is_behind(form, n, (nn.Conv1d, nn.Conv3d))]
    reasons = {
        "keeping no statistics": blind,
        "behind a transposed convolution": upward,
        "behind a convolution of one or three dimensions": sideward,
        "not directly behind one convolution or linear layer": [n for n in behind if n not in (*upward, *sideward)],
        "behind a layer that stays float, is linear, or is pooled first": [n for n in left if n not in outside],
    }
    for why, names in reasons.items():
        if names:
            notice(f"kept {counted(len(names), 'batch norm')}, {why}: {some(names)}")


def _is_behind(form: NormalForm, name: str, kinds: type[nn.Module] | tuple[type[nn.Module], ...]) -> bool:
    return any(isinstance(module(form, source), kinds) for node in places(form)[name] for source in sources(node))


def say_uncorrected(names: Sequence[str]) -> None:
    """Print to stderr the layers whose bias was not corrected."""
    if names:
        notice(
            "bias correction skipped layers that have neither a bias nor a batch norm behind them, share it with another "
            f"layer, or run more than once: {some(names)}"
        )


def stays_float(form: NormalForm) -> list[str]:
    """Return the operations that compute like a layer but have no quantizer, by name and kind."""
    layers, found = quantizable(form), []
    for node in form.captured.graph.nodes:
        if computes(form, node) and str(node.target) not in layers:
            found.append(_named(form, node))
    return list(dict.fromkeys(found))


def _named(form: NormalForm, node: fx.Node) -> str:
    layer = module(form, node)
    if layer is None:
        return f"{node.meta.get('owner') or 'forward'} ({packet(node).__name__})"
    kind = type(layer).__name__
    return f"{node.target} ({kind}{', its weight has other readers' * isinstance(layer, (nn.Conv2d, nn.Linear))})"


def _negative(form: NormalForm, names: Iterable[str]) -> list[str]:
    """Return the layers whose input can be negative. If the input is quantized, judge the quantizer's input."""
    positive, calls = never_negative(form), places(form)

    def value(node: fx.Node) -> fx.Node:
        source = node.all_input_nodes[0]
        return source.all_input_nodes[0] if str(source.target).endswith(".input_quantizer") else source

    return [name for name in names if not all(value(node) in positive for node in calls[name])]
