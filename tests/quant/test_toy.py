"""A third-party quantizer: the code that adds one, and its support in every stage."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bn_merge.merge import merge
from deploy.lowering.walk import lower
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import Merge, Quantize
from engine.checkpoint.provenance import Origin
from engine.data.info import DataInfo
from engine.data.splits import Data, TensorSplit
from engine.errors import UserError
from engine.tasks.classification import CLASSIFICATION
from engine.training.loop import fit
from engine.training.progress import FitConfig
from models.layers.quantizers import kinds, promises
from models.layers.quantizers.base import Quantized, Quantizer, Steps
from quant import recipes
from quant.hooks import hooks
from quant.prepare import prepare
from quant.restore import open as opened
from quant.spec import uniform
from scripts import describe
from tests.conftest import NARROW, SMALL, assert_refused
from tests.tools.networks import ends, form

INFO = DataInfo("digits", "noise", 10, 8, (0.5,) * 3, (0.25,) * 3, pad=1)


@pytest.fixture
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a quantizer in ten lines: a module, and its registration."""
    monkeypatch.setattr(kinds, "TABLE", dict(kinds.TABLE))
    from models.layers.quantizers.base import clip, round_ste

    class Toy(Quantizer):
        """A quantizer that rounds to -1, 0, 1."""

        bits = 2

        def forward(self, x: Tensor) -> Quantized:
            return Quantized(round_ste(clip(x, -1, 1)), None)

    traits = kinds.Traits("toy", (2,))
    kinds.register(kinds.Kind(traits, weight=lambda *_: Toy(), activation=lambda *_: Toy(), codes=lambda _: (-1, 0, 1)))


def noise() -> Data:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 8, 8, 3), dtype=torch.uint8, generator=draws)
    split = TensorSplit(images, torch.randint(0, 10, (40,), generator=draws), INFO, torch.device("cpu"))
    return Data(INFO, split, split)


@pytest.mark.usefixtures("_toy")
def test_a_quantizer_from_outside_goes_through_every_stage(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = form("nin", [8] * 8)
    for parameter in model.parameters():
        parameter.data.mul_(3)
    spec = uniform("toy", 2, 2).at_ends(*ends(model))
    assert spec.name == "toy_w2a2"
    trained = prepare(model, spec)
    recipe = replace(recipes.for_spec(spec, "digits", refine=True), epochs=1)
    before = trained.block2.conv.weight.clone()
    assert len(fit(trained, noise(), FitConfig(recipe, quiet=True), CLASSIFICATION, **hooks(trained, 1))) == 1
    assert not torch.equal(trained.block2.conv.weight, before)

    folded = merge(trained)
    stage, x = Quantize(spec=spec.to_dict(), epochs=1), torch.randn(4, 3, 8, 8)
    for network, stages, words in (
        (trained, (stage,), "nin (cfg 8,8,8,8,8,8,8,8) toy_w2a2"),
        (folded, (stage, Merge()), "nin (cfg 8,8,8,8,8,8,8,8) toy_w2a2, merged"),
    ):
        path = tmp_path / "a.pth"
        content = checkpoint.make(network, "nin", {"classes": 10}, INFO, Metrics(1.0), stages, Origin(("x",), 1))
        checkpoint.save(path, content)
        again = opened(path).network.eval()
        assert torch.equal(again(x), network.eval()(x))
        row = describe.row(opened(path))
        assert (row.type, row.remarks) == (words, "first and last layer float")
    assert set(folded.block2.conv.codes.unique().tolist()) == {-1, 0, 1}
    exact = trained.double()
    torch.testing.assert_close(merge(exact)(x.double()), exact(x.double()), rtol=0, atol=1e-9)


@pytest.mark.usefixtures("_toy")
def test_packing_asks_for_a_grid() -> None:
    """Without it the layers would add fp32 numbers as if they were codes."""
    model = form("nin", [8] * 8)
    folded = merge(prepare(model, uniform("toy", 2, 2).at_ends(*ends(model))).eval())
    with pytest.raises(UserError, match=r"block2\.conv: its input quantizer, Toy, has no grid") as found:
        lower(folded, INFO.mean, INFO.std)
    assert found.value.code == 3
    assert "--Abits 32" in found.value.hint
    weights_alone = prepare(model, uniform("toy", 2, 32).at_ends(*ends(model))).eval()
    assert lower(merge(weights_alone), INFO.mean, INFO.std).answer == (10,)


class Peak(Quantizer):
    """A quantizer whose scale is that of the batch."""

    bits = 2

    def forward(self, x: Tensor) -> Quantized:
        scale = x.detach().abs().max().clamp_min(1e-6)
        return Quantized((x / scale).round(), scale)


class Wide(Quantizer):
    """A quantizer whose grid ends before its codes do."""

    bits = 4

    def forward(self, x: Tensor) -> Quantized:
        return Quantized(x.round().clamp(0, 15), None)

    def grid(self) -> Steps:
        return Steps(1.0, 1.0, 0, 7)


def test_merging_asks_for_a_fixed_scale() -> None:
    model = form("nin", [8] * 8)
    trained = prepare(model, uniform("dorefa", 4, 4).at_ends(*ends(model))).eval()
    trained.get_submodule("block3.conv").input_quantizer = Peak()
    with pytest.raises(UserError, match=r"block3\.conv: the scale of its input quantizer, Peak, depends on the input"):
        merge(trained)


def test_packing_asks_for_the_grid_of_the_codes() -> None:
    model = form("nin", [8] * 8)
    trained = prepare(model, uniform("dorefa", 4, 4).at_ends(*ends(model))).eval()
    trained.get_submodule("block3.conv").input_quantizer = Wide()
    with pytest.raises(UserError, match=r"block3\.conv: the grid of its input quantizer, Wide, gives other codes"):
        lower(merge(trained), INFO.mean, INFO.std)


class Halves(Quantizer):
    """A quantizer in steps of 0.5 with any grid."""

    def __init__(self, bits: int, told: Steps) -> None:
        super().__init__()
        self.high, self.told = 2**bits - 1, told

    def forward(self, x: Tensor) -> Quantized:
        return Quantized((x / 0.5).round().clamp(0, self.high), torch.tensor(0.5))

    def grid(self) -> Steps:
        return self.told


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_grid_is_compared_step_by_step(bits: int) -> None:
    high = 2**bits - 1
    right = Steps(2.0, 0.5, 0, high)
    assert promises.fault_of_grid(Halves(bits, right)) == ""
    for wrong in (
        right._replace(scale=0.53),
        right._replace(inverse=1.9),
        right._replace(high=high + 1),
        right._replace(low=-1),
    ):
        assert "gives other codes" in promises.fault_of_grid(Halves(bits, wrong)), wrong


class Elsewhere(Quantizer):
    """A quantizer on a device without arithmetic."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("step", torch.ones((), device="meta"))

    def forward(self, x: Tensor) -> Quantized:
        assert x.device == self.get_buffer("step").device
        return Quantized(torch.zeros(1), None)


def test_numbers_are_probed_where_the_quantizer_is() -> None:
    assert promises.fault_of_scale(Elsewhere()) == ""


@pytest.mark.usefixtures("_toy")
def test_commands_know_it_once_it_is_registered(command, monkeypatch: pytest.MonkeyPatch) -> None:
    wider = kinds.TABLE["toy"]
    monkeypatch.setitem(kinds.TABLE, "toy", replace(wider, traits=replace(wider.traits, bits=(2, 3))))
    done = command("quant.wqaq", "--quantizer", "toy", "--Wbits", 2, "--Abits", 2, "--cfg", NARROW, *SMALL)
    assert (done.code, done.path) == (0, "models_save/nin_toy_w2a2.pth"), done.err
    assert_refused(command("quant.wqaq", "--quantizer", "toy", "--Wbits", 4, *SMALL), 2, "weights of 2 to 3 bits")


@pytest.mark.usefixtures("_toy")
def test_flags_of_different_quantizers_are_refused_together(command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No built-in quantizer has flags that `affine` lacks, but a third-party one may."""
    for name, uses in (("toy", ("bn_fold",)), ("affine", ("symmetric", "per_channel"))):
        kind = kinds.lookup(name)
        traits = replace(kind.traits, bits=(2, 3), settings=uses)
        monkeypatch.setitem(kinds.TABLE, name, replace(kind, traits=traits))
    for more in ((), ("--quantizer", "affine")):
        done = command("quant.wqaq", "--q_type", 1, "--bn_fold", 1, *more, *SMALL)
        assert_refused(done, 2, "--q_type and --bn_fold are for different quantizers")


def test_commands_refuse_a_quantizer_that_nobody_registered(command) -> None:
    done = command("quant.wqaq", "--quantizer", "toy", *SMALL)
    assert_refused(done, 2, "unknown quantizer 'toy'")
    assert "one of affine, dorefa" in done.err
    assert "did you mean dorefa?" in command("quant.wqaq", "--quantizer", "dorefo", *SMALL).err
