"""A checkpoint in words and numbers: the row that it fills in a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.checkpoint import format as checkpoint
from engine.errors import about
from models import cost, legacy
from models.registry import NETWORKS, build
from quant.restore import restore
from scripts.table import ResultRow


def row(path: Path, archs: Sequence[str] = ()) -> ResultRow:
    """Rebuild the network of a file and count it.

    Args:
        archs: what each --arch says, for the files that hold that network; others hold one of their own.

    Raises:
        UserError: exit 3 for a file that cannot be used, exit 2 for a network of the user's that `archs` lacks.
    """
    content = legacy.adopt(checkpoint.load(path), path)
    with about(path):
        model = restore(content, content["arch"] if content["arch"] in archs else None)
    costs = cost.layers(model, content["dataset"]["image_size"])
    return ResultRow(
        type=kind(content),
        dataset=content["dataset"]["label"],
        epochs="+".join(str(t["epochs"]) for t in content["transforms"] if "epochs" in t) or "?",
        accuracy=content["best_acc"],
        macs=cost.total(costs, "macs"),
        params=cost.total(costs, "params"),
        size_bits=cost.total(costs, "bits"),
        remarks=remarks(content),
        judged_on=str(content["metrics"].get("judged_on", "unknown")),
        file=str(path),
    )


def kind(content: dict[str, Any]) -> str:
    """The stages that a network has been through: `nin (1/2 width) sparse, pruned 50 %, refined, w8a8`."""
    words = _listed(*map(_stage, content["transforms"]))
    return f"{content['arch']}{_width(content)} {words or 'float'}"


def _stage(transform: dict[str, Any]) -> str:
    stage = transform["stage"]
    if stage == "train":
        widths = " and ".join(map(_stage, prunings([transform])))
        words = [f"widths of {widths}" if widths else "", "from scratch" if transform.get("from_scratch") else ""]
        return _listed(*words, "sparse" if transform.get("s") else "")
    if stage == "refine":
        return _listed("refined", "sparse" if transform.get("s") else "")
    if stage == "prune":
        base = f" to multiples of {transform['base']}" if transform["base"] > 1 else ""
        return f"pruned {100 * transform['percent']:g} %{base}"
    if stage == "quantize":
        from quant.spec import QuantSpec

        name = QuantSpec.from_dict(transform["spec"]).name
        return f"{name} ptq {transform['calibrate']}" if "calibrate" in transform else name
    return {"merge": "merged", "original": "original file"}.get(stage, stage)


def prunings(transforms: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every pruning that the widths come from: a control from scratch holds those of its model as `pruned`."""
    return [p for t in transforms for p in ([t] if t["stage"] == "prune" else t.get("pruned", []))]


def _listed(*words: str) -> str:
    return ", ".join(filter(None, words))


def _width(content: dict[str, Any]) -> str:
    """How the widths before any pruning compare with the network's own."""
    cfg = next((t["cfg_before"] for t in prunings(content["transforms"])), content["cfg"])
    if content["arch"] not in NETWORKS:
        return ""
    own = build(content["arch"]).cfg
    if list(own) == cfg or content["transforms"][:1] == [{"stage": "original"}]:
        return ""
    for share in (2, 4, 8):
        if [width // share for width in own] == cfg:
            return f" (1/{share} width)"
    return f" (cfg {','.join(map(str, cfg))})"


def _tricks(spec: dict[str, Any]) -> list[str]:
    """Settings of ternary and binary training that are not the default."""
    weight, activation = spec["weight"], spec["activation"]
    low = {"binary", "ternary"}
    return [
        *(["gap"] if weight.get("gap") else []),
        *([f"wste {weight['ste']}"] if weight["kind"] in low and weight.get("ste", "ste") != "ste" else []),
        *([f"ste {activation['ste']}"] if activation["kind"] in low and activation.get("ste", "saturate") != "saturate" else []),
        *([spec["order"]] if activation["kind"] == "binary" and spec.get("order", "bacp") != "bacp" else []),
    ]  # fmt: skip


def remarks(content: dict[str, Any]) -> str:
    words = []
    for transform in content["transforms"]:
        if transform["stage"] == "quantize":
            spec = transform["spec"]
            if spec["weight"]["kind"] in ("binary", "ternary"):
                words.append(f"W {'with' if spec['weight']['scale'] else 'without'} scale")
            words += _tricks(spec)
            affine = "affine" in (spec["weight"]["kind"], spec["activation"]["kind"])
            words.append("every layer quantized, the picture not" if affine else "first and last layer float")
        if prunings([transform]):
            words.append(f"cfg {','.join(map(str, content['cfg']))}")
    if content["metrics"].get("judged_on") == "val":
        words.append("judged on held-out training pictures")
    return "; ".join(dict.fromkeys(words)) or "full precision"  # pruned twice, it still has one cfg
