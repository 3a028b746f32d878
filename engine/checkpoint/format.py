"""The checkpoint that passes between commands, as a value in memory and as a dict on disk.

The dict, a superset of the original's {cfg, best_acc, state_dict}, is known in this folder alone. How its bytes are
kept safe: archive.py. How a network is rebuilt from it: models and quant.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from engine.checkpoint import archive, schema, transforms
from engine.checkpoint.archive import bad_file
from engine.checkpoint.history import History
from engine.checkpoint.provenance import PACKAGE, Origin, Provenance, provenance
from engine.cli.archs import prefix
from engine.cli.datasets import IMAGENET
from engine.cli.naming import called
from engine.data.info import DataInfo
from engine.errors import DIVERGED, UserError
from engine.system.said import notice

FORMAT, FORMAT_VERSION, NEWEST_VERSION = PACKAGE, 1, 3
"""Format 1 is written where it suffices: not for gray pictures (2), not for pictures cut by ImageNet's recipe or with boxes (3). All are
read."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Where other programs keep the weights in their files."""


@dataclass(frozen=True)
class Metrics:
    """How good exactly these weights are.

    Args:
        accuracy: percent.
        loss: mean over the pictures.
        pictures: how many it was measured on.
        judged_on: "test", "val", or "unknown".
        extra: what a stage adds, e.g. the accuracies before and after each step of pruning.
    """

    accuracy: float
    loss: float | None = None
    pictures: int | None = None
    judged_on: str = "unknown"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether anybody has measured it; a file that nobody has judged has accuracy 0."""
        return self.judged_on != "unknown" or self.accuracy > 0

    @property
    def pruning(self) -> Mapping[str, float]:
        """Of a file whose last stage is a pruning: the accuracies before and after each of its steps, by name."""
        return self.extra.get("pruning", {})

    def to_dict(self) -> dict[str, Any]:
        """The form on disk; what is None is left out."""
        own = {"accuracy": self.accuracy, "loss": self.loss, "pictures": self.pictures, "judged_on": self.judged_on}
        return {**{key: value for key, value in own.items() if value is not None}, **self.extra}


@dataclass(frozen=True)
class Checkpoint:
    """A network, described completely.

    Args:
        arch: registry name, or package.module:function.
        arch_args: what the registry needs besides cfg, `classes` among them.
        cfg: the widths.
        metrics: of these very weights.
        history: every stage so far.
        dataset: what it was trained on; `dataset.known` is False for files of the original.
        sha256, checksums: of the bytes that it was read from, and whether damage to them would have been noticed.
    """

    arch: str
    arch_args: dict[str, Any]
    cfg: list[int]
    state_dict: dict[str, Tensor]
    history: History
    dataset: DataInfo
    metrics: Metrics
    provenance: Provenance
    format: str = FORMAT
    sha256: str | None = None
    checksums: bool = False

    @property
    def classes(self) -> int:
        """How many classes the network gives."""
        return self.arch_args["classes"]

    @property
    def prefix(self) -> str:
        """What default file names begin with: `nin`, or the function's name of a network of the user's."""
        return prefix(self.arch)

    def to_dict(self) -> dict[str, Any]:
        """The form on disk."""
        return {
            "format": FORMAT,
            "format_version": _version(self.dataset),
            "arch": self.arch,
            "arch_args": self.arch_args,
            "cfg": self.cfg,
            "best_acc": float(self.metrics.accuracy),
            "state_dict": self.state_dict,
            "transforms": [stage.to_dict() for stage in self.history],
            "dataset": self.dataset.to_dict(),
            "metrics": self.metrics.to_dict(),
            "provenance": asdict(self.provenance),
        }


def _version(data: DataInfo) -> int:
    """The oldest format that says how pictures are shown: programs that would show them otherwise refuse a later one."""
    if data.crop == IMAGENET or data.boxes:
        return 3
    return 2 if data.channels == 1 else FORMAT_VERSION


@dataclass(frozen=True)
class Foreign:
    """A file that does not describe itself: a state_dict, bare or wrapped, as the original writes it.

    Args:
        cfg, best_acc: as the file has them, not checked; None where it has none.
    """

    state_dict: dict[str, Tensor]
    cfg: Any = None
    best_acc: Any = None
    sha256: str | None = None
    checksums: bool = False


def make(
    model: nn.Module, arch: str, arch_args: dict[str, Any], info: DataInfo, metrics: Metrics, stages: History, origin: Origin
) -> Checkpoint:  # fmt: skip
    """Describe a network; its `cfg` attribute gives the widths, its tensors are copied to the CPU."""
    return Checkpoint(
        arch=arch,
        arch_args=arch_args,
        cfg=list(cast(list[int], model.cfg)),
        state_dict={key: value.detach().cpu().clone() for key, value in model.state_dict().items()},
        history=stages,
        dataset=info,
        metrics=metrics,
        provenance=provenance(origin),
    )


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint that `load` will take; see archive.save for what is promised. Says when a file is replaced.

    Raises:
        UserError: exit 5 for numbers that are not finite, exit 2 for tensors that are no numbers; the old file stays.
    """
    content, state = checkpoint.to_dict(), checkpoint.state_dict
    schema.check_fields(path, content)
    if odd := next(filter(None, (schema.odd_kind(key, value) for key, value in state.items())), None):
        raise UserError(f"{path} is not written: {odd}", "register that buffer with persistent=False")
    if wrong := schema.unsound(state):
        hint = "start from another file: what this one computes grows beyond the largest number"
        raise UserError(f"{path} is not written: {wrong}", hint, DIVERGED)
    if path.exists():
        print(f"replaced {path}", file=sys.stderr)
    archive.save(path, content)


def load(path: Path) -> Checkpoint | Foreign:
    """Read and check a checkpoint of ours, or a state_dict, bare or wrapped; the bytes are read once.

    Unknown fields are ignored, so that later programs may add some.

    Raises:
        UserError: exit 3 for a missing, damaged, unsafe or non-finite file, or one of a newer format.
    """
    content, checked, sha256, size = archive.load(path)
    if isinstance(content, dict) and content and all(isinstance(v, Tensor) for v in content.values()):
        content = {"state_dict": content}  # a bare state_dict
    if isinstance(content, dict) and content.keys() >= {"identity", "optimizer", "model"}:
        raise bad_file(path, "the state of a run, not a checkpoint", "name the file that the run wrote")
    if not isinstance(content, dict):
        raise bad_file(path, "no state_dict in it; not a checkpoint")
    described = content.get("format") is not None
    content["state_dict"] = content.pop(_weights(path, content, ("state_dict",) if described else WRAPPERS))
    if described:
        _check_format(path, content, checked)
        schema.check_fields(path, content)
        state = schema.tensors(path, content["state_dict"], size)
        return _described(path, content, state, sha256, checked)
    if not checked:
        notice(
            f"{path}: no checksum in this format, damage to it could not be noticed; "
            f"re-save with: {called(f'scripts.convert {shlex.quote(str(path))} NEW.pth')}"
        )
    state = schema.tensors(path, content["state_dict"], size)
    return Foreign(state, content.get("cfg"), content.get("best_acc"), sha256, checked)


def without_tensors(path: Path, content: Any) -> Checkpoint:
    """What a file of another kind says of the network in it: the dict form of a checkpoint without a state_dict.

    Raises:
        UserError: exit 3 for fields of another form.
    """
    if not isinstance(content, dict):
        raise bad_file(path, "it does not say what it was made from")
    schema.check_fields(path, content)
    return _described(path, content, {}, None, True)


def _described(
    path: Path, content: dict[str, Any], state: dict[str, Tensor], sha256: str | None, checked: bool
) -> Checkpoint:
    try:
        stages = transforms.read(content["transforms"])
    except ValueError as fault:
        raise bad_file(path, str(fault)) from fault
    data, metrics, made = content["dataset"], dict(content["metrics"]), content["provenance"]
    own = {key: metrics.pop(key) for key in ("loss", "pictures", "judged_on") if key in metrics}
    metrics.pop("accuracy", None)
    return Checkpoint(
        arch=content["arch"],
        arch_args=content["arch_args"],
        cfg=content["cfg"],
        state_dict=state,
        history=stages,
        dataset=DataInfo.read(data),
        metrics=Metrics(content["best_acc"], **own, extra=metrics),
        provenance=Provenance(**{part.name: made[part.name] for part in fields(Provenance) if part.name in made}),
        sha256=sha256,
        checksums=checked,
    )


def _weights(path: Path, content: dict[Any, Any], keys: Sequence[str]) -> str:
    """The key of a file's weights: a state_dict as such, another entry only where it holds tensors.

    Raises:
        UserError: exit 3 where there is none, or more than one.
    """
    found = [
        key
        for key in keys
        if isinstance(part := content.get(key), dict)
        and (key == "state_dict" or any(isinstance(value, Tensor) for value in part.values()))
    ]
    if not found:
        raise bad_file(path, "no state_dict in it; not a checkpoint")
    if len(found) > 1:
        raise bad_file(
            path,
            f"{' and '.join(found)} may each be its weights",
            "save the right ones alone: torch.save(model.state_dict(), PATH)",
        )
    return found[0]


def _check_format(path: Path, content: dict[str, Any], checked: bool) -> None:
    """Refuse a file of another program, of a later version, or one that has lost what guards it."""
    name, number = content["format"], content.get("format_version")
    if name != FORMAT:
        raise bad_file(path, f"format {str(name)[:40]!r} is not {FORMAT!r}")
    if not checked:
        raise bad_file(path, "has lost its checksums; damage could not be noticed")
    if type(number) is int and number > NEWEST_VERSION:
        raise bad_file(
            path,
            f"format version {number}; this program reads {FORMAT_VERSION} to {NEWEST_VERSION}",
            "upgrade this program to read it",
        )
    if type(number) is not int or number < FORMAT_VERSION:
        raise bad_file(path, f"its format version is not {FORMAT_VERSION} to {NEWEST_VERSION}")
