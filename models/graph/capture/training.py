"""Comparison of a network with its captured graph in training: outputs and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from engine.errors import no_memory
from engine.numerics import random_state, trials
from engine.system.messages import notice, some
from models.check import Misdeclared, as_misdeclared, one_line
from models.graph.normal import NormalForm

NEAR, NOISE = 0.01, 1e-5
"""Largest difference of a parameter's two gradients, as shares of its gradient and of the network's.

A backward of the user's own may compute the derivative in another way, for example to save memory. The gradient of a
bias in front of a batch norm is 0 but for rounding.
"""

_OWN = (
    "capture loses the backward of a torch.autograd.Function, gradient hooks, and gradients that are off in evaluation "
    "alone: let autograd derive them; a straight-through estimator of f is x + (f(x) - x).detach()"
)


def compare(model: nn.Module, form: NormalForm, x: Tensor, arch: str) -> None:
    """Compare the two in training mode, and their gradients.

    A notice tells that their outputs differ in training mode, that evaluation leaves a module out, or that only the
    network's own code changes a tensor. Gradients are compared in evaluation if the outputs differ in training.

    Raises:
        Misdeclared: exit 2 if a parameter's gradients differ.
    """
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    parameters = [*named.values()]
    try:
        theirs: Run | None = _run(model, x, parameters, training=True)
        why = ""
    except (Exception, SystemExit) as fault:  # its code may need targets or larger pictures in training
        if no_memory(fault):
            raise
        theirs, why = None, f" (in training its code raises {one_line(fault)})"
    own = _run(form, x, parameters, training=True)
    gone = tuple(f"{name}." for name in form.captured.vanished)  # told below
    if still := [n for n in theirs.moved if n not in own.moved and not n.startswith(gone)] if theirs else []:
        notice(
            f"{arch}: left out: what its code writes into {some(still)} only in training; training uses the code of "
            "evaluation"
        )
    names, used = form.captured.vanished, set(form.parameters())  # functions may use parameters of vanished modules
    if theirs is None or not trials.same(theirs.output, own.output) or _draws(model, theirs, own, x, named):
        extra = [name for name in names if theirs is not None and name in theirs.ran]
        alone = f": only training uses {some(extra)}" if extra else ""
        notice(
            f"{arch} computes differently in training and in evaluation{alone}{why}; training uses the code of "
            "evaluation (except for dropout and batch norm)"
        )
        with as_misdeclared(arch, _OWN):
            theirs = _run(model, x, parameters, training=False)
        own = _run(form, x, parameters, training=False)
    elif held := [name for name in names if any(p not in used for p in model.get_submodule(name).parameters())]:
        notice(f"{arch}: evaluation does not use {some(held)}; parameters there stay in the file and are not trained")
    if theirs.gradients is not None and own.gradients is None:
        raise Misdeclared(
            f"--arch {arch}: its captured graph cannot be trained ({own.fault}); the network itself can",
            "evaluation may change a value that a layer has read, as in x[:, :8] = conv(x[:, :8]): take torch.cat instead",
        )
    if wrong := [*_other_gradients(theirs, own, [*named])]:
        raise Misdeclared(f"--arch {arch}: the gradients of its captured graph differ: {some(wrong)}", _OWN)


def _draws(model: nn.Module, theirs: Run, own: Run, x: Tensor, named: dict[str, nn.Parameter]) -> bool:
    """Return whether gradients differ because the network's training draws numbers: it drops a branch whose last scale is 0."""
    names, parameters = [*named], [*named.values()]
    if not any(_other_gradients(theirs, own, names)):
        return False
    return any(_other_gradients(theirs, _run(model, x, parameters, training=True, seed=1), names))


def _other_gradients(theirs: Run, own: Run, names: list[str]) -> Iterator[str]:
    if theirs.gradients is None or own.gradients is None:
        return
    noise = NOISE * sum(float(gradient.square().sum()) for gradient in theirs.gradients) ** 0.5
    for name, one, other in zip(names, theirs.gradients, own.gradients, strict=True):
        if (one - other).norm() > NEAR * one.norm() + noise:
            yield name


class Run(NamedTuple):
    """One run of a network: its first output tensor, and the gradient of each parameter, 0 for an unused one.

    There are no gradients if its backward raises an error, which `fault` names. If that of the user's network does, its own
    training would fail, too. `moved` are the names of the parameters and buffers that the run changed, `ran` those of the modules that ran.
    """

    output: Tensor
    gradients: list[Tensor] | None
    moved: list[str]
    ran: frozenset[str]
    fault: str = ""


def _run(network: nn.Module, x: Tensor, parameters: list[nn.Parameter], *, training: bool, seed: int = 0) -> Run:
    """Run a network forward and backward from a fixed seed. Restore its tensors and eval mode."""
    with trials.kept(network) as before, random_state.kept(seed):
        network.train(training)
        try:
            with _watched(network) as ran:
                output = next(leaf for leaf in tree_leaves(network(x.clone())) if isinstance(leaf, Tensor))
            moved = trials.changed(network, before)
            try:
                return Run(output.detach(), _gradients(output, parameters), moved, frozenset(ran))
            except Exception as fault:
                if no_memory(fault):
                    raise
                return Run(output.detach(), None, moved, frozenset(ran), one_line(fault).partition(" Hint:")[0])
        finally:
            network.eval()


@contextmanager
def _watched(network: nn.Module) -> Iterator[set[str]]:
    """Collect the names of the modules that run inside the context."""
    ran: set[str] = set()
    hooks = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
        for name, module in network.named_modules(remove_duplicate=False)
    ]
    try:
        yield ran
    finally:
        for hook in hooks:
            hook.remove()


def _gradients(output: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    """Return the gradients of a weighted sum of outputs. Equal weights would give none behind a softmax."""
    if not (output.requires_grad and parameters):
        return [torch.zeros(()) for _ in parameters]
    weights = torch.linspace(-1, 1, output.numel(), dtype=output.dtype, device=output.device).view_as(output)
    found = torch.autograd.grad(output, parameters, weights, allow_unused=True)
    # numbers that are not finite come from made-up pictures and count as 0
    return [torch.zeros(()) if g is None else g.cpu().nan_to_num(0.0, 0.0, 0.0) for g in found]
