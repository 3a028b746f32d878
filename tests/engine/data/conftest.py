"""Fixtures for tests of data sets: a small CIFAR-10, and a server that offers it."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torchvision

from engine.data import download
from tests.tools.small_cifar import batch, md5, pickled


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Make torchvision accept a small CIFAR-10 instead of the real one; return its files and archive, with nothing on disk yet."""
    known = torchvision.datasets.CIFAR10
    files = {f"data_batch_{n}": pickled(batch(n)) for n in (1, 2)} | {"test_batch": pickled(batch(3))}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{known.base_folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    archive = buffer.getvalue()
    monkeypatch.setattr(known, "train_list", [[n, md5(c)] for n, c in files.items() if "data" in n])
    monkeypatch.setattr(known, "test_list", [["test_batch", md5(files["test_batch"])]])
    monkeypatch.setattr(known, "tgz_md5", md5(archive))
    monkeypatch.setattr(known, "url", "https://127.0.0.1:9/cifar.tar.gz")  # no server listens there
    root = tmp_path / "data"
    return SimpleNamespace(
        root=root, files=files, archive=archive, folder=root / known.base_folder, tar=root / known.filename
    )


@pytest.fixture
def server(source: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Start a local server that offers the archive by plain http, which is allowed only in these tests."""
    known = SimpleNamespace(body=source.archive, asked=0, to=None, cut=None, slow=0.0, stall=0.0)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known.asked += 1
            time.sleep(known.slow)
            self.send_response(302 if known.to else 200)
            if known.to:
                self.send_header("Location", known.to)
            self.send_header("Content-Length", str(len(known.body)))
            self.end_headers()
            content = known.body[: known.cut]
            self.wfile.write(content[:500])
            time.sleep(known.stall)
            self.wfile.write(content[500:])

        def log_message(self, *args: Any) -> None: ...

    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True).start()
    known.url = f"http://127.0.0.1:{listening.server_port}/cifar.tar.gz"
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", known.url)
    monkeypatch.setattr(download, "SCHEMES", ("http",))
    yield known
    listening.shutdown()
    listening.server_close()
