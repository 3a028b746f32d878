"""Make the golden files: a small file for each stage, as the commands write it, and its network's answers.

Run once for each version of the format, in this folder: python make.py 1. Files of old versions are never made again.
Version 2 is for grey pictures, version 3 for pictures cropped by ImageNet's recipe; other networks still get version 1.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
STAGES = {
    "float": "prune.train -sr --save float.pth",
    "pruned": "prune.normal_regular --percent 0.15 --model float.pth --save pruned.pth --cpu",
    "w4a4": "quant.wqaq --Wbits 4 --Abits 4 --refine pruned.pth --save w4a4.pth",
    "wbab": "quant.wbwtab --W 2 --A 2 --refine pruned.pth --save wbab.pth",
    "int8_fold": "quant.wqaq --q_type 1 --bn_fold 1 --refine pruned.pth --save int8_fold.pth",
    "merged": "bn_merge.__main__ --model wbab.pth --save merged.pth --cpu",
}
NETWORKS = {
    "format_1": ("--cfg", "6,4,4,6,4,4,6,4"),
    "format_2": ("--arch", "tests.golden.gray:small"),
    "format_3": ("--cfg", "6,4,4,6,4,4,6,4"),
}
TRAINING = "--image_size 8 --epochs 16 --quiet --cpu --precision fp32"
PICTURES = {"format_3": "--dataset imagefolder --data digits --crop imagenet"}
"""Flags for a version's pictures; other versions use the embedded digits."""


def pictures() -> torch.Tensor:
    """Return four pictures of integers, equal in every version of every library: float64 (4, 3, 8, 8)."""
    numbers = torch.arange(4 * 3 * 8 * 8, dtype=torch.int64)
    return ((numbers * 7919 + numbers // 64 * 104729) % 251).reshape(4, 3, 8, 8).double() / 125 - 1


def own(path: Path) -> tuple[str, ...]:
    """Return the --arch flags of a golden file whose network is not the toolkit's."""
    words = NETWORKS[path.parent.name]
    return words if words[0] == "--arch" else ()


def answers(path: Path, arch: str | None = None) -> list[list[float]]:
    """Return the logits of a file's network on `pictures` in float64, where CPUs differ by far less than a code."""
    from quant import restore

    opened = restore.open(path, arch)
    with torch.no_grad():
        return opened.network.double().eval()(pictures()[:, : opened.checkpoint.dataset.channels]).tolist()


def write_digits(root: Path) -> None:
    """Write the embedded digits as files in ImageNet's layout."""
    from PIL import Image

    from engine.data.digits import read_digits

    train, test, _ = read_digits(Path(), 12)
    for part, (images, labels) in (("train", train), ("val", test)):
        for number, (image, label) in enumerate(zip(images.numpy(), labels.tolist(), strict=True)):
            (root / part / str(label)).mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(root / part / str(label) / f"{number}.png")


def main(version: str) -> None:
    """Run the stages and keep their files and answers in format_VERSION."""
    place = HERE / f"format_{version}"
    data = PICTURES.get(place.name, "--dataset digits").split()
    place.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        if "imagefolder" in data:
            write_digits(Path("digits"))
        for name, line in STAGES.items():
            module, *args = line.split()
            more = [*data, *TRAINING.split()] if "train" in module or "quant" in module else data[2:4]
            network = NETWORKS[place.name] if name == "float" else own(place / name)
            assert importlib.import_module(module).main([*args, *network, *more]) == 0, line
            shutil.copy(f"{name}.pth", place)
        os.chdir(HERE)
    logits = {name: answers(place / f"{name}.pth", *own(place / name)[1:]) for name in STAGES}
    (place / "logits.json").write_text(json.dumps(logits))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.path.insert(0, str(HERE.parents[1]))
    main(sys.argv[1])
