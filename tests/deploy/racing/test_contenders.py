"""The contenders: float and packed networks give the right answers, and absent contenders give a reason."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bn_merge.merge import merge
from deploy.executors.choose import MAKERS
from deploy.program import Program
from deploy.racing import contenders, runtimes
from deploy.racing.base import Absent, Contender
from deploy.racing.contenders import Entry, entries
from deploy.reference.run import run
from engine.system.compiled import Unavailable
from models.graph.capture.form import capture
from models.graph.normal import NormalForm
from tests.deploy.quantized import SIDE, captured, lowered, merged, pictures
from tests.tools.cases import Head

FIRST = "PyTorch eager, fp32"
OURS = ["PyTorch, folded, channels last", "torch executor", "reference executor"]
RUNTIMES = ("ONNX Runtime", "OpenVINO")
COMPILED = "torch.compile, folded"


@pytest.fixture(scope="module")
def network() -> NormalForm:
    return captured("SqueezeExcite")


@pytest.fixture(scope="module")
def program() -> Program:
    return lowered(
        merged("SqueezeExcite", "w4a4"), low_ends=False
    )  # weights that int8 kernels add exactly on any processor


def found(
    network: NormalForm, program: Program, without: Sequence[str] = ("torch.compile*", "O*", "M*", "native*")
) -> dict[str, Entry]:
    return {entry.name: entry for entry in entries(network, program, 1, without)}


def test_each_gives_the_answers_of_its_network(network: NormalForm, program: Program) -> None:
    x, held = pictures(20), found(network, program)
    assert [*held] == [FIRST, *OURS]
    with torch.no_grad():
        plain = network(x)
    packed = run(program, x)
    assert (plain - packed).abs().max() > 1e-3
    for name, entry in held.items():
        assert isinstance(entry, Contender)
        assert entry.compressed == ("executor" in name)
        right = packed if entry.compressed else plain
        torch.testing.assert_close(entry.run(x), right, rtol=1e-4, atol=1e-5 * right.abs().max().item())
    assert held["reference executor"].note == "integers in 3 of 5 layers, the definition"


@pytest.mark.parametrize(("name", "package"), [("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")])
def test_runtimes_give_the_answers_of_their_network(
    name: str, package: str, network: NormalForm, program: Program
) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip(package)
    x, held = pictures(20), found(network, program, ("torch*", "PyTorch*", "reference*", "M*", "native*"))
    with torch.no_grad():
        plain = network(x)
    usual = run(program, x).mean(0)
    for kind, right in (("fp32", plain), ("int8", run(program, x))):
        entry = held[f"{name}, {kind}"]
        assert isinstance(entry, Contender), entry
        assert (entry.compressed, entry.note[0].isdigit(), entry.size > 5000) == (kind == "int8", True, True)
        answers = entry.run(x)
        assert (answers.argmax(1) == right.argmax(1)).float().mean() >= 0.95
        assert ((answers - usual).argmax(1) == (right - usual).argmax(1)).float().mean() >= 0.85
        assert (answers - right).abs().max() < (1e-4 if kind == "fp32" else 0.05) * right.abs().max()


@pytest.mark.parametrize(("name", "package"), [("ONNX Runtime", "onnxruntime"), ("OpenVINO", "openvino")])
def test_packages_that_are_missing_are_named(
    name: str, package: str, network: NormalForm, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    held = found(network, program, ("torch*", "PyTorch*", "reference*", "M*", "native*"))
    for kind in ("fp32", "int8"):
        assert held[f"{name}, {kind}"] == Absent(
            f"{name}, {kind}", f"{package} is not installed: pip install {package}"
        )


@pytest.mark.parametrize(("kind", "bits"), [("w4a4", 4), ("w8a8", 8), ("int8", 8), ("wtab", 4)])
def test_mnn_gives_the_answers_of_the_float_network_and_says_nothing_on_stdout(
    kind: str, bits: int, network: NormalForm, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("MNN")
    capfd.readouterr()  # importing it prints
    x, held = (
        pictures(20),
        found(network, lowered(merged("SqueezeExcite", kind)), ("torch*", "PyTorch*", "reference*", "O*", "native*")),
    )
    with torch.no_grad():
        plain = network(x)
    for name, off in (("MNN, fp32", 1e-4), (f"MNN, {bits}-bit weights", 0.3)):
        entry = held[name]
        assert isinstance(entry, Contender), entry
        assert not entry.compressed
        assert (entry.run(x) - plain).abs().max() < off * plain.abs().max()
    assert capfd.readouterr().out == ""


def test_what_a_runtime_cannot_do_is_told(
    network: NormalForm, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no compiler\nwas found" + "." * 200)

    monkeypatch.setattr(torch, "compile", fail)
    held = found(network, program, ("O*", "M*", "native*"))
    assert held[COMPILED] == Absent(COMPILED, f"RuntimeError: no compiler was found{'.' * 59}")
    assert all(isinstance(held[name], Contender) for name in (FIRST, *OURS))


def test_the_native_engine_takes_part_where_it_can(
    network: NormalForm, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = found(network, program, ("O*", "M*", "torch*", "PyTorch*", "reference*"))["native executor"]
    if isinstance(entry, Contender):
        assert entry.compressed
        assert torch.equal(entry.run(pictures(3)), run(program, pictures(3)))

    def fails(_: Program) -> Any:
        raise Unavailable("no compiler")

    monkeypatch.setitem(MAKERS, "native", fails)
    held = found(network, program, ("O*", "M*", "torch*", "PyTorch*", "reference*"))
    assert held["native executor"] == Absent("native executor", "no compiler")


def test_a_fault_of_an_own_executor_is_no_reason_to_leave_it_out(
    network: NormalForm, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Program) -> Any:
        raise KeyError("a fault of the toolkit")

    monkeypatch.setitem(MAKERS, "native", fails)
    with pytest.raises(KeyError, match="a fault of the toolkit"):
        found(network, program, ("O*", "M*", "torch*", "PyTorch*", "reference*"))


def test_what_onnx_cannot_say_is_told() -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    uneven = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(SIDE - 1), Head(8, 10))
    form = capture(uneven.eval(), (3, SIDE, SIDE), "a test")
    held = found(form, lowered(form), ("torch.*", "OpenVINO*", "MNN*", "native*"))
    (absent,) = [entry for entry in held.values() if isinstance(entry, Absent)]
    assert (absent.name, absent.why[:33]) == ("ONNX Runtime, fp32", "UserError: 2.adaptive_max_pool2d:")
    assert isinstance(held["torch executor"], Contender)


@pytest.mark.parametrize(
    ("without", "left"),
    [
        (["*"], []),
        ([FIRST, "torch.compile, folded", "O*", "MNN*", "native*"], OURS),
        (
            ["OpenVINO*", "torch*", "*int8", "native*"],
            [
                "PyTorch, folded, channels last",
                "reference executor",
                "ONNX Runtime, fp32",
                "MNN, fp32",
                "MNN, 4-bit weights",
            ],
        ),
        (
            ["openvino*", "ONNX*", "PyT*", "t*", "re*", "native*"],
            ["MNN, fp32", "MNN, 4-bit weights"],  # case does not matter
        ),
    ],
)
def test_those_left_out_are_left_out_without_a_word(
    without: list[str], left: list[str], network: NormalForm, program: Program, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for runtime in ("onnxruntime", "openvino", "mnn"):
        monkeypatch.setattr(runtimes, runtime, lambda *told: Contender(told[-1], abs, told[1] is True))
    assert [*found(network, program, without)] == [FIRST, *left]
    assert capsys.readouterr().err == "".join(f"preparing {name}\n" for name in left)


def test_a_compiled_network_takes_part(network: NormalForm, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler is slow, so it is left out here; it runs once before the race."""
    seen: list[int] = []

    def compiled(network: NormalForm, dynamic: bool) -> Any:
        def forward(x: Tensor) -> Tensor:
            seen.append(len(x))
            return network(x)

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    entry = found(network, program, ("O*", "M*", "native*"))[COMPILED]
    assert isinstance(entry, Contender)
    assert (entry.compressed, seen) == (False, [1])
    x = pictures(5)
    with torch.no_grad():
        torch.testing.assert_close(entry.run(x), network(x), rtol=1e-4, atol=1e-4)


def test_a_search_for_cuda_does_not_warn_of_a_race_on_the_cpu(
    network: NormalForm, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger(contenders.CUDA_SEARCH)

    def compiled(model: nn.Module, dynamic: bool) -> Callable[[Tensor], Any]:
        def run(x: Tensor) -> Any:
            logger.warning("No CUDA runtime is found, using CUDA_HOME='/usr/local/cuda'")
            logger.error("another fault")
            return model(x)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    contenders._compiled("torch.compile, folded", network)
    assert [record.message for record in caplog.records] == ["another fault"]
    logger.warning("later")
    assert caplog.records[-1].message == "later"


@pytest.mark.parametrize("name", ["SqueezeExcite", "Residual", "mobilenet_v1"])
def test_the_compiled_network_is_one_graph(name: str) -> None:
    """A layer that torch.compile cannot read would split the graph, and slow down what the engines are compared with."""
    form = captured(name)
    whole, x = contenders._of_own_layers(merge(form)), pictures(4)
    assert {type(m) for m in whole.modules() if isinstance(m, (nn.Conv2d, nn.Linear))} <= {nn.Conv2d, nn.Linear}
    torch._dynamo.reset()
    with torch.no_grad():
        told = torch._dynamo.explain(whole)(x)
        assert (told.graph_count, told.graph_break_count) == (1, 0)
        torch.testing.assert_close(whole(x), form(x), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


def test_the_limits_of_torch_compile_are_raised_for_new_sizes_alone(
    network: NormalForm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Setting them takes 20 us, which would count in a race."""
    limits: list[int] = []
    monkeypatch.setattr(
        torch, "compile", lambda model, dynamic: lambda x: limits.append(torch._dynamo.config.recompile_limit)
    )
    made, before = contenders._compiled(COMPILED, network), torch._dynamo.config.recompile_limit
    for count in (1, 2, 2):
        made.run(pictures(count))
    assert limits == [contenders.MOST_COMPILED, before, contenders.MOST_COMPILED, before]
    assert torch._dynamo.config.recompile_limit == before < contenders.MOST_COMPILED


def test_each_batch_size_is_compiled(network: NormalForm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten sizes are more than torch compiles of one function by default."""
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: real(model, dynamic=dynamic, backend="eager"))
    torch._dynamo.reset()
    with torch._dynamo.config.patch(
        recompile_limit=8, accumulated_recompile_limit=256, fail_on_recompile_limit_hit=True
    ):
        made = contenders._compiled(COMPILED, contenders._of_own_layers(merge(network)))
        for count in range(1, 11):
            assert made.run(pictures(count)).shape == (count, 10)
    torch._dynamo.reset()
