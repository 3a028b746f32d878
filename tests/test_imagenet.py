"""ImageNet's layout and recipe in the whole chain: the commands of docs/scale.md on few small pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.tools.contents import raw
from tests.tools.library import with_few_blocks
from tests.tools.readme import MODULES, ROOT, blocks, lines, options

CLASSES = ("n01440764", "n01443537", "n02084071")
Command = Callable[..., SimpleNamespace]


def photo(path: Path, draws: np.random.Generator) -> None:
    """Write coarse noise of a random size as JPEG."""
    wide, high = (int(side) for side in draws.integers(70, 160, 2))
    pixels = draws.integers(0, 256, (high // 8, wide // 8, 3), np.uint8)
    Image.fromarray(pixels).resize((wide, high), Image.Resampling.BICUBIC).save(path)


@pytest.fixture
def imagenet(workplace: Path) -> Path:
    """Write pictures in ImageNet's layout: val/, and no test/."""
    draws = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 8)):
        for name in CLASSES:
            place = workplace / "imagenet" / part / name
            place.mkdir(parents=True)
            for number in range(count):
                photo(place / f"{name}_{number}.JPEG", draws)
    photo(workplace / "photo.jpg", draws)
    return workplace / "imagenet"


@pytest.fixture(params=["few blocks", pytest.param("whole", marks=pytest.mark.slow)])
def side(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Return the side of the pictures; it is small for torchvision's network with few blocks."""
    if request.param == "few blocks":
        with_few_blocks(monkeypatch)
        return 16
    return 64


def test_the_chain_of_the_page(side: int, imagenet: Path, command: Command) -> None:
    block = next(block for block in blocks(ROOT / "docs/scale.md") if block.marker == "imagenet")
    done = SimpleNamespace(out="")
    for number, (module, argv, _) in enumerate(lines(block)):
        name = MODULES.get(module, module)
        more = (
            ["--epochs", "1", "--train_batch_size", "12", "--precision", "fp32"] if "--epochs" in options(name) else []
        )
        more += ["--num_workers", "0"] if "--data" in argv else []
        more += [flag for flag in ("--cpu", "--quiet") if flag in options(name)]
        done = command(name, *argv, *more, *(() if number else ("--image_size", side)))
        assert done.code == 0, f"python -m {module} {' '.join(argv)}\n{done.err}"
        assert "notice: evaluated on" not in done.err
    files = sorted(Path("models_save").glob("*.pth"))
    assert [path.stem for path in files] == [
        f"resnet18_{end}" for end in ("preprune", "prune", "ptq_mse", "refine", "w8a8", "w8a8_merged")
    ]
    for path in files:
        data = raw(path)["dataset"]
        assert (data["crop"], data["image_size"], data["names"]) == ("imagenet", side, list(CLASSES))
        assert data["label"] == "imagenet"
    assert done.out.startswith("photo.jpg: n0")
