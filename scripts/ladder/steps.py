"""The steps of the ladder: which command each one is, and which files it reads."""

from __future__ import annotations

import string

_GC_PLAIN = "192,160,96,192,192,192,192,192"


_DEPTHWISE = "32,64,128,256,256,256,512,1024"


STEPS = {
    "nin": "prune.train --arch nin",
    "nin_3x3": "prune.train --arch nin_3x3",
    "nin_gc_plain": f"prune.train --arch nin_gc --cfg {_GC_PLAIN}",
    "nin_gc": "prune.train --arch nin_gc",
    "sparse": "prune.train --arch nin -sr --s 0.0001",
    "prune50": "prune.normal_regular --percent 0.5 --model {sparse}",
    "prune50_refine": "prune.train --refine {prune50}",
    "prune50_x8": "prune.normal_regular --percent 0.5 --normal_regular 8 --model {sparse}",
    "prune50_x8_refine": "prune.train --refine {prune50_x8}",
    "prune50_x16": "prune.normal_regular --percent 0.5 --normal_regular 16 --model {sparse}",
    "prune50_x16_refine": "prune.train --refine {prune50_x16}",
    "prune50_scratch": "prune.train --from_scratch {prune50}",
    "gc_sparse": "prune.train --arch nin_gc -sr --s 0.001",
    "gc_prune40": "prune.gc --percent 0.4 --model {gc_sparse}",
    "gc_prune40_refine": "prune.train --refine {gc_prune40}",
    "w8a8": "quant.wqaq --Wbits 8 --Abits 8 --refine {nin}",
    "w4a8": "quant.wqaq --Wbits 4 --Abits 8 --refine {nin}",
    "w4a4": "quant.wqaq --Wbits 4 --Abits 4 --refine {nin}",
    "w2a2": "quant.wqaq --Wbits 2 --Abits 2 --refine {nin}",
    "lsq_w4a4": "quant.wqaq --quantizer lsq --Wbits 4 --Abits 4 --refine {nin}",
    "lsq_w2a2": "quant.wqaq --quantizer lsq --Wbits 2 --Abits 2 --refine {nin}",
    "int8_q0_fold0": "quant.wqaq --q_type 0 --bn_fold 0 --refine {nin}",
    "int8_q0_fold1": "quant.wqaq --q_type 0 --bn_fold 1 --refine {nin}",
    "int8_q1_fold0": "quant.wqaq --q_type 1 --bn_fold 0 --refine {nin}",
    "int8_q1_fold1": "quant.wqaq --q_type 1 --bn_fold 1 --refine {nin}",
    "ptq_minmax": "quant.ptq --calibrate minmax --model {nin}",
    "ptq_percentile": "quant.ptq --calibrate percentile --model {nin}",
    "ptq_mse": "quant.ptq --calibrate mse --model {nin}",
    "ptq_kl": "quant.ptq --calibrate kl --model {nin}",
    "wba32": "quant.wbwtab --W 2 --A 32 --refine {nin}",
    "wta32": "quant.wbwtab --W 3 --A 32 --refine {nin}",
    "wbab": "quant.wbwtab --W 2 --A 2 --refine {nin}",
    "wbab_no_scale": "quant.wbwtab --W 2 --A 2 --no-scale --refine {nin}",
    "wtab": "quant.wbwtab --W 3 --A 2 --refine {nin}",
    "wtab_no_scale": "quant.wbwtab --W 3 --A 2 --no-scale --refine {nin}",
    "prune50_wtab": "quant.wbwtab --W 3 --A 2 --refine {prune50_refine}",
    "gc_prune40_wtab": "quant.wbwtab --W 3 --A 2 --refine {gc_prune40_refine}",
    "depthwise_standard": f"prune.train --arch nin --cfg {_DEPTHWISE}",
    "depthwise_separable": "prune.train --type 2",
    "depthwise_separable_wide": "prune.train --arch separable_wide",
}


"""A step is one command; {name} stands for the file that another step leaves."""


def parents(step: str) -> list[str]:
    """The steps whose files this one reads."""
    return [field for _, field, _, _ in string.Formatter().parse(STEPS[step]) if field]


def chain(step: str) -> list[str]:
    """A step and all before it, in order."""
    return [name for parent in parents(step) for name in chain(parent)] + [step]


def epochs(step: str, total: int | None) -> int | None:
    """How long a step trains when a float training takes `total` epochs: refining and quantizing take half. None: not at all, or as the recipe says."""
    module = STEPS[step].split()[0]
    if total is None or module not in ("prune.train", "quant.wqaq", "quant.wbwtab"):
        return None
    return max(1, total // 2) if "--refine" in STEPS[step] else total
