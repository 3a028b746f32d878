"""An evaluation's loops give torch's results, bit for bit, and are left where they do not."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from engine.data.info import DataInfo
from engine.data.splits import TensorSplit
from engine.errors import UserError
from engine.numerics.evaluator import evaluator
from engine.system.compiled import Unavailable
from engine.tasks.classification import CLASSIFICATION
from models.fused import library, loops, segments, settled, view
from models.fused.segment import Segment
from models.fused.view import View, evaluating
from models.layers import eight_bits
from models.layers.conv_q import QuantConv2d
from tests.tools.segments import ACTS, MADE, form_of, parts

TYPES = (torch.float32, torch.uint8, torch.int8)
INFO = DataInfo("made", "made pictures", 5, 12, (0.5,) * 3, (0.25,) * 3)
POOLS = {"no pool": None, "2x2": nn.MaxPool2d(2), "3x3": nn.MaxPool2d(3, 2, 1)}


def shown(kind: str, fold: bool, bias: bool) -> tuple[QuantConv2d, nn.Module, nn.Module, Tensor]:
    """Return the parts of a segment after some training, in eval mode."""
    layer, norm, behind, x = parts(kind, fold, bias)
    for _ in range(2):
        behind(ACTS[MADE[kind][2]](norm(layer(x))))
    return layer.eval(), norm.eval(), behind.eval(), x


@pytest.mark.usefixtures("as_torch", "judging")
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize(
    ("kind", "fold", "bias"),
    [*((kind, False, False) for kind in MADE), ("DoReFa", False, True), ("INT8", True, False), ("INT8", True, True)],
)
@pytest.mark.parametrize("read", [False, True], ids=["by any", "by a convolution"])
def test_a_segment_gives_the_bits_of_its_modules(kind: str, fold: bool, bias: bool, pool: str, read: bool) -> None:
    layer, norm, behind, x = shown(kind, fold, bias)
    act, between = MADE[kind][2], POOLS[pool] or nn.Identity()
    reader = QuantConv2d.from_float(nn.Conv2d(21, 7, 3), MADE[kind][0](torch.randn(7, 21, 3, 3)), behind).eval()
    codes, scale = behind(between(ACTS[act](norm(layer(x)))))
    segment = Segment(layer, None if fold else norm, act, behind, POOLS[pool], [reader] if read else []).eval()
    found, same_scale = segment(x)
    assert torch.equal(found.float(), codes)
    assert scale is None or torch.equal(scale, same_scale)
    assert found.dtype == torch.float32 or read
    assert torch.equal(reader(segment(x)), reader(between(ACTS[act](norm(layer(x))))))


@pytest.mark.usefixtures("as_torch", "judging")
def test_codes_are_in_bytes_where_int8_convolutions_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(QuantConv2d, "reads_bytes", lambda *_: True)
    found = {}
    for kind in MADE:
        layer, norm, behind, x = shown(kind, False, False)
        reader = QuantConv2d.from_float(nn.Conv2d(21, 7, 3), MADE[kind][0](torch.randn(7, 21, 3, 3)), behind)
        found[kind] = Segment(layer, norm, MADE[kind][2], behind, None, [reader]).eval()(x).codes.dtype
    signed = {kind for kind in MADE if MADE[kind][2] == "none"}
    assert found == {kind: torch.int8 if kind in signed else torch.uint8 for kind in MADE}


@pytest.mark.usefixtures("as_torch", "judging")
@pytest.mark.parametrize("spec", ["float", "w8a8", "lsq", "int8", "asymmetric", "binary", "ternary"])
def test_a_view_gives_the_bits_of_its_network(spec: str) -> None:
    form, x = form_of(spec), torch.randn(9, 3, 12, 12)
    quick = View(form).eval()
    assert any(isinstance(module, Segment) for module in quick.children())
    assert torch.equal(quick(x), form(x))
    assert torch.equal(quick(x[:1].contiguous()), form(x[:1].contiguous()))
    with pytest.raises(UserError, match="captured for pictures of 3x12x12, not 3x12x10"):
        quick(x[..., :10])


@pytest.mark.usefixtures("as_torch")
@pytest.mark.parametrize("spec", ["float", "w8a8"])
def test_evaluations_of_many_pictures_run_the_view_and_give_the_same(
    spec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = form_of(spec)
    images = torch.randint(0, 256, (30, 12, 12, 3), dtype=torch.uint8)
    split = TensorSplit(images, torch.arange(30) % 5, INFO, torch.device("cpu"))
    count, run = 0, loops.settled

    def counted(*given: object) -> Tensor:
        nonlocal count
        count += 1
        return run(*given)

    monkeypatch.setattr(loops, "settled", counted)
    plain = CLASSIFICATION.evaluate(form, split)
    assert count == 0
    monkeypatch.setattr(view, "MANY_EVALUATED", 1)
    monkeypatch.setattr(segments, "FEW", 1)
    fast = CLASSIFICATION.evaluate(form, split)
    assert count > 0
    assert torch.equal(fast.output, plain.output)
    assert (fast.score, fast.loss) == (plain.score, plain.loss)


@pytest.mark.usefixtures("as_torch")
def test_the_view_is_taken_where_it_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    form = form_of("w8a8")
    assert evaluating(form, 100, 50) is None
    assert isinstance(evaluator(form, 10**9, 50), View)
    assert evaluating(nn.Linear(2, 2), 10**9, 50) is None
    assert evaluating(form.double(), 10**9, 50) is None
    form.float().register_forward_hook(lambda *_: None)
    assert evaluating(form, 10**9, 50) is None
    monkeypatch.setattr(settled, "trusted", lambda: "they differ")
    assert evaluating(form_of("w8a8"), 10**9, 50) is None


def test_loops_that_round_in_another_order_are_not_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    run, (x, y, z) = loops.settled, torch.randn(3, 1000)
    twice = torch.equal(torch.addcmul(x, y, z), x + y * z)  # whether torch rounds the product here

    def apart(z: Tensor, scale: Tensor | None, bias: Tensor | None, *given: object) -> Tensor:
        """Round the product if torch does not, and do not if it does."""
        if scale is not None and bias is not None:
            whole = (z.double() * scale.double() + bias.double()).float()
            z, scale, bias = whole if twice else z * scale + bias, None, None
        return run(z, scale, bias, *given)

    monkeypatch.setattr(loops, "settled", apart)
    assert "another order" in settled.trusted.__wrapped__()

    def absent() -> None:
        raise Unavailable("there is no C++ compiler")

    monkeypatch.setattr(loops, "settled", run)
    monkeypatch.setattr(library, "loaded", absent)
    assert settled.trusted.__wrapped__() == "there is no C++ compiler"


def test_torch_without_its_vectors_is_not_trusted_or_gives_the_same() -> None:
    """With ATEN_CPU_CAPABILITY=default torch rounds every product; the loops must notice it, or do so as well."""
    code = (
        "import torch; from models.fused import settled; torch.manual_seed(0)\n"
        "same = all(settled._agrees(count, 'each', True, True) for count in (16, 192))\n"
        "print(same, not settled.trusted())"
    )
    env = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    found = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    same, trusted = (word == "True" for word in found.split())
    assert same or not trusted


@pytest.mark.parametrize("to", TYPES, ids=str)
@pytest.mark.parametrize("size", [(1, 1), (64, 16), (129, 33), (20, 1100)], ids=str)
def test_the_formula(size: tuple[int, int], to: torch.dtype) -> None:
    z = 20 * torch.randn(size)
    scale, bias, a, c = torch.randn(4, size[1])
    grid = torch.tensor([-math.inf, math.inf, 1.0, 0.0 if to == torch.uint8 else -100.0, 100.0, *(0.0,) * 4])
    for given in [(scale, bias, a, c), (scale, None, a, c), (None, bias, None, None), (None, None, a, c), (None,) * 4]:
        s, b, factor, more = (None if value is None else value.double() for value in given)
        x = z.double() * (1 if s is None else s) + (0 if b is None else b)
        x = x * (1 if factor is None else factor) + (0 if more is None else more)
        found = loops.settled(z, *given, grid, "round", to)
        assert found.dtype == to
        wanted = x.clamp(float(grid[3]), 100)
        assert (found.double() - wanted).abs().max() <= 0.5 + 1e-3  # to the nearest code
        assert torch.equal(found.double(), found.double().round())


def test_what_is_no_number_has_the_code_that_torch_gives_it() -> None:
    z = torch.tensor([[math.nan, 3.0, -7.0, math.inf]])
    grid = torch.tensor([-math.inf, math.inf, 1.0, -8.0, 7.0, *(0.0,) * 4])
    none = (None,) * 4
    assert loops.settled(z, *none, grid, "round", torch.float32).isnan().tolist() == [[True, False, False, False]]
    found = loops.settled(z, *none, grid, "round", torch.int8)
    assert found.tolist() == z.clamp(-8, 7).to(torch.int16).tolist() == [[0, 3, -7, 7]]


@pytest.mark.parametrize(("least", "most"), [(0, 255), (-127, 127), (-128, 127), (-1, 1), (-8, 7)])
def test_products_of_codes_in_bytes(least: int, most: int) -> None:
    conv = nn.Conv2d(6, 5, 3, padding=1, bias=False)
    codes = torch.randint(least, most + 1, (2, 6, 7, 7))
    codes[0, 0, 0, 0], codes[0, 0, 0, 1] = least, most
    weight = torch.randint(-127, 128, conv.weight.shape).float()
    if not eight_bits.fits(conv, codes.device, (least, most)):
        pytest.skip("no int8 convolutions here")
    laid_out = eight_bits.layout(conv, tuple(codes.shape), weight, (least, most))
    exact = nn.functional.conv2d(codes.double(), weight.double(), padding=1)
    for to in (torch.float32, torch.uint8 if least == 0 else torch.int8):
        found = eight_bits.Product.apply(codes.to(to), weight, conv, laid_out)
        assert torch.equal(found.double(), exact)
