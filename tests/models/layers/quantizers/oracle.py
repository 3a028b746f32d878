"""Common parts of the quantizers' oracles: inputs, weights, gradients; NumPy in float64, without the tested code.

Values within 1e-9 of a rounding tie are left out, because two correct programs may differ there.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

EDGES = (0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 5.0, 10.0, -10.0, 1e-300, 1e300)
inputs = arrays(np.float64, array_shapes(max_dims=4, max_side=4),
                elements=st.floats(-15, 15) | st.floats(-1.5, 1.5) | st.sampled_from(EDGES))  # fmt: skip


@st.composite
def weights(draw: st.DrawFn) -> np.ndarray:
    """Draw weights (out, in / groups, k, k): mostly inside [-1, 1], or mostly outside; some filters all zero."""
    shape = tuple(draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    weight = random.normal(0, draw(st.sampled_from([1e-6, 0.05, 0.5, 2.0])), shape)
    weight[random.random(len(weight)) < 0.1] = 0
    return weight


def quantized(function: Callable, x: np.ndarray) -> tuple[np.ndarray, np.ndarray | None, Callable]:
    """Return codes, scale, and a function that maps gradients of the codes and the scale to the gradient of x."""
    tensor = torch.tensor(x, requires_grad=True)
    result = function(tensor)
    codes, scale = result if isinstance(result, tuple) else (result, None)
    assert codes.dtype == torch.float64
    assert codes.shape == tensor.shape
    assert (codes == codes.round()).all()

    def gradient(to_codes: np.ndarray, to_scale: np.ndarray | float = 0.0) -> np.ndarray:
        total = (codes * torch.tensor(to_codes)).sum()
        if scale is not None and scale.requires_grad:
            total = total + (scale * torch.tensor(to_scale)).sum()
        (found,) = torch.autograd.grad(total, tensor)
        assert np.array_equal(tensor.detach().numpy(), x)  # neither pass edits the argument
        return found.numpy()

    return codes.detach().numpy(), None if scale is None else scale.detach().numpy(), gradient


def upstream(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape)


def off_tie(x: np.ndarray) -> np.ndarray:
    return np.abs(x - np.floor(x) - 0.5) > 1e-9


def pseudo(x: np.ndarray, kind: str) -> np.ndarray:
    """Return a pseudo-gradient: identity, or 0 outside [-1, 1], or max(0, 1 - |x|); see design.md."""
    return {
        "ste": np.ones_like(x),
        "saturate": np.where(np.abs(x) <= 1, 1.0, 0.0),
        "soft": np.maximum(0, 1 - np.abs(x)),
    }[kind]
