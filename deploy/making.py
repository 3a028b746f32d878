"""packed_of(opened): the packed form of a checkpoint's network, and the float network that it is compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import models
from bn_merge.merge import merge
from deploy.lowering.walk import lower
from deploy.packed import Packed
from engine.checkpoint.history import Merge
from engine.checkpoint.provenance import Origin, provenance
from engine.data.catalogue import ORIGINAL
from engine.errors import UserError, prefix_path
from models import cost
from models.files import Opened
from models.graph.normal import NormalForm
from quant import restore

Numbers = Sequence[float] | None


def packed_of(opened: Opened, mean: Numbers, std: Numbers, low_ends: bool, words: Sequence[str]) -> Packed:
    """The packed form of an opened file's network; its batch norms are merged where they are not.

    Args:
        mean, std: what its pictures are normalised with; None: as the file says.
        low_ends: as in deploy.lowering.walk.lower.
        words: the command line, for the provenance.

    Raises:
        UserError: as `lower`; exit 2 where nothing says how pictures are normalised.
    """
    with prefix_path(opened.path):
        known, form = opened.checkpoint, opened.network.eval()
        history = known.history
        if not restore.is_merged(known):
            form, history = merge(form), (*history, Merge())
        mean, std = _normalisation(opened, mean, std)
        program = lower(form, mean, std, low_ends)
    origin = Origin(tuple(words), 0, opened.path, known.sha256)  # no seed: nothing is drawn
    data = replace(known.dataset, mean=mean, std=std)
    made = replace(known, state_dict={}, history=history, dataset=data, provenance=provenance(origin))
    return Packed(program, made, cost.total(cost.layers(form, known.dataset.image_size), "bits"))


def _normalisation(opened: Opened, mean: Numbers, std: Numbers) -> tuple[tuple[float, ...], tuple[float, ...]]:
    known, channels = opened.checkpoint.dataset, opened.network.captured.picture[0]
    if not known.known and not (mean and std):
        numbers = [",".join(map(str, values)) for values in ORIGINAL]
        raise UserError(
            "the file does not say what its pictures were normalised with",
            f"give --mean and --std; a file of the original's has --mean {numbers[0]} --std {numbers[1]}",
        )
    mean, std = mean or known.mean, std or known.std
    if {len(mean), len(std)} != {channels}:
        raise UserError(
            f"--mean and --std of {len(mean)} and {len(std)} numbers, the network reads {channels} channels",
            "give a number for each channel",
        )
    return tuple(mean), tuple(std)


def float_network(opened: Opened, arch: str | None) -> NormalForm:
    """The float network of a file's widths, with the file's float weights where it has them, for comparisons of speed."""
    checkpoint = opened.checkpoint
    with prefix_path(opened.path):
        network = models.rebuild(checkpoint, arch).eval()
    own = network.state_dict()
    known = {
        name: held for name, held in checkpoint.state_dict.items() if name in own and held.shape == own[name].shape
    }
    network.load_state_dict({**own, **known})
    return network
