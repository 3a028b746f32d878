"""Downloading CIFAR: once, complete, by https, in one process at a time; anything else is exit 4 with its name."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torchvision

from engine.data import catalogue, cifar, download
from engine.errors import CANNOT_WRITE, USAGE, UserError
from engine.system import files
from tests.tools.forge import in_child
from tests.tools.small_cifar import assert_whole, leftovers, md5, refused, unpacked


def test_a_missing_set_is_downloaded_once(
    source: SimpleNamespace, server: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_whole(source)
    assert_whole(source)
    assert server.asked == 1
    assert capsys.readouterr().err == f"downloading {server.url}\n"
    assert sorted(source.root.iterdir()) == [source.folder, source.tar]


def test_a_broken_download_leaves_nothing_and_the_next_one_works(
    source: SimpleNamespace, server: SimpleNamespace
) -> None:
    server.cut = 1000
    refused(source, md5(source.archive[:1000]), md5(source.archive))
    server.cut, server.body = None, b"<!DOCTYPE html><title>log in</title>"
    refused(source, md5(server.body), md5(source.archive), "HTML page")
    assert not source.root.exists()
    server.body = source.archive
    source.root.mkdir()
    source.tar.write_bytes(b"half an archive")
    assert_whole(source)


def test_a_download_that_was_killed_is_begun_again(source: SimpleNamespace, server: SimpleNamespace) -> None:
    in_child(lambda: killed_in_the_middle(source))
    assert leftovers(source)
    assert not source.tar.exists()
    assert_whole(source)
    assert not leftovers(source)


def killed_in_the_middle(source: SimpleNamespace) -> int:
    """Return the status of a process that dies while it writes the download."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    write = os.write

    def dies(handle: int, content: bytes) -> int:
        write(handle, content[:500])
        os._exit(137)

    os.write = dies
    cifar.read("cifar10", source.root)
    os._exit(0)


def test_a_server_may_fall_silent_longer_in_the_middle_than_before(
    source: SimpleNamespace, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "START_S", 0.3)
    monkeypatch.setattr(download, "STALL_S", 0.5)
    server.stall = 0.7
    refused(source, "timed out")
    monkeypatch.setattr(download, "STALL_S", 60)
    server.slow, server.stall = 0.7, 0.0
    refused(source, "timed out")
    server.slow, server.stall = 0.0, 0.7
    assert_whole(source)


@pytest.mark.parametrize("full", ["archive", "batch"])
def test_a_full_disk_is_not_called_a_bad_download(
    full: str, source: SimpleNamespace, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.root.mkdir()
    write, left = os.write, [1000 if full == "archive" else len(source.archive) + 1000]

    def fills(handle: int, content: bytes) -> int:
        if not left[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        done = write(handle, content[: left[0]])
        left[0] -= done
        return done

    monkeypatch.setattr(files.os, "write", fills)
    for name in ("cifar10", "auto"):
        with pytest.raises(UserError, match="disk full") as fault:
            catalogue.load(name, source.root)
        assert fault.value.code == CANNOT_WRITE
        assert str(source.tar if full == "archive" else source.folder / "data_batch_1") in str(fault.value)
        assert "free some space, or point --data" in fault.value.hint
        assert not leftovers(source)
    monkeypatch.setattr(files.os, "write", write)
    assert_whole(source)


def test_ten_processes_fetch_once(source: SimpleNamespace, server: SimpleNamespace) -> None:
    server.slow = 0.1

    def whole() -> bool:
        return cifar.read("cifar10", source.root)[0][1] == [1, 1, 2, 3, 2, 1, 2, 3]

    assert all_true(whole, 10)
    assert server.asked == 1
    assert sorted(source.root.iterdir()) == [source.folder, source.tar]


def test_the_lock_lets_in_one_at_a_time_though_it_is_taken_away(source: SimpleNamespace, tmp_path: Path) -> None:
    """The folder is removed, too, while other processes are about to lock it."""

    def alone() -> bool:
        for _ in range(100):
            with download._alone(source.root, ".lock"):
                (tmp_path / "busy").touch(exist_ok=False)
                (tmp_path / "busy").unlink()
        return True

    assert all_true(alone, 4)
    assert not source.root.exists() or not list(source.root.iterdir())  # the last process may not have made it


def all_true(what: Callable[[], bool], processes: int) -> bool:
    """Return whether a function is true in each of several processes at once."""
    children = []
    for _ in range(processes):
        child = os.fork()
        if not child:
            status = 1
            try:
                status = int(not what())
            finally:
                os._exit(status)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]  # wait for all children
    return not any(statuses)


def test_https_is_never_left(source: SimpleNamespace, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    server.to = "ftp://127.0.0.1/cifar.tar.gz"
    refused(source, "leads to ftp://127.0.0.1/cifar.tar.gz", "not https")
    server.to, server.asked = None, 0
    monkeypatch.setattr(download, "SCHEMES", ("https",))
    refused(source, "is not https")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", server.url.replace("http:", "https:"))
    refused(source, "could not be downloaded")  # the server has no TLS; torchvision would now try http
    assert server.asked == 0


def test_a_folder_that_cannot_be_made_is_exit_4(source: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fault = refused(source, str(tmp_path / "file/data"), root=tmp_path / "file/data")
    assert "--dataset digits" in fault.hint


def test_a_failed_download_leaves_no_trace(source: SimpleNamespace, tmp_path: Path) -> None:
    refused(source, "could not be downloaded", root=tmp_path / "new/folders")
    assert not (tmp_path / "new").exists()
    source.root.mkdir()
    refused(source, "could not be downloaded")
    assert list(source.root.iterdir()) == []  # it was there before


def test_nothing_is_downloaded_into_a_folder_of_other_pictures(
    source: SimpleNamespace, server: SimpleNamespace
) -> None:
    for part in ("train", "test"):
        (source.root / part / "cat").mkdir(parents=True)
    with pytest.raises(UserError, match="holds train/ and test/ folders") as fault:
        catalogue.load("auto", source.root)
    assert fault.value.code == USAGE
    assert "--dataset imagefolder" in fault.value.hint
    assert (server.asked, sorted(os.listdir(source.root))) == (0, ["test", "train"])
    unpacked(source)
    assert catalogue.load("auto", source.root).info.name == "cifar10"  # it is there


def test_a_dead_address_gives_up_soon_with_three_ways_out(source: SimpleNamespace) -> None:
    started = time.monotonic()
    hint = refused(source, "data_batch_1 is missing", "could not be downloaded").hint
    assert time.monotonic() - started < 5
    assert all(way in hint for way in ("put cifar-10-python.tar.gz under", "--data", "--dataset digits"))
