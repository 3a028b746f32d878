"""Default recipes of the quantized families, by data set, and the original's. Those that the README's tables on held-out
digits compare were chosen there; the longer ones, for larger sets, scale them up and were not searched for."""

from __future__ import annotations

from dataclasses import replace

from engine.training.recipe import SEED, Recipe
from quant.spec import QuantSpec

_DIGITS_EPOCHS = {"refine": 6, "scratch": 12}
_EPOCHS = {"refine": 30, "scratch": 60}


def for_spec(spec: QuantSpec, dataset: str, refine: bool) -> Recipe:
    """DoReFa trains like float networks; ternary and binary ones want Adam, which revives weights that hardly move."""
    digits = dataset == "digits"
    epochs = (_DIGITS_EPOCHS if digits else _EPOCHS)["refine" if refine else "scratch"]
    batch = 32 if digits else 128
    smoothing = 0.0 if digits else 0.1
    low = {spec.weight.kind, spec.activation.kind} & {"binary", "ternary"}
    if low:
        return Recipe(epochs, batch, "adam", 5e-3, 0.0, label_smoothing=smoothing)
    rate = 0.01 if spec.weight.kind == "affine" else 0.02
    return Recipe(epochs, batch, "sgd", rate if refine else 0.05, label_smoothing=smoothing)


def original(spec: QuantSpec, arch: str) -> Recipe:
    """--recipe original: that repository's own; for INT8 its 30 epochs, with steps that depend on fold and network."""
    if spec.weight.kind != "affine":
        return SEED
    steps: tuple[int, ...] = (15, 17, 20)
    if spec.bn_fold:
        steps = (8, 12, 20, 25) if arch == "nin_gc" else (12, 15, 25)
    return replace(SEED, epochs=30, steps=steps)


def table(dataset: str, of_original: bool = False) -> dict[str, str]:
    """Every recipe in words, by family: what results must be told apart by."""
    from engine.training.recipe import for_float
    from quant.spec import affine, quantizer

    specs = {
        "dorefa": QuantSpec(quantizer(4), quantizer(4)),
        "ternary and binary": QuantSpec(quantizer("b"), quantizer("b")),
    }
    folds = {f"affine{', BN folded' * fold}": affine(8, 8, 1, fold) for fold in (False, True)}
    if of_original:
        return {"float": str(SEED), **{name: str(original(spec, "nin")) for name, spec in {**specs, **folds}.items()}}
    found = {"float": for_float(dataset), "refining": for_float(dataset, refine=True)}
    for name, spec in {**specs, **folds}.items():
        found |= {name: for_spec(spec, dataset, False), f"{name}, refining": for_spec(spec, dataset, True)}
    return {name: str(recipe) for name, recipe in found.items()}
