"""Non-finite numbers in any tensor: training ends with exit 5, and no file holds them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from engine.checkpoint import archive, format as checkpoint
from engine.errors import DIVERGED, USAGE, UserError
from engine.tasks.classification import CLASSIFICATION
from engine.training.loop import fit
from engine.training.recipe import Recipe
from tests.conftest import SMALL
from tests.tools import training
from tests.tools.contents import raw, typed
from tests.tools.forge import tiny

Command = Callable[..., SimpleNamespace]
WRONG = {
    "1.running_var": {math.inf: "not finite", -1.0: "a negative variance"},
    "1.running_mean": {-math.inf: "not finite"},
    "0.weight": {math.nan: "not finite"},
}
CASES = [(key, value, words) for key, values in WRONG.items() for value, words in values.items()]


def spoiled(key: str, value: float) -> Callable[[nn.Module], None]:
    """Return a constraint that writes a value into a tensor after each step."""
    return lambda model: model.state_dict()[key].view(-1)[2].fill_(value) and None


@pytest.mark.parametrize(("key", "value", "words"), CASES)
def test_training_ends_at_a_tensor_that_is_not_finite(key: str, value: float, words: str) -> None:
    """With one step in an epoch, no later step's loss can reveal it."""
    one_step = training.config(Recipe(1, 37, lr=0.05))
    with pytest.raises(UserError, match=rf"^{key} holds .*{words}.* in epoch 1, step 1, at lr") as fault:
        fit(training.network(), training.pictures(), one_step, CLASSIFICATION, constrain=spoiled(key, value))
    assert (fault.value.code, fault.value.hint) == (DIVERGED, "start again with a smaller --lr")
    fit(training.network(), training.pictures(), one_step, CLASSIFICATION, constrain=spoiled(key, 0.5))


@pytest.fixture
def large(refined: Command) -> Command:
    """Return `refined` with large.pth, which is finite, but whose first layer's variance exceeds the largest float32."""
    content = raw("models_save/nin_preprune.pth")
    content["state_dict"]["block1.conv.weight"] *= 1e30
    archive.save(Path("large.pth"), content)
    Path("old.pth").write_bytes(b"old")
    return refined


@pytest.mark.parametrize(
    ("module", "argv"),
    [
        ("quant.wqaq", ("--refine", "large.pth", *SMALL, "--train_batch_size", 1437)),
        ("prune.normal_regular", ("--model", "large.pth", "--cpu", "--quiet")),
    ],
)
def test_codes_and_norms_hide_what_tensors_show(large: Command, module: str, argv: tuple) -> None:
    """With an infinite variance a batch norm gives zeros, so the loss of the only step is finite."""
    done = large(module, *argv, "--save", "old.pth")
    assert done.code == DIVERGED
    assert "block1.bn.running_var holds " in done.err.splitlines()[-2]
    assert Path("old.pth").read_bytes() == b"old"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_no_file_is_written_that_none_could_open(value: float, tmp_path: Path) -> None:
    path, content = tmp_path / "a.pth", typed(tiny())
    checkpoint.save(path, content)
    old = path.read_bytes()
    content.state_dict["block2.bn.weight"][1] = value
    with pytest.raises(UserError, match=r"a\.pth is not written: block2\.bn\.weight holds 1 .* at \[1\]$") as fault:
        checkpoint.save(path, content)
    assert (fault.value.code, path.read_bytes()) == (DIVERGED, old)
    content.state_dict["block2.bn.weight"] = torch.ones(2, dtype=torch.complex64)
    with pytest.raises(UserError, match=r"is not written: block2\.bn\.weight is not a dense tensor") as fault:
        checkpoint.save(path, content)
    assert (fault.value.code, path.read_bytes()) == (USAGE, old)


def test_float64_beyond_float32_is_not_written(tmp_path: Path) -> None:
    """A file is read as float32."""
    content = typed(tiny())
    content.state_dict["block2.bn.weight"] = torch.tensor([1.0, 1e39], dtype=torch.float64)
    with pytest.raises(UserError, match="holds 1 value"):
        checkpoint.save(tmp_path / "a.pth", content)
    assert not (tmp_path / "a.pth").exists()
