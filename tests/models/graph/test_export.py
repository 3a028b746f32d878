"""An export restores the state of Python's garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator

import pytest
from torch import Tensor, nn

from models.check import Misdeclared
from models.graph.capture.form import capture
from tests.tools import cases


class Watching(nn.Module):
    """A module that records in each run whether the collector is on, in `note`, because an export restores attributes."""

    def __init__(self, note: Callable[[bool], None], fails: bool) -> None:
        super().__init__()
        self.body, self.note, self.fails = cases.Head(3, 4), note, fails

    def forward(self, x: Tensor) -> Tensor:
        self.note(gc.isenabled())
        if self.fails:
            raise RuntimeError("of the network")
        return self.body(x)


@contextlib.contextmanager
def collector(on: bool) -> Iterator[None]:
    was_on = gc.isenabled()
    (gc.enable if on else gc.disable)()
    try:
        yield
    finally:
        (gc.enable if was_on else gc.disable)()


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("on", [True, False])
def test_the_garbage_collector_waits_for_an_export_and_goes_on_as_before(on: bool, fails: bool) -> None:
    found: list[bool] = []
    with collector(on):
        with pytest.raises(Misdeclared, match="of the network") if fails else contextlib.nullcontext():
            capture(Watching(found.append, fails), (3, 8, 8), "net", check=False)
        assert gc.isenabled() is on
    assert set(found) == {False}
