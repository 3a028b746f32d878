"""The curves of quantizers are what the modules compute and what autograd says, and a new quantizer is drawn, too."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from engine.errors import USAGE
from models.layers.quantizers import kinds
from models.layers.quantizers.binary import BinaryWeight
from models.layers.quantizers.dorefa import DorefaActivation, DorefaWeight
from models.layers.quantizers.lsq import LsqWeight
from scripts.drawing import numbers
from tests.conftest import assert_refused

Command = Callable[..., SimpleNamespace]
X = torch.linspace(-1.5, 1.5, 40, dtype=torch.float64)


@pytest.mark.parametrize("name", numbers.names())
def test_a_curve_is_what_the_module_gives_and_autograd_says(name: str) -> None:
    """Each slope is that of its own value by its own input, here by a whole Jacobian."""
    spec = next(iter(numbers._variants(name, 3, ("ste",)).values()))
    module = kinds.lookup(name).weight(spec, X.reshape(1, -1, 1, 1)).double()

    def value(x: torch.Tensor) -> torch.Tensor:
        codes, scale = module(x.reshape(1, -1, 1, 1))
        return (codes if scale is None else codes * scale).flatten()

    found = numbers.curve(module, X, (1, -1, 1, 1))
    assert torch.equal(found.value, value(X).detach())
    jacobian = torch.autograd.functional.jacobian(value, X)
    torch.testing.assert_close(found.slope, jacobian.diagonal())  # type: ignore[union-attr]
    assert found.slope.abs().max() > 0


def test_slopes_by_hand() -> None:
    x, peak = X.numpy(), np.tanh(1.5)
    weight = numbers.curve(DorefaWeight(3), X, (1, -1, 1, 1))
    np.testing.assert_allclose(weight.slope, (1 - np.tanh(x) ** 2) / peak, rtol=1e-12)
    activation = numbers.curve(DorefaActivation(3), 8 * X, (1, -1))
    np.testing.assert_allclose(activation.slope, 0.1 * ((8 * x >= 0) & (8 * x <= 10)), rtol=1e-12)
    binary = numbers.curve(BinaryWeight(ste="saturate"), X, (1, -1, 1, 1))
    scale, inside = np.minimum(abs(x), 1).mean(), abs(x) <= 1
    expected = inside * (scale * (1 - 1 / len(x)) + 1 / len(x))  # centring, and the scale
    np.testing.assert_allclose(binary.slope, expected, rtol=1e-12, atol=1e-12)


def test_the_slope_of_a_learned_step_by_hand() -> None:
    module = LsqWeight(3, 0.3 * X.reshape(1, -1, 1, 1)).double()
    step, share = module.step.item(), (len(X) * 3) ** -0.5
    steps = X.numpy() / step
    inside = (steps > -4) & (steps < 3)
    expected = np.where(inside, np.rint(steps) - steps, np.clip(steps, -4, 3)) * share
    np.testing.assert_allclose(numbers.curve(module, X, (1, -1, 1, 1)).by["step"], expected, rtol=1e-9, atol=1e-12)
    assert not inside.all()


def test_activations_reach_beyond_both_ends() -> None:
    for name in numbers.names():
        for found in numbers.activations(name, 3):
            assert (len(found.x), found.label == "") == (numbers.POINTS, name == "dorefa")
            assert found.value[0] == found.value[3]  # clipped
            assert found.value[-1] == found.value[-4]
            assert len(found.value.unique()) <= 8


def test_every_quantizer_is_drawn_unless_some_are_named(command: Command) -> None:
    pytest.importorskip("matplotlib")
    done = command("scripts.curves", "dorefa", "--bits", "2")
    assert (done.code, done.path) == (0, "runs/curves")
    assert [path.name for path in Path("runs/curves").iterdir()] == ["dorefa.png"]
    assert Path("runs/curves/dorefa.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_all_of_them(command: Command) -> None:
    pytest.importorskip("matplotlib")
    assert command("scripts.curves", "--folder", "pictures").code == 0
    assert {path.stem for path in Path("pictures").iterdir()} == set(numbers.names())


def test_what_cannot_be_drawn_is_refused(command: Command) -> None:
    done = command("scripts.curves", "dorfea")
    assert (done.code, done.err) == (USAGE, "error: unknown quantizer 'dorfea'\nhint: did you mean dorefa?\n")
    assert_refused(command("scripts.curves", "float"), USAGE, "float is the identity")
    assert_refused(command("scripts.curves", "--bits", "9"), USAGE, "--bits")
