"""Contenders on other runtimes, if installed: ONNX Runtime, OpenVINO, MNN.

None of them may switch to bf16, and none may write to stdout, which carries the result.
"""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy.program import Program
from deploy.racing.base import Contender
from engine.system.terminal import stdout_to_stderr


def onnxruntime(program: Program, compressed: bool, threads: int, name: str) -> Contender:
    import onnxruntime as runtime

    from deploy.exporting.model import exported

    content = exported(program).SerializeToString()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would slow the others down
    session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {"picture": x.numpy()})[0])

    return Contender(name, run, compressed, runtime.__version__, len(content))


def openvino(program: Program, compressed: bool, threads: int, name: str) -> Contender:
    import openvino as runtime

    from deploy.exporting.model import exported

    content = exported(program).SerializeToString()
    core = _openvino_core()
    told = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(content), "CPU", told)

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(compiled({"picture": x.numpy()})[0])

    return Contender(name, run, compressed, runtime.__version__.partition("-")[0], len(content))


@functools.cache
def _openvino_core() -> Any:
    """Return one core for the whole process.

    Each core sets the stack for signal handlers and frees it when it is deleted. After two deleted cores the next Ctrl-C
    would end the process by SIGSEGV (OpenVINO 2026.4).
    """
    import openvino as runtime

    return runtime.Core()


def mnn(program: Program, bits: int | None, threads: int, name: str) -> Contender:
    """Return MNN as a contender on a float network.

    Args:
        bits: of weights, which MNN rounds itself, because it cannot read QuantizeLinear in these models; None: fp32.
    """
    with stdout_to_stderr():
        import _tools as tools  # part of the package MNN; its command mnnconvert sends statistics
        import MNN
        from MNN import expr, nn

        from deploy.exporting.model import exported

        with tempfile.TemporaryDirectory() as place:
            model, made = Path(place, "network.onnx"), Path(place, "network.mnn")
            model.write_bytes(exported(program).SerializeToString())
            words = [
                "mnnconvert",
                "-f",
                "ONNX",
                "--bizCode",
                "none",
                "--modelFile",
                str(model),
                "--MNNModel",
                str(made),
            ]
            tools.mnnconvert([*words, *(["--weightQuantBits", str(bits)] if bits else [])])
            size = made.stat().st_size
            told = {"backend": 0, "precision": 1, "memory": 2 if bits else 0, "numThread": threads}  # 1 high, 2 low
            manager = nn.create_runtime_manager((told,))
            network = nn.load_module_from_file(str(made), ["picture"], ["answer"], runtime_manager=manager)

    def run(x: Tensor) -> Tensor:
        given = expr.placeholder(list(x.shape), expr.NCHW)
        given.write(np.ascontiguousarray(x.numpy()))
        return torch.from_numpy(np.array(network.forward([given])[0].read()))

    how = f"{MNN.version()}, weights rounded by MNN" if bits else MNN.version()
    return Contender(name, run, False, how, size)
