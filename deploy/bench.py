"""python -m deploy.bench: time a network, float and compressed, in one run: PyTorch, the executors, other runtimes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.options import Source
from engine.cli import argtypes, command
from engine.cli.flags import Parser, flag, part
from engine.cli.machine import OnCpu
from engine.cli.options import Command
from engine.errors import UserError
from engine.system.packages import install

if TYPE_CHECKING:
    from deploy.racing.base import Contender
    from deploy.racing.clock import Timed

EXAMPLES = (
    "deploy.bench --model models_save/nin_w8a8.pth --threads 1",
    "deploy.bench --model models_save/nin_wbab.pth --batches 1 --seconds 5",
)

OTHER_PICTURE = "name another --picture"


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The options of deploy.bench."""

    source: Source = part(Source)
    batches: list[int] = flag(
        "--batches", type=argtypes.number(int, 1, 4096), nargs="+", default=[1, 128], metavar="N",
        help="batch sizes (default: 1 128)",
    )  # fmt: skip
    seconds: float = flag(
        "--seconds", type=argtypes.number(float, 0, open_low=True), default=20.0, metavar="S",
        help="seconds to measure each batch size (default: 20)",
    )  # fmt: skip
    without: list[str] = flag(
        "--without",
        nargs="+",
        default=[],
        metavar="NAME",
        help="runtimes to leave out, by name or pattern: 'OpenVINO*'",
    )
    profile: bool = flag(
        "--profile", action="store_true", help="also print the native executor's time for each operation"
    )
    picture: Path | None = flag(
        "--picture", type=argtypes.path, metavar="F", help="the plot to write (default: --model with _bench.png)"
    )
    machine: OnCpu = part(OnCpu)

    def __post_init__(self) -> None:
        if len({*self.batches}) < len(self.batches):
            raise UserError(
                f"--batches {' '.join(map(str, self.batches))}: a size appears twice", "give each batch size once"
            )
        if self.picture and self.picture.suffix not in ("", ".png", ".pdf", ".svg"):
            raise UserError(f"--picture {self.picture}: the file must end in .png, .pdf or .svg", "name another file")


def parser() -> Parser:
    return Parser("deploy.bench", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    import torch

    from deploy import file, packed
    from deploy.executors.choose import Reference
    from deploy.packing import float_network
    from deploy.racing.base import Absent, Contender
    from deploy.racing.clock import race
    from deploy.racing.contenders import entries
    from deploy.racing.findings import Findings
    from deploy.racing.rates import rates
    from engine.checkpoint.words import counted
    from engine.system.files import check_writable
    from engine.system.processor import processor
    from engine.system.terminal import columns
    from quant import restore

    source = options.source.model
    picture = options.picture or source.with_name(f"{source.stem}_bench.png")
    check_writable(picture, OTHER_PICTURE)
    if file.looks_packed(source):
        parent = packed.open(source).made.provenance.parent
        raise UserError(
            f"{source} is packed, and PyTorch cannot run packed files", f"name the checkpoint: --model {parent}"
        )
    threads = torch.get_num_threads()
    opened = restore.open(source, options.source.arch)
    held = options.source.packed_of(opened, options.words)
    network = float_network(opened, options.source.arch)
    taking_part: list[Contender] = []
    absent: list[Absent] = []
    for entry in entries(network, held.program, threads, options.without):
        if isinstance(entry, Contender):
            taking_part.append(entry)
        else:
            absent.append(entry)
    x = torch.randn(max(options.batches), *held.program.picture, generator=torch.Generator().manual_seed(0))
    right = Reference(held.program)(x[:128]).argmax(1)
    same = {c.name: (_answers(c, x[: len(right)]) == right).double().mean().item() for c in taking_part if c.compressed}
    results: dict[int, dict[str, Timed]] = {}
    for batch in options.batches:
        print(f"measuring batches of {batch}", file=sys.stderr)
        results[batch] = race({c.name: _ready(c, x[:batch]) for c in taking_part}, options.seconds)
    size = {"checkpoint": source.stat().st_size, "packed": packed.size(held)}
    shown = Findings(taking_part, results, same)
    lines = columns(shown.table())
    lines += [f"{entry.name}: left out, {entry.why}" for entry in absent]
    lines += shown.not_faster()
    slower = shown.slower()
    lines += [
        f"{each['runtime']}: {each['kind']} takes {each['milliseconds']:.2f} ms, fp32 {each['fp32']:.2f} ms "
        f"at batch {each['batch']}"
        for each in slower
    ]
    native = next((c.run for c in taking_part if c.name == "native executor"), None)
    told, profiled = rates(native, x, results, threads, options.profile)
    lines += told
    lines.append(f"{source}: {size['checkpoint']:,} bytes, packed {size['packed']:,}")
    agreed = f"same answers: share of {counted(len(right), 'random picture')} with the reference executor's answer; "
    lines.append(
        f"{agreed if same else ''}medians over turns, the middle half of ratios in brackets; {processor()}, {threads} thread"
        f"{'s' * (threads > 1)}, PyTorch {torch.__version__.partition('+')[0]}"
    )
    found = {str(batch): {name: asdict(timed) for name, timed in timed_.items()} for batch, timed_ in results.items()}
    result = {"text": "\n".join(lines), "milliseconds": found, "same_answers": same, "bytes": size, "slower": slower,
              "processor": processor(), "threads": threads, "profile": profiled}  # fmt: skip
    if _drawn(picture, results):
        result["path"] = picture
    return result


def _answers(contender: Contender, x: Any) -> Any:
    return contender.run(x).argmax(1)


def _ready(contender: Contender, x: Any) -> Any:
    return lambda: contender.run(x)


def _drawn(path: Path, results: dict[int, dict[str, Timed]]) -> bool:
    """Draw a bar for each contender; return False if matplotlib is not installed."""
    from deploy.racing.picture import drawn
    from engine.system import figures
    from engine.system.files import write_bytes
    from engine.system.messages import notice

    if not figures.installed():
        notice(f"no picture: matplotlib is not installed ({install('report')})")
        return False
    faster = {batch: {name: timed.faster for name, timed in each.items()} for batch, each in results.items()}
    write_bytes(path, drawn(faster, path.suffix.lstrip(".") or "png"), remedy=OTHER_PICTURE)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
