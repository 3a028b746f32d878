"""Checks of single values of a checkpoint; history.py and schema.py apply them to the fields.

Each `check_` function raises ValueError for a value that no command writes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

MAX_WIDTH, MAX_LAYERS = 65_536, 10_000


def is_number(value: Any) -> bool:
    """Return whether it is a finite number; an integer beyond the range of a float is not."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_cfg(cfg: Any) -> bool:
    """Return whether it is a list of channel counts that a network could have."""
    return isinstance(cfg, list) and len(cfg) <= MAX_LAYERS and all(type(w) is int and 0 < w <= MAX_WIDTH for w in cfg)


def check_count(what: str, value: Any, least: int = 1) -> None:
    if type(value) is not int or value < least:
        raise ValueError(f"{what} {value!r} is not an integer of at least {least}")


def check_share(what: str, value: Any) -> None:
    if not is_number(value):
        raise ValueError(f"{what} {value!r} is not a finite number")
    if not 0 <= value < 1:
        raise ValueError(f"{what} {value} is not in [0, 1)")


def check_limit(value: Any) -> None:
    """Check max_per_layer, a limit for a share, in (0, 1]; None means no limit."""
    if value is not None and (not is_number(value) or not 0 < value <= 1):
        raise ValueError(f"max_per_layer {str(value)[:40]!r} is not in (0, 1]")


def check_names(what: str, value: Any) -> None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{what} is not a list of names")


def check_strength(s: Any) -> None:
    """Check the strength of a sparsity penalty; None means no penalty."""
    if s is None:
        return
    if not is_number(s):
        raise ValueError(f"s {str(s)[:40]!r} is not a finite number")
    if s <= 0:
        raise ValueError(f"s {s} is not above 0")


def check_spec(spec: Any) -> None:
    """Check that a quantization is a dict; quant.spec checks its entries."""
    if not isinstance(spec, Mapping):
        raise ValueError("its quantization is not a dict of settings")
