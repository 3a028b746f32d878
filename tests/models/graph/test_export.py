"""An export restores the state of Python's garbage collector."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.check import Misdeclared
from models.graph.capture import cache
from models.graph.capture.form import capture
from models.graph.channels.classes import channels
from models.graph.flow import is_held
from tests.tools import cases
from tests.tools.odd_networks import Bare


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


def test_a_lack_of_memory_is_no_fault_of_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the command as it does elsewhere, both while a network is exported and while it is compared with the cache."""

    def full(*_: Any, **__: Any) -> Any:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    network = cases.Head(3, 4).eval()
    cache.forget()
    cache.captured(network, (3, 8, 8), "net")
    with monkeypatch.context() as patched:
        once, own = [full], network.forward
        patched.setattr(network, "forward", lambda x: (once.pop() if once else own)(x))
        with pytest.raises(RuntimeError, match="out of memory"):
            cache.captured(network, (3, 8, 8), "net")
    monkeypatch.setattr(torch.export, "export", full)
    with pytest.raises(RuntimeError, match="out of memory"):
        capture(network, (3, 8, 8), "net")


@pytest.mark.parametrize("kind", ["fourier", "bilinear"])
def test_sizes_that_an_operation_takes_from_the_example_are_measured(kind: str) -> None:
    """torch.fft and nn.Bilinear tell torch.export the number of the example's pictures as their own."""

    def fourier(net: nn.Module, x: Tensor) -> Tensor:
        return torch.fft.irfft2(torch.fft.rfft2(x) * net.filter, s=x.shape[2:]) + x

    def bilinear(net: nn.Module, x: Tensor) -> Tensor:
        return net.pair(x.mean((2, 3)), x.amax((2, 3)))[..., None, None]

    run = {"fourier": fourier, "bilinear": bilinear}[kind]
    own = Bare(run, filter=nn.Parameter(torch.randn(6, 16, 9)), pair=nn.Bilinear(6, 6, 6))
    form = capture(own, (3, 16, 16), "net")
    assert form.captured.answer == (None, 4)
    assert form.captured.rows == 1
    values = [node for node in form.captured.graph.nodes if node.meta.get("shape") and node.op != "get_attr"]
    assert all(node.meta["shape"][0] is None for node in values if not is_held(node))
    assert channels(form).places
    x = torch.randn(5, 3, 16, 16)
    assert torch.equal(form(x), own.eval()(x))
