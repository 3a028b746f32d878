"""The checkpoint that passes between commands, as a value in memory and as a dict on disk.

The dict is a superset of the original repository's {cfg, best_acc, state_dict}. Only this folder knows its keys.
archive.py reads and writes the bytes; models and quant rebuild a network from the value.
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
from engine.system.messages import notice

FORMAT, FORMAT_VERSION, NEWEST_VERSION = PACKAGE, 1, 3
"""Format 1 is written unless the pictures are grey (2), or are cut by ImageNet's recipe or have boxes (3). All three
are read."""

WRAPPERS = ("state_dict", "model_state_dict", "model", "net", "network", "weights")
"""Keys under which other programs store the weights."""


@dataclass(frozen=True)
class Metrics:
    """The measured quality of these very weights.

    Args:
        accuracy: percent.
        loss: mean loss over the pictures.
        pictures: number of pictures it was measured on.
        judged_on: "test", "val", or "unknown".
        extra: further figures of a stage, such as the accuracies before and after each step of pruning.
    """

    accuracy: float
    loss: float | None = None
    pictures: int | None = None
    judged_on: str = "unknown"
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def judged(self) -> bool:
        """Whether the accuracy was measured; a file that was never judged stores accuracy 0."""
        return self.judged_on != "unknown" or self.accuracy > 0

    @property
    def pruning(self) -> Mapping[str, float]:
        """The accuracies before and after each step of pruning, by name; empty unless the last stage is a pruning."""
        return self.extra.get("pruning", {})

    def to_dict(self) -> dict[str, Any]:
        """Return the form on disk, without the fields that are None."""
        own = {"accuracy": self.accuracy, "loss": self.loss, "pictures": self.pictures, "judged_on": self.judged_on}
        return {**{key: value for key, value in own.items() if value is not None}, **self.extra}


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: a network with its description.

    Args:
        arch: registry name, or package.module:function.
        arch_args: the registry's arguments besides cfg, including `classes`.
        cfg: channels of each layer.
        metrics: accuracy of these very weights.
        history: every stage so far.
        dataset: the data set it was trained on; `dataset.known` is False for files of the original repository.
        sha256: hash of the bytes it was read from.
        checksums: whether checksums covered these bytes.
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
        """The number of classes of the network."""
        return self.arch_args["classes"]

    @property
    def prefix(self) -> str:
        """The start of default file names: `nin`, or the function's name for your own network."""
        return prefix(self.arch)

    def to_dict(self) -> dict[str, Any]:
        """Return the form on disk."""
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
    """Return the oldest format that can say how pictures are prepared; programs that only know older ones refuse it."""
    if data.crop == IMAGENET or data.boxes:
        return 3
    return 2 if data.channels == 1 else FORMAT_VERSION


@dataclass(frozen=True)
class Foreign:
    """A file that does not describe itself: a state_dict, bare or wrapped, as the original repository writes it.

    Args:
        cfg, best_acc: the file's own values, unchecked; None if it has none.
    """

    state_dict: dict[str, Tensor]
    cfg: Any = None
    best_acc: Any = None
    sha256: str | None = None
    checksums: bool = False


def make(
    model: nn.Module, arch: str, arch_args: dict[str, Any], info: DataInfo, metrics: Metrics, stages: History, origin: Origin
) -> Checkpoint:  # fmt: skip
    """Describe a network; its `cfg` attribute gives the widths, and its tensors are copied to the CPU."""
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
    """Write a checkpoint that `load` accepts, and say so on stderr if a file is replaced.

    archive.save keeps the old file intact if writing fails.

    Raises:
        UserError: for non-finite numbers (exit 5) or tensors of another kind (exit 2); the old file stays.
    """
    content, state = checkpoint.to_dict(), checkpoint.state_dict
    schema.check_fields(path, content)
    if odd := next(filter(None, (schema.odd_kind(key, value) for key, value in state.items())), None):
        raise UserError(f"{path} is not written: {odd}", "register that buffer with persistent=False")
    if wrong := schema.unsound(state):
        hint = "start from another file: the values this one computes overflow"
        raise UserError(f"{path} is not written: {wrong}", hint, DIVERGED)
    if path.exists():
        print(f"replaced {path}", file=sys.stderr)
    archive.save(path, content)


def load(path: Path) -> Checkpoint | Foreign:
    """Read and check a checkpoint of this toolkit, or a state_dict, bare or wrapped; the bytes are read once.

    Unknown fields are ignored, so that later versions can add fields.

    Raises:
        UserError: for a missing, damaged, unsafe or non-finite file, or a newer format (exit 3).
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
            f"{path}: this format has no checksums, so damage would go unnoticed; "
            f"re-save with: {called(f'scripts.convert {shlex.quote(str(path))} NEW.pth')}"
        )
    state = schema.tensors(path, content["state_dict"], size)
    return Foreign(state, content.get("cfg"), content.get("best_acc"), sha256, checked)


def without_tensors(path: Path, content: Any) -> Checkpoint:
    """Read the dict form of a checkpoint without its state_dict, as files of other kinds hold it.

    Raises:
        UserError: for malformed fields (exit 3).
    """
    if not isinstance(content, dict):
        raise bad_file(path, "it does not describe the checkpoint it was made from")
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
    """Return the key of a file's weights: `state_dict`, or another of `keys` whose entry holds tensors.

    Raises:
        UserError: if there is none, or more than one (exit 3).
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
            f"its weights could be any of {' and '.join(found)}",
            "save only the right one: torch.save(model.state_dict(), PATH)",
        )
    return found[0]


def _check_format(path: Path, content: dict[str, Any], checked: bool) -> None:
    """Refuse a file of another program, of a later version, or without its checksums."""
    name, number = content["format"], content.get("format_version")
    if name != FORMAT:
        raise bad_file(path, f"format {str(name)[:40]!r} is not {FORMAT!r}")
    if not checked:
        raise bad_file(path, "has lost its checksums; damage would go unnoticed")
    if type(number) is int and number > NEWEST_VERSION:
        raise bad_file(
            path,
            f"format version {number}; this version reads {FORMAT_VERSION} to {NEWEST_VERSION}",
            "upgrade the toolkit to read it",
        )
    if type(number) is not int or number < FORMAT_VERSION:
        raise bad_file(path, f"its format version is not {FORMAT_VERSION} to {NEWEST_VERSION}")
