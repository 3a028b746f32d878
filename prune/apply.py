"""The steps of both pruning commands: plan, mask, cut, re-estimate BN statistics, report. Their flags: options.py."""

from __future__ import annotations

import copy
import shlex
from typing import Any

from engine.checkpoint.history import Prune
from engine.cli.archs import is_users_code
from engine.cli.naming import called, command_hint, repeated, saved
from engine.data.splits import Data
from engine.numerics import random_state
from engine.system.messages import notice, warning
from engine.tasks.base import Evaluation
from engine.tasks.of import task_of
from engine.training.experiment import Experiment
from engine.training.foreign import description
from models import cost, files
from models.files import Opened
from models.graph.normal import NormalForm
from prune import report
from prune.bn_statistics import reestimate_bn
from prune.computed import computed_channels
from prune.families import rows
from prune.options import Options
from prune.plan import PrunePlan
from prune.proof import prove, prove_reopened
from prune.sparsity import alike, gammas, looks_sparse
from prune.surgery import Surgery, surgery_of


def apply(options: Options, grouped: bool = False) -> dict[str, Any]:
    """Prune the network of one file and return its widths, costs and accuracy after each step.

    Raises:
        UserError: if the file cannot be pruned, or the cut network does not compute the same.
    """
    opened = _opened(options, grouped)
    parent = opened.checkpoint
    run = Experiment(options, saved(parent.prefix, "_prune"), opened.path, parent)
    data = run.data()
    run.task = task_of(opened.network, data.info, parent.arch)
    opened = opened.at(data.info.image_size)
    model = opened.network
    surgery = surgery_of(model, parent, options)
    report.say_what_stays(surgery.stays(), rows(surgery.plannable), computed_channels(model))
    report.say_what_keeps_its_size(model)
    chosen = surgery.plan(options.percent, options.base)
    report.say_what_differs(chosen, options.strict)
    small, evaluations = _cut(run, opened, surgery, chosen, data)
    if chosen.cfg != chosen.cfg_before:  # if nothing was dropped, the statistics still hold
        reestimate_bn(small, data.train, options.batch_size, options.machine.seed, options.bn_batches)
        evaluations["bn_reestimated"] = run.evaluate(small, data, "with BN re-estimated")
    after = evaluations.get("bn_reestimated", evaluations["sliced"])
    accuracies = {name: found.score for name, found in evaluations.items()}
    stage = Prune(
        percent=options.percent, base=options.base, achieved=chosen.achieved, cfg_before=chosen.cfg_before,
        importance=options.importance, max_per_layer=options.max_per_layer, spare=options.spare,
    )  # fmt: skip
    made = run.made(
        small, parent.arch, {**parent.arch_args, **small.arch_args}, data,
        run.metrics(after, data, pruning=accuracies), stage,
    )  # fmt: skip
    if is_users_code(parent.arch):
        prove_reopened(small, opened.restore(made), parent.arch)
    path = run.store(made)
    costs = [cost.layers(network, data.info.image_size) for network in (model, small)]
    macs, params = ([cost.total(c, what) for c in costs] for what in ("macs", "params"))
    lines = [
        *report.widths(chosen, parent.history),
        f"parameters  {params[0]:,} -> {params[1]:,}",
        f"MACs        {macs[0]:,} -> {macs[1]:,}",
        *report.scores(evaluations, data, run.task.score),
        f"stored with the file: {after.score:.2f} %, before any refining; next: "
        + called(shlex.join(["prune.train", "--refine", str(path), *repeated(parent.arch, options.data.root)])),
    ]
    return {
        "text": "\n".join(lines), "path": path, "cfg_before": chosen.cfg_before, "cfg_after": chosen.cfg,
        "layers": {name: sizes for name, *sizes in zip(chosen.names, chosen.before, chosen.widths, strict=True)},
        "percent": options.percent, "achieved": chosen.achieved, run.task.score.name: accuracies,
        "params": params, "macs": macs,
    }  # fmt: skip


def _cut(
    run: Experiment, opened: Opened, surgery: Surgery, chosen: PrunePlan, data: Data
) -> tuple[NormalForm, dict[str, Evaluation]]:
    """Return the narrowed network, proven equal to the masked one, and the evaluations of all three networks."""
    model, arch = opened.network, opened.checkpoint.arch
    ready = surgery.ready(model, chosen)
    report.say_what_is_lost(len(ready.left), chosen)
    small, silenced = surgery.narrowed(ready.model, chosen), surgery.masked(ready.model, chosen)
    report.say_what_follows(small)
    evaluations = {
        "before": run.evaluate(model, data, "before pruning"),
        "masked": run.evaluate(silenced, data, "masked"),
        "sliced": run.evaluate(small, data, "sliced"),
    }
    with random_state.kept():  # building the narrower network may draw random weights
        whole = surgery.ready(copy.deepcopy(model).double(), chosen).model  # fp32 would round the sums of surgery
        exact = [surgery.masked(whole, chosen), surgery.narrowed(whole, chosen)]
    moved = run.task.surely_moved(evaluations["masked"].output, evaluations["sliced"].output)
    prove(run, data, exact, moved, own=is_users_code(arch))
    return small, evaluations


def _opened(options: Options, grouped: bool) -> Opened:
    """Open the sparsely trained file. Warn on stderr if its scales are not sparse or `grouped` has no effect."""
    maker = command_hint("prune.train -sr", options.network.name)
    source = options.network.file(options.model, saved(options.network.prefix, "_preprune"), maker)
    opened = files.open(source, options.network.arch, description(options))
    model, parent = opened.network, opened.checkpoint
    if grouped and all(getattr(m, "groups", 1) == 1 for m in model.modules()):
        notice(f"{parent.arch} has no grouped convolutions: prune.gc treats it as prune.normal_regular does")
    if options.importance == "bn" and not looks_sparse(gammas(model)):
        warning(f"{source} {alike(parent.history)}")
    return opened
