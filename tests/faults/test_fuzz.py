"""Random pickles: the loader raises only the project's own exception, and never takes long."""

from __future__ import annotations

import io
import random
import signal
import time
import zipfile
from pathlib import Path

import pytest

from engine.checkpoint import archive, format as checkpoint
from engine.errors import UserError
from tests.tools.forge import in_child, packed, rezipped, tiny

OPCODES = b"(.012FIJKLMNPQRSTUVXabcdeghijlopqrst}])u\x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8c\x8d\x8e\x90\x93\x94\x95"
WORDS = (
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n",
    b"X\x07\x00\x00\x00storage", b"X\x01\x00\x00\x000", b"X\x03\x00\x00\x00cpu", b"J\xff\xff\xff\x7f", b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"ctorch._utils\n_rebuild_parameter\n", b"cbuiltins\nset\n", b"ccollections\nCounter\n",
)  # fmt: skip
LONGEST_S = 2.0


def noise(genuine: bytes, draws: random.Random) -> bytes:
    """Return a damaged genuine pickle, random opcodes, or random bytes."""
    kind = draws.randrange(4)
    if kind == 0:
        return draws.randbytes(draws.randrange(1, 300))
    if kind == 1:
        parts = [draws.choice(WORDS) if draws.random() < 0.3 else draws.choice(OPCODES).to_bytes(1, "little")
                 + draws.randbytes(draws.choice([0, 0, 1, 4])) for _ in range(draws.randrange(1, 80))]  # fmt: skip
        return b"\x80\x02" + b"".join(parts) + b"."
    raw = bytearray(genuine)
    for _ in range(draws.choice([1, 1, 2, 5, 20])):
        place, how = draws.randrange(len(raw)), draws.randrange(4)
        if how == 0:
            raw[place] = draws.randrange(256)
        elif how == 1:
            raw[place:place] = draws.choice([*WORDS, draws.choice(OPCODES).to_bytes(1, "little")])
        elif how == 2:
            del raw[place : place + draws.choice([1, 4, 40])]
        else:
            other = draws.randrange(len(raw))
            raw[place : place + 8] = raw[other : other + 8]
    return bytes(raw)


def fuzzed(path: Path, count: int, seed: int) -> dict[str, float]:
    """Load `count` pickles; return how many were accepted, and the longest time for one."""
    draws, believed, longest = random.Random(seed), 0, 0.0
    zipped, legacy = archive.to_bytes(tiny()), packed(tiny(), "legacy")
    with zipfile.ZipFile(io.BytesIO(zipped)) as zipped_file:
        genuine = zipped_file.read("archive/data.pkl")
    for number in range(count):
        if number % 4 == 3:
            raw = noise(legacy[:4000], draws) + legacy[4000:]
        else:
            raw = rezipped(zipped, lambda name, data: noise(genuine, draws) if name.endswith(".pkl") else data)
        path.write_bytes(raw)
        started = time.monotonic()
        signal.alarm(20)
        try:
            checkpoint.load(path)
            believed += 1
        except UserError:
            pass
        signal.alarm(0)
        longest = max(longest, time.monotonic() - started)
    return {"believed": believed, "longest": longest}


def test_300_noisy_pickles(tmp_path: Path) -> None:
    found = in_child(lambda: fuzzed(tmp_path / "a.pth", 300, 0), memory=2**30)
    assert found["longest"] < LONGEST_S
    assert 0 < found["believed"] < 30, "most noise is harmful, and some is not"


@pytest.mark.slow
def test_5000_noisy_pickles(tmp_path: Path) -> None:
    found = in_child(lambda: fuzzed(tmp_path / "a.pth", 5000, 1), memory=2**30)
    assert found["longest"] < LONGEST_S
    assert 0 < found["believed"] < 500
