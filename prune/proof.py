"""The proof of surgery: the masked and the narrowed network give the same outputs in float64."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from engine.data.splits import Data
from engine.errors import UserError
from engine.training.experiment import Experiment
from models.graph.calls import BATCH
from models.graph.normal import NormalForm, pictures

PROOF_PICTURES = 16


def prove(run: Experiment, data: Data, exact: list[NormalForm], moved: int, own: bool) -> None:
    """Compare the masked and the sliced network in float64.

    The raw outputs of PROOF_PICTURES pictures are always compared. They show differences even if the network gives all
    pictures one class. If answers moved in fp32, the answers to all pictures are compared too.

    Args:
        exact: the masked and the sliced network, in float64.
        moved: number of pictures whose answer moved in fp32, by another order of sums or by a fault.
        own: whether the network is your own.

    Raises:
        UserError: exit 2 if your own network differs.
        AssertionError: if a network of the toolkit differs: a bug.
    """
    batch = next(iter(data.test.batches(PROOF_PICTURES)))[0].double()
    with torch.no_grad():
        expected, found = (network.eval()(batch) for network in exact)
    fault = "" if run.task.same(expected, found) else run.task.output_name
    if moved and not fault:
        surely = run.task.surely_moved(*(run.evaluate(network, data).output for network in exact))
        fault = f"{surely} answers" if surely else ""
    if fault and own:
        raise UserError(
            f"surgery changed the {fault} of this network: its code reads channels otherwise than its graph shows",
            "leave the layers at fault whole with --spare, and report the network to us",
        )
    if fault:
        raise AssertionError(f"surgery changed {fault} more than rounding can")


@torch.no_grad()
def prove_reopened(small: NormalForm, again: NormalForm, arch: str) -> None:
    """Compare a pruned network with the one that later commands build from its file.

    Raises:
        UserError: exit 2 if they answer differently: the code then reads other widths from its attributes.
    """
    device = next(small.parameters()).device
    x = pictures(small.captured.picture, BATCH).to(device)
    answers = [tree_leaves(network.to(device).eval()(x)) for network in (small, again)]
    if not all(_is_near(one, other) for one, other in zip(*answers, strict=True)):
        raise UserError(
            f"--arch {arch}: its code makes another network of these widths when the file is opened",
            "prune once, with a larger --percent, or leave the layers that the code splits whole: --spare",
        )


def _is_near(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.allclose(one, other, rtol=1e-4, atol=1e-4 * float(one.abs().max()))
