"""Time several ways of computing one thing, in turns, so that what slows the machine down slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WARM_UP = 3
LEAST, MOST = 5, 1000
"""Rounds."""
TURN = 0.02
"""Seconds. Who runs a network runs it again and again: a turn of a fast one is many calls, and the first, which fetches what the
others have driven out of the caches, does not count."""


@dataclass(frozen=True)
class Timed:
    """What was measured of one contender.

    Args:
        milliseconds: of a call, the median over rounds.
        faster: how many times faster than the first contender, the median over rounds; and the middle half of rounds.
    """

    milliseconds: float
    faster: float
    low: float
    high: float
    rounds: int


def race(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Timed]:
    """Run all contenders in turns until the time is over; the first is what the others are compared with.

    Each is warmed up first. A slow contender that would take the time of all others sits out most rounds.
    """
    spent: dict[str, list[float]] = {}
    for name, run in runs.items():
        for _ in range(WARM_UP):
            first = _once(run)
        spent[name] = [first]
    first_name = next(iter(runs))
    fast = max(min(times[0] for times in spent.values()), TURN)
    every = {name: max(1, round(times[0] / (20 * fast))) for name, times in spent.items()}
    taken: dict[str, list[float]] = {name: [] for name in runs}
    ratios: dict[str, list[float]] = {name: [] for name in runs}
    end, rounds = time.perf_counter() + seconds, 0
    while rounds < LEAST or (time.perf_counter() < end and rounds < MOST):
        base = None
        for name, run in runs.items():
            if rounds % every[name] and len(taken[name]) >= LEAST and name != first_name:
                continue
            took = _turn(run)
            base = took if base is None else base
            taken[name].append(took)
            ratios[name].append(base / took)
        rounds += 1
    return {name: _summed(taken[name], ratios[name]) for name in runs}


def _turn(run: Callable[[], object]) -> float:
    """The seconds of a call: one that lasts is called once, a short one until a turn is over."""
    first = _once(run)
    if first >= TURN:
        return first
    calls, started = 0, time.perf_counter()
    while (passed := time.perf_counter() - started) < TURN:
        run()
        calls += 1
    return passed / calls


def _once(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _summed(taken: list[float], ratios: list[float]) -> Timed:
    quarters = statistics.quantiles(ratios, n=4, method="inclusive")
    return Timed(1000 * statistics.median(taken), statistics.median(ratios), quarters[0], quarters[2], len(taken))
