"""The comparison of a network with its merged form, over the whole test set."""

from __future__ import annotations

import shlex
from contextlib import suppress
from pathlib import Path
from typing import Any

from bn_merge.merge import merge
from bn_merge.options import Comparing
from engine.checkpoint.description import Description
from engine.cli.naming import SAVED, called, command_hint, input_file
from engine.errors import BAD_CHECKPOINT, UserError
from engine.system import device
from engine.system.files import sha256
from engine.system.messages import warning
from engine.tasks.base import Agreement
from engine.tasks.of import task_of
from engine.training.choose_data import open_data
from engine.training.judging import evaluate, in_keys
from models import files
from models.files import Opened
from quant import restore


def compare(options: Comparing) -> dict[str, Any]:
    """Evaluate both networks and compare their answers. With --float64, compare a fresh fold as well.

    Raises:
        UserError: exit 3 if the files are not a network and its merged form.
    """
    one, other = _pair(options)
    spec, where = restore.spec_of(other.checkpoint), device.choose(options.machine.device)
    data = open_data(options, where, other.checkpoint)
    model, merged = (opened.at(data.info.image_size).network for opened in (one, other))
    task = task_of(model, data.info, one.checkpoint.arch)
    if options.float64:
        model, merged = model.double(), merged.double()
    fresh = merge(model) if options.float64 else None
    before = evaluate(options, model.to(where), data, task, "unmerged")
    after = evaluate(options, merged.to(where), data, task, "merged")
    found = task.agreement(before.output, after.output)
    # measured: 23 of 440,640 int8 codes changed, and the logits of one picture of 360 moved by 0.006
    turning = "; a value on the edge of two codes may change its code" if spec and spec.activation.bits < 32 else ""
    rounded = f" (the file's numbers are fp32{turning})" if options.float64 else ""
    arithmetic = "float64" if options.float64 else "fp32"
    lines = [
        f"{one.path} against {other.path}, {arithmetic}, {found.pictures:,} {data.part} pictures of {data.info.quoted}",
        f"{task.score.name:13} {before.score:.2f} {task.score.unit} -> {after.score:.2f} {task.score.unit}",
        f"same answer   {_share(found)} ({100 * found.agree / found.pictures:.2f} %)",
        f"{task.gap_name} {_number(found.gap)}{rounded}",
        *(f"  picture {i}: {task.margin_words.format(_number(gap))}" for i, gap in found.differ.items()),
    ]
    result = {
        **in_keys(task, after.score, before.score), "pictures": found.pictures,
        "agree": found.agree, "largest_logit_difference": found.gap, "top2_gaps": found.differ,
    }  # fmt: skip
    if fresh:
        exact = task.agreement(before.output, evaluate(options, fresh.to(where), data, task, "a fresh fold").output)
        result |= {"fresh_agree": exact.agree, "fresh_largest_logit_difference": exact.gap}
        lines.append(
            f"a fresh fold of {one.path}, float64: same answer {_share(exact)}, {task.gap_name} {_number(exact.gap)}"
        )
    return {"text": "\n".join(lines), **result}


def _pair(options: Comparing) -> tuple[Opened, Opened]:
    """Open the unmerged and the merged file: the two named ones, or the merged one and its parent, found by hash."""
    named, arch, weights = options.files, options.network.arch, options.weights
    prefix, bare, kind = options.network.prefix, options.network.weights, f" --W {weights.bits}" if weights.bits else ""
    default = SAVED / f"{prefix if bare else weights.stem(prefix)}_merged.pth"
    maker = command_hint(f"bn_merge{kind}" + (f" --weights {shlex.quote(str(bare))}" if bare else ""), arch)
    merged = restore.open(input_file(named[-1] if named else None, default, maker), arch)
    if not restore.is_merged(merged.checkpoint):
        hint = _merged_hint(merged, arch)
        if len(named) == 2 and restore.is_merged(restore.open(named[0], arch).checkpoint):
            hint = "name the unmerged file first"
        raise UserError(f"{merged.path} is not merged", hint, BAD_CHECKPOINT)
    weights.check(merged.path, restore.short_name_of(merged.checkpoint))
    source = options.network.weights or (named[0] if len(named) == 2 else _parent(merged, arch))
    unmerged = restore.open(source, arch, _of_the_merged(merged))
    if restore.is_merged(unmerged.checkpoint):
        raise UserError(f"{unmerged.path} is also merged", "name the unmerged file first", BAD_CHECKPOINT)
    classes = [opened.checkpoint.classes for opened in (unmerged, merged)]
    if classes[0] != classes[1]:
        raise UserError(
            f"{unmerged.path} has {classes[0]} classes, but {merged.path} has {classes[1]}",
            "name the file that was merged",
            BAD_CHECKPOINT,
        )
    if unmerged.checkpoint.sha256 != merged.checkpoint.provenance.parent_sha256:
        warning(f"{unmerged.path} is not the file that {merged.path} was merged from")
    return unmerged, merged


def _of_the_merged(merged: Opened) -> Description:
    """Describe the file that a merged file was made from, in case it is a plain state_dict."""
    made = merged.checkpoint
    return Description(
        arch=made.arch, cfg=made.cfg or None, classes=made.classes, said_by=str(merged.path),
        image_size=made.dataset.image_size, remedy="name the file that was merged", bare=False,
    )  # fmt: skip


def _share(found: Agreement) -> str:
    return f"{found.agree:,} of {found.pictures:,}"


def _number(value: float | None) -> str:
    return "not a finite number" if value is None else f"{value:.3g}"


def _merged_hint(unmerged: Opened, arch: str | None) -> str:
    """Return a hint for an unmerged file given as the merged one. The merged file may lie in the same folder."""
    path = unmerged.path
    beside = path.with_name(f"{path.stem}_merged.pth")
    with suppress(UserError):  # faults of a file that the user did not name do not matter
        if beside.is_file() and files.read(beside).provenance.parent_sha256 == unmerged.checkpoint.sha256:
            return f"name the merged file: {called(command_hint(f'bn_merge.compare {shlex.quote(str(beside))}', arch))}"
    return f"create the merged file with: {_merging(path, arch)}"


def _merging(path: Path, arch: str | None) -> str:
    return called(command_hint(f"bn_merge --model {shlex.quote(str(path))}", arch))


def _parent(merged: Opened, arch: str | None) -> Path:
    """Find the unmerged file of a merged one by its hash, at its recorded path or anywhere in the merged file's folder.

    Raises:
        UserError: exit 3 if it is not there.
    """
    path, made = merged.path, merged.checkpoint.provenance
    recorded = Path(made.parent or "")
    named = [recorded, path.with_name(recorded.name)] if recorded.name else []
    for candidate in [*named, *sorted(path.parent.glob("*.pth"))]:
        if candidate.is_file() and sha256(candidate) == made.parent_sha256:
            return candidate
    hint = f"name it: {called('bn_merge.compare UNMERGED MERGED')}"
    if again := next((c for c in named if c.is_file() and c.resolve() != path.resolve()), None):
        hint += f", or merge again: {_merging(again, arch)}"  # the file exists but its weights changed
    raise UserError(f"the file that {path} was merged from is not in {path.parent}/", hint, BAD_CHECKPOINT)
