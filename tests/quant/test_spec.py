"""A spec is unchanged by conversion to a dict and back, and an unknown spec is refused."""

from __future__ import annotations

import copy

import pytest

from engine.errors import BAD_CHECKPOINT, UserError
from quant.quantizer_spec import QuantizerSpec, quantizer
from quant.spec import QuantSpec, uniform

SPECS = [
    QuantSpec(),
    QuantSpec(quantizer(8), quantizer(4), ("a", "b.c"), "bacp", 0.01),
    QuantSpec(quantizer("t", gap=True, scale=False, ste="saturate"), quantizer("b", ste="soft")),
    QuantSpec(quantizer("b"), quantizer("b"), ends="int8", coded_ends=("a", "b"), pixels=((0.5, 0.4), (0.2, 0.1))),
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_spec_survives_its_dict(spec: QuantSpec) -> None:
    assert QuantSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d["weight"].update(colour=1), lambda d: d["activation"].update(kind="magic"),
        lambda d: d["weight"].update(bits=9), lambda d: d["weight"].update(ste="magic"),
        lambda d: d["weight"].update(gap=True), lambda d: d.pop("weight"), lambda d: d.update(activation=None),
        lambda d: d.update(weight=[8]), lambda d: d.update(exceptions=3),
        lambda d: d.update(colour=1), lambda d: d.update(order="zz"), lambda d: d.update(exceptions="ab"),
        lambda d: d.update(ends="int4"), lambda d: d.update(coded_ends=["a"]), lambda d: d.update(ends="int8", coded_ends="a"),
        lambda d: d.update(ends="int8", activation=SPECS[0].to_dict()["activation"]),
        lambda d: d.update(ends="int8", pixels=[[0.5], [0.0]]), lambda d: d.update(ends="int8", pixels=[[0.5], []]),
        lambda d: d.update(ends="int8", pixels=[[float("inf")], [1.0]]), lambda d: d.update(ends="int8", pixels=[[0.5], [1e-50]]),
        lambda d: d.update(ends="int8", pixels=[["a"], ["b"]]), lambda d: d.update(ends="int8", pixels=[0.5, 0.5]),
        lambda d: d.update(ends="int8", pixels=[[0.5]]), lambda d: d.update(ends="int8", pixels=[[0.5], [float("nan")]]),
        lambda d: d.update(bn_momentum="q"), lambda d: d.update(measured_inputs=["a"], activation=SPECS[0].to_dict()["activation"]),
    ],
)  # fmt: skip
def test_a_spec_that_this_program_does_not_know_is_refused(damage) -> None:
    values = copy.deepcopy(SPECS[1].to_dict())
    damage(values)
    with pytest.raises(UserError, match="cannot be understood") as fault:
        QuantSpec.from_dict(values)
    assert fault.value.code == BAD_CHECKPOINT


@pytest.mark.parametrize(
    "values", [("dorefa", 1), ("dorefa", 9), ("binary", 2), ("ternary", 1), ("float", 8), ("int8", 8)]
)
def test_a_quantizer_that_makes_no_sense_is_refused(values: tuple[str, int]) -> None:
    with pytest.raises(ValueError):
        QuantizerSpec(*values)


@pytest.mark.parametrize(
    ("weight", "activation", "name"),
    [(8, 8, "w8a8"), ("t", 4, "wta4"), ("b", "b", "wbab"), ("b", 32, "wba32"), (32, 32, "w32a32"), (2, "t", "w2at")],
)
def test_names_of_files(weight: int | str, activation: int | str, name: str) -> None:
    assert QuantSpec(quantizer(weight), quantizer(activation)).name == name


def test_a_file_names_its_int8_ends() -> None:
    assert QuantSpec(quantizer("b"), quantizer("b"), ends="int8").name == "wbab_ends"


def test_quantizers_with_ends_of_their_own_take_no_others() -> None:
    with pytest.raises(ValueError, match="int8 ends are not for lsq weights"):
        uniform("lsq", 4, 4, ends="int8")
