"""The original repository's files become networks of the toolkit that compute the same; damaged files are refused."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import models
from engine.checkpoint import history
from engine.checkpoint.format import Foreign
from engine.errors import BAD_CHECKPOINT, UserError
from models.legacy import adopt
from tests.tools.networks import for_side
from tests.tools.original import SMALL, Original, prefixed, without_counters

SHAPES = Path(__file__).parents[3] / "shared" / "original-checkpoints.json"
"""Key names and shapes of the original's files. The file is outside the repository and may be missing."""
DEFAULT = {"nin": [192, 160, 96, 192, 192, 192, 192, 192], "nin_gc": [256, 256, 256, 512, 512, 512, 1024, 1024]}


def loaded(content: dict) -> nn.Module:
    return models.restore(adopt(Foreign(**content), "original.pth")).eval()


def refused(content: dict) -> UserError:
    with pytest.raises(UserError) as fault:
        loaded(content)
    assert fault.value.code == BAD_CHECKPOINT
    return fault.value


@pytest.mark.parametrize("child", ["tnn_bin", "dorefa"])
@pytest.mark.parametrize("kernel", [5, 3])
def test_the_loaded_network_computes_what_the_original_did(child, kernel):
    source = Original(child, kernel).eval()
    state, x = source.state_dict(), torch.randn(2, 3, 32, 32)
    expected = source(x)
    for content in (
        {"state_dict": state},
        {"state_dict": state, "cfg": SMALL, "best_acc": 81.5},
        {"state_dict": state, "cfg": torch.tensor(SMALL), "best_acc": torch.tensor(81.5)},
        {"state_dict": prefixed(state)},
        {"state_dict": without_counters(state)},
        {"state_dict": prefixed(without_counters(state)), "cfg": SMALL},
    ):
        adopted = adopt(Foreign(**content), "original.pth")
        assert (adopted.arch, adopted.cfg) == ("nin" if kernel == 5 else "nin_3x3", SMALL)
        assert (adopted.arch_args, adopted.history) == ({"classes": 4}, (history.Original(),))
        assert adopted.metrics.accuracy == (81.5 if "best_acc" in content else 0)
        assert torch.equal(loaded(content)(x), expected)


def test_adopting_says_so_and_changes_neither_the_file_nor_a_checkpoint_of_ours(capsys):
    state = Original("tnn_bin").state_dict()
    content = Foreign(prefixed(without_counters(state)))
    keys = list(content.state_dict)
    adopted = adopt(content, "old.pth")
    assert "old.pth" in capsys.readouterr().err
    assert (content.cfg, content.best_acc, list(content.state_dict)) == (None, None, keys)
    assert adopt(adopted, "old.pth") is adopted
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arch", "cfg"), [("nin", SMALL), ("nin_3x3", SMALL), ("nin_gc", [2, 4, 16, 32, 4, 64, 96, 8])]
)
def test_bare_weights_of_ours_are_recognised_too(arch, cfg):
    state = models.build(arch, cfg, 6).state_dict()
    for given in (state, prefixed(state), without_counters(state)):
        adopted = adopt(Foreign(given), "ours.pth")
        assert adopted.history == (history.Original(elsewhere=True),)
        again = models.restore(adopted)
        assert (again.cfg, list(again.state_dict())) == (cfg, list(state))
        assert all(map(torch.equal, again.state_dict().values(), state.values()))


@pytest.mark.parametrize("odd", ["tnn_bin.0.weight", "tnn_bin.1.running_mean", "tnn_bin.5.bn.num_batches_tracked"])
def test_a_prefix_on_some_keys_alone_is_refused(odd):
    state = Original("tnn_bin").state_dict()
    refused({"state_dict": {f"module.{k}" if k == odd else k: v for k, v in state.items()}})
    refused({"state_dict": {k if k == odd else f"module.{k}": v for k, v in state.items()}})


def test_files_of_other_networks_and_damaged_ones_are_refused():
    state = Original("tnn_bin").state_dict()
    assert "no known network" in str(refused({"state_dict": nn.Linear(2, 3).state_dict()}))
    assert "its cfg" in str(refused({"state_dict": state, "cfg": [*SMALL[:7], 6]}))
    for missing in ("tnn_bin.2.conv.weight", "tnn_bin.1.bias", "tnn_bin.12.running_var"):
        refused({"state_dict": {key: value for key, value in state.items() if key != missing}})
    refused({"state_dict": {**state, "tnn_bin.4.weight": torch.zeros(1)}})  # 4 is a pool
    refused({"state_dict": {**state, "tnn_bin.6.conv.weight": torch.zeros(8, 8, 1, 1)}})


def published(name: str) -> dict[str, Tensor]:
    """Return random weights in the shapes of one of the original's files."""
    if not SHAPES.exists():
        pytest.skip(f"{SHAPES} is not here")
    shapes = json.loads(SHAPES.read_text())[name]
    return {
        key: torch.rand(shape) if shape else torch.tensor(7)  # the counters have no dimensions
        for key, shape in shapes.items()
    }


@pytest.mark.parametrize("folder", ["prune", "WqAq", "WbWtAb"])
@pytest.mark.parametrize("arch", ["nin", "nin_gc"])
def test_the_originals_own_files_are_recognised(folder, arch):
    state = published(f"{folder}/{arch}")
    for given in (state, prefixed(state)):
        adopted = adopt(Foreign(given, best_acc=90), "original.pth")
        assert (adopted.arch, adopted.cfg, adopted.arch_args) == (arch, DEFAULT[arch], {"classes": 10})
        model = models.restore(adopted, arch)
        assert model.cfg == DEFAULT[arch]
        # keys are renamed and never reordered, so both dicts can be walked in parallel
        for (ours, value), (theirs, was) in zip(model.state_dict().items(), state.items(), strict=True):
            assert ours.rpartition(".")[2] == theirs.rpartition(".")[2]
            assert torch.equal(value, was)


def test_the_originals_separable_network_loads():
    content = adopt(Foreign(published("prune/standard_dw")), "f.pth")
    assert content.arch == "separable"
    assert content.cfg == [32, 64, 128, 256, 256, 256, 512, 1024]
    assert content.arch_args["multipliers"] == [2, 2, 2, 1, 1, 2, 2]
    models.restore(content)


def test_the_articles_bare_state_dict_loads():
    """network-slimming-article: nn.Sequential `features` and `linear`, saved as a bare state dict."""
    torch.manual_seed(0)
    features = []
    for before, after, kernel in ((3, 29, 7), (29, 56, 3), (56, 75, 3)):
        features += [nn.Conv2d(before, after, kernel, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
    article = nn.Sequential(OrderedDict(features=nn.Sequential(*features, nn.AvgPool2d(2)), linear=nn.Linear(75, 2)))
    content = adopt(Foreign(article.state_dict()), "net.pth")
    assert (content.arch, content.cfg, content.arch_args) == ("slimming", [29, 56, 75], {"classes": 2})
    model = models.restore(for_side(content, 20)).eval()
    assert sum(p.numel() for p in model.parameters()) == 57_151
    x = torch.rand(2, 3, 20, 20)
    whole = article.eval().features(x).flatten(1)
    torch.testing.assert_close(model(x), article.linear(whole))
