"""Contenders run in turns, on a fake clock that they advance themselves, and once on the real clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from deploy.racing import clock
from deploy.racing.clock import LEAST, MOST, TURN, WARM_UP, Timed, race


class Clock:
    """A clock that advances only while contenders run."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def contender(self, name: str, *seconds: float) -> Callable[[], None]:
        """Return a contender whose calls take these seconds, one after the other; the last one repeats."""
        left = list(seconds)

        def run() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return run

    def race(self, seconds: float, **each: float) -> dict[str, Timed]:
        return race({name: self.contender(name, taken) for name, taken in each.items()}, seconds)


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def test_numbers_by_hand(own: Clock) -> None:
    found = own.race(10, eager=0.5, half=1.0, twice=0.25)
    assert found["eager"] == Timed(
        500.0, 1.0, 1.0, 1.0, 6
    )  # the sixth round begins at 8.75 s, and none begins after 10 s
    assert found["half"] == Timed(1000.0, 0.5, 0.5, 0.5, 6)
    assert found["twice"] == Timed(250.0, 2.0, 2.0, 2.0, 6)


def test_contenders_take_turns(own: Clock) -> None:
    own.race(0, a=1, b=1, c=1)
    warm = WARM_UP * 3
    assert own.calls[:warm] == ["a"] * WARM_UP + ["b"] * WARM_UP + ["c"] * WARM_UP
    assert own.calls[warm:] == ["a", "b", "c"] * LEAST


@pytest.mark.parametrize(("seconds", "rounds"), [(0, LEAST), (1e-9, LEAST), (1e9, MOST)])
def test_there_are_rounds_enough_and_not_too_many(seconds: float, rounds: int, own: Clock) -> None:
    found = own.race(seconds, a=1, b=2)
    assert [timed.rounds for timed in found.values()] == [rounds] * 2


def test_the_first_calls_do_not_count(own: Clock) -> None:
    runs = {"a": own.contender("a", 1), "b": own.contender("b", 90, 90, 90, 2)}  # slow at first, as if it compiled
    assert race(runs, 0)["b"] == Timed(2000.0, 0.5, 0.5, 0.5, LEAST)


def test_ratios_are_of_the_same_round(own: Clock) -> None:
    """The machine is slow in two rounds of five: both contenders take twice as long, and their ratio stays."""
    warm = [1.0] * WARM_UP
    slow = own.contender("a", *warm, 1, 2, 2, 1, 1), own.contender("b", *(n / 4 for n in (*warm, 1, 2, 2, 1, 1)))
    found = race(dict(zip("ab", slow, strict=True)), 0)
    assert (found["a"].milliseconds, found["b"].milliseconds) == (1000, 250)
    assert (found["b"].faster, found["b"].low, found["b"].high) == (4, 4, 4)


def test_the_middle_half_of_ratios(own: Clock) -> None:
    runs = {"a": own.contender("a", 1), "b": own.contender("b", *[1.0] * WARM_UP, 1, 1 / 2, 1 / 4, 1 / 5, 1 / 100)}
    found = race(runs, 0)["b"]
    assert (found.low, found.faster, found.high) == pytest.approx((2, 4, 5))


def test_a_turn_of_a_fast_one_is_many_calls_without_the_first(own: Clock) -> None:
    """The first call of each turn is slow, because the other contenders have evicted its data from the caches."""
    fast = own.contender("fast", *[0.001] * WARM_UP, *([0.009] + [TURN / 7.5] * 8) * LEAST)
    found = race({"lasting": own.contender("lasting", 1.0), "fast": fast}, 0)
    assert found["fast"].milliseconds == pytest.approx(TURN / 7.5 * 1000)
    assert found["fast"].faster == pytest.approx(7.5 / TURN)
    assert own.calls.count("fast") == WARM_UP + 9 * LEAST
    assert own.calls.count("lasting") == WARM_UP + LEAST


@pytest.mark.parametrize("others", [1, 2, 5])
def test_a_slow_one_leaves_time_to_the_others(others: int, own: Clock) -> None:
    fast = {f"fast {number}": 0.02 for number in range(others)}
    found = own.race(120, **fast, slow=10.0)
    assert found["slow"].rounds >= LEAST
    assert found["slow"].faster == pytest.approx(0.002)
    assert found["fast 0"].rounds > 10 * found["slow"].rounds


def test_on_the_true_clock() -> None:
    def sleeps(seconds: float) -> Callable[[], None]:
        return lambda: time.sleep(seconds)

    found = race({"a": sleeps(0.006), "slower": sleeps(0.02), "faster": sleeps(0.001)}, 0.2)
    first = found["a"]
    assert (first.faster, first.low, first.high) == (1.0, 1.0, 1.0)
    assert found["slower"].faster < 1 < found["faster"].faster
    assert 6 <= first.milliseconds < found["slower"].milliseconds
    assert all(timed.rounds >= LEAST and timed.low <= timed.faster <= timed.high for timed in found.values())
