"""Rebuilding the network of any checkpoint of this toolkit: float, pruned, quantized or merged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

import models
from engine.checkpoint.description import Description
from engine.checkpoint.format import Checkpoint
from engine.checkpoint.history import Calibrate, Merge, Quantize
from engine.errors import BAD_CHECKPOINT, UserError, prefix_path
from models import files
from models.files import Opened
from models.graph.chains import chains, read_by_sign
from models.graph.normal import NormalForm
from models.layers.fold import Flip, MergedConv2d, MergedLinear, merged
from models.layers.quantizers import kinds
from models.layers.quantizers.base import Quantizer
from quant.old_declarations import declared
from quant.prepare import of_coded_end, prepare
from quant.quantizer_spec import FLOAT, QuantizerSpec
from quant.spec import QuantSpec


def _stage_of(checkpoint: Checkpoint) -> Quantize | Calibrate | None:
    """Return the last stage that quantized a checkpoint, None for a float network."""
    stages = [stage for stage in checkpoint.history if isinstance(stage, (Quantize, Calibrate))]
    return stages[-1] if stages else None


def spec_of(checkpoint: Checkpoint) -> QuantSpec | None:
    """Return the quantization of a checkpoint, None for a float network."""
    stage = _stage_of(checkpoint)
    return QuantSpec.from_dict(dict(stage.spec)) if stage else None


def words_of(checkpoint: Checkpoint) -> str:
    """Return the quantization of a checkpoint in words, `float` for a float network; see `in_words`."""
    stage = _stage_of(checkpoint)
    return in_words(stage) if stage else "float"


def in_words(stage: Quantize | Calibrate) -> str:
    """Return a stage of quantization in words: int8_q1_fold1 if it trained, int8_q1 ptq kl if it calibrated."""
    name = QuantSpec.from_dict(dict(stage.spec)).name
    if isinstance(stage, Calibrate):  # its fold1 is no folding in training
        return f"{name.replace('_fold1', '')} {stage.words()}"
    return name


def short_name_of(checkpoint: Checkpoint) -> str:
    """Return the width of a checkpoint's weights as file names write it: 8, 4, 32, b, t."""
    spec = spec_of(checkpoint)
    return spec.weight.short_name if spec else "32"


def is_merged(checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint's batch norms are folded."""
    return any(isinstance(stage, Merge) for stage in checkpoint.history)


def restore(checkpoint: Checkpoint, arch: str | None = None) -> NormalForm:
    """Rebuild the network of a checkpoint.

    Args:
        arch: the value of --arch; needed for your own networks, see models.restore.

    Raises:
        UserError: exit 3 for weights that do not fit, exit 2 for another --arch than the file's.
    """
    spec = spec_of(checkpoint)
    model = models.rebuild(checkpoint, arch)
    if spec:
        try:
            model = prepare(model, spec, declared(checkpoint, spec, arch))
        except UserError as fault:
            raise UserError(
                f"the file's quantization does not fit its network: {fault}", fault.hint, BAD_CHECKPOINT
            ) from fault
    if is_merged(checkpoint):
        merged_shell(model, checkpoint.state_dict)
    models.load_weights(model, checkpoint.state_dict, checkpoint.arch)
    check_codes(model, spec or QuantSpec())
    return model


def merged_shell(model: NormalForm, state: dict[str, Tensor]) -> None:
    """Replace layers by empty merged ones, in place. Their contents are loaded afterwards.

    The file's keys decide: `codes` make a merged layer, a missing BN an identity, `flip` a change of signs.

    Args:
        state: the file's tensors.

    Raises:
        UserError: exit 3 for codes, scales or biases of another shape than the layer's, or a missing scale.
    """
    before_sign = read_by_sign(model)
    folds = {chain.norm: chain.layer for chain in chains(model)}
    unscaled = {layer for norm, layer in folds.items() if norm in before_sign}  # a sign needs no scale
    for name, module in list(model.named_modules()):
        if isinstance(module, (nn.Conv2d, nn.Linear)) and f"{name}.codes" in state:
            # a layer that is a call, or in_proj of nn.MultiheadAttention, has its bias under the name of the network's code
            keys = (f"{name}.{part}" for part in ("codes", "bias", "scale"))
            codes, bias, scale = (state.get(key, state.get(model.captured.aliases.get(key, ""))) for key in keys)
            if codes is None or bias is None:
                continue  # load_weights names the missing key
            bits, quantizer = getattr(module, "weight_bits", 32), getattr(module, "input_quantizer", None)
            if codes.shape != module.weight.shape or any(
                part is not None and part.shape != codes.shape[:1] for part in (bias, scale)
            ):
                raise _bad(f"{name} holds codes, a scale or a bias of another shape than the layer's")
            if scale is None and bits < 32 and name not in unscaled:
                raise _bad(f"{name}.scale is missing")
            codes, bias = torch.empty_like(codes), torch.empty_like(bias)
            scale = None if scale is None else torch.empty_like(scale)
            model.replace(name, merged(module, codes, scale, bias, bits, quantizer))
        elif name in folds and f"{name}.running_mean" not in state:
            flip = state.get(f"{name}.flip")
            model.replace(name, nn.Identity() if flip is None else Flip(flip))


def check_codes(model: nn.Module, spec: QuantSpec) -> None:
    """Refuse stored codes that no quantizer of this spec can give, and invalid ranges or signs.

    Raises:
        UserError: exit 3, naming the tensor.
    """
    for name, module in model.named_modules():
        if isinstance(module, (MergedConv2d, MergedLinear)):
            of_layer = of_coded_end(spec) if name in spec.coded_ends else spec.weight
            part = replace(of_layer, bits=module.weight_bits) if module.weight_bits < 32 else FLOAT
            if not _possible(module.codes, part):
                raise _bad(f"{name}.codes holds values that {part.bits}-bit {part.kind} weights cannot have")
        elif isinstance(module, Flip) and not (module.flip.abs() == 1).all():
            raise _bad(f"{name}.flip holds other values than -1 and 1")
        elif isinstance(module, Quantizer) and (fault := module.fault()):
            raise _bad(f"{name}{fault}")


def _possible(codes: Tensor, part: QuantizerSpec) -> bool:
    """Return whether a weight quantizer can give these codes, (out, ...). For float weights, any float tensor fits."""
    if part.bits == 32:
        return codes.is_floating_point()
    return codes.dtype in (torch.int8, torch.int16) and kinds.lookup(part.kind).gives(codes, part)


def _bad(what: str) -> UserError:
    return UserError(f"the file is invalid: {what}", "make the file again", BAD_CHECKPOINT)


def open(path: Path, arch: str | None = None, said: Description | None = None, trusted: Sequence[str] = ()) -> Opened:
    """Read a file of any kind and rebuild its network.

    Args:
        arch: as in `restore`.
        said: as in models.files.open.
        trusted: your own networks that may be imported if the file names one of them.

    Raises:
        UserError: as models.files.read and `restore`, with the file's path.
    """
    checkpoint = files.read(path, said)
    with prefix_path(path):
        arch = checkpoint.arch if checkpoint.arch in trusted else arch
        return Opened(path, checkpoint, restore(checkpoint, arch), lambda other: restore(other, arch))
