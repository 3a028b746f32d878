"""What both pruning commands do: plan, mask, cut, re-estimate BN, and show every step. Their defaults differ."""

from __future__ import annotations

import argparse
import copy
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from engine.cli import argtypes, flags
from engine.errors import UserError

PROOF_PICTURES = 16


def _share(text: str) -> float:
    """An argparse type: the share of channels to drop, in [0, 1)."""
    try:
        value = float(text) if "_" not in text else math.nan
    except ValueError:
        value = math.nan
    if not 0 <= value < 1:
        guess = f"did you mean {value / 100:g}?" if 1 < value < 100 else "e.g. --percent 0.5"
        raise argparse.ArgumentTypeError(f"{text!r} is not in [0, 1)\n{guess}")
    return value


def parser(prog: str, doc: str, examples: tuple[str, ...], arch: str, percent: float) -> flags.Parser:
    """The flags of both commands."""
    p = flags.Parser(prog, doc.partition(": ")[2], examples)
    stage = p.add_argument_group("stage")
    stage.add_argument("--percent", type=_share, default=percent, metavar="P",
                       help=f"share of channels to drop, over all layers together (default: {percent})")  # fmt: skip
    stage.add_argument("--normal_regular", type=flags.number(int, 1), default=1, metavar="N",
                       help="keep a multiple of N channels in every layer (default: 1)")  # fmt: skip
    stage.add_argument(
        "--model",
        type=argtypes.path,
        metavar="F",
        help=f"sparsely trained file (default: models_save/{arch}_preprune.pth)",
    )
    stage.add_argument(
        "--strict", action="store_true", help="refuse, instead of warning, where a layer would be emptied"
    )
    stage.add_argument("--bn_batches", type=flags.number(int, 1), default=50, metavar="N",
                       help="training batches to re-estimate BN statistics over (default: 50)")  # fmt: skip
    stage.add_argument("--train_batch_size", type=flags.number(int, 2), default=128, metavar="N")
    flags.add_network(p, arch)
    flags.add_data(p)
    flags.add_machine(p)
    flags.add_output(p)
    return p


def body(args: argparse.Namespace, grouped: bool = False) -> dict[str, Any]:
    """Prune one file and show what each step did to its accuracy."""
    if args.cfg:
        raise UserError("--cfg: a pruned network's widths come from --percent", "leave --cfg out")
    import torch

    import models
    from engine.cli.naming import SAVED, find, makes
    from engine.system.terminal import columns
    from engine.training.experiment import Experiment
    from models import cost
    from prune.bn_statistics import reestimate_bn
    from prune.load import load
    from prune.plan import plan as make_plan
    from prune.sparsity import gammas, looks_sparse
    from prune.surgery import gates_of, masked, sliced
    from prune.trial import examine

    prefix = (args.arch or args.default_arch).rpartition(":")[2]
    maker = makes("prune.train -sr", args.arch or args.default_arch)
    source = find(args.model, SAVED / f"{prefix}_preprune.pth", maker)
    model, checkpoint = load(source, args)
    arch, more = checkpoint["arch"], checkpoint["arch_args"]
    examine(model, arch, more, checkpoint["dataset"]["image_size"] or 32, sparse=True)
    task = Experiment(args, SAVED / f"{arch.rpartition(':')[2]}_prune.pth", source)
    if grouped and all(getattr(m, "groups", 1) == 1 for m in model.modules()):
        print(
            f"notice: {arch} has no grouped convolutions: prune.gc treats it as prune.normal_regular does",
            file=sys.stderr,
        )
    if not looks_sparse(gammas(model)):
        _warn(f"{source} looks not sparsity-trained: its BN scales hardly differ; train with -sr first")
    plan = make_plan(gates_of(model), args.percent, args.normal_regular)
    _report_floors(plan, args.strict)
    data = task.data(checkpoint)

    size = data.info.image_size
    small = sliced(model, plan, lambda cfg: models.build(arch, cfg, **more))
    before = task.judge(model, data, "before pruning")
    silenced = masked(model, plan)
    silent = task.judge(silenced, data, "masked")
    cut = task.judge(small, data, "sliced")
    with torch.random.fork_rng(devices=[]):  # what it builds may draw weights
        whole = copy.deepcopy(model).double()  # cut in float64: what surgery adds up, fp32 would round
        exact = [masked(whole, plan), sliced(whole, plan, lambda cfg: models.build(arch, cfg, **more))]
    _prove(task, data, exact, _surely_moved(silent.logits, cut.logits), own=":" in arch)
    after, mended = cut, {}
    if plan.cfg != plan.cfg_before:  # else there is nothing to mend
        reestimate_bn(small, data.train, args.train_batch_size, args.seed, args.bn_batches)
        after = task.judge(small, data, "with BN re-estimated")
        mended = {"bn_reestimated": after.accuracy}

    costs = [cost.layers(network, size) for network in (model, small)]
    macs, params = ([cost.total(c, what) for c in costs] for what in ("macs", "params"))
    stage = {
        "stage": "prune", "percent": args.percent, "base": args.normal_regular,
        "achieved": plan.achieved, "cfg_before": plan.cfg_before,
    }  # fmt: skip
    accuracies = {
        "before": before.accuracy, "masked": silent.accuracy,
        "sliced": cut.accuracy, **mended,
    }  # fmt: skip
    path = task.write(small, arch, {**more, **small.arch_args}, data,
                      task.metrics(after, data, pruning=accuracies), [*checkpoint["transforms"], stage])  # fmt: skip
    gates = zip(plan.names, map(str, plan.before), map(str, plan.widths), strict=True)
    lines = [
        *columns([["gate", "before", "kept"], *map(list, gates)]),
        f"cfg before  {plan.cfg_before}",
        f"cfg after   {plan.cfg}",
        f"percent     requested {100 * args.percent:.2f} %, achieved {100 * plan.achieved:.2f} %",
        *_since_the_first(checkpoint["transforms"], plan.cfg),
        f"parameters  {params[0]:,} -> {params[1]:,}",
        f"MACs        {macs[0]:,} -> {macs[1]:,}",
        f"accuracy on {len(data.test):,} {data.judged} pictures of {data.info.label}:",
        f"  before {before.accuracy:.2f} %, masked {silent.accuracy:.2f} %, sliced {cut.accuracy:.2f} %, "
        + (f"BN re-estimated {after.accuracy:.2f} %" if mended else "nothing dropped: BN left as it was"),
        f"stored with the file: {after.accuracy:.2f} %, before any refining; next: python -m "
        + shlex.join(["prune.train", "--refine", str(path), *_needed(args, arch)]),
    ]
    return {
        "text": "\n".join(lines), "path": path, "cfg_before": plan.cfg_before, "cfg_after": plan.cfg,
        "percent": args.percent, "achieved": plan.achieved, "accuracy": accuracies,
        "params": params, "macs": macs,
    }  # fmt: skip


def _needed(args: argparse.Namespace, arch: str) -> list[str]:
    """Flags that the next stage cannot read from the file: where code and pictures of the user's own are."""
    words = ["--arch", arch] if ":" in arch else []
    return words if args.data == Path("data") else [*words, "--data", str(args.data)]


def _since_the_first(transforms: list[dict[str, Any]], cfg: list[int]) -> list[str]:
    """Where a network is pruned again: what has gone since it was whole."""
    first = next((sum(t["cfg_before"]) for t in transforms if t["stage"] == "prune"), None)
    if first is None:
        return []
    share = 100 * (1 - sum(cfg) / first)
    return [f"in all      {first} -> {sum(cfg)} channels since the first pruning, {share:.2f} % dropped"]


def _prove(task: Any, data: Any, exact: list[Any], moved: int, own: bool) -> None:
    """Compare the masked and the sliced network in float64: the logits of a few pictures, which say more than answers do
    where a network gives one class to all, and the answers to all pictures where some have moved.

    Args:
        exact: both networks.
        moved: pictures whose answer seems to have moved: by fp32 sums in another order, or by a fault.

    Raises:
        UserError: exit 2 where the network is the user's own; another that differs is a bug of ours.
    """
    import torch

    from prune.surgery import misdescribed, same

    pictures = next(iter(data.test.batches(PROOF_PICTURES)))[0].double()
    with torch.no_grad():
        fault = "" if same(*(network.eval()(pictures) for network in exact)) else "logits"
    if moved and not fault and (surely := _surely_moved(*(task.judge(network, data).logits for network in exact))):
        fault = f"{surely} answers"
    if fault and own:
        raise misdescribed(f"surgery changed its {fault}")
    if fault:
        raise AssertionError(f"surgery changed {fault} more than rounding can")


def _surely_moved(masked: Any, sliced: Any) -> int:
    """Pictures whose answer differs though their two best logits are at least 1e-5 (of the largest logit) apart."""
    best = masked.topk(2, dim=1).values
    apart = best[:, 0] - best[:, 1] >= 1e-5 * masked.abs().max().clamp_min(1)
    return int(((masked.argmax(1) != sliced.argmax(1)) & apart).sum())


def _report_floors(plan: Any, strict: bool) -> None:
    if plan.raised:
        text = f"percent {plan.percent:g} would empty {', '.join(plan.raised)}"
        if strict:
            raise UserError(text, "take a smaller --percent, or leave --strict out")
        _warn(f"{text}: the smallest legal width is kept there; lower --percent, or --s in training")
    if plan.whole:
        _warn(f"no multiple of {plan.base} is legal for {', '.join(plan.whole)}: left whole")


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr)
