"""python -m scripts.benchmark: what quantizing NIN's weights costs, against the same arithmetic as a loop over filters."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.options import Command, OnCpu

EXAMPLES = ("scripts.benchmark", "scripts.benchmark --repeats 30 --threads 1")


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """How often."""

    repeats: int = flag(
        "--repeats", type=argtypes.number(int, 3, 10_000), default=15, metavar="N", help="timed pairs (default: 15)"
    )
    machine: OnCpu = part(OnCpu)


def parser() -> Parser:
    return Parser("scripts.benchmark", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    import torch

    import models
    from engine.checkpoint.words import counted
    from engine.system.terminal import columns
    from models.layers.quantizers.binary import binary_weight
    from models.layers.quantizers.ternary import ternary_weight

    torch.manual_seed(1)
    network = models.build("nin")
    weights = [m.weight for m in network.modules() if isinstance(m, torch.nn.Conv2d)][1:-1]  # the two ends stay float
    rows: dict[str, dict[str, float]] = {}
    table = [["quantizer", "whole, ms", "loop, ms", "ratio: median", "min", "max"]]
    for name, quantize in (("ternary", ternary_weight), ("binary", binary_weight)):
        _check_equal(weights, quantize)
        pairs = [
            (_seconds(weights, quantize, whole), _seconds(weights, quantize, loop)) for _ in range(options.repeats + 1)
        ][1:]
        ratios = sorted(a / b for a, b in pairs)
        rows[name] = {
            "whole_ms": 1000 * statistics.median(a for a, _ in pairs), "loop_ms": 1000 * statistics.median(b for _, b in pairs),
            "ratio": statistics.median(ratios), "ratio_min": ratios[0], "ratio_max": ratios[-1],
        }  # fmt: skip
        table.append([name, *(f"{value:.{2 if what.endswith('ms') else 3}f}" for what, value in rows[name].items())])
    filters = sum(len(w) for w in weights)
    lines = columns(table)
    lines.append(
        f"forward and backward over {filters:,} filters of nin, {counted(torch.get_num_threads(), 'thread')}, {options.repeats} alternating pairs"
    )
    return {"text": "\n".join(lines), "filters": filters, **rows}


def whole(weight: Any, quantize: Callable) -> Any:
    """All filters of a layer at once: codes * scale."""
    codes, scale = quantize(weight)
    return codes * scale


def loop(weight: Any, quantize: Callable) -> Any:
    """The same, one filter after the other."""
    import torch

    return torch.cat([whole(weight[n : n + 1], quantize) for n in range(len(weight))])


def _seconds(weights: list, quantize: Callable, how: Callable) -> float:
    started = time.perf_counter()
    for weight in weights:
        weight.grad = None
        how(weight, quantize).sum().backward()
    return time.perf_counter() - started


def _check_equal(weights: list, quantize: Callable) -> None:
    """What is timed must be the same arithmetic."""
    import torch

    for weight in weights:
        torch.testing.assert_close(whole(weight, quantize), loop(weight, quantize))


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
