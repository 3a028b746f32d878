"""The proof of surgery: the masked and the narrowed network answer alike in float64."""

from __future__ import annotations

import torch

from engine.data.splits import Data
from engine.errors import UserError
from engine.training.experiment import Experiment
from models.graph.normal import NormalForm

PROOF_PICTURES = 16


def prove(run: Experiment, data: Data, exact: list[NormalForm], moved: int, own: bool) -> None:
    """Compare the masked and the sliced network in float64: the logits of a few pictures, which say more than answers do
    where a network gives one class to all, and the answers to all pictures where some have moved.

    Args:
        exact: both networks.
        moved: pictures whose answer seems to have moved: by fp32 sums in another order, or by a fault.

    Raises:
        UserError: exit 2 where the network is the user's own; another that differs is a bug of ours.
    """
    pictures = next(iter(data.test.batches(PROOF_PICTURES)))[0].double()
    with torch.no_grad():
        expected, found = (network.eval()(pictures) for network in exact)
    fault = "" if run.task.same(expected, found) else run.task.output_name
    if moved and not fault:
        surely = run.task.surely_moved(*(run.evaluate(network, data).output for network in exact))
        fault = f"{surely} answers" if surely else ""
    if fault and own:
        raise UserError(
            f"surgery changed the {fault} of this network: its channels are read otherwise than its graph says",
            "name the layers at fault with --spare, and tell us",
        )
    if fault:
        raise AssertionError(f"surgery changed {fault} more than rounding can")
