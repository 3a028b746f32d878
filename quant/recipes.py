"""Default recipes of the quantized families, by data set, and the original's.

The recipes for digits were chosen by the comparison in docs/recipes.md on held-out digits. The longer recipes for larger sets are
scaled up from them; no search was made for those.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from engine.training.recipe import ORIGINAL, Recipe, for_float
from models.layers.quantizers import kinds
from models.layers.quantizers.guard import called
from models.layers.quantizers.kinds import Traits
from quant.quantizer_spec import QuantizerSpec
from quant.spec import QuantSpec

_DIGITS_EPOCHS = {"refine": 6, "scratch": 12}
_SCENES_EPOCHS = {"refine": 4, "scratch": 16}
_EPOCHS = {"refine": 30, "scratch": 60}


def for_spec(spec: QuantSpec, dataset: str, refine: bool) -> Recipe:
    """Return the recipe of a spec's weights, or that of its activations if only they need Adam."""
    asked = [traits for traits in spec.all_traits if traits.optimizer == "adam"]
    return default((asked or spec.all_traits)[0], dataset, refine)


def default(traits: Traits, dataset: str, refine: bool) -> Recipe:
    """Return a quantizer's recipe.

    DoReFa networks train like float ones. Ternary and binary ones need Adam, which revives weights that hardly move.
    """
    epochs = {"digits": _DIGITS_EPOCHS, "scenes": _SCENES_EPOCHS}.get(dataset, _EPOCHS)
    return replace(
        for_float(dataset),
        epochs=epochs["refine" if refine else "scratch"],
        optimizer=traits.optimizer,
        lr=traits.refining_lr if refine else traits.lr,
        weight_decay=traits.weight_decay,
    )


def families(command: str) -> dict[str, Callable[[str, bool], Recipe]]:
    """Return a function for the recipe of each family of quantizers, by name. wbwtab has only families of one width."""
    return {
        traits.family or traits.name: partial(default, traits)
        for traits in kinds.all_traits().values()
        if traits.bits != (32,) and (command == "wqaq" or traits.short_name)
    }


def original(spec: QuantSpec, arch: str) -> Recipe:
    """Return the recipe of --recipe original. For INT8 it has 30 epochs, with steps that depend on fold and network."""
    differing = kinds.lookup(spec.weight.kind).original
    return replace(ORIGINAL, **called(differing, spec.bn_fold, arch)) if differing else ORIGINAL


def table(dataset: str, of_original: bool = False) -> dict[str, str]:
    """Return every recipe in words, by family. Results made with different recipes are not comparable."""
    specs = {}
    for traits in kinds.all_traits().values():
        if traits.bits != (32,):
            part = QuantizerSpec(traits.name, traits.bits[-1])
            specs[family := traits.family or traits.name] = QuantSpec(part, part)
            if "bn_fold" in traits.settings:
                specs[f"{family}, BN folded"] = QuantSpec(part, part, bn_fold=True)
    if of_original:
        return {"float": str(ORIGINAL), **{name: str(original(spec, "nin")) for name, spec in specs.items()}}
    found = {"float": for_float(dataset), "refining": for_float(dataset, refine=True)}
    for name, spec in specs.items():
        found |= {name: for_spec(spec, dataset, False), f"{name}, refining": for_spec(spec, dataset, True)}
    return {name: str(recipe) for name, recipe in found.items()}
