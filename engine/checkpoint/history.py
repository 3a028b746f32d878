"""The stages that a network has been through, as values that check and word themselves.

A stage carries bits and masks as plain values and never interprets them: quant and prune do. Their dict form on disk is read
by transforms.py.
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
    """One stage. `stored` is its dict as a file had it, written again as it was, with fields of later programs.

    Raises:
        ValueError: for a setting of another kind or out of range.
    """

    name: ClassVar[str]
    stored: Mapping[str, Any] | None = field(default=None, compare=False, repr=False)

    def settings(self) -> dict[str, Any]:
        """What the dict form holds besides the name, in the order of old files; nothing that is not set."""
        return {}

    def to_dict(self) -> dict[str, Any]:
        """The form on disk."""
        return dict(self.stored) if self.stored is not None else {"stage": self.name, **self.settings()}

    def words(self) -> str:
        """What a report says of the stage; empty where it says nothing."""
        return self.name

    def settings_words(self) -> str:
        """Every setting that is set, by its key: `s 0.0001, epochs 6`; of a spec, whatever it holds."""
        return flat(without_unset({key: value for key, value in self.to_dict().items() if key != "stage"}))


@dataclass(frozen=True, kw_only=True)
class Trained(Stage):
    """A stage that trains.

    Args:
        epochs: how long; None before the training.
        val: training pictures that were held out.
    """

    epochs: int | None = None
    val: int = 0

    def __post_init__(self) -> None:
        if self.epochs is not None:
            check_count("epochs", self.epochs)
        check_count("val", self.val, least=0)

    def duration(self) -> dict[str, Any]:
        """The part of the dict form that all trained stages share."""
        return {**({} if self.epochs is None else {"epochs": self.epochs}), **({"val": self.val} if self.val else {})}


@dataclass(frozen=True, kw_only=True)
class Prune(Stage):
    """Channels dropped.

    Args:
        percent: the share that was asked for, of all gates, in [0, 1).
        base: the count that widths are multiples of.
        achieved: the share that went, in [0, 1); None where a file does not say.
        cfg_before: the widths before.
        importance: what a channel was worth, a value of --importance.
        max_per_layer: the largest share that one layer was to lose, in (0, 1]; None without a limit.
        spare: names and patterns of the layers that were to keep all channels.
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
            raise ValueError("importance is no name")
        check_limit("max_per_layer", self.max_per_layer)
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
        s: strength of the sparsity penalty, None without.
        from_scratch: whether it is the control of a pruned file: its widths, fresh weights.
        pruned: the prunings of that file; None where it is the control of none.
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
    """A float file trained on; `s` as in Train."""

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
    """Training with quantizers; `spec` is the dict of a quant.spec.QuantSpec, which alone knows what it means."""

    name = "quantize"
    spec: Mapping[str, Any]

    def __post_init__(self) -> None:
        super().__post_init__()
        check_spec(self.spec)

    def settings(self) -> dict[str, Any]:
        return {"spec": self.spec, **self.duration()}

    def words(self) -> str:
        """Nothing: a report says the name of the spec, which quant knows."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Calibrate(Stage):
    """Quantizers with ranges measured on `pictures` training pictures by `method`, nothing trained; `spec` as in Quantize.

    Args:
        bias_correction: whether biases were corrected afterwards.
    """

    name = "quantize"  # what old files call it; `calibrate` tells it apart
    spec: Mapping[str, Any]
    method: str
    pictures: int | None = None
    bias_correction: bool = False

    def __post_init__(self) -> None:
        check_spec(self.spec)
        if not isinstance(self.method, str):
            raise ValueError("its method of calibration is no word")
        if self.pictures is not None:
            check_count("pictures", self.pictures)
        if type(self.bias_correction) is not bool:
            raise ValueError("its bias_correction is neither true nor false")

    def settings(self) -> dict[str, Any]:
        corrected = {"bias_correction": True} if self.bias_correction else {}
        return {"spec": self.spec, "calibrate": self.method, "pictures": self.pictures, **corrected}

    def words(self) -> str:
        """What stands behind the name of the spec, which quant knows."""
        return f"ptq {self.method}" + ", biases corrected" * self.bias_correction


@dataclass(frozen=True, kw_only=True)
class Merge(Stage):
    """Batch norms folded."""

    name = "merge"

    def words(self) -> str:
        return "merged"


@dataclass(frozen=True, kw_only=True)
class Original(Stage):
    """A file of the original repository or of another program, which may have seen every training picture.

    Args:
        made_fresh: tensors of the last layers that it did not have for these classes. They were made fresh, so that it has
            learnt nothing of the pictures that followed.
    """

    name = "original"
    made_fresh: Sequence[str] = ()

    def __post_init__(self) -> None:
        check_names("made_fresh", self.made_fresh)

    def settings(self) -> dict[str, Any]:
        return {"made_fresh": list(self.made_fresh)} if self.made_fresh else {}

    def words(self) -> str:
        return "original file" + (" with a fresh last layer" if self.made_fresh else "")


def prunings(history: Sequence[Stage]) -> list[Prune]:
    """Every pruning that the widths come from; a control from scratch has those of the file it is the control of."""
    return list(_prunings(history))


def _prunings(history: Sequence[Stage]) -> Iterator[Prune]:
    for stage in history:
        if isinstance(stage, Prune):
            yield stage
        elif isinstance(stage, Train):
            yield from stage.pruned or ()
