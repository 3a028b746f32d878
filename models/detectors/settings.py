"""The settings with which a detector's code around its core turns numbers into boxes. Packed files store and compare them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import nn
from torch.utils._pytree import keystr, tree_flatten_with_path, tree_unflatten

from models.detectors.stages import Stage, answers

Settings = dict[str, Any]
"""Numbers, words and nested lists of numbers, by the dotted names of what holds them: `nms_thresh`, `anchor_generator.sizes`."""
OF_ALL = ("score_thresh", "nms_thresh", "detections_per_img", "topk_candidates", "fixed_size")
OF_ANCHORS = ("aspect_ratios", "sizes", "scales", "steps", "clip")
OF_CODERS = ("weights", "bbox_xform_clip", "normalize_by_size")
"""What torchvision's detectors and transforms, generators of anchors, and coders of boxes call their settings."""


def settings(detector: nn.Module, stages: Sequence[Stage]) -> Settings:
    """Return the settings of the code around a core that have torchvision's names.

    Settings of other names, and numbers that are written in the code, are not found.
    """
    found: Settings = {}
    core = {module for stage in stages for module in detector.get_submodule(stage.name).modules()}
    for name, module in detector.named_modules():
        if module in core:
            continue
        keys = (*OF_ALL, *(OF_ANCHORS if hasattr(module, OF_ANCHORS[0]) else ()))
        held = {key: getattr(module, key, None) for key in keys}
        coder = getattr(module, "box_coder", None)
        held |= {f"box_coder.{key}": getattr(coder, key, None) for key in OF_CODERS}
        plain = {f"{name}.{key}".strip("."): _plain(value) for key, value in held.items()}
        found |= {key: value for key, value in plain.items() if value is not None}
    return found


def _plain(value: Any) -> Any:
    """Return a number, or a list of such values; None for anything else."""
    if isinstance(value, (list, tuple)):
        parts = [_plain(part) for part in value]
        return None if not parts or None in parts else parts
    if isinstance(value, (bool, int)):
        return value
    return value if isinstance(value, float) and math.isfinite(value) else None


def outputs(stages: Sequence[Stage]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the names and shapes of a core's tensors, in the order in which they lie in its output.

    A name is that of the module and, if it returns several tensors, the tensor's key there: `head.cls_logits`.
    """
    names = [_names(stage) for stage in stages]
    return [(names[number][place], shape) for (number, place), shape in answers(stages)]


def _names(stage: Stage) -> list[str]:
    leaves, _ = tree_flatten_with_path(tree_unflatten(range(len(stage.shapes)), stage.gives))
    keys = [keystr(path).replace("['", ".").replace("']", "").replace("[", ".").replace("]", "") for path, _ in leaves]
    return [f"{stage.name}{key}" for key in keys]
