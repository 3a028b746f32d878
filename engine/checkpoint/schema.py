"""Check the fields and the tensors of a checkpoint before anything is built from it.

archive.py reads the bytes; format.py defines the fields.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.checkpoint.archive import bad_file
from engine.checkpoint.values import is_cfg, is_number
from engine.cli.datasets import CROPS, IMAGENET, SHIFT
from engine.data.info import CLASSIFICATION, DETECTION
from engine.system.messages import notice

FIELDS = ("arch", "arch_args", "cfg", "transforms", "dataset", "metrics", "provenance")


def check_fields(path: Path, content: dict[str, Any]) -> None:
    """Refuse malformed fields; unknown fields are ignored.

    Raises:
        UserError: naming the field (exit 3).
    """
    if missing := [key for key in FIELDS if key not in content]:
        raise bad_file(path, f"lacks {', '.join(missing)}")
    dataset, arguments, metrics = content["dataset"], content["arch_args"], content["metrics"]
    wanted = {"name": str, "label": str, "classes": int, "image_size": int}
    if not isinstance(dataset, dict) or any(type(dataset.get(key)) is not kind for key, kind in wanted.items()):
        raise bad_file(path, "its dataset is not described")
    _check_normalisation(path, dataset, content.get("format_version"))
    _check_crop(path, dataset, content.get("format_version"))
    if type(dataset.get("flip", True)) is not bool:  # older files may lack it
        raise bad_file(path, "its dataset does not say whether pictures are mirrored")
    if dataset.get("task", CLASSIFICATION) not in (CLASSIFICATION, DETECTION):
        raise bad_file(path, f"its dataset is for {str(dataset['task'])[:40]!r}, which is not a known task")
    names = dataset.get("names", [])  # class names; older files have none
    if (
        not isinstance(names, list)
        or not all(isinstance(name, str) for name in names)
        or len(names) not in (0, dataset["classes"])
    ):
        raise bad_file(path, "its dataset does not name each of its classes")
    if not 1 <= dataset["image_size"] <= 1024:
        raise bad_file(path, f"its image size {dataset['image_size']} is out of range")
    if not isinstance(arguments, dict) or type(arguments.get("classes")) is not int:
        raise bad_file(path, "its arch_args lack the number of classes")
    if not is_cfg(content["cfg"]):
        raise bad_file(path, "its cfg is not a list of channel counts")
    if not isinstance(content["arch"], str) or not isinstance(metrics, dict):
        raise bad_file(path, "its arch or metrics are malformed")
    if not isinstance(content.get("best_acc"), float) or not math.isfinite(content["best_acc"]):
        raise bad_file(path, "its best_acc is not a finite float")
    if not _provenance(content["provenance"]):
        raise bad_file(path, "its provenance is malformed")


def _check_normalisation(path: Path, dataset: dict[str, Any], version: Any) -> None:
    """Require a mean and a std of three channels, or of one (grey pictures) from format 2 on."""
    mean, std = dataset.get("mean"), dataset.get("std")
    counts = (3,) if version == 1 else (3, 1)
    if not any(_numbers(mean, count) and _numbers(std, count) for count in counts) or min(dataset["std"]) <= 0:
        raise bad_file(path, f"its dataset has no mean and std of three channels{' or one' if 1 in counts else ''}")


def _check_crop(path: Path, dataset: dict[str, Any], version: Any) -> None:
    """Require a known crop; ImageNet's is allowed from format 3 on, which older versions refuse."""
    crop = dataset.get("crop", SHIFT)
    if crop not in CROPS or (crop == IMAGENET and version in (1, 2)):
        raise bad_file(path, "its dataset does not say how pictures are cut")


def _provenance(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("command"), str)
        and all(isinstance(value.get(key, 0), (str, type(None))) for key in ("parent", "parent_sha256"))
    )


def _numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(map(is_number, value))


def _memory(value: Tensor) -> tuple[Any, ...]:
    """Return where a tensor's numbers lie: equal for names of the same tensor."""
    return value.data_ptr(), value.dtype, value.shape, value.stride()


def tensors(path: Path, state: dict[Any, Any], size: int) -> dict[str, Tensor]:
    """Check and return the tensors of a state_dict; half, bfloat16 and float64 become float32, with a notice on stderr.

    A tensor of several names, as a wrapped or tied layer has, is counted and converted once.

    Args:
        size: bytes of the file, the limit for all tensors together.

    Raises:
        UserError: naming the first entry that is not a dense tensor of finite numbers (exit 3).
    """
    for key, value in state.items():
        if wrong := odd_kind(key, value):
            raise bad_file(path, wrong)
    once = {_memory(value): value for value in state.values()}
    if sum(value.numel() * value.element_size() for value in once.values()) > size:
        raise bad_file(path, "its tensors claim more numbers than the file has room for")
    kinds = Counter(str(v.dtype)[6:] for v in state.values() if v.is_floating_point() and v.dtype != torch.float32)
    if kinds:
        listing = ", ".join(f"{count} of {kind}" for kind, count in sorted(kinds.items()))
        notice(f"{path}: tensors read as float32: {listing}")
    # integer tensors keep their type
    made = {key: v.detach().float() if v.is_floating_point() else v.detach() for key, v in once.items()}
    found = {key: made[_memory(value)] for key, value in state.items()}
    if wrong := unsound(found):
        raise bad_file(path, wrong, "take the checkpoint from before the run diverged")
    return found


def odd_kind(key: Any, value: Any) -> str | None:
    """Return what is wrong with an entry of a state_dict; None for a named, dense tensor of real numbers or truths on the CPU."""
    if not isinstance(key, str) or not isinstance(value, Tensor):
        return f"state_dict[{str(key)[:80]!r}] is a {type(value).__name__}, not a tensor"
    odd = value.is_quantized or value.is_complex()
    if odd or value.layout != torch.strided or value.device.type != "cpu":
        return f"{key} is not a dense tensor of real numbers, but of {str(value.dtype)[6:]}"
    if value.numel() * value.element_size() > value.untyped_storage().nbytes():
        return f"{key} claims shape {tuple(value.shape)} but stores fewer numbers"
    return None


def unsound(state: dict[str, Tensor]) -> str | None:
    """Describe the first tensor with a non-finite number (as float32) or a negative variance; None if all are sound.

    All tensors must be on one device. If all are sound, the device is synchronised once.
    """
    floats = {k: v.detach() for k, v in state.items() if v.is_floating_point() and v.layout == torch.strided}
    if not floats:
        return None
    sound = torch.stack([_is_sound(key, value) for key, value in floats.items()]).tolist()
    return next((_unsound(key, floats[key]) for key, well in zip(floats, sound, strict=True) if not well), None)


def _is_sound(key: str, value: Tensor) -> Tensor:
    sound = torch.isfinite(value.float())
    return (sound & (value >= 0) if _is_variance(key) else sound).all()


def _is_variance(key: str) -> bool:
    return key.endswith("running_var")


def _unsound(key: str, value: Tensor) -> str:
    wrong = ~torch.isfinite(value.float())
    if wrong.any():
        return (
            f"{key} holds {int(wrong.sum())} value(s) that are not finite, the first at {wrong.nonzero()[0].tolist()}"
        )
    wrong = value < 0
    return f"{key} holds a negative variance, {int(wrong.sum())} in all, the first at {wrong.nonzero()[0].tolist()}"
