"""A packed network in memory; save it to a file and open it again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from deploy import description, file
from deploy.file import Contents
from deploy.operations.base import short
from deploy.packed_detector import PackedDetector, read_detector
from deploy.program import Program
from engine.checkpoint.format import Checkpoint, without_tensors
from engine.cli.datasets import IMAGENET
from engine.cli.naming import called
from engine.errors import BAD_CHECKPOINT, UserError


@dataclass(frozen=True)
class Packed:
    """A program and its origin.

    Args:
        made: the checkpoint that it was made from, without tensors.
        bits: stored bits of that network as stage tables count them; see models.cost.
        detector: what is around the core of a detector; None for classifiers and in files of format 2.
        size, sha256: of the file's bytes, once the file exists.
    """

    program: Program
    made: Checkpoint
    bits: int
    size: int = 0
    sha256: str = ""
    detector: PackedDetector | None = None


def save(packed: Packed, path: Path) -> int:
    """Write a packed network and return the file's size in bytes.

    Raises:
        UserError: as deploy.file.content; exit 6 if the file cannot be written.
    """
    return file.write(path, _contents(packed))


def size(packed: Packed) -> int:
    """Return the size in bytes of a packed network's file.

    Raises:
        UserError: as deploy.file.content.
    """
    return len(file.content(_contents(packed)))


def _contents(packed: Packed) -> Contents:
    said, rows = description.written(packed.program)
    made = {key: value for key, value in packed.made.to_dict().items() if key != "state_dict"}
    held = {"bits": packed.bits, "made": made, "program": said}
    if packed.detector:
        held["detector"] = packed.detector.to_dict()
    return Contents(held, rows, version=_version(packed.made, packed.detector))


def _version(made: Checkpoint, detector: PackedDetector | None) -> int:
    """Return the oldest format whose readers handle this network's pictures and answers correctly."""
    if detector:
        return file.DETECTORS
    return file.CROPPED if made.dataset.crop == IMAGENET or made.dataset.boxes else file.FORMAT


def _check(program: Program, made: Checkpoint) -> None:
    """Compare the program with the description of its pictures and classes.

    Raises:
        ValueError: if the normalisation or the number of classes differs.
    """
    data = made.dataset
    if (data.mean, data.std) != (program.mean, program.std):
        raise ValueError(
            f"its pictures have mean {short(data.mean)} and std {short(data.std)}, those of its program mean "
            f"{short(program.mean)} and std {short(program.std)}"
        )
    if data.boxes or len(program.answer) != 1:
        return
    if made.classes != program.answer[0] or data.classes > made.classes:
        raise ValueError(
            f"its network has {made.classes} classes, its pictures {data.classes}, and its answer {program.answer[0]} numbers"
        )


def open(path: Path) -> Packed:
    """Read a packed network.

    Raises:
        UserError: exit 3 for any file that `save` does not write.
    """
    found = file.read(path)
    said = found.description
    if (
        sorted({*said} - {"detector"}) != ["bits", "made", "program"]
        or type(said["bits"]) is not int
        or said["bits"] < 0
    ):
        raise _bad(path, "its description is not one of a packed network")
    try:
        made = without_tensors(path, said["made"])
        program = description.read(said["program"], found.rows)
        detector = read_detector(said["detector"], program.answer) if "detector" in said else None
        _check(program, made)
    except ValueError as fault:
        raise _bad(path, str(fault)) from fault
    except RecursionError as fault:
        raise _bad(path, "its lists are nested too deeply") from fault
    if found.version != _version(made, detector) or (detector and not made.dataset.boxes):
        holds = "a detector" if made.dataset.boxes else f"pictures of --crop {made.dataset.crop}"
        raise _bad(path, f"it holds {holds}, which does not belong in format {found.version}")
    return Packed(program, made, said["bits"], found.size, found.sha256, detector)


def _bad(path: Path, what: str) -> UserError:
    return UserError(f"{path}: {what}", f"make the file again: {called('deploy.pack')}", BAD_CHECKPOINT)
