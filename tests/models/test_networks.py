"""Every network has its agreed cost, accepts any picture size, and is built, saved and refused as promised."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import models
from engine.checkpoint import format as checkpoint, provenance
from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Calibrate, Merge, Quantize, Train
from engine.data.info import DataInfo
from engine.errors import BAD_CHECKPOINT, USAGE, UserError
from models import cost
from models.blocks import ChannelShuffle
from models.graph.channels.classes import gates
from tests.tools import residual
from tests.tools.networks import form

PLAIN = (192, 160, 96, 192, 192, 192, 192, 192)
PRUNED = (47, 93, 47, 122, 116, 90, 105, 83)
PRUNED_BY_8 = (48, 96, 48, 120, 120, 88, 104, 80)

# arch, cfg, parameters, MACs at 32 x 32; then both as the seeds' tables print them: count / 2^20, MACs / 2^30
COSTS = [
    ("nin", None, 969_822, 222_486_528, 0.92, 0.21),
    ("nin_3x3", None, 674_910, 146_989_056, 0.64, 0.14),
    ("nin_gc", None, 591_390, 157_679_616, 0.56, 0.15),
    ("nin_gc", PLAIN, 87_390, 46_792_704, 0.08, 0.04),
    ("nin", PRUNED, 276_943, 61_608_640, 0.26, 0.06),
    ("nin", PRUNED_BY_8, 275_406, 62_232_576, 0.26, 0.06),
]


def made(arch: str, cfg: list[int] | None = None, classes: int = 10) -> Checkpoint:
    """Return a checkpoint of a fresh network, as a command would write it."""
    info = DataInfo("digits", "digits", classes, 8, (0.5,) * 3, (0.5,) * 3)
    model = form(arch, cfg, classes=classes)
    origin = provenance.Origin(("prune.train",), 0)
    return checkpoint.make(model, arch, {"classes": classes}, info, Metrics(0.0), (Train(),), origin)


@pytest.mark.parametrize(("arch", "cfg", "params", "macs", "mega", "giga"), COSTS)
def test_costs_are_the_agreed_ones(arch, cfg, params, macs, mega, giga):
    rows = cost.layers(models.build(arch, cfg))
    assert cost.total(rows, "params") == params
    assert cost.total(rows, "macs") == macs
    assert (round(params / 2**20, 2), round(macs / 2**30, 2)) == (mega, giga)


@pytest.mark.parametrize(("arch", "cfg"), [*(row[:2] for row in COSTS), (residual.ARCH, None)])
@pytest.mark.parametrize("size", [32, 40])
def test_costs_agree_with_torch(arch, cfg, size):
    model = models.build(arch, cfg).eval()
    rows = cost.layers(model, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, size, size))
    assert counter.get_total_flops() == 2 * cost.total(rows, "macs")
    assert cost.total(rows, "params") == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("arch", [*models.names(), residual.ARCH])
@pytest.mark.parametrize("size", [16, 32, 40])
def test_any_picture_size_fits(arch, size):
    with torch.no_grad():
        assert models.build(arch, classes=7).eval()(torch.zeros(2, 3, size, size)).shape == (2, 7)


@pytest.mark.parametrize("arch", models.names())
def test_the_layers_of_a_network_say_its_widths(arch):
    """Each width, or pair of widths, has a gate; a network is rebuilt from its widths."""
    model = form(arch)
    widths = {"separable_wide": [2 * width for width in model.cfg[1:]]}.get(arch, model.cfg[1:])
    assert [norm.num_features for _, norm in gates(model)] == [model.cfg[0], *widths]
    again = models.build(arch, model.cfg, **model.arch_args)
    assert models.registry.widths(arch, again) == model.cfg
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


@pytest.mark.parametrize(
    ("arch", "cfg", "text"),
    [
        ("nin", PLAIN[:7], "7 widths"),
        ("nin_gc", (*PLAIN, 10), "9 widths"),
        ("nin_gc", (191, *PLAIN[1:]), "block 2 has 2 groups"),
        ("nin_gc", (*PLAIN[:3], 200, *PLAIN[4:]), "block 4 has 16 groups"),
        ("nin_gc", (*PLAIN[:5], 16, *PLAIN[6:]), "block 7 has 32 groups"),
        ("nin_5x5", None, "unknown network"),
        ("tests.models.nowhere:residual", None, "nowhere"),
        ("tests.tools.residual:nowhere", None, "nowhere"),
    ],
)
def test_what_cannot_be_built_is_a_usage_error(arch, cfg, text):
    with pytest.raises(UserError, match=text) as fault:
        models.build(arch, cfg)
    assert fault.value.code == USAGE


@pytest.mark.parametrize(("width", "groups"), [(8, 1), (8, 2), (12, 3), (96, 16), (32, 32)])
def test_the_shuffle_of_pictures_is_the_shuffle_of_indices(width, groups):
    x = torch.randn(2, width, 3, 5)
    shuffle, part = ChannelShuffle(groups), width // groups
    there = [(c % part) * groups + c // part for c in range(width)]
    assert torch.equal(shuffle(x)[:, there], x)
    assert torch.equal(ChannelShuffle(width // groups)(shuffle(x)), x)  # transposing twice changes nothing


@pytest.mark.parametrize("arch", models.names())
def test_a_checkpoint_gives_the_same_network_back(arch):
    content = made(arch, classes=7)
    again = models.restore(content).state_dict()
    assert list(again) == list(content.state_dict)
    assert all(torch.equal(again[key], value) for key, value in content.state_dict.items())


@pytest.mark.parametrize("stage", [Quantize(spec={}), Calibrate(spec={}, method="kl"), Merge()])
def test_quantized_and_merged_files_are_refused_by_name(stage):
    content = replace(made("nin", [8] * 8), history=(Train(), stage))
    with pytest.raises(
        UserError, match=f"after stage '{'merge' if isinstance(stage, Merge) else 'quantize'}'"
    ) as fault:
        models.restore(content)
    assert fault.value.code == BAD_CHECKPOINT


def test_weights_of_other_widths_are_refused():
    content = replace(made("nin", [8] * 8), cfg=[8] * 7 + [16])
    with pytest.raises(UserError, match=r"block8\.conv\.weight has shape") as fault:
        models.restore(content)
    assert fault.value.code == BAD_CHECKPOINT


def test_a_users_file_whose_shapes_do_not_go_together_is_refused():
    content = made(residual.ARCH)
    narrow = content.state_dict["block1.first.bn.weight"][:3]
    for key in ("weight", "bias", "running_mean", "running_var"):
        content.state_dict[f"block1.first.bn.{key}"] = narrow.clone()
    with pytest.raises(UserError, match=r"block1\.first\.bn\.weight has shape \(3,\)") as fault:
        models.restore(content, residual.ARCH)
    assert fault.value.code == BAD_CHECKPOINT


def test_a_users_network_is_imported_only_if_the_command_line_names_it(monkeypatch):
    content = made(residual.ARCH, [4, 8, 6])
    restored = models.restore(content, residual.ARCH)
    assert restored.block2.first.conv.out_channels == 8
    assert torch.equal(restored.classify.weight, content.state_dict["classify.weight"])

    monkeypatch.setattr("importlib.import_module", lambda name: pytest.fail(f"a file alone made {name} be imported"))
    for arch in (None, "nin"):
        with pytest.raises(UserError, match="the file holds") as fault:
            models.restore(content, arch)
        assert fault.value.code == USAGE


def test_a_network_is_counted_without_memory_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    assert models.size("nin") == 969_822

    def rates(cfg: list[int] | None = None, classes: int = 10) -> nn.Module:
        [rate.item() for rate in torch.linspace(0, 0.1, 4)]  # as networks with stochastic depth do
        return models.build("nin", cfg, classes)

    monkeypatch.setitem(models.NETWORKS, "rates", rates)
    assert models.size("rates") is None
    content = replace(made("nin", [8] * 8), arch="rates", state_dict={})
    assert models.rebuild(content).block8.conv.out_channels == 8
