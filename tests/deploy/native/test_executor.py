"""The native engine on programs made by hand, at least one for each operation: every number equals the reference's."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from deploy.native import compiler, laid_out, layout, steps
from deploy.native.executor import Native
from deploy.operations.base import Matrix
from deploy.operations.functions import Combine, Constant, Function, Reduce
from deploy.operations.layers import Convolution, Linear, Quantize
from deploy.operations.places import Pad, Reshape, Upsample
from deploy.operations.pools import MaxPool
from deploy.reference.run import run
from models.layers.quantizers.base import Signs, Steps
from tests.deploy import layer_chains as chains
from tests.deploy.by_hand import codes, drawn, given, op, program
from tests.deploy.every_operation import CLOSE, EXACT

OPERATIONS = {**EXACT, **CLOSE}


def assert_equal(made: object, x: torch.Tensor, kernels: str) -> None:
    expected, found = run(made, x), Native(made, kernels)(x)  # type: ignore[arg-type]
    assert found.shape == expected.shape
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations(name: str, kernels: str) -> None:
    made = program(*OPERATIONS[name])
    assert_equal(made, given(made, 3) * 3, kernels)


@pytest.mark.parametrize("name", chains.PROGRAMS)
def test_chains_of_layers(name: str, kernels: str) -> None:
    assert_equal(chains.program(*chains.PROGRAMS[name]), chains.given(), kernels)


SIGNS = {
    "convolutions": [chains.conv(40, 36, 3, 3, most=1, whole=True, **chains.SAME), chains.conv(5, 40, 3, 3, most=1, whole=True, padding=(2, 0, 1, 1))],
    "strides": [chains.conv(70, 36, 3, 3, most=1, whole=True, stride=(2, 1), dilation=(1, 2)), chains.conv(9, 70, 1, 1, most=1, whole=True)],
    "groups": [chains.conv(72, 9, 3, 3, most=1, whole=True, groups=4), chains.conv(72, 1, 3, 3, most=1, whole=True, groups=72, **chains.SAME)],
    "linear layers": [(Reshape, {"shape": (36 * 63,)}), chains.linear(30, 36 * 63, most=1, whole=True), chains.linear(9, 30, most=1, whole=True)],
}  # fmt: skip


@pytest.mark.parametrize("grid", [Signs(), Signs(0.5)], ids=str)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", SIGNS)
def test_layers_on_signs(name: str, binary: bool, grid: Signs, kernels: str) -> None:
    """Weights are -1, 0 and 1, or only -1 and 1; the border is 0."""
    *before, first, last = SIGNS[name]
    layers = []
    for kind, settings in (first, last):
        values = settings["matrix"].weight.values
        weight = codes(np.where(values >= 0, 1, -1) if binary else values)
        layers.append((kind, {**settings, "matrix": Matrix(weight, None, settings["matrix"].bias)}))
    shape = (36, 9, 7)
    made = chains.program(*before, chains.quantize(grid), layers[0], chains.quantize(grid), layers[1], shape=shape)
    x = chains.given(shape)
    assert_equal(made, x, kernels)
    native = Native(made, kernels)
    counts = sum(step.operation == steps.SIGNS for step in native.plan.steps)
    assert counts == (0 if name == "groups" else 1 if name == "linear layers" else 2)


def test_a_factor_that_all_weights_share_counts(kernels: str) -> None:
    """Codes of few bits are stored times a power of two if a bias needs it."""
    weight = codes(64 * drawn(-1, 1, 12, 40, 3, 3))
    matrix = Matrix(weight, np.full(12, 0.01, np.float32), drawn(-999, 999, 12).astype(np.int32))
    made = chains.program(chains.quantize(Signs()), (Convolution, {"matrix": matrix}), shape=(40, 6, 5))
    assert_equal(made, chains.given((40, 6, 5)), kernels)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_any_number_of_threads_gives_the_same(threads: int, count: int, kernels: str) -> None:
    made = chains.program(*chains.PROGRAMS["a pool behind a ReLU"])
    x, before = chains.given().repeat(2, 1, 1, 1)[:count], torch.get_num_threads()
    expected = run(made, x)
    try:
        torch.set_num_threads(threads)
        native = Native(made, kernels)
        assert all(torch.equal(native(x), expected) for _ in range(3))
    finally:
        torch.set_num_threads(before)


def test_threads_that_share_an_engine_get_their_own_answers(kernels: str) -> None:
    made = chains.program(*chains.PROGRAMS["a pool behind a ReLU"])
    pictures = [chains.given() * (number + 1) for number in range(16)]
    native = Native(made, kernels)
    expected = [run(made, x) for x in pictures]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(native, pictures * 40))
    assert all(torch.equal(one, expected[number % 16]) for number, one in enumerate(found))


def test_no_picture_and_pictures_of_another_size(kernels: str) -> None:
    made = chains.program(*chains.PROGRAMS["a layer"])
    native = Native(made, kernels)
    assert native(torch.zeros(0, *chains.SHAPE)).shape == (0, *made.answer)
    with pytest.raises(ValueError, match=r"pictures of shape \(8, 9, 6\)"):
        native(torch.zeros(1, 8, 9, 6))


def test_layouts_and_strides_of_the_pictures_do_not_matter(kernels: str) -> None:
    made, x = chains.program(*chains.PROGRAMS["a layer"]), chains.given()
    native, expected = Native(made, kernels), run(made, x)
    for other in (x.contiguous(memory_format=torch.channels_last), x.double(), x.repeat(2, 1, 1, 1)[::2]):
        assert torch.equal(native(other), run(made, other.float()))
    assert torch.equal(native(x), expected)


def test_subnormal_numbers_stay_what_they_are(kernels: str) -> None:
    tiny = np.full((1, 1, 1), 1e-40, np.float32)
    made = program(op(Constant, numbers=tiny), op(Combine, 0, 1, kind="mul"))
    x = torch.ones(1, *made.picture)
    try:
        torch.set_flush_denormal(True)
        found = Native(made, kernels)(x)
    finally:
        torch.set_flush_denormal(False)
    assert (found == torch.tensor(tiny)).all()
    assert found.ne(0).all()


def test_bilinear_upsampling_between_codes_and_pools(kernels: str) -> None:
    made = program(op(Quantize, 0, grid=Steps(9.0, 1 / 9, -20, 20)), op(Pad, 1, sides=(1, 0, 0, 2)),
                   op(Convolution, 2, matrix=Matrix(codes(drawn(-9, 9, 4, 3, 3, 3)))), op(Function, 3, kind="relu"),
                   op(Upsample, 4, kind="bilinear", size=(5, 3)), op(Pad, 5, sides=(0, 0, 1, 1)), op(MaxPool, 6, kernel=(2, 2), stride=(1, 1)))  # fmt: skip
    assert "by the reference" not in Native(made, kernels).how
    assert_equal(made, given(made, 3), kernels)


@pytest.mark.parametrize("grid", [Signs(), Steps(9.0, 1 / 9, -20, 20)], ids=str)
def test_linear_layers_over_rows_of_codes(grid: Signs | Steps, kernels: str) -> None:
    """In (N, C) each row is a place; with more axes the reference computes the layer, and `how` names it."""
    for shape, how in ((36, 40), ""), ((33, 3, 40), "; Linear by the reference"):
        matrix = Matrix(codes(drawn(-1, 1, 6, 40)), None, drawn(-5, 5, 6).astype(np.int32))
        made = chains.program((Reshape, {"shape": shape}), chains.quantize(grid), (Linear, {"matrix": matrix}),
                              shape=(shape[0], 1, int(np.prod(shape[1:]))))  # fmt: skip
        native = Native(made, kernels)
        assert native.how == f"integers, {kernels}{how}"
        x = chains.given(made.picture)
        assert torch.equal(native(x), run(made, x))


def test_a_fault_of_the_reference_passes_through(kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = chains.program(
        chains.quantize(Signs()), (Linear, {"matrix": Matrix(codes(drawn(-1, 1, 6, 40)))}), shape=(3, 2, 40)
    )
    native = Native(made, kernels)

    def fails(*_: object) -> None:
        raise MemoryError("too little")

    monkeypatch.setitem(__import__("deploy.native.executor", fromlist=["RULES"]).RULES, Linear, fails)
    with pytest.raises(MemoryError, match="too little"):
        native(given(made, 1))


def test_a_value_that_borders_make_too_large_is_refused(monkeypatch: pytest.MonkeyPatch, kernels: str) -> None:
    """Two readers need wide borders, one along each axis: each alone would fit, both together do not."""
    far = 200
    weight = drawn(-9, 9, 1, 1, 2, 1)
    made = program(
        op(Quantize, 0, grid=Steps(9.0, 1 / 9, 0, 255)),
        op(Convolution, 1, matrix=Matrix(codes(weight)), padding=(far, 0, 0, 0), dilation=(far, 1)),
        op(Convolution, 1, matrix=Matrix(codes(weight.reshape(1, 1, 1, 2))), padding=(0, 0, far, far), dilation=(1, far), stride=(1, far)),
        op(Reduce, 2, kind="sum", axes=(1, 2)), op(Reduce, 3, kind="sum", axes=(1, 2)), op(Combine, 4, 5, kind="add"),
        shape=(1, 1, 1),
    )  # fmt: skip
    assert_equal(made, torch.ones(1, 1, 1, 1), kernels)
    monkeypatch.setattr(layout, "MOST", 50_000)
    with pytest.raises(compiler.Unavailable, match=r"a value takes 80,\d+ bytes with its border"):
        Native(made, kernels)


def test_float_layers_sum_in_fp64(kernels: str) -> None:
    real = np.random.default_rng(0).normal(size=(10, 504)).astype(np.float32)
    made = program(
        op(Reshape, 0, shape=(168,)), op(Linear, 1, matrix=Matrix(real[:, :168], real[:, 0], None, real[:, 1]))
    )
    assert_equal(made, given(made, 4), kernels)


def test_the_best_instruction_set_is_taken(engine: compiler.Engine) -> None:
    here = compiler.instruction_sets()
    assert engine.kernels == here[-1]
    assert here[0] == "plain C++"


def test_a_setting_that_no_step_has() -> None:
    """A ctypes structure takes any attribute, so a misspelt setting would compute with 0."""
    made = [laid_out.Planned(steps.AFFINE, (0,), 1, {"shfit": np.ones(3, np.float32)}, 0)]
    with pytest.raises(AttributeError, match=r"steps\.Step has no field shfit"):
        laid_out.laid_out(made, {0: layout.Place((3, 8, 7)), 1: layout.Place((3, 8, 7))}, [], 1)
