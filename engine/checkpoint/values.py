"""What the values of a checkpoint may be, asked one by one. Which fields hold them: history.py and schema.py.

Each check raises ValueError for a value that no command writes.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

MAX_WIDTH, MAX_LAYERS = 65_536, 10_000


def is_number(value: Any) -> bool:
    """Whether it is a finite number; a whole one of more digits than a float holds is none."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def is_cfg(cfg: Any) -> bool:
    """Whether it is a list of channel counts that a network could have."""
    return isinstance(cfg, list) and len(cfg) <= MAX_LAYERS and all(type(w) is int and 0 < w <= MAX_WIDTH for w in cfg)


def check_count(what: str, value: Any, least: int = 1) -> None:
    if type(value) is not int or value < least:
        raise ValueError(f"{what} {value!r} is not a whole number of at least {least}")


def check_share(what: str, value: Any) -> None:
    if not is_number(value):
        raise ValueError(f"{what} {value!r} is no number")
    if not 0 <= value < 1:
        raise ValueError(f"{what} {value} is not in [0, 1)")


def check_limit(what: str, value: Any) -> None:
    """The largest share that may be had; None without a limit."""
    if value is not None and (not is_number(value) or not 0 < value <= 1):
        raise ValueError(f"{what} {str(value)[:40]!r} is not in (0, 1]")


def check_names(what: str, value: Any) -> None:
    if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{what} is not a list of names")


def check_strength(s: Any) -> None:
    """That of a sparsity penalty; None without."""
    if s is None:
        return
    if not is_number(s):
        raise ValueError(f"s {str(s)[:40]!r} is no number")
    if s <= 0:
        raise ValueError(f"s {s} is not above 0")


def check_spec(spec: Any) -> None:
    """A quantization; what is in it, quant.spec checks."""
    if not isinstance(spec, Mapping):
        raise ValueError("its quantization is no dict of settings")
