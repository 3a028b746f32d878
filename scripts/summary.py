"""python -m scripts.summary: list a network's layers with shapes, parameters, MACs, bits and memory."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.cli import argtypes, command
from engine.cli.archs import is_users_code
from engine.cli.flags import Parser, flag
from engine.cli.options import Works
from engine.errors import UserError
from engine.system.terminal import columns, width

if TYPE_CHECKING:
    from models.cost import LayerCost
    from models.graph.normal import NormalForm

SHORTEST_NAME = 24
"""Fewest characters of a layer's name, in narrow terminals."""

EXAMPLES = (
    "scripts.summary models_save/nin_w8a8.pth",
    "scripts.summary --arch nin_gc --cfg 192,160,96,192,192,192,192,192",
    "scripts.summary --sensitivity models_save/nin.pth",
)


@dataclass(frozen=True, kw_only=True)
class Options(Works):
    """The network, and whether to measure the sensitivity of its layers."""

    file: Path | None = flag(
        "file", type=argtypes.path, nargs="?", metavar="F",
        help="a checkpoint (default: a new network of --arch and --cfg)",
    )  # fmt: skip
    sensitivity: bool = flag(
        "--sensitivity", action="store_true",
        help="for a float file: accuracy with one layer at a time at 8, 4 or 2 bits, or pruned by 25, 50 or 75 %%",
    )  # fmt: skip

    def __post_init__(self) -> None:
        self.network.only_weights("a file", self.file)
        if self.sensitivity and not self.source:
            raise UserError("--sensitivity needs a file", "name a float checkpoint, or --weights")
        if self.file and (self.network.cfg or self.network.classes):
            raise UserError("a file has its own --cfg and --classes", "leave them out")

    @property
    def source(self) -> Path | None:
        """The file that holds the network, None for a new one."""
        return self.file or self.network.weights


def parser() -> Parser:
    return Parser("scripts.summary", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from dataclasses import asdict

    from models import check, cost
    from models.graph.normal import picture_of
    from scripts.table import short

    if options.sensitivity:
        return _sensitivity(options)
    arch, model, side = _network(options)
    picture = picture_of(model, side)
    with (
        check.as_misdeclared(arch, f"let its code run on pictures of {_by(picture)}, or give another --image_size")
        if is_users_code(arch)
        else nullcontext()
    ):
        rows = cost.layers(model, side)
    params, macs, bits, outputs = (cost.total(rows, what) for what in ("params", "macs", "bits", "output_bytes"))
    memory = {
        "input": 4 * prod(picture),
        "forward": outputs,
        "forward_backward": 2 * outputs,
        "parameters": 4 * params,
    }
    lines = [
        *_by_layer(rows, width()),
        f"parameters  {params:,} ({short(params / 2**20)} x 2^20, the original's M)",
        f"MACs        {macs:,} ({short(macs / 2**30)} x 2^30, the original's G)",
        f"stored      {bits:,} bits = {bits / 8e6:.4f} MB",
        "memory on one picture, fp32, MiB: "
        + ", ".join(f"{name.replace('_', '/')} {value / 2**20:.2f}" for name, value in memory.items())
        + f", total {(memory['input'] + memory['forward_backward'] + memory['parameters']) / 2**20:.2f}",
    ]
    return {
        "text": "\n".join(lines), "layers": [asdict(r) for r in rows],
        "params": params, "macs": macs, "bits": bits, "memory_bytes": memory,
    }  # fmt: skip


def _network(options: Options) -> tuple[str, NormalForm, int]:
    """Return the network's name, the network, and the side of its pictures."""
    from engine.training.foreign import description
    from models import forms
    from quant import restore

    network, asked = options.network, options.data.image_size
    if options.source is None:
        side = asked or 32
        return network.name, forms.build(network.name, network.cfg, network.classes or 10, side=side), side
    opened = restore.open(options.source, network.arch, description(options, judges=False))
    side = asked or opened.checkpoint.dataset.image_size
    return opened.checkpoint.arch, opened.at(side).network, side


def _by_layer(rows: list[LayerCost], room: int | None) -> list[str]:
    """Return the lines of the table, one a layer.

    Args:
        room: columns of the terminal; in a wider table, long names lose their beginning. None keeps all names whole.
    """
    heads = ["layer", "kind", "output", "parameters", "MACs", "weight bits", "stored bits"]
    cells = [
        [r.name, r.kind, _by(r.shape) if r.output_bytes else "-", f"{r.params:,}", f"{r.macs:,}",
         str(r.weight_bits) if r.macs and r.kind != "ATen" else "", f"{r.bits:,}"] for r in rows
    ]  # fmt: skip
    lines = columns([heads, *cells], left=2)
    if room is None or len(lines[0]) <= room:
        return lines
    longest = max(SHORTEST_NAME, max(len(r.name) for r in rows) - (len(lines[0]) - room))
    return columns([heads, *([_end(name, longest), *rest] for name, *rest in cells)], left=2)


def _end(name: str, longest: int) -> str:
    return name if len(name) <= longest else ".." + name[-(longest - 2) :]


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _sensitivity(options: Options) -> dict[str, Any]:
    from tqdm import tqdm

    from engine.numerics.batches import at_a_time
    from engine.system import device, terminal
    from engine.tasks.of import task_of
    from engine.training.choose_data import open_data
    from engine.training.foreign import description
    from models import files
    from scripts.sensitivity import table

    opened = files.open(options.source or Path(), options.network.arch, description(options))
    where = device.choose(options.machine.device)
    batch = at_a_time(options.data.eval_batch_size, where.type)
    data = open_data(options, where, opened.checkpoint)
    model = opened.at(data.info.image_size).network
    model.to(where)
    task = task_of(model, data.info, opened.checkpoint.arch)
    whole = task.evaluate(model, data.test, batch).score
    found: dict[str, dict[str, float]] = {}
    steps = tqdm(table(model, data, batch, task), "evaluating", leave=False, disable=not terminal.is_interactive())
    for layer, change, accuracy in steps:
        found.setdefault(layer, {})[change] = accuracy
    lines = [
        f"{data.part} {task.score.label} on {len(data.test):,} pictures of {data.info.label}; whole network {whole:.2f}"
    ]
    for end in ("bit", "%"):
        rows = {name: [change for change in found[name] if change.endswith(end)] for name in found}
        rows = {name: changes for name, changes in rows.items() if changes}
        heads = next(iter(rows.values()), [])
        cells = [[name, *(f"{found[name][change]:.2f}" for change in changes)] for name, changes in rows.items()]
        lines += columns([["layer", *heads], *cells]) if rows else []
    return {"text": "\n".join(lines), task.score.name: whole, "judged_on": data.part, "sensitivity": found}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
