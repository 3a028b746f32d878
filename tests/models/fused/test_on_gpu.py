"""The GPU kernels compute the formulas of kernels.py: on a GPU if there is one, else in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from models.fused import channels, grid
from models.layers.quantizers.base import Rule

CPU = torch.device("cpu")


@pytest.mark.slow
def test_kernels_are_their_formulas() -> None:
    triton = pytest.importorskip("triton")
    if not torch.cuda.is_available() and tuple(map(int, triton.__version__.split(".")[:2])) < (3, 8):
        pytest.skip("Triton's interpreter before 3.8 does not go with today's NumPy")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    env = {**os.environ, **({} if device == "cuda" else {"TRITON_INTERPRET": "1"})}
    line = [sys.executable, "-m", "tests.tools.gpu_loops", device]
    done = subprocess.run(line, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr
    # loops, pools and formulas
    assert int(done.stdout) == (10 * 2 * 7 * 2 + 4 + 4 if device == "cpu" else 2 * 2 * 7 + 4 + 4)


@pytest.mark.parametrize("given", ["nothing", "a scale", "all"])
def test_gradients_by_hand_are_those_of_autograd(given: str) -> None:
    torch.manual_seed(1)
    width, count = 7, 90
    z = torch.randn(count, width, dtype=torch.float64, requires_grad=True)
    s = torch.rand(1 if given == "a scale" else width, dtype=torch.float64) + 0.2 if given != "nothing" else None
    gamma, beta = (torch.randn(width, dtype=torch.float64) if given == "all" else None for _ in range(2))
    eps, step = 1e-2, torch.tensor(0.3, dtype=torch.float64)
    for leaf in (s, gamma, beta):
        _ = None if leaf is None else leaf.requires_grad_()
    g = torch.randn(count, width, dtype=torch.float64)  # of v = ((z - mean) a + c) / step
    y = F.batch_norm(z if s is None else z * s, None, None, gamma, beta, True, 0.0, 1e-2)
    (y / step * g).sum().backward()
    with torch.no_grad():
        var, mean = torch.var_mean(z, 0, correction=0)
        apart = z - mean
        sums = (g * apart).reshape(3, -1, width).sum(1), g.reshape(3, -1, width).sum(1)
        e0, e1, of_s, of_bias, of_gamma, of_beta = channels.pulled(*sums, step, var, s, gamma, eps, count)
        size, weight = (torch.ones(width) if value is None else value for value in (s, gamma))
        a = size * weight * (var * size.square() + eps).rsqrt()
        torch.testing.assert_close(g * a / step + e0 + apart * e1, z.grad)
    assert not of_bias.any()
    if s is not None:
        torch.testing.assert_close(of_s.sum(0, keepdim=True) if given == "a scale" else of_s, s.grad)
    if gamma is not None and beta is not None:
        torch.testing.assert_close(of_gamma, gamma.grad)
        torch.testing.assert_close(of_beta, beta.grad)


def test_a_grid_of_numbers_is_made_once() -> None:
    """A grid with a learned step is not kept, because the step changes."""
    rule = Rule("round", 0.5, 0, 15)
    assert grid.grid_of(rule, "relu", CPU) is grid.grid_of(rule._replace(scale=2.0), "relu", CPU)
    step = torch.tensor(0.5)
    first = grid.grid_of(rule._replace(step=step), "relu", CPU)
    assert torch.equal(first, grid.grid_of(rule, "relu", CPU))
    step.fill_(0.25)
    assert grid.grid_of(rule._replace(step=step), "relu", CPU)[2] == 0.25
