"""What the tests of the ladder share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from scripts.ladder.options import LadderOptions

PLAIN = LadderOptions(
    dataset="digits",
    data=Path("data"),
    image_size=None,
    flip=None,
    val=0,
    eval_batch_size=500,
    num_workers=2,
    rows=("all",),
    seeds=1,
    epochs=None,
    recipe="default",
    precision="auto",
    minutes=None,
    jobs=1,
    table=False,
    readme=(),
    device="cpu",
    threads=None,
)


def options(**changes: Any) -> LadderOptions:
    """The options of `--dataset digits --cpu`, with changes."""
    return replace(PLAIN, **changes)
