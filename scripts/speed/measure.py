"""Timing of steps and evaluations in turns, as a table and as plain values."""

from __future__ import annotations

import sys
import time
from typing import Any

import torch

from deploy.racing.clock import Timed, race
from engine.numerics import precision
from engine.numerics.precision import Precision
from engine.system import device as devices
from engine.system.processor import processor
from engine.system.terminal import columns
from models import cost, forms
from scripts.speed import growth, ours, reference
from scripts.speed.ceilings import ceilings
from scripts.speed.options import Options
from scripts.speed.turns import Turn
from scripts.speed.variants import FLOAT

TEXTBOOK = "textbook"
IN_MEMORY = "textbook, pictures in memory"
SETTLING, SETTLED = 6, 2.0
"""Runs before timing, and the seconds after which warm-up ends: memory that is new to a process is slow."""
Runs = dict[tuple[str, str, str], Turn]
"""Turns by variant, code ("textbook", "here") and precision."""


def measure(options: Options) -> dict[str, Any]:
    """Measure what the flags ask for and return the tables, as text and as values."""
    device = devices.choose(options.machine.device)
    best = ceilings(device)
    lines = [
        f"{processor() if device.type == 'cpu' else torch.cuda.get_device_name()}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}; measured: "
        f"{best['fp32_gflops']:.0f} GFLOP/s of fp32 products, {best['bf16_gflops']:.0f} of bf16, copies {best['copy_gb_s']:.1f} GB/s"
    ]
    rows: list[dict[str, Any]] = []
    for arch in options.networks:
        work = 6 * cost.total(cost.layers(forms.build(arch, side=options.image_size), options.image_size), "macs")
        for what in dict.fromkeys(options.what):
            trains = what == "training"
            runs = (_steps if trains else _evaluations)(arch, options, device)
            count, flops = (options.batch, work) if trains else (options.pictures, work / 3)
            print(f"measuring {what} of {arch}, {len(runs)} ways in turns", file=sys.stderr)
            named = {_name(key): run for key, run in runs.items()}
            for run in named.values():
                _settle(run)
            timed = race(named, options.seconds)
            found = [{"network": arch, "what": what, **_row(key, timed, runs, count, flops)} for key in runs]
            rows += found
            lines += ["", f"{arch}, {what}, {_of(what, count)}", *columns(_table(found))]
    grown: list[dict[str, Any]] = []
    if options.growth:
        how = precision.resolved("auto", device)
        grown = [*growth.steps(device, how, options.seconds), *growth.surgery()]
        lines += [
            "",
            "growth of nin",
            *columns([["what", "value", ""], *([str(r["what"]), f"{r['value']:,}", _time(r)] for r in grown)]),
        ]
    return {"text": "\n".join(lines), "ceilings": best, "rows": rows, "growth": grown}


def _settle(run: Turn) -> None:
    started = time.perf_counter()
    for _ in range(SETTLING):
        run()
        if time.perf_counter() - started > SETTLED:
            return


def _of(what: str, count: int) -> str:
    return f"a batch of {count}" if what == "training" else f"{count:,} pictures"


def _time(row: dict[str, Any]) -> str:
    return f"{row['ms']:.1f} ms" if "ms" in row else f"{row['seconds']:.2f} s"


def _ways(device: torch.device) -> list[Precision]:
    return ["fp32", "exact", *(["bf16"] if precision.has_bf16(device) else [])]  # type: ignore[list-item]


def _steps(arch: str, options: Options, device: torch.device) -> Runs:
    """Return the training steps to time. The textbook's float step comes first: it is the baseline."""
    batch, side = options.batch, options.image_size
    runs: Runs = {}
    for variant in dict.fromkeys((FLOAT, *options.variants)):
        runs[variant, TEXTBOOK, "fp32"] = Turn(reference.step_of(arch, side, variant, batch, device), device)
        for how in _ways(device):
            if variant != FLOAT or how != "exact":
                runs[variant, "here", how] = Turn(ours.step_of(arch, side, variant, batch, device, how), device)
    return runs


def _evaluations(arch: str, options: Options, device: torch.device) -> Runs:
    runs: Runs = {}
    for variant in dict.fromkeys((FLOAT, *options.variants)):
        told = (arch, options.image_size, variant, options.pictures, device)
        runs[variant, TEXTBOOK, "fp32"] = Turn(reference.evaluation_of(*told), device)
        runs[variant, IN_MEMORY, "fp32"] = Turn(ours.evaluation_of(*told, "fp32", textbook=True), device)
        for how in _ways(device)[1:]:
            if variant != FLOAT or how != "exact":
                runs[variant, "here", how] = Turn(ours.evaluation_of(*told, how), device)
        if variant == FLOAT:
            runs[variant, "here", "fp32"] = Turn(ours.evaluation_of(*told, "fp32"), device)
    return runs


def _row(key: tuple[str, str, str], timed: dict[str, Timed], runs: Runs, count: int, flops: float) -> dict[str, Any]:
    """Return one row of the table.

    Args:
        count: pictures of a step or an evaluation.
        flops: FLOPs of one picture.
    """
    variant, who, how = key
    first, own, this = next(iter(runs)), (variant, TEXTBOOK, "fp32"), timed[_name(key)]
    ms, own_ms = (timed[_name(k)].milliseconds / runs[k].steps for k in (key, own))
    more = runs[key].steps / runs[first].steps  # steps of a turn
    return {
        "variant": variant, "by": who, "precision": how, "ms": ms,
        "pictures_s": 1000 * count / ms, "gflops": count * flops / ms / 1e6,
        "times_float": this.faster * more, "low": this.low * more, "high": this.high * more,
        "times_own": own_ms / ms, "turns": this.rounds,
    }  # fmt: skip


def _name(key: tuple[str, str, str]) -> str:
    return " · ".join(key)


def _table(rows: list[dict[str, Any]]) -> list[list[str]]:
    head = ["network", "by", "precision", "ms", "pictures/s", "GFLOP/s", "times the textbook's float", "times its own"]
    return [head, *(
        [r["variant"], r["by"], r["precision"], f"{r['ms']:.2f}", f"{r['pictures_s']:,.0f}", f"{r['gflops']:,.0f}",
         f"{r['times_float']:.2f} [{r['low']:.2f}, {r['high']:.2f}]", f"{r['times_own']:.2f}"] for r in rows
    )]  # fmt: skip
