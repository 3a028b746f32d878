"""User networks: messages about their code before and during pruning."""

from __future__ import annotations

import copy
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import models
from engine.errors import USAGE, UserError
from engine.tasks.classification import CLASSIFICATION
from models.graph.capture.form import capture
from prune import proof
from tests.conftest import SMALL, assert_refused

Command = Callable[..., SimpleNamespace]

FIXED = """
from torch import nn

class Net(nn.Module):
    def __init__(self, first=8, classes=10):
        super().__init__()
        self.a = nn.Sequential(nn.Conv2d(3, first, 3, padding=1), nn.BatchNorm2d(first), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(first, 16, 3, padding=1), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        return self.head(self.b(self.a(x)).view(-1, 64))

class One(nn.Module):
    def __init__(self, classes=10):
        super().__init__()
        self.b = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.AdaptiveAvgPool2d(2))
        self.head = nn.Linear(64, classes)

    def forward(self, x):
        return self.head(self.b(x).view(-1, 64))

def net(classes=10):
    return Net(classes=classes)
"""


def test_a_size_written_into_the_code_is_named_before_sparse_training(workplace: Path, command: Command) -> None:
    (workplace / "fixed.py").write_text(FIXED)
    trained = command("prune.train", "-sr", "--s", "0.01", "--arch", "fixed.py:net", *SMALL)
    assert trained.code == 0, trained.err
    assert "notice: b.0 will not lose channels: a narrower copy cannot be captured" in trained.err
    pruned = command("prune.normal_regular", "--percent", "0.5", "--arch", "fixed.py:net", "--cpu", "--json")
    first, second = json.loads(pruned.out)["cfg_after"]
    assert first < 8
    assert second == 16
    assert_refused(
        command("prune.train", "-sr", "--arch", "fixed.py:One", *SMALL), USAGE, "none of its layers can lose channels"
    )


def test_a_network_without_scales_is_refused_before_sparse_training(workplace: Path, command: Command) -> None:
    (workplace / "bare.py").write_text(
        "from torch import nn\n"
        "def net(classes=10):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, classes))\n"
    )
    refused = command("prune.train", "-sr", "--arch", "bare.py:net", *SMALL)
    assert_refused(refused, USAGE, "no batch norm of this network scales channels that can be cut")


def test_a_network_of_which_nothing_can_be_cut_is_told_why(workplace: Path, command: Command) -> None:
    """Channels by their weights would be none, either."""
    (workplace / "fixed.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(36, 10)\n"
        "    def forward(self, x):\n"
        "        x = self.conv(x).flatten(2)\n"
        "        return self.head(torch.bmm(x, x.transpose(1, 2)).flatten(1))\n"
    )
    refused = command("prune.train", "-sr", "--arch", "fixed.py:Net", *SMALL)
    assert (refused.code, refused.out) == (USAGE, "")
    answer, read, error, hint = refused.err.splitlines()
    assert answer == "notice: 10 channels cannot be cut: the network's answer"
    assert read.startswith("notice: 6 channels cannot be cut: read by bmm")
    assert error.endswith("none of its channels can be cut")
    assert hint == "hint: read the notices above: they say why each channel stays"


def test_a_network_with_a_mask_of_truths_goes_through_the_chain(workplace: Path, command: Command) -> None:
    (workplace / "masked.py").write_text(
        "import torch\nfrom torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.conv, self.norm, self.head = nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.Linear(8, 10)\n"
        "        self.register_buffer('mask', torch.ones(9, 9).tril().bool())\n"
        "    def forward(self, x):\n"
        "        x = self.norm(self.conv(x)).relu().flatten(2)[:, :, :9].transpose(1, 2)\n"
        "        shares = (x @ x.transpose(1, 2)).masked_fill(~self.mask, float('-inf')).softmax(-1)\n"
        "        return self.head((shares @ x).mean(1))\n"
    )
    own = ("--arch", "masked.py:Net")
    trained = command("prune.train", *own, *SMALL)
    assert trained.code == 0, trained.err
    quantized = command("quant.ptq", "--model", trained.path, *own)
    assert quantized.code == 0, quantized.err
    packed = command("deploy.pack", "--model", quantized.path, *own)
    assert packed.code == 0, packed.err
    assert " -> " in command("deploy.run", "--model", packed.path, "--evaluate", "--executor", "reference").out


DEEP = """
from torch import nn

class Deep(nn.Module):
    def forward(self, x):
        return x.unsqueeze(2)

def net(classes=10):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Deep(), nn.Conv3d(8, 6, (1, 3, 3)), nn.BatchNorm3d(6),
        nn.ReLU(), nn.Conv3d(6, 8, 1), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, classes),
    )
"""


def test_a_network_with_convolutions_in_three_directions_is_trained_and_pruned(
    workplace: Path, command: Command
) -> None:
    (workplace / "deep.py").write_text(DEEP)
    trained = command("prune.train", "-sr", "--s", "0.01", "--arch", "deep.py:net", *SMALL)
    assert trained.code == 0, trained.err
    pruned = command("prune.normal_regular", "--percent", "0.5", "--arch", "deep.py:net", "--cpu", "--json")
    assert sum(json.loads(pruned.out)["cfg_after"]) == 7, pruned.err


DEPRECATED = """
from torch import nn

def net(classes=10):
    head = nn.utils.weight_norm(nn.Linear(4, classes))
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
"""


@pytest.mark.parametrize("quiet", [True, False])
def test_quiet_silences_the_warnings_of_torch(quiet: bool, workplace: Path, command: Command) -> None:
    (workplace / "deprecated.py").write_text(DEPRECATED)
    line = [word for word in SMALL if quiet or word != "--quiet"]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        done = command("prune.train", "--arch", "deprecated.py:net", *line)
    assert done.code == 0, done.err
    assert any("weight_norm" in str(one.message) for one in said) is not quiet


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def net(:\n    pass\n", ("broken_net.py:1: SyntaxError",)),
        ("x = 1\nimport not_there_at_all\n", ("broken_net.py:2: No module named 'not_there_at_all'",)),
        ("x = 1\n\n1 / 0\n", ("broken_net.py:3: ZeroDivisionError",)),
    ],
)
def test_a_module_that_cannot_be_imported_is_named_with_its_line(
    text: str, words: tuple[str, ...], command: Command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("broken_net.py").write_text(text)
    monkeypatch.syspath_prepend(workplace)
    assert_refused(command("prune.train", "--arch", "broken_net:net", *SMALL), USAGE, *words)


def test_surgery_that_goes_wrong_is_a_bug_in_ours_and_a_fault_in_others() -> None:
    data = SimpleNamespace(test=SimpleNamespace(batches=lambda size: iter([(torch.ones(size, 3), None)])))
    pair = [nn.Linear(3, 2).double(), nn.Linear(3, 2).double()]
    experiment = SimpleNamespace(task=CLASSIFICATION)
    with pytest.raises(AssertionError, match="surgery changed logits"):
        proof.prove(experiment, data, pair, 0, own=False)
    with pytest.raises(UserError, match="surgery changed the logits of this network") as fault:
        proof.prove(experiment, data, pair, 0, own=True)
    assert fault.value.code == USAGE
    proof.prove(experiment, data, [pair[0], pair[0]], 0, own=False)


def test_tensors_of_the_module_are_real(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counting parameters imports the module first; on the meta device the module's own tensors would have no values."""
    text = "import torch\nSCALE = torch.tensor([2.0])\ndef net(classes=10):\n    return torch.nn.Linear(3, classes)\n"
    Path("with_scale.py").write_text(text)
    monkeypatch.syspath_prepend(workplace)
    assert models.size("with_scale:net") == 40
    assert sys.modules["with_scale"].SCALE.item() == 2


STANDARDISED = """
from torch import nn
from torch.nn import functional as F

class Conv(nn.Conv2d):
    def forward(self, x):
        return F.conv2d(x, self.weight - self.weight.mean((1, 2, 3), keepdim=True), self.bias, self.stride, self.padding)

def net(classes=10):
    return nn.Sequential(
        Conv(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), Conv(8, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, classes),
    )
"""


def test_sparse_training_refuses_a_network_whose_weights_are_all_computed(workplace: Path, command: Command) -> None:
    (workplace / "standardised.py").write_text(STANDARDISED)
    done = command("prune.train", "-sr", "--arch", "standardised.py:net", *SMALL)
    assert done.code == USAGE
    assert "error: standardised.py:net: none of its channels can be cut\nhint: " in done.err.replace("--arch ", "")
    assert "8 channels cannot be cut: 0 computes the weights that make them" in done.err
    assert not [*workplace.rglob("*.pth")]


def test_a_network_that_its_file_would_not_give_back_is_refused() -> None:
    """A second cut may leave `self.half` at 4 of 6 channels, where the code itself makes 3 and 3 of them."""

    class Halves(nn.Module):
        def __init__(self, half: int) -> None:
            super().__init__()
            self.half = half
            self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, b = torch.split(self.conv(x), self.half, 1)
            return self.head(torch.cat([b, a], 1).mean((2, 3)))

    torch.manual_seed(0)
    small, other = (capture(Halves(half).eval(), (3, 8, 8), "own.py:net", check=False) for half in (4, 3))
    other.load_state_dict(small.state_dict())
    proof.prove_reopened(small, copy.deepcopy(small), "own.py:net")
    with pytest.raises(UserError, match="makes another network of these widths when the file is opened"):
        proof.prove_reopened(small, other, "own.py:net")
