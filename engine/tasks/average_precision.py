"""Measure COCO's average precision with COCO's own evaluator (pycocotools)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from engine.errors import BAD_DATA, UserError
from engine.system.packages import install

WORKING = 0.5
"""For `recall`: the least score of an answer that counts in use, and the overlap (IoU) that makes it a hit."""
MISS = (-2.0, -2.0, -1.0, -1.0)
"""A box that hits nothing, as it lies outside of every picture."""
Boxes = Mapping[str, Tensor]


@dataclass(frozen=True)
class Precision:
    """Means in [0, 1] over the classes that have objects. By COCO's rule, wrong answers of other classes do not count.

    Attributes:
        mean: over the overlaps 0.50, 0.55 .. 0.95; this is "mAP".
        half: at overlap 0.50.
        recall: share of all objects hit, at an overlap of 0.5, by an answer with a score of 0.5 or more.
    """

    mean: float
    half: float
    recall: float


def check_installed() -> None:
    """Check that pycocotools is installed.

    Raises:
        UserError: if it is not (exit 2).
    """
    try:
        import pycocotools  # noqa: F401
    except ImportError as fault:
        raise UserError("detectors are evaluated by pycocotools, which is not installed", install("detect")) from fault


def measured(found: Sequence[Boxes], truth: Sequence[Boxes], classes: int) -> Precision:
    """Judge the boxes found in each picture.

    A box is a wrong answer if a number of it is not finite, or it has no width or no height. pycocotools would take NaN
    for a hit, and would leave out boxes of infinite or negative area.

    Args:
        found: "boxes" (n, 4), x1, y1, x2, y2; "labels" (n,), from 0 on; "scores" (n,).
        truth: the same without scores. Optional: "crowd" (n,), whether a box holds many objects (default: none does);
            "area" (n,) (default: the box's area).
        classes: number of classes.

    Raises:
        UserError: if no picture has an object outside of crowds (exit 4).
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    rows = _answers(found)
    objects = _objects(truth)
    if all(one["iscrowd"] for one in objects):
        raise UserError("no picture has an object to judge boxes by", "annotate objects of these pictures", BAD_DATA)
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": number + 1} for number in range(len(truth))],
            "categories": [{"id": number + 1} for number in range(classes)],
            "annotations": objects,
        }
        known.createIndex()
        if not len(rows):  # pycocotools cannot read an empty list
            return Precision(0.0, 0.0, 0.0)
        judge = COCOeval(known, known.loadRes(rows), "bbox")
        judge.params.areaRng[0] = [0, float("inf")]  # pycocotools leaves out larger boxes than 100,000 x 100,000
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    mean, half = (max(0.0, float(value)) for value in judge.stats[:2])
    return Precision(mean, half, _recall(judge))


def _answers(found: Sequence[Boxes]) -> np.ndarray:
    """Return a row for each box: picture, x, y, width, height, score, class."""
    parts = []
    for number, one in enumerate(found, 1):
        boxes, count = one["boxes"].double().cpu().numpy(), len(one["boxes"])
        scores = one["scores"].double().cpu().numpy()
        sound = np.isfinite(scores) & np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)
        boxes = np.where(sound[:, None], boxes, MISS)
        corners, sizes, kinds = boxes[:, :2], boxes[:, 2:] - boxes[:, :2], one["labels"].cpu().numpy() + 1.0
        parts.append(np.column_stack([np.full(count, float(number)), corners, sizes, np.nan_to_num(scores), kinds]))
    return np.concatenate(parts) if parts else np.zeros((0, 7))


def _objects(truth: Sequence[Boxes]) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = []
    for number, one in enumerate(truth, 1):
        crowd, area = one.get("crowd"), one.get("area")
        for n, (left, top, right, bottom) in enumerate(one["boxes"].double().tolist()):
            objects.append({
                "id": len(objects) + 1,  # 0 means "not hit" in pycocotools
                "image_id": number,
                "category_id": int(one["labels"][n]) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": (right - left) * (bottom - top) if area is None else float(area[n]),
                "iscrowd": 0 if crowd is None else int(crowd[n]),
            })  # fmt: skip
    return objects


def _recall(judge: Any) -> float:
    overlap = int(np.flatnonzero(np.isclose(judge.params.iouThrs, WORKING))[0])
    every, most = judge.params.areaRng[0], judge.params.maxDets[-1]
    hit = total = 0
    for one in judge.evalImgs:
        if one is None or one["aRng"] != every or one["maxDet"] != most:
            continue
        strong = {number for number, score in zip(one["dtIds"], one["dtScores"], strict=True) if score >= WORKING}
        counts = ~np.asarray(one["gtIgnore"], bool)
        total += int(counts.sum())
        hit += sum(int(by) in strong for by in np.asarray(one["gtMatches"])[overlap][counts])
    return hit / total if total else 0.0
