"""Read a history from a file's `transforms`: a list of dicts, one for each stage."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from engine.checkpoint.history import Calibrate, History, Merge, Original, Prune, Quantize, Refine, Stage, Train


def read(stages: Any) -> History:
    """Return the history in a file's `transforms`.

    Raises:
        ValueError: if it is not a list of known stages with their settings.
    """
    if not isinstance(stages, list):
        raise ValueError("its transforms are not a list of stages")
    return tuple(_read(stage) for stage in stages)


def _read(stage: Any) -> Stage:
    if not isinstance(stage, dict) or not isinstance(stage.get("stage"), str):
        raise ValueError("its transforms are not a list of stages")
    kind = Calibrate if "calibrate" in stage and stage["stage"] == "quantize" else _KINDS.get(stage["stage"])
    if kind is None:
        raise ValueError(f"its transforms hold a stage that this version does not know: {stage['stage'][:40]!r}")
    known: dict[str, Any] = {key: stage[key] for key in _settings(kind) if key in stage}
    try:
        if kind is Calibrate:
            known["method"] = stage["calibrate"]
        if "pruned" in known:
            known["pruned"] = _pruned(known["pruned"])
        return kind(**known, stored=stage)
    except TypeError as fault:
        raise ValueError(f"its stage {stage['stage']} lacks its settings") from fault
    except ValueError as fault:
        raise ValueError(f"its stage {stage['stage']} has invalid settings: {fault}") from fault


def _pruned(stages: Any) -> tuple[Prune, ...]:
    found = read(stages)
    if not all(isinstance(stage, Prune) for stage in found):
        raise ValueError("`pruned` holds stages other than prunings")
    return tuple(stage for stage in found if isinstance(stage, Prune))


def _settings(kind: type[Stage]) -> set[str]:
    return {option.name for option in fields(kind)} - {"stored", "method"}


_KINDS: dict[str, type[Stage]] = {kind.name: kind for kind in (Train, Refine, Prune, Quantize, Merge, Original)}
