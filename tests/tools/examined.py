"""Take a library's network through the whole chain: capture, prune, fold, quantize, train a step, restore, merge.

`python -m tests.tools.examined torchvision: [timm:a timm:b ...] [--most 130]` prints a line for each network. `torchvision:`
means all of its classification and segmentation networks.
"""

from __future__ import annotations

import argparse
import copy
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bn_merge.merge import merge
from engine.checkpoint import format as checkpoint
from engine.checkpoint.format import Metrics
from engine.checkpoint.history import Quantize
from engine.checkpoint.provenance import Origin
from engine.cli.archs import is_users_code
from engine.data.info import DataInfo
from engine.errors import UserError
from models import files, registry
from models.graph.capture.form import capture
from models.graph.chains import chains, unfolded
from models.graph.channels.classes import channels
from models.graph.normal import NormalForm
from models.graph.surgery.narrow import masked, narrowed
from prune import plan as planning
from prune.widths import Subject
from quant.placement import meet
from quant.prepare import prepare
from quant.restore import restore
from quant.spec import affine_spec

SIDES = (32, 64, 75, 96, 128, 160, 224, 256)
LIMIT = 1e-10


def smallest(arch: str) -> tuple[nn.Module, int]:
    """Return a network in eval mode with noise in its batch norms, and the smallest picture side that it accepts."""
    torch.manual_seed(0)
    model = with_noise(registry.build(arch))
    for side in SIDES:
        try:
            with torch.no_grad():
                model(torch.zeros(1, 3, side, side))
        except Exception:  # the picture is too small for its code, which may raise anything
            continue
        return model, side
    raise AssertionError(f"{arch} takes no picture of {SIDES}")


def with_noise(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            for tensor, low in ((module.weight, 0.3), (module.running_var, 0.5)):
                if tensor is not None:
                    nn.init.uniform_(tensor, low, 1.5)
            for tensor in (module.bias, module.running_mean):
                if tensor is not None:
                    nn.init.normal_(tensor, 0, 0.2)
    return model.eval()


def apart(one: nn.Module, other: nn.Module, x: Tensor) -> float:
    """Return the largest difference of two networks' answers, relative to the largest answer."""
    with torch.no_grad():
        a, b = one.eval()(x), other.eval()(x)
    return ((a - b).abs().max() / a.abs().max().clamp_min(1e-300)).item()


def pruned(model: nn.Module, form: NormalForm, arch: str, base: int) -> tuple[float, float]:
    """Return the difference of the masked and the narrowed network in float64, and the share of parameters that is left."""
    model, form = copy.deepcopy(model).double(), copy.deepcopy(form).double()
    found = channels(form)
    gates = any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in form.modules())
    tried = Subject(model, form, found, arch)
    chosen = planning.plan(tried, 0.5, base, "bn" if gates else "l1")
    small = narrowed(model, form, found, chosen.dropped, arch)
    x = torch.randn(2, *form.captured.picture, dtype=torch.float64)
    left = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in form.parameters())
    return apart(masked(form, found, chosen.dropped), small, x), left


def quantized(form: NormalForm, arch: str, fold: bool) -> tuple[float, bool]:
    """Train INT8 for a step, save and restore; return the merged network's error, and whether the file equals the network."""
    spec = meet(affine_spec(8, 8, 1, fold), form)
    model = prepare(form, spec).train()
    x = torch.randn(4, *form.captured.picture)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    found = model(x)
    F.cross_entropy(found.flatten(2).mean(2) if found.ndim > 2 else found, torch.arange(4)).backward()
    optimizer.step()
    own = arch if is_users_code(arch) else None
    again = (
        restore(stored(model, arch, spec.to_dict()), own) if len(form.captured.answer) == 2 else copy.deepcopy(model)
    )
    same = apart(model, again, x) == 0
    return apart(again.double(), merge(again), x.double()), same


def stored(model: NormalForm, arch: str, spec: dict[str, Any]) -> Any:
    """Return a network's checkpoint as read from its file."""
    info = DataInfo.unknown(10, model.captured.picture[1])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pth"
        made = checkpoint.make(model, arch, {"classes": 10}, info, Metrics(0.0), (Quantize(spec=spec),), Origin((), 0))
        checkpoint.save(path, made)
        return files.read(path)


def examined(arch: str, most: float) -> str:
    """Return one line with the results and the seconds.

    Args:
        most: millions of parameters above which a network is only captured.
    """
    words, model_side = [], smallest(arch)
    model, side = model_side
    start = time.perf_counter()
    form = capture(model, (3, side, side), arch)
    words.append(f"{side}x{side} captured {time.perf_counter() - start:.1f} s")
    size = sum(p.numel() for p in form.parameters()) / 1e6
    if size > most:
        return f"{arch}: {', '.join(words)}; {size:.0f} M parameters: captured alone"
    folds, left = chains(form), unfolded(form)
    if folds or left:
        exact = copy.deepcopy(form).double()
        off = apart(exact, merge(exact), torch.randn(2, 3, side, side, dtype=torch.float64))
        words.append(f"folded {len(folds)} of {len(folds) + len(left)} {off:.0e}")
    for base in (1, 8):
        try:
            off, share = pruned(model, form, arch, base)
            words.append(f"pruned/{base} {off:.0e} left {share:.2f}{' WRONG' * (not off < LIMIT)}")
        except UserError as fault:
            words.append(f"pruned/{base} refused: {fault}")
    for fold in (False, True):
        off, same = quantized(form, arch, fold)
        words.append(f"int8 fold {fold:d} {off:.0e}{' NOT RESTORED' * (not same)}")
    return f"{arch}: {', '.join(words)}; {time.perf_counter() - start:.0f} s in all"


def names(given: list[str]) -> list[str]:
    if given != ["torchvision:"]:
        return given
    from torchvision import models

    found = [*models.list_models(module=models), *models.list_models(module=models.segmentation)]
    return [f"torchvision:{name}" for name in found]


def main() -> None:
    asked = argparse.ArgumentParser()
    asked.add_argument("arch", nargs="+")
    asked.add_argument("--most", type=float, default=130)
    given = asked.parse_args()
    for arch in names(given.arch):
        try:
            print(examined(arch, given.most), flush=True)
        except Exception as fault:  # print it in the line and continue with the next network
            print(
                f"{arch}: FAULT {type(fault).__name__}: {str(fault).splitlines()[0] if str(fault) else ''}", flush=True
            )


if __name__ == "__main__":
    sys.exit(main())
