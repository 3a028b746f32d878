"""Pack codes into bytes: 1 to 8 bits each, or five ternary codes in a byte. A program's grids give their meaning.

Bits: the first code is in the lowest bits of the first byte; a code may continue in the next byte. Ternary: a byte is
t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4. Unused bits and trits of the last byte are 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

TRITS = 5
"""Ternary codes in a byte: 3^5 = 243 of its 256 values are used."""
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)


def bits(levels: int) -> int:
    """Return the bits of one code of `levels` levels.

    Raises:
        ValueError: if levels is not 2, 4, 8, ..., 256.
    """
    width = max(levels.bit_length() - 1, 0)
    if levels != 1 << width or not 1 <= width <= 8:
        raise ValueError(f"codes of {levels} levels, not 3 or a power of two from 2 to 256")
    return width


def size(count: int, levels: int) -> int:
    """Return the bytes that `count` codes take.

    Raises:
        ValueError: as `bits`.
    """
    return -(-count // TRITS) if levels == 3 else -(-count * bits(levels) // 8)


def packed(codes: Bytes, levels: int) -> Bytes:
    """Pack codes in [0, levels), any shape, into bytes, (size,).

    >>> packed(np.array([2, 1, 0, 2, 1], np.uint8), 3).tolist()
    [140]

    Raises:
        ValueError: for codes that are not uint8 or not in [0, levels), or as `bits`.
    """
    flat = codes.reshape(-1)
    if flat.dtype != np.uint8 or (flat.size and int(flat.max()) >= levels):
        raise ValueError(f"codes of {levels} levels are integers from 0 to {levels - 1}")
    if levels == 3:
        full = np.zeros(size(flat.size, 3) * TRITS, np.uint8)
        full[: flat.size] = flat
        return (full.reshape(-1, TRITS) * _POWERS).sum(1, dtype=np.uint8)
    return np.packbits(np.unpackbits(flat[:, None], axis=1, count=bits(levels), bitorder="little"), bitorder="little")


def unpacked(stored: Bytes, count: int, levels: int) -> Bytes:
    """Return the codes, (count,), that `packed` packed.

    Raises:
        ValueError: for a wrong number of bytes, an invalid byte, data after the last code, or as `bits`.
    """
    if stored.shape != (size(count, levels),):
        raise ValueError(f"{count} codes of {levels} levels take {size(count, levels)} bytes, not {stored.size}")
    if levels == 3:
        if stored.size and int(stored.max()) >= 3**TRITS:
            raise ValueError(f"byte {int(stored.max())} holds no ternary codes: these end at {3**TRITS - 1}")
        all_ = (stored[:, None] // _POWERS % 3).reshape(-1)
    else:
        width = bits(levels)
        each = np.unpackbits(stored, bitorder="little")
        own = np.packbits(each[: count * width].reshape(count, width), axis=1, bitorder="little").reshape(-1)
        all_ = np.concatenate([own, each[count * width :]])
    if all_[count:].any():
        raise ValueError("what follows the last code is not 0")
    return all_[:count]
