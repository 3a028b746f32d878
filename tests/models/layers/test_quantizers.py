"""Quantizer modules are their formulas with settings; the ternary gap holds a value over steps, and is kept state."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.layers import functional as F, quantizers as q

TABLE = [
    (q.DorefaWeight(4), lambda x: F.dorefa_weight(x, 4), 4, 0, False),
    (q.DorefaActivation(3), lambda x: F.dorefa_activation(x, 3), 3, 0, False),
    (q.BinaryWeight(), lambda x: F.binary_weight(x, True, "ste"), 1, 1, False),
    (q.BinaryWeight(False, "saturate"), lambda x: F.binary_weight(x, False, "saturate"), 1, 0, False),
    (q.TernaryWeight(), lambda x: F.ternary_weight(x, True, "ste"), 2, 1, False),
    (q.TernaryWeight(False, "saturate"), lambda x: F.ternary_weight(x, False, "saturate"), 2, 0, False),
    (q.BinaryActivation("soft"), lambda x: (F.sign_ste(x, "soft"), None), 1, 0, True),
    (q.TernaryActivation("ste"), lambda x: (F.ternary_activation(x, "ste"), None), 2, 0, True),
]


@pytest.mark.parametrize(
    ("module", "function", "bits", "scales", "signed"), TABLE, ids=lambda v: getattr(v, "_get_name", str)()
)
def test_a_module_is_its_formula(module: q.Quantizer, function, bits: int, scales: int, signed: bool) -> None:
    torch.manual_seed(0)
    x, twin = (torch.randn(4, 3, 3, 3).mul(2).requires_grad_() for _ in range(2))
    twin.data.copy_(x)
    for found, expected in zip(module(x), function(twin), strict=True):
        assert (found is None) == (expected is None)
        assert found is None or torch.equal(found, expected)
    module(x)[0].square().sum().backward()
    function(twin)[0].square().sum().backward()
    assert torch.equal(x.grad, twin.grad)
    assert (module.bits, module.scales, module.signed) == (bits, scales, signed)
    assert not list(module.parameters())
    assert not module.state_dict()


def gap_quantizer(shape: tuple[int, ...]) -> q.TernaryWeight:
    return q.TernaryWeight(gap=True, shape=torch.Size(shape))


def test_the_gap_holds_a_value_until_it_leaves_the_band() -> None:
    """One weight walks through its band while a large one keeps the threshold near t = 0.7 (|w| + 1) / 2."""
    quantizer = gap_quantizer((1, 2, 1, 1))
    walk = [0.50, 0.60, 0.50, 0.45, 0.40, 0.50, -0.50, -0.60, -0.50, 0.50, 0.60, -0.50]
    codes = []
    for w in walk:
        codes.append(int(quantizer(torch.tensor([w, 1.0]).reshape(1, 2, 1, 1)).codes[0, 0]))
    # 0.50 is in the band (0.42, 0.525], 0.60 above its threshold 0.56, 0.45 in (0.406, 0.5075], 0.40 in (0.392, 0.49]
    assert codes == [0, 1, 1, 1, 1, 1, 0, -1, -1, 0, 1, 0]
    assert int(quantizer(torch.tensor([0.30, 1.0]).reshape(1, 2, 1, 1)).codes[0, 0]) == 0  # below 0.364


def test_the_gap_equals_a_slow_loop_over_random_steps() -> None:
    random = np.random.default_rng(0)
    shape = (3, 4, 2, 2)
    quantizer, weight = gap_quantizer(shape), random.normal(size=shape)
    values, held = np.zeros(shape), 0
    for _ in range(40):
        weight = weight + 0.05 * random.normal(size=shape)
        for place in np.ndindex(shape):
            size, sign = abs(weight[place]), np.sign(weight[place])
            threshold = 0.7 * np.abs(weight[place[0]]).mean()
            if size > threshold:
                values[place] = sign
            elif not (size > 0.8 * threshold and values[place] == sign):
                values[place] = 0
            else:
                held += 1
        codes, scale = quantizer(torch.tensor(weight))
        assert np.array_equal(codes, values)
        means = [np.abs(w)[v != 0].mean() for w, v in zip(weight, values, strict=True)]
        np.testing.assert_allclose(scale.flatten(), means, rtol=1e-12)
    assert held > 50  # or the loop has shown nothing


def test_the_state_of_a_gap_is_saved_and_evaluation_leaves_it_alone() -> None:
    torch.manual_seed(0)
    weight = torch.randn(4, 8, 3, 3)
    trained = gap_quantizer(tuple(weight.shape))
    codes = trained(weight).codes
    assert torch.equal(trained.previous, codes.to(torch.int8))

    shrunk = weight * torch.linspace(0.75, 1, weight[0].numel()).reshape(weight[0].shape)
    fresh = gap_quantizer(tuple(weight.shape)).eval()
    assert not torch.equal(fresh(shrunk).codes, trained.eval()(shrunk).codes)  # the past matters,
    fresh.load_state_dict(trained.state_dict())
    assert torch.equal(fresh(shrunk).codes, trained(shrunk).codes)  # and travels in the file,
    assert torch.equal(trained.previous, codes.to(torch.int8))  # where evaluation leaves it
    trained.train()(shrunk)
    assert not torch.equal(trained.previous, codes.to(torch.int8))


def test_without_a_gap_there_is_no_state() -> None:
    assert not q.TernaryWeight(shape=torch.Size((1, 1, 1, 1))).state_dict()
