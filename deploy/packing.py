"""packed_of(opened): pack a checkpoint's network; float_network(opened): the float network it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import models
from bn_merge.merge import merge
from deploy.executors.base import layers
from deploy.lowering.walk import lower
from deploy.operations.base import Codes
from deploy.operations.layers import Quantize
from deploy.packed import Packed
from deploy.packed_detector import PackedDetector
from engine.checkpoint.history import Merge
from engine.checkpoint.provenance import Origin, provenance
from engine.data.catalogue import ORIGINAL
from engine.errors import UserError, prefix_path
from engine.system.messages import notice, some
from models import cost
from models.files import Opened
from models.graph.normal import NormalForm
from models.layers.quantizers.base import Signs
from quant import restore

Numbers = Sequence[float] | None


def packed_of(opened: Opened, mean: Numbers, std: Numbers, low_ends: bool, words: Sequence[str]) -> Packed:
    """Return the packed form of an opened file's network, with its batch norms merged.

    Args:
        mean, std: normalisation of the pictures, one number for each channel; None: the file's.
        low_ends: as in deploy.lowering.walk.lower.
        words: the command line, for the provenance.

    Raises:
        UserError: as `lower`; exit 2 if the normalisation is unknown or has a wrong number of channels.
    """
    with prefix_path(opened.path):
        known, form = opened.checkpoint, opened.network.eval()
        history = known.history
        if not restore.is_merged(known):
            form, history = merge(form), (*history, Merge())
        mean, std = _normalisation(opened, mean, std)
        spec = restore.spec_of(known)
        program = lower(form, mean, std, low_ends, spec.coded_ends if spec else ())
    origin = Origin(tuple(words), 0, opened.path, known.sha256)  # seed 0: packing draws no random numbers
    data = replace(known.dataset, mean=mean, std=std)
    made = replace(known, state_dict={}, history=history, dataset=data, provenance=provenance(origin))
    shell = form.captured.detector
    detector = PackedDetector(tuple(shell.outputs), shell.settings) if shell else None
    return Packed(program, made, cost.total(cost.layers(form, known.dataset.image_size), "bits"), detector=detector)


def say_rounded(held: Packed) -> None:
    """Name the first and last layers that were trained with float numbers and are stored in 8 bits.

    A sum next to a sign's edge flips with any rounding, and the flipped signs flip others: of 2,000 pictures of CIFAR-10
    (JPEG copy), 1 to 2 % were answered in another way when only the first layer's weights were rounded to 16 bits.
    """
    if names := rounded_ends(held):
        signs = any(isinstance(op, Quantize) and isinstance(op.grid, Signs) for op in held.program.operations)
        more = "; layers that read signs amplify this rounding" if signs else ""
        notice(
            f"stored in 8 bits, trained with float numbers: {some(names)}. Some answers may change{more}. --ends float "
            "avoids it, and so does training with --ends int8"
        )


def rounded_ends(held: Packed) -> list[str]:
    """Return the names of the layers whose float weights or pictures became codes when they were packed."""
    if (spec := restore.spec_of(held.made)) is None:
        return []
    pictures = {*spec.float_inputs} - {*spec.coded_ends}
    return [
        op.name
        for op, whole in layers(held.program)
        if isinstance(op.matrix.weight, Codes) and (op.name in spec.kept or (whole and op.name in pictures))  # type: ignore[attr-defined]
    ]


def _normalisation(opened: Opened, mean: Numbers, std: Numbers) -> tuple[tuple[float, ...], tuple[float, ...]]:
    known, channels = opened.checkpoint.dataset, opened.network.captured.picture[0]
    if not known.known and not (mean and std):
        numbers = [",".join(map(str, values)) for values in ORIGINAL]
        raise UserError(
            "the file does not hold the mean and std of its pictures",
            f"give --mean and --std; for files of the original repository: --mean {numbers[0]} --std {numbers[1]}",
        )
    mean, std = mean or known.mean, std or known.std
    if {len(mean), len(std)} != {channels}:
        raise UserError(
            f"--mean and --std have {len(mean)} and {len(std)} numbers, but the network reads {channels} channels",
            "give one number for each channel",
        )
    return tuple(mean), tuple(std)


def float_network(opened: Opened, arch: str | None) -> NormalForm:
    """Build a float network of a file's widths for speed comparisons, with the file's float weights where it has them."""
    checkpoint = opened.checkpoint
    with prefix_path(opened.path):
        network = models.rebuild(checkpoint, arch).eval()
    own = network.state_dict()
    known = {
        name: held for name, held in checkpoint.state_dict.items() if name in own and held.shape == own[name].shape
    }
    network.load_state_dict({**own, **known})
    return network
