"""python -m bn_merge: fold the batch norms of a trained file; the new file holds codes and scales."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from bn_merge.options import Merging
from engine.cli import command
from engine.cli.flags import Parser
from engine.cli.naming import command_hint, saved
from engine.errors import BAD_CHECKPOINT, UserError

EXAMPLES = (
    "bn_merge --W 2",
    "bn_merge --model models_save/nin_w8a8.pth",
    "bn_merge --model models_save/nin_refine.pth",
)


def parser() -> Parser:
    return Parser("bn_merge", __doc__, EXAMPLES, Merging)


def body(options: Merging) -> dict[str, Any]:
    from bn_merge import proof
    from bn_merge.merge import merge
    from engine.checkpoint.history import Merge
    from engine.tasks.of import task_of
    from engine.training.experiment import Experiment
    from engine.training.foreign import description
    from engine.training.judging import in_keys, in_words
    from quant import restore
    from quant.notices import say_unfolded

    weights, network = options.weights, options.network
    maker = command_hint(f"quant.wbwtab --W {weights.bits or 2} --A 2", network.arch)
    default, others = saved(weights.stem(network.prefix)), weights.others(network.prefix)
    source = network.file(options.model, default, maker, others)
    opened = restore.open(source, network.arch, description(options))
    parent = opened.checkpoint
    if restore.is_merged(parent):
        raise UserError(f"{source} is already merged", "merge the file that it was made from", BAD_CHECKPOINT)
    weights.check(source, restore.short_name_of(parent))

    beside = source.with_name(f"{source.stem}_merged.pth")
    run = Experiment(options, saved(parent.prefix, "_merged") if network.weights else beside, source, parent)
    data = run.data()
    model = opened.at(data.info.image_size).network
    run.task = task_of(model, data.info, parent.arch)
    merged = merge(model)
    say_unfolded(merged)
    proof.prove(model, next(iter(data.test.batches(proof.PICTURES)))[0], run.task)
    before, after = run.evaluate(model, data), run.evaluate(merged, data)
    agree = run.task.agreement(before.output, after.output).agree
    metrics = run.metrics(after, data, before_merge=before.score, agreement=agree / len(data.test))
    path = run.write(merged, parent.arch, parent.arch_args, data, metrics, Merge())
    text = f"{source}: {in_words(run.task, after.score, data, before.score, after.more)}; the same answer on {agree:,} of them"
    return {"text": text, "path": path, **in_keys(run.task, after.score, before.score, after.more), "agree": agree}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
