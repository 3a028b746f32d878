"""Networks that read one channel: every command feeds them grey pictures, and their files record it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from engine.checkpoint import archive
from engine.checkpoint.format import Checkpoint, load
from engine.data import catalogue, gray
from engine.data.augment import normalise
from engine.errors import BAD_CHECKPOINT, USAGE
from models import files
from models.graph.capture.form import reads
from tests.conftest import SMALL, assert_refused
from tests.tools import cases, gray as networks
from tests.tools.contents import raw

ARCH = ("--arch", "tests.tools.gray:small")


def checkpoint(path: str) -> Checkpoint:
    found = load(Path(path))
    assert isinstance(found, Checkpoint)
    return found


def test_the_chain_shows_gray_pictures(command) -> None:
    sparse = command("prune.train", "-sr", "--s", "0.01", *ARCH, *SMALL)
    assert sparse.code == 0, sparse.err
    assert sparse.err.startswith("notice: tests.tools.gray:small reads one channel: pictures are shown in grey\n")
    pruned = command("prune.normal_regular", "--percent", "0.5", *ARCH, "--cpu")
    assert pruned.code == 0, pruned.err
    refined = command("prune.train", "--refine", *ARCH, *SMALL)
    assert refined.code == 0, refined.err
    judged = command("prune.train", "--evaluate", refined.path, *ARCH, "--cpu")
    assert judged.out.splitlines()[0] == refined.out.splitlines()[0]
    digits = catalogue.load("digits", image_size=8)
    pixels = (digits.train.images.double() / 255 @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)).flatten()
    mean, std = round(float(pixels.mean()), 4), round(float(pixels.std(correction=0)), 4)
    for path in (sparse.path, pruned.path, refined.path):
        assert raw(Path(path))["format_version"] == 2
        data = checkpoint(path).dataset
        assert (data.mean, data.std) == ((mean,), (std,))
    assert len(checkpoint(refined.path).state_dict["0.0.weight"]) < 12
    found = json.loads(command("scripts.summary", refined.path, *ARCH, "--json").out)
    assert found["memory_bytes"]["input"] == 4 * 64
    report = command("scripts.report", sparse.path, refined.path, *ARCH)
    assert report.code == 0, report.err
    macs = [row["macs"] for row in json.loads(Path(report.path).with_suffix(".json").read_text())]
    assert macs == [16 * (9 * 12 + 9 * 12 * 16) + 160, found["macs"]]
    inspected = command("engine.checkpoint.__main__", "inspect", refined.path)
    assert f"mean {mean}, std {std}" in inspected.out
    assert "model-compression 2" in inspected.out


def test_a_file_answers_what_it_was_judged_by(command) -> None:
    path = command("prune.train", *ARCH, *SMALL).path
    network = files.open(Path(path), ARCH[1]).network.eval()
    digits, made = catalogue.load("digits", image_size=8), checkpoint(path)
    weights = torch.tensor([0.299, 0.587, 0.114])
    x = ((digits.test.images / 255 * weights).sum(-1)[:, None] - made.dataset.mean[0]) / made.dataset.std[0]
    with torch.no_grad():
        right = (network(x).argmax(1) == digits.test.labels).float().mean().item()
    assert made.metrics.accuracy == pytest.approx(100 * right, abs=0.3)


def test_pixels_are_made_gray_before_they_are_normalised() -> None:
    digits = catalogue.load("digits", image_size=8)
    pictures = torch.randint(0, 256, (5, 4, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = normalise(pictures, digits.info.normalised((0.4,), (0.2,)))
    red, green, blue = (pictures.double() / 255).unbind(-1)
    expected = ((0.299 * red + 0.587 * green + 0.114 * blue) - 0.4) / 0.2
    assert found.shape == (5, 1, 4, 4)
    torch.testing.assert_close(found[:, 0].double(), expected, rtol=0, atol=1e-5)


def test_the_standard_deviation_is_that_of_gray_pictures() -> None:
    """Opposite channels cancel out, so it cannot be computed from the channels' deviations."""
    data = catalogue.load("digits", image_size=8)
    train = data.train
    train.images = train.images.clone()
    train.images[..., 1] = 255 - train.images[..., 0]
    pixels = (train.images.double() / 255) @ torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    mean, std = gray.statistics(data)
    assert mean == (round(float(pixels.mean()), 4),)
    assert std == (round(float(pixels.std(correction=0)), 4),)
    assert train.info.channels == 3  # as it was
    train.images[...] = 255
    assert gray.statistics(data) == ((1.0,), (0.0001,))  # it divides


@pytest.mark.parametrize(
    ("make", "side", "channels"),
    [
        (networks.small, 8, 1), (networks.flat, 8, 1), (cases.gray, 32, 1), (networks.Either, 8, 3), (cases.prelu, 8, 3),
        (networks.Coordinates, 8, 3), (networks.Coordinates, 16, 3),
    ],
)  # fmt: skip
def test_what_a_network_reads_is_tried(make, side: int, channels: int) -> None:
    own = make()
    before = {key: value.clone() for key, value in own.state_dict().items()}
    assert reads(own, side, "net") == channels
    assert all(torch.equal(value, before[key]) for key, value in own.state_dict().items())
    assert not any(module._forward_pre_hooks for module in own.modules())


def test_other_numbers_of_channels_are_refused_by_name(command) -> None:
    found = command("prune.train", "--arch", "tests.tools.gray:four", *SMALL)
    assert_refused(found, USAGE, "tests.tools.gray:four: 0.0 reads 4 channels, pictures have 3, or 1 in grey")
    assert_refused(command("scripts.summary", "--arch", "tests.tools.gray:four"), USAGE, "0.0 reads 4 channels")


def test_mean_and_std_are_one_number_each(command) -> None:
    found = command("prune.train", *ARCH, *SMALL, "--mean", "0.5", "--std", "0.25")
    assert found.code == 0, found.err
    data = checkpoint(found.path).dataset
    assert (data.mean, data.std) == ((0.5,), (0.25,))
    again = command("prune.train", "--refine", found.path, *ARCH, *SMALL, "--save", "again.pth")
    assert checkpoint(again.path).dataset.mean == (0.5,)
    for line in (("prune.train", *ARCH, *SMALL), ("prune.train", "--refine", found.path, *ARCH, *SMALL)):
        assert_refused(
            command(*line, "--save", "x.pth", "--mean", "0.5,0.5,0.5"), USAGE, "--mean", "the network reads one channel"
        )
    colours = command("prune.train", "--cfg", "8,8,8,8,8,8,8,8", *SMALL, "--std", "0.5")
    assert_refused(colours, USAGE, "--std 0.5: the network reads three channels")


def test_a_state_dict_of_the_users_is_described(workplace: Path, command) -> None:
    torch.save(networks.small().state_dict(), "trained.pth")
    line = ("scripts.convert", "trained.pth", "mine.pth", *ARCH, "--image_size", "8", "--dataset", "digits")
    assert_refused(command(*line), USAGE, "the network reads one channel: --mean and --std must be one number each")
    found = command(*line, "--mean", "0.3", "--std", "0.4")
    assert found.code == 0, found.err
    assert checkpoint("mine.pth").dataset.mean == (0.3,)
    assert command("prune.train", "--evaluate", "mine.pth", *ARCH, "--cpu").code == 0


def test_format_1_holds_no_gray_pictures(command) -> None:
    path = Path(command("prune.train", *ARCH, *SMALL).path)
    archive.save(path, {**raw(path), "format_version": 1})
    found = command("prune.train", "--evaluate", path, *ARCH, "--cpu")
    assert_refused(found, BAD_CHECKPOINT, "its dataset has no mean and std of three channels")
