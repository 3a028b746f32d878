"""The steps of the ladder. A step is one command and the file that it reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

NETWORK = "nin"
"""The network named in the steps. `Step.words` replaces it by another one."""
OF_ANY = ("nin", "sparse")
"""The first steps that work with any network. Chains with other first steps need relatives of NIN."""
TRAINING = ("prune.train", "quant.wqaq", "quant.wbwtab")


@dataclass(frozen=True)
class Step:
    """One command of the ladder, without the flags common to all steps: data, seed, device and output file.

    Args:
        module: the module that `python -m` runs.
        flags: the words after the module.
        reads: the flag for the file of `parent`, such as "--refine"; None if the step reads no file.
        parent: the step whose file this one reads.
    """

    name: str
    module: str
    flags: tuple[str, ...] = ()
    reads: str | None = None
    parent: str | None = None

    @property
    def command(self) -> str:
        """The command line without the input file: `quant.wqaq --Wbits 8 --Abits 8`."""
        return " ".join((self.module, *self.flags))

    @property
    def line(self) -> str:
        """The command line with the parent's name in place of its file: `prune.train --refine {prune50}`.

        A ladder's JSON file stores these lines. If they change, existing ladders are refused.
        """
        return f"{self.command} {self.reads} {{{self.parent}}}" if self.parent else self.command

    @property
    def trains(self) -> bool:
        return self.module in TRAINING

    @property
    def refines(self) -> bool:
        """Return whether training starts from the parent's weights."""
        return self.reads == "--refine"

    def words(self, files: Mapping[str, str], arch: str = NETWORK) -> list[str]:
        """Return the words of the command.

        Args:
            files: the file of each step, by the step's name.
            arch: the network. Each step names a network other than NIN, because a file alone never runs user code.
        """
        words = [self.module, *self.flags, *((self.reads, files[self.parent]) if self.reads and self.parent else ())]
        if arch == NETWORK:
            return words
        if "--arch" in words:
            words[words.index("--arch") + 1] = arch
            return words
        return [*words, "--arch", arch]

    def epochs(self, total: int | None) -> int | None:
        """Return the epochs of the step if a float training takes `total`: refining takes half.

        None means that the step does not train, or trains as long as its recipe says.
        """
        if total is None or not self.trains:
            return None
        return max(1, total // 2) if self.refines else total


def _step(name: str, command: str, reads: str | None = None, parent: str | None = None) -> Step:
    module, *flags = command.split()
    return Step(name, module, tuple(flags), reads, parent)


def _refine(name: str, command: str, parent: str) -> Step:
    return _step(name, command, "--refine", parent)


def _apply(name: str, command: str, model: str) -> Step:
    return _step(name, command, "--model", model)


_GC_PLAIN = "192,160,96,192,192,192,192,192"
_DEPTHWISE = "32,64,128,256,256,256,512,1024"

STEPS = {
    step.name: step
    for step in (
        _step("nin", "prune.train --arch nin"),
        _step("nin_3x3", "prune.train --arch nin_3x3"),
        _step("nin_gc_plain", f"prune.train --arch nin_gc --cfg {_GC_PLAIN}"),
        _step("nin_gc", "prune.train --arch nin_gc"),
        _step("sparse", "prune.train --arch nin -sr --s 0.0001"),
        _apply("prune50", "prune.normal_regular --percent 0.5", "sparse"),
        _refine("prune50_refine", "prune.train", "prune50"),
        _apply("prune50_x8", "prune.normal_regular --percent 0.5 --normal_regular 8", "sparse"),
        _refine("prune50_x8_refine", "prune.train", "prune50_x8"),
        _apply("prune50_x16", "prune.normal_regular --percent 0.5 --normal_regular 16", "sparse"),
        _refine("prune50_x16_refine", "prune.train", "prune50_x16"),
        _step("prune50_scratch", "prune.train", "--from_scratch", "prune50"),
        _step("gc_sparse", "prune.train --arch nin_gc -sr --s 0.001"),
        _apply("gc_prune40", "prune.gc --percent 0.4", "gc_sparse"),
        _refine("gc_prune40_refine", "prune.train", "gc_prune40"),
        _refine("w8a8", "quant.wqaq --Wbits 8 --Abits 8", "nin"),
        _refine("w4a8", "quant.wqaq --Wbits 4 --Abits 8", "nin"),
        _refine("w4a4", "quant.wqaq --Wbits 4 --Abits 4", "nin"),
        _refine("w2a2", "quant.wqaq --Wbits 2 --Abits 2", "nin"),
        _refine("lsq_w4a4", "quant.wqaq --quantizer lsq --Wbits 4 --Abits 4", "nin"),
        _refine("lsq_w2a2", "quant.wqaq --quantizer lsq --Wbits 2 --Abits 2", "nin"),
        _refine("int8_q0_fold0", "quant.wqaq --q_type 0 --bn_fold 0", "nin"),
        _refine("int8_q0_fold1", "quant.wqaq --q_type 0 --bn_fold 1", "nin"),
        _refine("int8_q1_fold0", "quant.wqaq --q_type 1 --bn_fold 0", "nin"),
        _refine("int8_q1_fold1", "quant.wqaq --q_type 1 --bn_fold 1", "nin"),
        _apply("ptq_minmax", "quant.ptq --calibrate minmax", "nin"),
        _apply("ptq_percentile", "quant.ptq --calibrate percentile", "nin"),
        _apply("ptq_mse", "quant.ptq --calibrate mse", "nin"),
        _apply("ptq_kl", "quant.ptq --calibrate kl", "nin"),
        _refine("wba32", "quant.wbwtab --W 2 --A 32", "nin"),
        _refine("wta32", "quant.wbwtab --W 3 --A 32", "nin"),
        _refine("wbab", "quant.wbwtab --W 2 --A 2", "nin"),
        _refine("wbab_no_scale", "quant.wbwtab --W 2 --A 2 --no-scale", "nin"),
        _refine("wtab", "quant.wbwtab --W 3 --A 2", "nin"),
        _refine("wtab_no_scale", "quant.wbwtab --W 3 --A 2 --no-scale", "nin"),
        _refine("prune50_wtab", "quant.wbwtab --W 3 --A 2", "prune50_refine"),
        _refine("gc_prune40_wtab", "quant.wbwtab --W 3 --A 2", "gc_prune40_refine"),
        _step("depthwise_standard", f"prune.train --arch nin --cfg {_DEPTHWISE}"),
        _step("depthwise_separable", "prune.train --type 2"),
        _step("depthwise_separable_wide", "prune.train --arch separable_wide"),
    )
}


def chain(name: str) -> list[Step]:
    """Return a step and all steps before it, in order."""
    step = STEPS[name]
    return [*(chain(step.parent) if step.parent else ()), step]
