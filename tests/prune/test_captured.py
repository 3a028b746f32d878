"""Networks without declarations: trained with sparsity, pruned, refined, evaluated and reported with only --arch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoint.format import Checkpoint, load
from engine.errors import BAD_CHECKPOINT, USAGE, UserError
from models import files, forms
from prune.surgery import Surgery
from tests.conftest import SMALL, assert_refused
from tests.tools import cases, random_graphs
from tests.tools.library import with_few_blocks
from tests.tools.planned import tried

CHAIN = (
    "Residual",
    "Concatenation",
    "ShuffleUnits",
    "prelu",
    "SqueezeExcite",
    "mobilenet_v1",
    "Transposed",
    "SharedConv",
)
FAST = ("Residual",)
"""The rest of CHAIN is slow; test_narrow.py prunes all of them, too."""


NETS = "tests.tools.cases"


def checkpoint(path: str) -> Checkpoint:
    found = load(Path(path))
    assert isinstance(found, Checkpoint)
    return found


@pytest.mark.parametrize(
    "name", [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CHAIN]
)
def test_the_chain_takes_a_network_by_its_name_alone(name: str, command) -> None:
    arch = f"{NETS}:{name}"
    own = ("--arch", arch)
    sparse = command("prune.train", "-sr", "--s", "0.01", *own, *SMALL)
    assert sparse.code == 0, sparse.err
    assert sparse.path == f"models_save/{name}_preprune.pth"
    pruned = command("prune.normal_regular", "--percent", "0.5", *own, "--cpu")
    assert pruned.code == 0, pruned.err
    small, before = checkpoint(pruned.path), checkpoint(sparse.path)
    assert sum(t.numel() for t in small.state_dict.values()) < 0.8 * sum(t.numel() for t in before.state_dict.values())
    refined = command("prune.train", "--refine", *own, *SMALL)
    assert refined.code == 0, refined.err
    judged = command("prune.train", "--evaluate", refined.path, *own, "--cpu")
    assert judged.out.splitlines()[0] == refined.out.splitlines()[0]
    again = command(
        "prune.normal_regular", "--percent", "0.25", "--model", refined.path, "--save", "again.pth", *own, "--cpu"
    )
    assert again.code == 0, again.err
    report = command("scripts.report", sparse.path, pruned.path, refined.path, "again.pth", *own)
    assert report.code == 0, report.err


def test_a_pruned_file_answers_as_it_did_when_it_was_written(command) -> None:
    own = ("--arch", f"{NETS}:Residual")
    path = command("prune.train", "-sr", "--s", "0.01", *own, *SMALL).path
    pruned = command("prune.normal_regular", "--percent", "0.5", *own, "--cpu", "--json")
    assert pruned.code == 0, pruned.err
    network = files.open(Path("models_save/Residual_prune.pth"), own[1]).network
    x = torch.randn(2, 3, 8, 8)
    expected = network.eval()(x)
    assert torch.equal(files.open(Path("models_save/Residual_prune.pth"), own[1]).network.eval()(x), expected)
    whole = files.open(Path(path), own[1]).network
    assert [tuple(p.shape) for p in network.parameters()] != [tuple(p.shape) for p in whole.parameters()]


def test_widths_alone_cannot_be_trained_from_scratch(command) -> None:
    own = ("--arch", f"{NETS}:Residual")
    command("prune.train", "-sr", "--s", "0.01", *own, *SMALL)
    command("prune.normal_regular", "--percent", "0.5", *own, "--cpu")
    assert_refused(
        command("prune.train", "--from_scratch", *own, *SMALL),
        USAGE,
        "only networks of this toolkit can be built afresh with given widths, not ",
    )


def test_percent_0_changes_nothing(command) -> None:
    own = ("--arch", f"{NETS}:Residual")
    path = command("prune.train", "-sr", "--s", "0.01", *own, *SMALL).path
    same = command("prune.normal_regular", "--percent", "0", *own, "--cpu")
    before, after = checkpoint(path).state_dict, checkpoint(same.path).state_dict
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_constant_channels_go_without_a_trace() -> None:
    """Half of the gammas are 1e-7 with betas of 2: the constants of these channels move into biases."""
    torch.manual_seed(0)
    model = cases.ConstantChannels().double().eval()
    network = tried(model, 8)
    knife = Surgery(network.form, model, network.found, network.found, "net", "bn", 1)
    chosen = knife.plan(0.5, 1)
    assert chosen.widths == (8, 12)
    ready = knife.ready(network.form, chosen)
    small, x = knife.narrowed(ready.model, chosen), torch.randn(4, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        assert torch.allclose(small(x), expected, rtol=0, atol=1e-5)
        assert torch.allclose(knife.masked(ready.model, chosen)(x), small(x), rtol=0, atol=1e-12)
        assert (knife.narrowed(network.form, chosen)(x) - expected).abs().max() > 0.1


def test_what_cannot_be_cut_is_named_with_its_number(command) -> None:
    own = ("--arch", f"{NETS}:WeightsByFunction")
    command("prune.train", "-sr", "--s", "0.01", *own, *SMALL)
    pruned = command("prune.normal_regular", "--percent", "0.5", *own, "--cpu")
    assert "notice: 32 channels cannot be cut: read by linear" in pruned.err


def test_channels_without_a_batch_norm_are_chosen_by_their_weights(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, command
) -> None:
    (workplace / "plain.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes=10):\n    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), "
        "nn.Conv2d(16, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes))\n"
    )
    own = ("--arch", "plain.py:net")
    monkeypatch.delitem(sys.modules, "plain", raising=False)
    refused = command("prune.train", "-sr", *own, *SMALL)
    assert_refused(refused, USAGE, "no batch norm of this network scales channels that can be cut")
    assert "--importance l1" in refused.err
    path = command("prune.train", *own, *SMALL).path
    pruned = command("prune.normal_regular", "--percent", "0.5", "--importance", "l1", "--model", path, *own, "--cpu")
    assert pruned.code == 0, pruned.err
    state, old = checkpoint(pruned.path).state_dict, checkpoint(path).state_dict
    sizes = old["0.weight"].abs().mean((1, 2, 3))
    assert torch.equal(state["0.weight"], old["0.weight"][sizes >= sizes.sort().values[16 - len(state["0.weight"])]])


class Written(nn.Module):
    """A network with the number of columns written in its code."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.a, self.b = cases.conv_bn(3, 16, stride=2), cases.conv_bn(16, 8, stride=2)
        self.head = nn.Linear(8 * 4, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.b(self.a(x)).view(-1, 32))


def test_a_layer_whose_size_stands_in_the_code_is_left_whole(command) -> None:
    own = ("--arch", f"{__name__}:Written")
    command("prune.train", "-sr", "--s", "0.01", *own, *SMALL)
    pruned = command("prune.normal_regular", "--percent", "0.5", *own, "--cpu")
    assert pruned.code == 0, pruned.err
    state = checkpoint(pruned.path).state_dict
    assert len(state["a.0.weight"]) < 16
    assert len(state["b.0.weight"]) == 8


def test_a_module_that_takes_no_pictures_is_refused() -> None:
    with pytest.raises(UserError, match=r"bare: .*cannot be multiplied") as refused:
        forms.build("tests.tools.residual:bare")
    assert "pictures of 3x32x32" in refused.value.hint


@pytest.mark.parametrize("name", ["DropoutLeftOn", "nothing"])
def test_networks_that_cannot_be_captured_end_in_two_lines(name: str, command) -> None:
    found = command("prune.train", "--arch", f"{NETS}:{name}", *SMALL)
    error, hint = {
        "DropoutLeftOn": ("the network answers differently each time in evaluation", "self.training"),
        "nothing": ("has no nothing", "package.module:function"),
    }[name]
    assert_refused(found, USAGE, error)
    assert hint in found.err


def test_a_library_network_opens_without_arch(command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name is looked up in the library's own list, so a file alone cannot run other code."""
    found = command("prune.train", "-sr", "--s", "0.01", "--arch", "torchvision:squeezenet1_1", *SMALL[:2], "--image_size", "32",
                    "--epochs", "1", "--quiet", "--cpu")  # fmt: skip
    assert_refused(found, USAGE, "no batch norm")
    assert "--importance l1" in found.err
    with_few_blocks(monkeypatch)
    found = command("prune.train", "--arch", "torchvision:resnet18", *SMALL)
    assert found.path == "models_save/resnet18.pth", found.err
    judged = command("prune.train", "--evaluate", found.path, "--cpu")
    assert judged.out.splitlines()[0] == found.out.splitlines()[0]


def test_a_state_dict_of_the_users_is_pruned(workplace: Path, command) -> None:
    """A network trained elsewhere is described once, then pruned."""
    torch.manual_seed(0)
    own = cases.Residual(10)
    for module in own.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight)
    torch.save(own.state_dict(), "trained.pth")
    arch = ("--arch", f"{NETS}:Residual")
    converted = command("scripts.convert", "trained.pth", "mine.pth", *arch, "--dataset", "digits", "--image_size", "8")
    assert converted.code == 0, converted.err
    assert all(torch.equal(checkpoint("mine.pth").state_dict[key], value) for key, value in own.state_dict().items())
    pruned = command(
        "prune.normal_regular", "--percent", "0.5", "--model", "mine.pth", *arch, "--cpu", "--dataset", "digits"
    )
    assert pruned.code == 0, pruned.err


@pytest.mark.parametrize(
    ("arch", "error", "hint"),
    [
        ("torchvision:resnet17", "torchvision has no network 'resnet17'", "did you mean resnet"),
        ("torchvision:os", "torchvision has no network 'os'", "it has"),
        ("timm:nothing_like_it", "timm", ""),
    ],
)
def test_library_names_that_are_not_there(arch: str, error: str, hint: str, command) -> None:
    found = command("prune.train", "--arch", arch, *SMALL)
    assert_refused(found, USAGE, error)
    assert hint in found.err
    found = command("prune.train", "--arch", "torchvision:resnet18", "--cfg", "8,8", *SMALL)
    assert_refused(found, USAGE, "torchvision:resnet18 has its own widths")
    assert "leave --cfg out" in found.err


def test_a_file_of_other_sizes_is_refused(command) -> None:
    path = command("prune.train", "--arch", f"{NETS}:Residual", *SMALL).path
    state = torch.load(path, weights_only=True)
    state["state_dict"]["stem.0.weight"] = torch.zeros(16, 3, 5, 5)
    torch.save(state, "wrong.pth")
    found = command("prune.train", "--evaluate", "wrong.pth", "--arch", f"{NETS}:Residual")
    assert found.code == BAD_CHECKPOINT
    assert "stem.0.weight" in found.err or "checksum" in found.err


def test_the_generator_of_random_graphs_is_the_same_each_time() -> None:
    assert random_graphs.RandomNetwork(3).said == random_graphs.RandomNetwork(3).said
