"""The contenders: PyTorch on the float network, the executors on the packed network, and installed runtimes.

Each uses the same number of threads. Runtimes compute everything that is not integer in fp32; none may switch to bf16.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bn_merge.merge import merge
from deploy.executors.base import Executor, layers
from deploy.executors.choose import MAKERS, Reference
from deploy.executors.stock import Stock
from deploy.exporting.biases import rounded
from deploy.lowering.walk import lower
from deploy.operations.base import Codes
from deploy.operations.layers import Convolution
from deploy.program import Program
from deploy.racing import runtimes
from deploy.racing.base import Absent, Call, Contender
from engine.errors import UserError
from engine.numerics.layout import channels_last
from engine.system.compiled import Unavailable
from engine.system.packages import package
from models.graph.normal import NormalForm
from models.layers.fold import MergedConv2d, MergedLinear, as_float

Entry = Contender | Absent
FIRST = "PyTorch eager, fp32"
MOST_COMPILED = 10_000
CUDA_SEARCH = "torch.utils.cpp_extension"
"""torch's logger that warns of a CUDA toolkit without a GPU, which a race on the CPU does not need."""


def entries(network: NormalForm, program: Program, threads: int, without: Sequence[str] = ()) -> Iterator[Entry]:
    """Yield all contenders, the baseline first.

    Args:
        network: float, in eval mode, its batch norms not merged.
        program: of the compressed network.
        without: names and patterns of contenders to leave out; the baseline stays.

    Raises:
        UserError: exit 2 if a pattern matches no contender.
    """
    folded = merge(network)
    plain = lower(folded, program.mean, program.std)
    last = channels_last(_of_own_layers(folded))
    coded = any(isinstance(each.matrix.weight, Codes) for each, _ in layers(program))  # type: ignore[attr-defined]
    whole = any(is_whole for _, is_whole in layers(program))
    others = rounded(program, keep=network.captured.detector is not None).program  # as deploy.onnx exports it
    makers: dict[str, Callable[[str], Entry]] = {
        "PyTorch, folded, channels last": lambda name: Contender(name, _eager(last, torch.channels_last), False),
        "torch.compile, folded": lambda name: _compiled(name, last),
    }
    own: dict[str, Callable[[str], Entry]] = {
        "native executor": lambda name: _executor(name, MAKERS["native"](program), coded),
        "torch executor": lambda name: _executor(name, Stock(program), coded),
        "reference executor": lambda name: _executor(name, Reference(program), coded),
    }
    makers |= own
    for runtime, make in (("ONNX Runtime", runtimes.onnxruntime), ("OpenVINO", runtimes.openvino)):
        makers[f"{runtime}, fp32"] = partial(make, plain, False, threads)
        if coded:
            makers[f"{runtime}, {'int8' if whole else 'packed'}"] = partial(make, others, True, threads)
    bits = 4 if _is_narrow(program) else 8
    makers["MNN, fp32"] = partial(runtimes.mnn, plain, None, threads)
    makers[f"MNN, {bits}-bit weights"] = partial(runtimes.mnn, plain, bits, threads)
    for pattern in without:
        if not any(_matches(name, pattern) for name in (FIRST, *makers)):
            raise UserError(
                f"--without {pattern!r} names none of: {'; '.join(makers)}", "give one of these names, or a pattern"
            )
    yield Contender(FIRST, _eager(network), False)
    for name, maker in makers.items():
        if not any(_matches(name, pattern) for pattern in without):
            yield _guarded(name, maker, is_own=name in own)


def _of_own_layers(folded: NormalForm) -> NormalForm:
    """Replace, in place, the merged layers of a float network by PyTorch's own, which torch.compile knows; return it."""
    for name, layer in [*folded.named_modules()]:
        if isinstance(layer, (MergedConv2d, MergedLinear)):
            folded.replace(name, as_float(layer))
    return folded


def _matches(name: str, pattern: str) -> bool:
    return fnmatch(name.lower(), pattern.lower())


def _is_narrow(program: Program) -> bool:
    """Return whether most convolutions have weights of 4 bits or fewer."""
    weights = [each.matrix.weight for each in program.operations if isinstance(each, Convolution)]
    return 2 * sum(isinstance(weight, Codes) and weight.levels <= 16 for weight in weights) > len(weights)


def _executor(name: str, executor: Executor, coded: bool) -> Contender:
    return Contender(name, executor, coded, executor.how)


def _guarded(name: str, make: Callable[[str], Entry], *, is_own: bool) -> Entry:
    """Return a contender, or why it is left out.

    Args:
        is_own: whether it is an executor of the toolkit: then a fault is no reason to leave it out.
    """
    print(f"preparing {name}", file=sys.stderr)
    try:
        return make(name)
    except Unavailable as fault:
        return Absent(name, str(fault))
    except ModuleNotFoundError as fault:
        return Absent(name, f"{(missing := package(fault.name or ''))} is not installed: pip install {missing}")
    except Exception as fault:  # a runtime may lack an operation, torch.compile may lack a compiler
        if is_own:
            raise
        return Absent(name, f"{type(fault).__name__}: {' '.join(str(fault).split())[:80]}")


def _eager(network: Callable[[Tensor], Any], layout: torch.memory_format = torch.contiguous_format) -> Call:
    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return network(x.contiguous(memory_format=layout))

    return run


def _compiled(name: str, network: NormalForm) -> Contender:
    run = _eager(torch.compile(network, dynamic=False), torch.channels_last)

    known: set[int] = set()

    def compiled(x: Tensor) -> Any:
        if len(x) in known:
            return run(x)
        known.add(len(x))
        # torch compiles a class's forward once for each layer and batch size; beyond 8 it would warn and run the rest eagerly
        with torch._dynamo.config.patch(recompile_limit=MOST_COMPILED, accumulated_recompile_limit=MOST_COMPILED):
            return run(x)

    with _without_warnings_of(CUDA_SEARCH):
        compiled(torch.zeros(1, *network.captured.picture))
    return Contender(name, compiled, False)


@contextmanager
def _without_warnings_of(name: str) -> Iterator[None]:
    """Raise a logger's level to errors."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
