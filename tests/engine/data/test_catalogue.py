"""Sources of pictures: the digits as documented, folders in memory and streamed, and a name in every error."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from engine.data import catalogue, many_files, pixels as arithmetic, stream
from engine.data.image_folder import listed
from engine.data.pictures import read_picture
from engine.errors import BAD_DATA, UserError
from tests.tools.boxed import coco_folder
from tests.tools.noise import equal_batches, noise

CPU = torch.device("cpu")


def test_the_digits() -> None:
    from sklearn.datasets import load_digits

    known = catalogue.load("digits")
    train, test = known.train, known.test
    assert (len(train), len(test), known.part) == (1437, 360, "test")
    assert train.images.shape == (1437, 32, 32, 3)
    assert test.images.shape == (360, 32, 32, 3)
    target = torch.from_numpy(load_digits().target)
    assert torch.equal(test.labels, target[::5])
    assert torch.equal(train.labels, target[[i for i in range(1797) if i % 5]])
    assert (test.images[..., 0] == test.images[..., 2]).all()  # grey
    assert (known.info.name, known.info.classes, known.info.image_size, known.info.flip) == ("digits", 10, 32, False)
    pixels = train.images[..., 0].double() / 255
    np.testing.assert_allclose(known.info.mean, [pixels.mean()] * 3, atol=5e-5)
    np.testing.assert_allclose(known.info.std, [pixels.std(correction=0)] * 3, atol=5e-5)
    small = catalogue.load("digits", image_size=8)
    raw = torch.from_numpy(np.round(load_digits().images * 255 / 16)).to(torch.uint8)
    assert torch.equal(small.test.images[..., 1], raw[::5])  # their own size, without interpolation


@pytest.mark.parametrize("digits", [4, 10])
def test_mean_and_deviation_have_as_many_decimals_as_asked_for(digits: int) -> None:
    images = torch.randint(0, 256, (5, 7, 6, 3), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    images[..., 2] = 255  # a constant channel: its deviation is a divisor, so it must not be 0
    mean, std = arithmetic.statistics(images, digits)
    values = images.reshape(-1, 3).numpy() / 255
    np.testing.assert_allclose(mean, values.mean(0), rtol=0, atol=0.51 * 10**-digits)
    np.testing.assert_allclose(std[:2], values.std(0)[:2], rtol=0, atol=0.51 * 10**-digits)
    assert std[2] == 10**-digits
    assert [round(value, digits) for value in (*mean, *std)] == [*mean, *std]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write two classes with 5 + 4 training and 2 + 1 test pictures, 8x8, and a file that is not a picture."""
    pictures = iter(noise(12).numpy())
    for part, counts in (("train", (5, 4)), ("test", (2, 1))):
        for name, count in zip(("ant", "bee"), counts, strict=True):
            place = tmp_path / "set" / part / name
            place.mkdir(parents=True)
            for number in range(count):
                Image.fromarray(next(pictures)).save(place / f"{number}.png")
    (tmp_path / "set/train/ant/notes.txt").write_text("no picture")
    return tmp_path / "set"


def test_a_folder_of_pictures(folder: Path) -> None:
    known = catalogue.load("imagefolder", folder)
    assert (known.info.classes, known.info.image_size, known.info.label) == (2, 8, "set")
    assert torch.equal(known.train.images, noise(12)[:9])
    assert torch.equal(known.test.images, noise(12)[9:])
    assert known.train.labels.tolist() == [0] * 5 + [1] * 4
    assert known.test.labels.tolist() == [0, 0, 1]
    pixels = known.train.images.double().reshape(-1, 3) / 255
    np.testing.assert_allclose(known.info.mean, pixels.mean(0), atol=5e-5)
    np.testing.assert_allclose(known.info.std, pixels.std(0, correction=0), atol=5e-5)


def test_pictures_of_other_sizes_are_scaled_and_cut_in_the_middle(tmp_path: Path) -> None:
    wide = np.zeros((8, 12, 3), np.uint8)
    wide[:, 2:10] = noise(1)[0]
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert np.array_equal(read_picture(tmp_path / "wide.png", 8), noise(1)[0])
    Image.new("L", (20, 40), 77).save(tmp_path / "grey.png")
    assert np.array_equal(read_picture(tmp_path / "grey.png", 8), np.full((8, 8, 3), 77))


@pytest.mark.parametrize("workers", [0, 2])
def test_streamed_pictures_give_the_same_batches(folder: Path, workers: int) -> None:
    known = catalogue.load("imagefolder", folder)
    streamed = stream.load(listed(folder), CPU, 8, 0, workers)
    assert streamed.info == known.info
    assert (len(streamed.train), len(streamed.test)) == (9, 3)
    assert equal_batches(streamed.test.batches(2), known.test.batches(2))
    for epoch in (0, 1):
        assert equal_batches(streamed.train.training_batches(4, 1, epoch), known.train.training_batches(4, 1, epoch))


def assert_bad_data(root: Path, name: str = "imagefolder", **more) -> UserError:
    with pytest.raises(UserError) as fault:
        catalogue.load(name, root, **more)
    assert fault.value.code == BAD_DATA
    assert fault.value.hint
    return fault.value


def test_faults_of_a_folder_are_named(folder: Path, tmp_path: Path) -> None:
    assert "nowhere/train" in str(assert_bad_data(tmp_path / "nowhere"))
    (folder / "test/bee").rename(folder / "test/cat")
    assert "different classes: bee is in train only" in str(assert_bad_data(folder))
    (folder / "train/bee").rename(folder / "train/cat")
    (folder / "test/ant").rename(folder / "test/aa")
    assert "different classes: aa is in test only" in str(assert_bad_data(folder))
    (folder / "test/aa").rename(folder / "test/ant")
    (folder / "train/cat").rename(folder / "train/bee")
    (folder / "test/cat").rename(folder / "test/bee")
    picture = folder / "test/bee/0.png"
    picture.write_bytes(picture.read_bytes()[:90])
    assert str(picture) in str(assert_bad_data(folder))
    picture.write_text("no picture")
    assert str(picture) in str(assert_bad_data(folder))
    (folder / "train/ant/0.png").write_text("no picture")  # the first picture, which defines the size
    assert "ant/0.png" in str(assert_bad_data(folder))


def test_too_few_classes_or_pictures_are_named(folder: Path) -> None:
    (folder / "test/dog").mkdir()
    (folder / "train/dog").mkdir()
    (folder / "train/dog/a.heic").write_bytes(b"")
    fault = assert_bad_data(folder)
    assert str(fault) == f"no pictures under {folder}/train/dog/"
    assert ".png" in fault.hint
    shutil.copy(folder / "train/bee/0.png", folder / "train/dog")
    assert str(assert_bad_data(folder)) == f"no pictures under {folder}/test/dog/"
    for part, name in itertools.product(("train", "test"), ("bee", "dog")):
        shutil.rmtree(folder / part / name)
    assert "one class, ant: training needs at least two" in str(assert_bad_data(folder))


def test_what_programs_leave_in_folders_is_no_class_and_no_picture(folder: Path) -> None:
    (folder / "train/.ipynb_checkpoints").mkdir()
    (folder / "train/.ipynb_checkpoints/0-checkpoint.png").write_text("no class")
    (folder / "test/bee/._0.png").write_text("no picture")
    known = catalogue.load("imagefolder", folder)
    assert (known.info.names, len(known.train), len(known.test)) == (("ant", "bee"), 9, 3)


def test_a_long_reading_is_announced(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "train/ant/notes.txt").unlink()  # no notice tells of it
    bars = list[bool]()
    monkeypatch.setattr(many_files, "tqdm", lambda files, *_, disable, **__: bars.append(disable) or files)
    catalogue.load("imagefolder", folder)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(many_files, "MANY", 8)
    monkeypatch.setattr(many_files.terminal, "is_interactive", lambda: True)
    catalogue.load("imagefolder", folder)
    stream.load(listed(folder), CPU, 8, 0, 0)
    assert capsys.readouterr().err == "reading 12 pictures of set\nreading 9 pictures of set\n"
    assert bars == [True, False, False]


def test_held_out_pictures_do_not_change_the_normalisation(folder: Path, tmp_path: Path) -> None:
    for name, root in (("imagefolder", folder), ("coco", coco_folder(tmp_path / "coco"))):
        whole, part = (catalogue.load(name, root, image_size=8, val=val, workers=0).info for val in (0, 3))
        assert (part.mean, part.std) == (whole.mean, whole.std)
        assert any(whole.mean)
    whole, part = (stream.load(listed(folder), CPU, 8, val, 0).info for val in (0, 3))
    assert (part.mean, part.std) == (whole.mean, whole.std)


def test_mirroring_can_be_chosen(folder: Path) -> None:
    for name, own in (("imagefolder", True), ("digits", False)):
        for flip, found in ((None, own), (True, True), (False, False)):
            known = catalogue.load(name, folder, image_size=8, flip=flip)
            assert {part.info.flip for part in (known, known.train, known.test)} == {found}
    for flip, found in ((None, True), (True, True), (False, False)):
        streamed = stream.load(listed(folder), CPU, 8, 0, 0, flip)
        assert {part.info.flip for part in (streamed, streamed.train, streamed.test)} == {found}


@pytest.mark.parametrize("size", [8, 12, 32, 40])
def test_shifts_grow_with_the_pictures(size: int, folder: Path) -> None:
    known = [catalogue.load("digits", image_size=size).info, catalogue.describe("cifar10", size)]
    known.append(catalogue.load("imagefolder", folder, image_size=size).info)
    assert [info.pad for info in known] == [{8: 1, 12: 1, 32: 4, 40: 5}[size]] * 3


@pytest.mark.parametrize("kind", ["bomb", "header", "chunk"])
def test_every_kind_of_damage_to_a_picture_is_exit_4(kind: str, tmp_path: Path) -> None:
    path = tmp_path / {"bomb": "a.bmp", "header": "a.ppm", "chunk": "a.png"}[kind]
    Image.fromarray(noise(1)[0].numpy()).save(path)
    raw = bytearray(path.read_bytes())
    if kind == "bomb":
        raw[18:22] = (2**30).to_bytes(4, "little")  # a width that would fill the memory
    elif kind == "header":
        raw = bytearray(b"P6\n8 8x\n255\n") + raw[11:]
    else:
        raw[12:16], raw[8:12] = b"IHDR", (5).to_bytes(4, "big")  # a header cut short
    path.write_bytes(bytes(raw))
    with pytest.raises(UserError, match=str(path)) as fault:
        read_picture(path, 8)
    assert fault.value.code == BAD_DATA


def test_faults_of_a_streamed_folder_are_named(folder: Path) -> None:
    (folder / "test/bee/0.png").write_text("no picture")
    with pytest.raises(UserError, match=r"bee/0\.png") as fault:  # found by a worker process
        list(stream.load(listed(folder), CPU, 8, 0, 2).test.batches(2))
    assert fault.value.code == BAD_DATA
    (folder / "test/bee").rename(folder / "test/cat")
    with pytest.raises(UserError, match="different classes") as fault:
        stream.load(listed(folder), CPU, 8, 0, 0)
    assert fault.value.code == BAD_DATA


def test_streamed_and_whole_folders_hold_out_alike(folder: Path) -> None:
    known, streamed = catalogue.load("imagefolder", folder, val=3), stream.load(listed(folder), CPU, 8, 3, 0)
    assert streamed.info == known.info
    assert equal_batches(streamed.test.batches(4), known.test.batches(4))
    assert equal_batches(streamed.train.training_batches(4, 1, 0), known.train.training_batches(4, 1, 0))


def test_cifar10_never_falls_back_and_auto_does_with_a_notice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", "https://127.0.0.1:9/cifar.tar.gz")  # nobody listens there
    assert "could not be downloaded" in str(assert_bad_data(tmp_path, "cifar10"))
    assert "NOTICE" not in capsys.readouterr().err
    known = catalogue.load("auto", tmp_path, image_size=8)
    assert known.info.name == "digits"
    assert "\nNOTICE: CIFAR-10 is not on disk" in capsys.readouterr().err
    (tmp_path / "cifar-10-batches-py").mkdir()  # damaged pictures must not be replaced by another data set
    assert_bad_data(tmp_path, "auto")


def test_other_digits_than_the_known_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    digits.images[900, 3, 3] += 1
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: digits)
    assert "sha256 differs" in str(assert_bad_data(Path("nowhere"), "digits"))


def test_what_is_known_without_reading_is_what_reading_finds() -> None:
    assert catalogue.describe("digits", 8) == catalogue.load("digits", image_size=8).info
    assert (catalogue.describe("cifar100", 32).label, catalogue.describe("cifar100", 32).classes) == ("CIFAR-100", 100)
