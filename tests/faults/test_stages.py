"""Contents that no stage's file may have: non-finite numbers, codes that no quantizer gives, odd fields."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.checkpoint import archive, format as checkpoint
from engine.errors import BAD_CHECKPOINT, UserError
from quant.restore import restore
from scripts import table
from tests.golden.make import HERE, STAGES
from tests.tools.contents import raw, typed
from tests.tools.networks import form

GOLDEN = HERE / f"format_{checkpoint.FORMAT_VERSION}"


def content_of(stage: str) -> dict[str, Any]:
    return raw(GOLDEN / f"{stage}.pth")


def refused(content: dict[str, Any], path: Path) -> str:
    """Return the error of reading and rebuilding a file with this content."""
    archive.save(path, content)
    with pytest.raises(UserError) as fault:
        restore(checkpoint.load(path))
    assert fault.value.code == BAD_CHECKPOINT
    return str(fault.value)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("kind", ["nan", "inf", "nan variance", "negative variance"])
def test_numbers_that_are_none_are_named(kind: str, stage: str, tmp_path: Path) -> None:
    content = content_of(stage)
    state, value = (
        content["state_dict"],
        {"nan": torch.nan, "inf": -torch.inf, "nan variance": torch.nan}.get(kind, -1.0),
    )
    ending = "running_var" if "variance" in kind else "bias"
    key = next((k for k in reversed(state) if k.endswith(ending)), None)
    if key is None:  # a merged network has no variance; its scales must be finite, too
        assert stage == "merged"
        key, value = next(k for k in state if k.endswith("scale")), torch.nan
    state[key][1:3] = value
    said = refused(content, tmp_path / "a.pth")
    assert key in said
    assert "2 " in said
    assert "[1]" in said


BROKEN: dict[str, tuple[str, Callable[[dict], Any], str]] = {
    "code 3 of a binary weight": ("merged", lambda s: s["block2.conv.codes"].view(-1)[:1].fill_(3), "block2.conv.codes"),
    "code 0 of a binary weight": ("merged", lambda s: s["block2.conv.codes"].view(-1)[:1].fill_(0), "block2.conv.codes"),
    "codes as floats": ("merged", lambda s: s.update({"block2.conv.codes": s["block2.conv.codes"].float()}), "block2.conv"),
    "float weights as codes": ("merged", lambda s: s.update({"block1.conv.codes": s["block1.conv.codes"].char()}), "block1.conv"),
    "codes of another shape": ("merged", lambda s: s.update({"block4.conv.codes": s["block4.conv.codes"][:, :1]}), "block4.conv"),
    "bias of another shape": ("merged", lambda s: s.update({"block4.conv.bias": s["block4.conv.bias"][:1]}), "block4.conv"),
    "no bias": ("merged", lambda s: s.pop("block4.conv.bias"), "block4.conv"),
    "no codes": ("merged", lambda s: s.pop("block4.conv.codes"), "block4.conv"),
    "a scale too few": ("merged", lambda s: s.pop("block8.conv.scale"), "block8.conv.scale"),
    "a range without 0": ("int8_fold", lambda s: s["block3.conv.input_quantizer.low"].fill_(1), "block3.conv.input_quantizer"),
    "a range upside down": ("int8_fold", lambda s: s["block3.conv.input_quantizer.high"].fill_(-1), "block3.conv.input_quantizer"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_codes_scales_and_ranges_that_cannot_be(kind: str, tmp_path: Path) -> None:
    stage, change, name = BROKEN[kind]
    content = content_of(stage)
    change(content["state_dict"])
    assert name in refused(content, tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("weights", "beyond"),
    [
        ({"kind": "dorefa", "bits": 4}, (16, 17, 2)),
        ({"kind": "dorefa", "bits": 8}, (256, 257, 2)),
        ({"kind": "ternary", "bits": 2}, (2, -2)),
        ({"kind": "binary", "bits": 1}, (0, 2)),
        ({"kind": "affine", "bits": 8, "symmetric": True}, (128, -128)),
        ({"kind": "affine", "bits": 4, "symmetric": True}, (8, -8)),
        ({"kind": "affine", "bits": 8, "symmetric": False}, (256, -256)),
        ({"kind": "affine", "bits": 2, "symmetric": False}, (4, -4)),
    ],
    ids=str,
)
def test_codes_beyond_their_bits_are_refused_and_all_others_are_not(
    weights: dict[str, Any], beyond: tuple[int, ...], tmp_path: Path
) -> None:
    """The network is merged here; each kind of weights is tested."""
    from bn_merge.merge import merge
    from quant.prepare import prepare
    from quant.quantizer_spec import QuantizerSpec
    from quant.spec import QuantSpec

    torch.manual_seed(0)
    spec = QuantSpec(weight=QuantizerSpec(**weights), exceptions=("block1.conv", "linear"))
    merged = merge(prepare(form("slimming", [4, 6, 8]), spec).eval())
    content = {
        **content_of("float"), "arch": "slimming", "cfg": [4, 6, 8], "state_dict": merged.state_dict(),
        "transforms": [{"stage": "quantize", "spec": spec.to_dict()}, {"stage": "merge"}],
    }  # fmt: skip
    restore(typed(content))
    for code in beyond:
        broken = copy.deepcopy(content)
        key = "block2.conv.codes"
        broken["state_dict"][key] = broken["state_dict"][key].to(torch.int16)
        broken["state_dict"][key][2, 1, 0, 0] = code
        assert key in refused(broken, tmp_path / "a.pth")


def paths(value: Any, at: tuple = ()) -> list[tuple]:
    """Return the path of each value in nested dicts and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [at] if at else []
    for key, part in items:
        if key != "state_dict":
            found += paths(part, (*at, key))
    return found


STRANGE = [
    None,
    True,
    -1,
    0,
    10**30,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x\x1b[31m",
    b"x",
    [],
    [1, "a"],
    {},
    {1: 2},
    (1,),
]


@pytest.fixture(params=["pruned", "int8_fold", "merged"])
def attempt(
    request: pytest.FixtureRequest, command, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], None]:
    """Return a function of a seed: replace or remove one field of a stage's file; it is refused in two lines or still valid."""
    monkeypatch.setattr(table, "draw", lambda rows: None)  # drawing takes longer than everything else
    content = content_of(request.param)
    places = paths(content)

    def once(seed: int) -> None:
        draws, broken = random.Random(seed), copy.deepcopy(content)
        where = draws.choice(places)
        inner: Any = broken
        for key in where[:-1]:
            inner = inner[key]
        if draws.random() < 0.2:
            del inner[where[-1]]
        else:
            inner[where[-1]] = draws.choice(STRANGE)
        (workplace / "a.pth").write_bytes(archive.to_bytes(broken))
        module, *line = (
            ("scripts.summary", "a.pth"),
            ("scripts.report", "a.pth", "--save", "r.md"),
            ("scripts.convert", "a.pth", "b.pth"),
            ("engine.checkpoint.__main__", "inspect", "a.pth"),
        )[seed % 4]
        result = command(module, *line)
        assert result.code in (0, 2, 3), (where, result.err)
        assert "\x1b" not in result.out
        if result.code:
            assert result.err.splitlines()[-2].startswith("error: ")

    return once


def test_no_odd_field_makes_a_traceback(attempt: Callable[[int], None]) -> None:
    for seed in range(24):
        attempt(seed)


@pytest.mark.slow
def test_no_odd_field_of_2000_makes_a_traceback(attempt: Callable[[int], None]) -> None:
    for seed in range(24, 2060):
        attempt(seed)
