"""The training loop: repeatable, resumable bit for bit, with hooks at the places of its docstring."""

from __future__ import annotations

import io
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from engine.checkpoint import archive
from engine.errors import BAD_CHECKPOINT, DIVERGED, UserError
from engine.tasks.classification import CLASSIFICATION
from engine.training import progress
from engine.training.loop import fit
from engine.training.progress import Progress
from engine.training.recipe import Recipe
from engine.training.run_folder import RunFolder
from engine.training.tally import Tally
from models import forms
from prune.sparsity import penalty
from tests.tools.equality import same
from tests.tools.training import ADAM, RECIPE, Stop, config, network, pictures


@pytest.mark.parametrize("recipe", [RECIPE, ADAM], ids=lambda r: r.optimizer)
def test_the_same_seed_gives_the_same_weights(recipe: Recipe) -> None:
    models, rows = [], []
    for seed in (1, 1, 2):
        models.append(network())
        rows.append(fit(models[-1], pictures(), config(recipe, seed=seed), CLASSIFICATION))
    assert same(models[0].state_dict(), models[1].state_dict())
    assert rows[0] == rows[1]
    assert not same(models[0].state_dict(), models[2].state_dict())  # another seed gives another order
    assert [set(row) for row in rows[0]] == 3 * [
        {"epoch", "lr", "train_loss", "train_accuracy", "test_loss", "test_accuracy"}
    ]


@pytest.mark.parametrize("recipe", [RECIPE, ADAM], ids=lambda r: r.optimizer)
def test_three_epochs_are_one_and_two_more_bit_for_bit(recipe: Recipe, tmp_path: Path) -> None:
    whole: list[Progress] = []
    straight = network()
    fit(straight, pictures(), config(recipe), CLASSIFICATION, after_epoch=whole.append)

    folder, fingerprint = RunFolder(tmp_path / "run"), {"lr": recipe.lr}

    def stop(progress: Progress) -> None:
        folder.keep(progress, fingerprint)
        raise Stop

    with pytest.raises(Stop):
        fit(network(), pictures(), config(recipe), CLASSIFICATION, after_epoch=stop)
    resumed: list[Progress] = []
    fresh = network()
    torch.manual_seed(99)  # the state between the runs does not matter
    state = folder.state(folder.state_path, fingerprint)
    assert state["epoch"] == 1
    fit(fresh, pictures(), config(recipe), CLASSIFICATION, resume=state, after_epoch=resumed.append)
    assert len(resumed) == 2
    assert same(resumed[-1].state_dict(), whole[-1].state_dict())  # weights, optimizer, schedule, rows, random state
    assert same(fresh.state_dict(), straight.state_dict())
    assert [row["epoch"] for row in resumed[-1].rows] == [1, 2, 3]


@pytest.mark.parametrize("recipe", [RECIPE, ADAM], ids=lambda r: r.optimizer)
def test_a_run_may_stop_after_any_step_and_any_batch_that_is_judged(recipe: Recipe) -> None:
    """3 epochs of 5 steps and 3 evaluated batches give 24 places to stop; each resumes bit for bit."""
    whole: list[Progress] = []
    fit(network(), pictures(), config(recipe, eval_batch_size=4), CLASSIFICATION, after_epoch=whole.append)
    for place in range(1, 25):
        left, states = iter(range(place)), []

        def stop(progress: Progress, left=left, states=states, place=place) -> None:
            if next(left) == place - 1:
                states.append(archive.to_bytes(progress.state_dict()))
                raise Stop

        with pytest.raises(Stop):
            fit(network(), pictures(), config(recipe, eval_batch_size=4), CLASSIFICATION, after_step=stop)
        state = torch.load(io.BytesIO(states[0]), weights_only=True)
        epoch, batch = divmod(place - 1, 8)
        assert (state["epoch"], state["step"], len(state["rows"])) == (epoch, min(batch + 1, 5), epoch)
        torch.manual_seed(99)
        resumed: list[Progress] = []
        fit(
            network(),
            pictures(),
            config(recipe, eval_batch_size=4),
            CLASSIFICATION,
            resume=state,
            after_epoch=resumed.append,
        )
        assert same(resumed[-1].state_dict(), whole[-1].state_dict()), place


def test_a_state_saved_on_the_way_changes_nothing() -> None:
    whole: list[Progress] = []
    fit(network(), pictures(), config(), CLASSIFICATION, after_epoch=whole.append)
    saved: list[Progress] = []
    fit(network(), pictures(), config(), CLASSIFICATION, after_step=lambda p: archive.to_bytes(p.state_dict()) and None,
        after_epoch=saved.append)  # fmt: skip
    assert same(saved[-1].state_dict(), whole[-1].state_dict())


def test_a_state_of_another_network_or_another_step_is_refused() -> None:
    states: list[dict] = []
    fit(network(), pictures(), config(), CLASSIFICATION, after_epoch=lambda p: states.append(p.state_dict()))
    other = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    for model, state in ((other, states[0]), (network(), {**states[0], "step": 1}), (network(), {})):
        with pytest.raises(UserError, match="does not fit this run") as fault:
            fit(model, pictures(), config(), CLASSIFICATION, resume={**state, "epoch": 1})
        assert fault.value.code == BAD_CHECKPOINT


def test_hooks_are_called_where_the_docstring_says() -> None:
    calls: list[str] = []
    model = network()

    def constrain(m: nn.Module) -> None:
        calls.append("constrain")
        with torch.no_grad():
            m[0].weight.clamp_(-0.01, 0.01)

    def term(m: nn.Module) -> torch.Tensor:
        calls.append("penalty")
        return 0 * m[0].weight.sum()

    def on_epoch(m: nn.Module, epoch: int) -> None:
        assert m.training
        calls.append(f"epoch {epoch}")
        m[1].eval()  # freezing a BN must last through the epoch

    def step(progress: Progress) -> None:
        calls.append(f"step {progress.epoch}.{progress.step}")

    def after(progress: Progress) -> None:
        calls.append(f"after {progress.epoch}")

    fit(
        model,
        pictures(),
        config(replace(RECIPE, epochs=2)),
        CLASSIFICATION,
        penalty=term,
        constrain=constrain,
        on_epoch=on_epoch,
        after_step=step,
        after_epoch=after,
    )
    # 37 pictures in batches of 8: the last 5 form a batch; the 11 evaluated pictures are one batch
    expected = []
    for epoch in range(2):
        steps = [text for n in range(1, 6) for text in ("penalty", "constrain", f"step {epoch}.{n}")]
        expected += [f"epoch {epoch}", *steps, f"step {epoch}.5", f"after {epoch + 1}"]
    assert calls == expected
    assert model[0].weight.abs().max() <= 0.01  # no step follows the constraint
    assert torch.equal(model[1].running_mean, torch.zeros(6))


def test_the_penalty_is_shown_beside_the_cross_entropy() -> None:
    plain, pushed = (fit(network(), pictures(), config(replace(RECIPE, epochs=1, lr=1e-12)), CLASSIFICATION, penalty=p)[0]
                     for p in (None, lambda m: torch.tensor(2.0)))  # fmt: skip
    assert pushed["train_loss"] == plain["train_loss"]
    assert (pushed["train_penalty"], "train_penalty" in plain) == (2, False)


def test_slimming_adds_s_times_the_sign_of_gamma() -> None:
    model = forms.build("nin", [8] * 8, side=8)
    values = torch.tensor([1.0, -2.0, 0.0, 1e-30, -1e-30, 3.0, -0.0, 0.5])
    blocks = [model.get_submodule(f"block{n}.bn") for n in range(1, 9)]
    for bn in blocks:
        bn.weight.data.copy_(values)
    term = penalty(0.25)(model)
    assert math.isclose(term.item(), 0.25 * 8 * 6.5, rel_tol=1e-6)
    term.backward()
    for bn in blocks:
        assert torch.equal(bn.weight.grad, 0.25 * values.sign())
    assert model.get_submodule("block9.bn").weight.grad is None  # the classifier has no gate


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(value: float) -> None:
    model = network()
    before = {k: v.clone() for k, v in model.named_parameters()}
    with pytest.raises(UserError, match=r"in epoch 1, step 1, at lr 0\.05; largest finite") as fault:
        fit(
            model,
            pictures(),
            config(replace(RECIPE, schedule="steps")),
            CLASSIFICATION,
            penalty=lambda m: torch.tensor(value),
        )
    assert fault.value.code == DIVERGED
    assert same(before, dict(model.named_parameters()))


def test_diverging_is_noticed() -> None:
    with pytest.raises(UserError, match="the loss became") as fault:
        fit(network(), pictures(), config(replace(RECIPE, lr=1e30)), CLASSIFICATION)
    assert fault.value.code == DIVERGED


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_changes_nothing_and_is_right(training: bool) -> None:
    model, data = network().train(training), pictures()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    found = CLASSIFICATION.evaluate(model, data.test, batch=4)
    assert model.training is training
    assert same(before, model.state_dict())
    model.eval()
    logits = torch.cat([model(images) for images, _ in data.test.batches(11)]).detach()
    torch.testing.assert_close(found.output, logits)
    right = sum(int(row.argmax() == label) for row, label in zip(logits, data.test.labels, strict=True))
    assert found.score == 100 * right / 11
    loss = -logits.double().log_softmax(1)[torch.arange(11), data.test.labels].mean()
    assert math.isclose(found.loss, loss, rel_tol=1e-5)


def test_an_epoch_need_not_be_judged() -> None:
    recipe = replace(RECIPE, epochs=5)
    rows = fit(network(), pictures(), config(recipe, eval_every=2), CLASSIFICATION)
    judged = [row["epoch"] for row in rows if "test_accuracy" in row]
    assert judged == [2, 4, 5]
    whole = fit(network(), pictures(), config(recipe), CLASSIFICATION)
    assert rows[-1] == whole[-1]


def test_sums_that_are_read_late_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = fit(network(), pictures(), config(RECIPE), CLASSIFICATION)
    monkeypatch.setattr(progress, "Tally", lambda _: Tally(deferred=True))
    assert fit(network(), pictures(), config(RECIPE), CLASSIFICATION) == whole
