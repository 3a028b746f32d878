"""Fetching CIFAR: once, whole, over https, by one process at a time; everything else is exit 4 with its name."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torchvision

from engine import cifar, datasets, files
from engine.errors import CANNOT_WRITE, UserError
from tests.engine.small_cifar import assert_whole, leftovers, md5, refused
from tests.faults.forge import in_child


def test_a_missing_set_is_downloaded_once(
    source: SimpleNamespace, server: SimpleNamespace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert_whole(source)
    assert_whole(source)
    assert server.asked == 1
    assert capsys.readouterr().err == f"downloading {server.url}\n"
    assert not leftovers(source)


def test_a_broken_download_leaves_nothing_and_the_next_one_works(
    source: SimpleNamespace, server: SimpleNamespace
) -> None:
    server.cut = 1000
    refused(source, md5(source.archive[:1000]), md5(source.archive))
    server.cut, server.body = None, b"<!DOCTYPE html><title>log in</title>"
    refused(source, md5(server.body), md5(source.archive), "HTML page")
    assert not source.tar.exists()
    assert not leftovers(source)
    server.body = source.archive
    source.tar.write_bytes(b"half an archive")
    assert_whole(source)


def test_a_download_that_was_killed_is_begun_again(source: SimpleNamespace, server: SimpleNamespace) -> None:
    in_child(lambda: killed_in_the_middle(source))
    assert leftovers(source)
    assert not source.tar.exists()
    assert_whole(source)
    assert not leftovers(source)


def killed_in_the_middle(source: SimpleNamespace) -> int:
    """Status of a process that dies while it writes what it has fetched."""
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
    monkeypatch.setattr(cifar, "START_S", 0.3)
    monkeypatch.setattr(cifar, "STALL_S", 0.5)
    server.stall = 0.7
    refused(source, "timed out")
    monkeypatch.setattr(cifar, "STALL_S", 60)
    server.slow, server.stall = 0.7, 0.0
    refused(source, "timed out")
    server.slow, server.stall = 0.0, 0.7
    assert_whole(source)


@pytest.mark.parametrize("full", ["archive", "batch"])
def test_a_full_disk_is_not_called_a_bad_download(
    full: str, source: SimpleNamespace, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
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
            datasets.load(name, source.root)
        assert fault.value.code == CANNOT_WRITE
        assert str(source.tar if full == "archive" else source.folder / "data_batch_1") in str(fault.value)
        assert "free some space, or point --data" in fault.value.hint
        assert not leftovers(source)
    monkeypatch.setattr(files.os, "write", write)
    assert_whole(source)


def test_ten_processes_fetch_once(source: SimpleNamespace, server: SimpleNamespace) -> None:
    server.slow = 0.1
    children = []
    for _ in range(10):
        child = os.fork()
        if not child:
            status = 1
            try:
                train, _ = cifar.read("cifar10", source.root)
                status = int(train[1] != [1, 1, 2, 3, 2, 1, 2, 3])
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 10
    assert server.asked == 1


def test_https_is_never_left(source: SimpleNamespace, server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    server.to = "ftp://127.0.0.1/cifar.tar.gz"
    refused(source, "leads to ftp://127.0.0.1/cifar.tar.gz", "not https")
    server.to, server.asked = None, 0
    monkeypatch.setattr(cifar, "SCHEMES", ("https",))
    refused(source, "is not https")
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", server.url.replace("http:", "https:"))
    refused(source, "could not be downloaded")  # no TLS there, and torchvision would now ask by http
    assert server.asked == 0


def test_a_folder_that_cannot_be_made_is_exit_4(source: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fault = refused(source, str(tmp_path / "file/data"), root=tmp_path / "file/data")
    assert "--dataset digits" in fault.hint


def test_a_dead_address_gives_up_soon_with_three_ways_out(source: SimpleNamespace) -> None:
    started = time.monotonic()
    hint = refused(source, "data_batch_1 is missing", "could not be downloaded").hint
    assert time.monotonic() - started < 5
    assert all(way in hint for way in ("put cifar-10-python.tar.gz under", "--data", "--dataset digits"))
