"""python -m deploy.onnx: export a packed file or checkpoint to ONNX; layers stay integer in ONNX Runtime and OpenVINO."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deploy.options import Source
from engine.cli import command
from engine.cli.datasets import IMAGENET
from engine.cli.flags import Parser, flag, part
from engine.cli.options import Command, Output

EXAMPLES = (
    "deploy.onnx --model models_save/nin_w8a8.pth",
    "deploy.onnx --model models_save/nin_wbab_merged.safetensors --save small.onnx",
)


@dataclass(frozen=True, kw_only=True)
class Options(Command):
    """The options of deploy.onnx."""

    source: Source = part(
        Source,
        given={
            "help": "checkpoint of any stage, merged or not, or packed file (default: models_save/nin_wbab_merged.pth)"
        },
    )
    biases: str = flag(
        "--biases", choices=["rounded", "exact"], default="rounded",
        help="rounded: to whole steps of the sums, so that runtimes add integers; exact: as in the packed file, added in "
        "fp32 (default: rounded; exact in detectors)",
    )  # fmt: skip
    output: Output = part(Output, save={"help": "the model to write (default: --model with .onnx)"})


def parser() -> Parser:
    return Parser("deploy.onnx", __doc__, EXAMPLES, Options)


def body(options: Options) -> dict[str, Any]:
    from deploy.exporting.biases import rounded
    from deploy.exporting.model import exported
    from engine.checkpoint.words import counted
    from engine.system.files import OTHER_SAVE, write_bytes
    from engine.system.messages import notice

    path = options.source.target(options.output, ".onnx")
    held = options.source.packed(options.words)
    made = held.made
    names = {"classes": "\n".join(made.dataset.names)} if made.dataset.names else {}
    if made.dataset.crop == IMAGENET:
        names["crop"] = IMAGENET
    if held.detector:
        names |= {key: json.dumps(value) for key, value in held.detector.to_dict().items()}
    elif made.dataset.boxes:
        notice("the packed file does not name the tensors of its answer, so the model does not: pack it again")
    # a detector's boxes would move
    found = rounded(held.program, keep=options.biases == "exact" or bool(made.dataset.boxes))
    if found.layers:
        notice(
            f"rounded the biases of {counted(len(found.layers), 'layer')} to whole steps of the sums, by up to "
            f"{100 * found.farthest:.2g} % of a step between the codes behind: other runtimes need that to add integers, and "
            "some answers may differ from those of the packed file. --biases exact keeps them; then these layers may run in fp32"
        )
    model = exported(
        found.program, arch=made.arch, data=made.dataset.label, made_from=str(made.provenance.parent), **names
    )
    content = model.SerializeToString()
    if path.exists():
        print(f"replaced {path}", file=sys.stderr)
    write_bytes(path, content, remedy=OTHER_SAVE)
    kinds = [node.op_type for node in model.graph.node]
    text = f"{path}: {len(content):,} bytes, {len(kinds)} nodes, {kinds.count('Conv')} convolutions"
    return {"text": text, "path": path, "bytes": len(content), "nodes": len(kinds)}


def main(argv: Sequence[str] | None = None) -> int:
    return command.run(parser(), body, argv)


if __name__ == "__main__":
    sys.exit(main())
