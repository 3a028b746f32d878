"""Time several ways of computing one thing in turns, so that a slowdown of the machine affects all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WARM_UP = 3
LEAST, MOST = 5, 1000
"""Rounds."""
TURN = 0.02
"""Seconds of a turn. A network in use runs again and again: a turn of a fast one is many calls. The first call does not
count, because it refills the caches that the other contenders have used."""


@dataclass(frozen=True)
class Timed:
    """The times of one contender.

    Args:
        milliseconds: of a call, the median over rounds.
        faster: speed relative to the first contender, the median over rounds.
        low, high: the quartiles of `faster`.
        rounds: how often it was timed.
    """

    milliseconds: float
    faster: float
    low: float
    high: float
    rounds: int


def race(runs: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, Timed]:
    """Time all contenders in turns until the time is over, after a warm-up; the first is the baseline.

    A contender so slow that it would use up the others' time sits out most rounds.

    Args:
        seconds: at least 5 rounds run, even if they take longer.
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
    """Return the seconds of a call: a slow one is called once, a fast one until the turn is over."""
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
