"""The row of a checkpoint in a table: its words and numbers."""

from __future__ import annotations

from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import Calibrate, Original, Quantize, Stage, Trained, prunings
from engine.checkpoint.words import counted, listed
from engine.tasks import score as scores
from models import cost
from models.files import Opened
from models.registry import NETWORKS, outline, widths
from quant import restore
from quant.spec import QuantSpec
from scripts.table import ResultRow


def row(opened: Opened) -> ResultRow:
    """Return the table row of a file, with its network's costs counted."""
    checkpoint = opened.checkpoint
    costs = cost.layers(opened.network, checkpoint.dataset.image_size)
    trained = [stage.epochs for stage in checkpoint.history if isinstance(stage, Trained) and stage.epochs is not None]
    return ResultRow(
        type=kind(checkpoint),
        dataset=checkpoint.dataset.label,
        epochs="+".join(map(str, trained)) or "?",
        accuracy=checkpoint.metrics.accuracy if checkpoint.metrics.judged else None,
        macs=cost.total(costs, "macs"),
        params=cost.total(costs, "params"),
        size_bits=cost.total(costs, "bits"),
        remarks=remarks(checkpoint),
        judged_on=str(checkpoint.metrics.judged_on),
        file=str(opened.path),
        score=scores.of(checkpoint.dataset.task),
    )


def kind(checkpoint: Checkpoint) -> str:
    """Return the stages of a network's history: `nin (1/2 width) sparse, pruned 50 %, refined, w8a8`."""
    words = listed(*map(_words, checkpoint.history))
    return f"{checkpoint.arch}{_width(checkpoint)} {words or 'float'}"


def _words(stage: Stage) -> str:
    if isinstance(stage, (Quantize, Calibrate)):
        return restore.in_words(stage)
    return stage.words()


def _width(checkpoint: Checkpoint) -> str:
    """Return how the widths before any pruning compare with the network's default widths, "" if equal."""
    cfg = next((list(stage.cfg_before) for stage in prunings(checkpoint.history)), checkpoint.cfg)
    if checkpoint.arch not in NETWORKS:
        return ""
    own = widths(checkpoint.arch, outline(checkpoint.arch)) or []
    if own == cfg or isinstance(next(iter(checkpoint.history), None), Original):
        return ""
    for share in (2, 4, 8):
        if [width // share for width in own] == cfg:
            return f" (1/{share} width)"
    return f" (cfg {','.join(map(str, cfg))})"


def _tricks(spec: QuantSpec) -> list[str]:
    """Return the settings that differ from their quantizers' defaults."""
    weight, activation = spec.weight, spec.activation
    has, takes = weight.traits.settings, activation.traits.settings
    return [
        *(["gap"] if weight.gap else []),
        *([f"wste {weight.ste}"] if "ste" in has and weight.ste != "ste" else []),
        *([f"ste {activation.ste}"] if "ste" in takes and activation.ste != activation.traits.input_ste else []),
        *([spec.order] if "order" in takes and spec.order != activation.traits.order else []),
    ]


_ENDS = {
    ("picture", "float"): "every layer quantized, the picture not",
    ("picture", "int8"): "every layer quantized, the picture as bytes",
    ("float", "float"): "first and last layer float",
    ("float", "int8"): "first and last layer 8 bit, the picture as bytes",
}
"""By the quantizer's ends and the spec's."""


def _float_layers(spec: QuantSpec, has_two_ends: bool) -> list[str]:
    """Return the remarks on the first and the last layer, and on the layers that stay float.

    Args:
        has_two_ends: whether the network has one first and one last layer. Yours may have several.
    """
    followed, kept = spec.least_sparing, len(spec.kept)
    words = [_ENDS.get((followed.ends, spec.ends), f"first and last layer {followed.end_bits} bit")]
    are_float = followed.ends == spec.ends == "float"
    if has_two_ends:
        more = kept - 2 * are_float
        return words + ([f"{more} more kept float" if are_float else f"{more} kept float"] if more > 0 else [])
    if not kept:
        return words
    count = f"{counted(kept, 'layer')} float"
    return [f"{count}, first and last among them"] if are_float else [*words, count]


def remarks(checkpoint: Checkpoint) -> str:
    """Return the remarks of a row: settings of the quantizers, widths, held-out pictures."""
    words = []
    for stage in checkpoint.history:
        if isinstance(stage, (Quantize, Calibrate)):
            spec = QuantSpec.from_dict(dict(stage.spec))
            if "scale" in spec.weight.traits.settings:
                words.append(f"W {'with' if spec.weight.scale else 'without'} scale")
            words += _tricks(spec)
            words += _float_layers(spec, checkpoint.arch in NETWORKS)
        if prunings([stage]) and checkpoint.cfg:  # a captured network has no cfg
            words.append(f"cfg {','.join(map(str, checkpoint.cfg))}")
    if checkpoint.metrics.judged_on == "val":
        words.append("evaluated on held-out training pictures")
    return "; ".join(dict.fromkeys(words)) or "full precision"  # a network pruned twice names its cfg once
