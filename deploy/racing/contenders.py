"""Who takes part: PyTorch on the float network, our executors on the packed one, and runtimes that are installed.

Each is told to use the same number of threads. Runtimes compute in fp32 what is not integer: none may choose bf16 by itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bn_merge.merge import merge
from deploy.executors.choose import Executor, Reference
from deploy.executors.stock import Stock
from deploy.lowering.walk import lower
from deploy.program import Program
from models.graph.normal import NormalForm

Call = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Contender:
    """One way of running the network.

    Args:
        run: gives the answer for normalised pictures.
        compressed: whether it runs the packed network; else the float one of the same widths.
        note: how it computes, in words.
        size: bytes of the model it reads, where it reads one.
    """

    name: str
    run: Call
    compressed: bool
    note: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Absent:
    """One that does not take part, and why."""

    name: str
    why: str


Entry = Contender | Absent


def entries(network: NormalForm, program: Program, threads: int, without: Sequence[str] = ()) -> Iterator[Entry]:
    """All of them; the first is what the others are compared with.

    Args:
        network: float, in eval mode, its batch norms not merged.
        program: of the compressed network.
        without: names and patterns of those that are left out without a word; the first one stays.
    """
    folded = merge(network)
    plain = lower(folded, program.mean, program.std)
    last = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    makers: dict[str, Callable[[str], Entry]] = {
        "PyTorch, folded, channels last": lambda name: Contender(name, _eager(last, torch.channels_last), False),
        "torch.compile, folded": lambda name: _compiled(name, last),
        "torch executor": lambda name: _executor(name, Stock(program)),
        "reference executor": lambda name: _executor(name, Reference(program)),
    }
    for runtime, make in (("ONNX Runtime", _onnxruntime), ("OpenVINO", _openvino)):
        makers[f"{runtime}, fp32"] = partial(make, plain, False, threads)
        makers[f"{runtime}, int8"] = partial(make, program, True, threads)
    yield Contender("PyTorch eager, fp32", _eager(network), False)
    for name, maker in makers.items():
        if not any(fnmatch(name, pattern) for pattern in without):
            yield _guarded(name, maker)


def _executor(name: str, executor: Executor) -> Contender:
    return Contender(name, executor, True, executor.how)


def _guarded(name: str, make: Callable[[str], Entry]) -> Entry:
    print(f"preparing {name}", file=sys.stderr)
    try:
        return make(name)
    except ModuleNotFoundError as fault:
        return Absent(name, f"{fault.name} is not installed")
    except Exception as fault:  # a runtime may lack an operation, torch.compile a compiler
        return Absent(name, f"{type(fault).__name__}: {' '.join(str(fault).split())[:80]}")


def _eager(network: Callable[[Tensor], Any], layout: torch.memory_format = torch.contiguous_format) -> Call:
    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return network(x.contiguous(memory_format=layout))

    return run


def _compiled(name: str, network: NormalForm) -> Contender:
    run = _eager(torch.compile(network, dynamic=False), torch.channels_last)
    run(torch.zeros(1, *network.captured.picture))
    return Contender(name, run, False)


def _onnxruntime(program: Program, compressed: bool, threads: int, name: str) -> Contender:
    import onnxruntime

    from deploy.exporting.model import exported

    content = exported(program).SerializeToString()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow the others down
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"picture": x.numpy()})[0])

    return Contender(name, run, compressed, onnxruntime.__version__, len(content))


def _openvino(program: Program, compressed: bool, threads: int, name: str) -> Contender:
    import openvino

    from deploy.exporting.model import exported

    content = exported(program).SerializeToString()
    core = openvino.Core()
    told = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(content), "CPU", told)

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(compiled({"picture": x.numpy()})[0])

    return Contender(name, run, compressed, openvino.__version__.partition("-")[0], len(content))
