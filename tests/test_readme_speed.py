"""README's figures of speed and size: ratios are those of the page on deployment, sizes those of packed files."""

from __future__ import annotations

import re

import pytest
import torch

from bn_merge.merge import merge
from deploy import packed
from deploy.lowering.walk import lower
from deploy.packed import Packed
from engine.checkpoint.format import Checkpoint, Metrics
from engine.checkpoint.history import Merge
from engine.checkpoint.provenance import Provenance
from engine.data.info import DataInfo
from models import files
from quant.placement import meet
from quant.prepare import prepare
from quant.quantizer_spec import for_inputs, quantizer
from quant.spec import QuantSpec, affine_spec
from tests.tools.readme import README, ROOT

MEAN, STD = (0.5,) * 3, (0.25,) * 3
SPECS = {
    "INT8": affine_spec(8, 8, 1, False),
    "WtA1": QuantSpec(quantizer("t"), for_inputs("b")),
    "W1A1": QuantSpec(quantizer("b"), for_inputs("b")),
}


def shown() -> dict[str, dict[str, str]]:
    """Return what README says of each network: the size of its file in MB, and the ratio for each processor."""
    said = " ".join(README.read_text(encoding="utf-8").split())
    kinds = re.findall(r"\d\.\d\d (?:MB )?in (\w+)", said)
    three = r"(\d+\.\d), (\d+\.\d) and (\d+\.\d) times "
    ratios = {name: re.findall(three + rf"[^,]*?{name}", said)[0] for name in ("Xeon", "EPYC")}
    sizes = dict(zip(kinds, re.findall(r"(\d\.\d\d) (?:MB )?in", said), strict=True))
    return {
        kind: {"MB": sizes[kind], **{name: of[place] for name, of in ratios.items()}}
        for place, kind in enumerate(kinds)
    }


def measured() -> dict[tuple[str, str], list[str]]:
    """Return the two ratios of each line of the native engine on docs/deployment.md, by network and processor."""
    found, machine = {}, ""
    for line in (ROOT / "docs/deployment.md").read_text(encoding="utf-8").splitlines():
        if said := re.search(r"Intel (Xeon) with AMX|AMD (EPYC) \(Zen 5|Zen 4", line):
            machine = said[1] or said[2] or ""
        if machine and (native := re.match(r"\| (\w+): `native` \|", line)):
            found[native[1], machine] = re.findall(r"\| (\d+\.\d) \(", line)
    return found


def test_ratios_are_those_of_the_page_on_deployment() -> None:
    rows = shown()
    assert rows.keys() == SPECS.keys()
    quoted = {(kind, name): row[name] for kind, row in rows.items() for name in ("Xeon", "EPYC")}
    assert quoted == {which: one for which, (one, _) in measured().items()}


@pytest.mark.parametrize("kind", SPECS)
def test_sizes_are_those_of_packed_files(kind: str) -> None:
    torch.manual_seed(0)
    form = files.build("nin")
    model = prepare(form, meet(SPECS[kind], form, (), MEAN, STD))
    with torch.no_grad():
        model.train()(torch.randn(4, 3, 32, 32))  # measures ranges
    program = lower(merge(model.eval()), MEAN, STD)
    data = DataInfo("cifar10", "CIFAR-10", 10, 32, MEAN, STD, 4, True)
    made = Checkpoint("nin", {"classes": 10}, [], {}, (Merge(),), data, Metrics(0.0), Provenance(), checksums=True)
    size = packed.size(Packed(program, made, 0))
    assert float(shown()[kind]["MB"]) == pytest.approx(size / 1e6, abs=0.005)
