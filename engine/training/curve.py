"""Draw a run's learning curve with matplotlib: loss and score of both parts, epoch by epoch."""

from __future__ import annotations

from engine.system import figures
from engine.tasks.base import Task
from engine.training.progress import EpochMetrics


def picture(rows: list[EpochMetrics], task: Task) -> bytes | None:
    """Return the learning curve as a PNG; None without matplotlib."""
    if not figures.installed():
        return None
    figure, axes = figures.pyplot().subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    named = (("loss", task.loss_name), (task.score.name, task.score.unit))
    for axis, (what, unit) in zip(axes, named, strict=True):
        for key in rows[-1]:
            if key.endswith(what):
                there = [(row["epoch"], row[key]) for row in rows if key in row]  # only some epochs are judged
                axis.plot(*zip(*there, strict=True), marker=".", label=key.removesuffix(f"_{what}"))
        axis.set(xlabel="epoch", ylabel=f"{what} ({unit})")
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
        axis.legend()
    return figures.drawn(figure, dpi=120)
