"""The whole chain on a tiny network and the embedded digits, in one process and about ten seconds: `make smoke`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

from tests.conftest import NARROW, SMALL
from tests.tools.contents import raw

FAST = SMALL
CHAIN = (
    ("prune.train", "-sr", "--cfg", NARROW, *FAST),
    ("prune.normal_regular", "--percent", "0.3", "--cpu", "--quiet"),
    ("prune.train", "--refine", *FAST),
    ("quant.wbwtab", "--W", "2", "--A", "2", "--refine", *FAST),
    ("bn_merge.__main__", "--W", "2", "--cpu", "--quiet"),
)


def test_the_chain(command: Callable[..., SimpleNamespace]) -> None:
    """Each command reads the previous one's file by its default name; the last file records the whole history."""
    paths = []
    for module, *argv in CHAIN:
        done = command(module, *argv)
        assert done.code == 0, done.err
        paths.append(done.path)
    names = ("nin_preprune", "nin_prune", "nin_refine", "nin_wbab", "nin_wbab_merged")
    assert paths == [f"models_save/{name}.pth" for name in names]
    merged = raw(Path(paths[-1]))
    assert [stage["stage"] for stage in merged["transforms"]] == ["train", "prune", "refine", "quantize", "merge"]
    assert sum(merged["cfg"]) == 64 - 19  # floor(0.3 * 64) channels are pruned
    done = command("bn_merge.compare", "--W", "2", "--cpu", "--json")
    assert done.code == 0, done.err
    compared = json.loads(done.out)
    assert compared["agree"] == compared["pictures"] == 360
