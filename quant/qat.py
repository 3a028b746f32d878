"""The steps of the training commands of this folder: prepare a float network, train, evaluate and write it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from engine.checkpoint.history import Quantize
from engine.cli.archs import is_users_code
from engine.data.splits import steps
from engine.errors import UserError
from engine.system.messages import notice
from engine.training.judging import evaluate_file, in_keys, in_words
from engine.training.start import Opened, Start
from models import files
from models.fused.view import chosen as view_of_training
from models.graph.normal import NormalForm
from quant import notices, recipes, restore
from quant.hooks import hooks
from quant.options import Quantizing
from quant.placement import meet
from quant.prepare import prepare
from quant.spec import QuantSpec

FORGETS = 4
"""Momentum of batch norms times the steps of an epoch, where these are so few that a slow momentum would lag."""


def train(options: Quantizing, spec: QuantSpec) -> dict[str, Any]:
    """Train a quantized network and return its results for printing, or evaluate a file with --evaluate.

    Args:
        spec: a QuantSpec not yet resolved for the network. Its kind decides about the first and last layers.
    """
    source = options.source()
    start = Start(options, files, f"_{spec.name}", source)
    if options.training.evaluate is not None:
        return _evaluate(options, start.judged(restore.open), spec)
    with start:
        if source is None and not options.machine.quiet:
            _say_fresh(options)
        network, refine = start.network, source is not None
        data = start.data.info
        spec = meet(spec, network, options.settings.keep_float, data.mean, data.std)
        spec = replace(spec, by_graph=is_users_code(start.arch))
        recipe = recipes.for_spec(spec, data.name, refine=refine)
        if options.training.original:
            recipe = recipes.original(spec, start.arch)
        elif spec.weight.traits.bn_momentum:
            batch = options.training.batch_size or recipe.batch_size
            spec = replace(spec, bn_momentum=_momentum(spec, refine, steps(len(start.data.train), batch)))
        model = prepare(network, spec)
        notices.say(network, model, spec)
        stage = Quantize(spec=spec.to_dict())
        run = start.run(model)
        epochs = options.training.epochs or recipe.epochs
        view = partial(view_of_training, model, options.training.fused)
        rows, used = run.train(recipe, stage, codes=True, view=view, **hooks(model, epochs))
        evaluated, path = run.finish(replace(stage, epochs=used.epochs))
        text = f"{spec.name}: {in_words(run.experiment.task, evaluated.score, run.data, more=evaluated.more)}"
        return {
            "text": text,
            "path": path,
            "spec": spec.to_dict(),
            **in_keys(run.experiment.task, evaluated.score, more=evaluated.more),
            "epochs": rows,
        }


def _momentum(spec: QuantSpec, refine: bool, per_epoch: int) -> float | None:
    """Return the momentum of batch norms for weights with a slow one.

    The slow momentum suits the statistics of a trained network; fresh ones would take epochs to converge, so they keep
    torch's. In short epochs it is faster, up to torch's 0.1: at the end of an epoch of at least 40 steps, the statistics of
    the epoch before have a weight of at most 2 % (e^-FORGETS) in the running ones.
    """
    slow = spec.bn_momentum
    return max(slow, min(0.1, FORGETS / per_epoch)) if refine and slow else None


def _evaluate(options: Quantizing, opened: Opened[NormalForm], spec: QuantSpec) -> dict[str, Any]:
    """Evaluate a file by its own spec. Flags that contradict the file are refused."""
    path = opened.path
    known = restore.spec_of(opened.checkpoint)
    spec = meet(spec, opened.network, options.settings.keep_float)
    was, made = known or QuantSpec(), restore.words_of(opened.checkpoint)
    if wrong := options.settings.contradiction(options.words, was, spec):
        raise UserError(f"{path} is {made}, which contradicts {wrong}", "leave the flags of quantization out")
    if options.training.evaluate is True and not options.network.weights and was.name != spec.name:
        raise UserError(f"{path} is {made}, but the flags ask for {spec.name}", "leave the flags of quantization out")
    found = evaluate_file(options, opened)
    return {**found, "text": f"{made}: {found['text']}"}


def _say_fresh(options: Quantizing) -> None:
    widths = "" if options.network.cfg else " and its own widths"
    notice(
        f"without --refine, {options.network.name} starts with fresh weights{widths}; "
        "--refine [F] starts from a trained file"
    )
