"""The original README's commands run with their own flags, in the order of that README.

Folders have become modules (`cd prune; python main.py -sr` is `python -m prune.train -sr`); two networks under one
script have become --arch. Everything else is spelt as in the original.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import NARROW, SMALL

GC = "32,32,32,64,64,64,64,64"

COMMANDS = (
    ("prune.train", "", "nin"),
    ("prune.train", "-sr --s 0.0001", "nin_preprune"),
    ("prune.train", "--arch nin_gc -sr --s 0.001", "nin_gc_preprune"),
    (
        "prune.normal_regular",
        "--percent 0.5 --model models_save/nin_preprune.pth --save models_save/nin_prune.pth",
        "nin_prune",
    ),
    (
        "prune.normal_regular",
        "--percent 0.5 --normal_regular 8 --model models_save/nin_preprune.pth --save models_save/nin_prune.pth",
        "nin_prune",
    ),
    (
        "prune.normal_regular",
        "--percent 0.5 --normal_regular 16 --model models_save/nin_preprune.pth --save models_save/nin_prune.pth",
        "nin_prune",
    ),
    ("prune.gc", "--percent 0.4 --model models_save/nin_gc_preprune.pth", "nin_gc_prune"),
    ("prune.train", "--refine models_save/nin_prune.pth", "nin_refine"),
    ("prune.train", "--refine models_save/nin_gc_prune.pth", "nin_gc_refine"),
    ("quant.wbwtab", "--W 2 --A 2", "nin_wbab"),
    ("quant.wbwtab", "--W 2 --A 32", "nin_wba32"),
    ("quant.wbwtab", "--W 3 --A 2", "nin_wtab"),
    ("quant.wbwtab", "--W 3 --A 32", "nin_wta32"),
    ("quant.wqaq", "--Wbits 8 --Abits 8", "nin_w8a8"),
    ("quant.wqaq", "--Wbits 4 --Abits 8", "nin_w4a8"),
    ("quant.wqaq", "--Wbits 4 --Abits 4", "nin_w4a4"),
    ("quant.wqaq", "--Wbits 8 --Abits 8 --refine models_save/nin_refine.pth", "nin_w8a8"),
    ("quant.wqaq", "--Wbits 8 --Abits 8 --refine models_save/nin_gc_refine.pth", "nin_gc_w8a8"),
    ("quant.wbwtab", "--W 2 --A 2 --refine models_save/nin_refine.pth", "nin_wbab"),
    ("quant.wbwtab", "--W 2 --A 2 --refine models_save/nin_gc_refine.pth", "nin_gc_wbab"),
    ("bn_merge.__main__", "--W 2", "nin_wbab_merged"),
    ("bn_merge.__main__", "--W 3", "nin_wtab_merged"),
)


@pytest.mark.filterwarnings("ignore")
def test_every_command_of_the_original(command, workplace: Path) -> None:
    for module, line, stem in COMMANDS:
        args = line.split()
        if module in ("prune.train", "quant.wqaq", "quant.wbwtab"):
            args += SMALL
            if "--refine" not in args:
                args += ["--cfg", GC if "nin_gc" in line else NARROW]
        result = command(module, *args)
        assert result.code == 0, f"{module} {line}: {result.err}"
        assert result.path == f"models_save/{stem}.pth"
        assert (workplace / result.path).exists()
    result = command("bn_merge.compare")
    assert result.code == 0
    assert "same answer   360 of 360" in result.out
