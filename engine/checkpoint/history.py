"""The stages that a network has been through; each stage checks its settings and can word them.

A stage stores bits and masks as plain values; only quant and prune interpret them. transforms.py reads the dict form
on disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from engine.checkpoint.values import (
    check_count,
    check_limit,
    check_names,
    check_share,
    check_spec,
    check_strength,
    is_cfg,
)
from engine.checkpoint.words import flat, listed, without_unset

History = tuple["Stage", ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. `stored` is its dict from a file, written back unchanged with any fields of later versions.

    Raises:
        ValueError: for a setting of the wrong type or out of range.
    """

    name: ClassVar[str]
    stored: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def settings(self) -> dict[str, Any]:
        """Return the dict form without the name and without unset fields, in the order of old files."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """Return the form on disk."""
        return dict(self.stored) if self.stored is not None else {"stage": self.name, **self.settings()}

    def words(self) -> str:
        """Return the words for a report; empty if the report leaves the stage out."""
        return self.name

    def settings_words(self) -> str:
        """Return every setting with its key, `s 0.0001, epochs 6`, including all entries of a spec."""
        return flat(without_unset({key: value for key, value in self.to_dict().items() if key != "stage"}))


@dataclass(frozen=True, kw_only=True)
class Trained(Stage):
    """A stage that trains.

    Args:
        epochs: length of the training; None before it.
        val: number of training pictures held out.
    """

    epochs: int | None = None
    val: int = 0

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check_count("epochs", self.epochs)
        check_count("val", self.val, least=0)

    def duration(self) -> dict[str, Any]:
        """Return the part of the dict form that all trained stages share."""
        return {**({} if self.epochs is None else {"epochs": self.epochs}), **({"val": self.val} if self.val else {})}


@dataclass(frozen=True, kw_only=True)
class Prune(Stage):
    """A pruning of channels.

    Args:
        percent: requested share of all gates, in [0, 1).
        base: widths are multiples of this.
        achieved: share that was removed, in [0, 1); None if the file does not say.
        cfg_before: widths before the pruning.
        importance: how channels were ranked, a value of --importance.
        max_per_layer: largest share one layer could lose, in (0, 1]; None for no limit.
        spare: names and patterns of the layers that kept all channels.
    """

    name = "prune"
    percent: float
    base: int
    cfg_before: Sequence[int]
    achieved: float | None = None
    importance: str = "bn"
    max_per_layer: float | None = None
    spare: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_share("percent", self.percent)
        check_count("base", self.base)
        check_names("spare", self.spare)
        if not isinstance(self.importance, str):
            raise ValueError("importance is not a name")
        check_limit(self.max_per_layer)
        if self.achieved is not None:
            check_share("achieved", self.achieved)
        if not is_cfg(self.cfg_before):
            raise ValueError("cfg_before is not a list of channel counts")

    def settings(self) -> dict[str, Any]:
        reached = {} if self.achieved is None else {"achieved": self.achieved}
        chosen = {
            **({} if self.importance == "bn" else {"importance": self.importance}),
            **({} if self.max_per_layer is None else {"max_per_layer": self.max_per_layer}),
            **({"spare": list(self.spare)} if self.spare else {}),
        }
        return {"percent": self.percent, "base": self.base, **reached, "cfg_before": self.cfg_before, **chosen}

    def words(self) -> str:
        base = f" to multiples of {self.base}" if self.base > 1 else ""
        how = [] if self.importance == "bn" else [f"by {self.importance}"]
        how += [] if self.max_per_layer is None else [f"at most {100 * self.max_per_layer:g} % a layer"]
        how += [f"without {', '.join(self.spare)}"] if self.spare else []
        return ", ".join([f"pruned {100 * self.percent:g} %{base}", *how])


@dataclass(frozen=True, kw_only=True)
class Train(Trained):
    """Float training from fresh weights.

    Args:
        s: strength of the sparsity penalty; None for no penalty.
        from_scratch: whether it is the control of a pruned file, with its widths and fresh weights.
        pruned: the prunings of that file; None if it is no control.
    """

    name = "train"
    s: float | None = None
    from_scratch: bool = False
    pruned: tuple[Prune, ...] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.s)
        if type(self.from_scratch) is not bool:
            raise ValueError("from_scratch is neither true nor false")

    def settings(self) -> dict[str, Any]:
        return {
            **({"s": self.s} if self.s else {}),
            **({"from_scratch": True} if self.from_scratch else {}),
            **({} if self.pruned is None else {"pruned": [stage.to_dict() for stage in self.pruned]}),
            **self.duration(),
        }

    def words(self) -> str:
        widths = " and ".join(stage.words() for stage in self.pruned or ())
        return listed(
            f"widths of {widths}" if widths else "",
            "from scratch" if self.from_scratch else "",
            "sparse" if self.s else "",
        )


@dataclass(frozen=True, kw_only=True)
class Refine(Trained):
    """Further training of a float file; `s` as in Train."""

    name = "refine"
    s: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_strength(self.s)

    def settings(self) -> dict[str, Any]:
        return {**({"s": self.s} if self.s else {}), **self.duration()}

    def words(self) -> str:
        return listed("refined", "sparse" if self.s else "")


@dataclass(frozen=True, kw_only=True)
class Quantize(Trained):
    """Training with quantizers; `spec` is the dict of a quant.spec.QuantSpec, and only that class interprets it."""

    name = "quantize"
    spec: Mapping[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec(self.spec)

    def settings(self) -> dict[str, Any]:
        return {"spec": self.spec, **self.duration()}

    def words(self) -> str:
        """Return nothing: quant words the spec for reports."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Calibrate(Stage):
    """Quantization without training: ranges measured by `method` on `pictures` pictures; `spec` as in Quantize.

    Args:
        bias_correction: whether the biases were corrected afterwards.
    """

    name = "quantize"  # the name in old files; the key `calibrate` distinguishes the two
    spec: Mapping[str, Any]
    method: str
    pictures: int | None = None
    bias_correction: bool = False

    def __post_init__(self) -> None:
        check_spec(self.spec)
        if not isinstance(self.method, str):
            raise ValueError("its calibration method is not a string")
        if self.pictures is not None:
            check_count("pictures", self.pictures)
        if type(self.bias_correction) is not bool:
            raise ValueError("its bias_correction is neither true nor false")

    def settings(self) -> dict[str, Any]:
        corrected = {"bias_correction": True} if self.bias_correction else {}
        return {"spec": self.spec, "calibrate": self.method, "pictures": self.pictures, **corrected}

    def words(self) -> str:
        """Return the words that follow the name of the spec, which quant adds."""
        return f"ptq {self.method}" + ", biases corrected" * self.bias_correction


@dataclass(frozen=True, kw_only=True)
class Merge(Stage):
    """Folding of the batch norms."""

    name = "merge"

    def words(self) -> str:
        return "merged"


@dataclass(frozen=True, kw_only=True)
class Original(Stage):
    """A file of the original repository or of another program; it may have been trained on every training picture.

    Args:
        made_fresh: names of the last layers' tensors that were initialised afresh, because the file had other classes.
            The network has therefore learnt nothing yet from the pictures of these classes.
        elsewhere: whether the weights are known not to be the original repository's. Files of older versions do not say.
    """

    name = "original"
    made_fresh: Sequence[str] = ()
    elsewhere: bool = False

    def __post_init__(self) -> None:
        check_names("made_fresh", self.made_fresh)
        if type(self.elsewhere) is not bool:
            raise ValueError("elsewhere is neither true nor false")

    def settings(self) -> dict[str, Any]:
        fresh = {"made_fresh": list(self.made_fresh)} if self.made_fresh else {}
        return {**fresh, **({"elsewhere": True} if self.elsewhere else {})}

    def words(self) -> str:
        first = "weights from elsewhere" if self.elsewhere else "original file"
        return first + (" with a fresh last layer" if self.made_fresh else "")


def is_originals(history: Sequence[Stage]) -> bool:
    """Return whether a file holds the original repository's weights as they are; see Original for older versions' files."""
    first = history[0] if len(history) == 1 else None
    return isinstance(first, Original) and not first.elsewhere


def prunings(history: Sequence[Stage]) -> list[Prune]:
    """Return every pruning behind the widths; a control from scratch has the prunings of its pruned file."""
    return list(_prunings(history))


def _prunings(history: Sequence[Stage]) -> Iterator[Prune]:
    for stage in history:
        if isinstance(stage, Prune):
            yield stage
        elif isinstance(stage, Train):
            yield from stage.pruned or ()
