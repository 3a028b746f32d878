"""Codes at their true width in bytes: 1 to 8 bits each, ternary ones five a byte. What codes mean: the program's grids.

Bits: the first code is in the lowest bits of the first byte; a code may go on in the next byte. Ternary: a byte is
t0 + 3 t1 + 9 t2 + 27 t3 + 81 t4. What is left over in the last byte is 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]

TRITS = 5
"""In a byte: 3^5 = 243 of its 256 values."""
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)


def bits(levels: int) -> int:
    """Of one of so many codes that is not ternary.

    Raises:
        ValueError: for a number of levels that is not 2, 4, 8, ..., 256.
    """
    width = max(levels.bit_length() - 1, 0)
    if levels != 1 << width or not 1 <= width <= 8:
        raise ValueError(f"codes of {levels} levels: there are 3, or a power of two up to 256")
    return width


def size(count: int, levels: int) -> int:
    """Bytes that so many codes take.

    Raises:
        ValueError: as `bits`.
    """
    return -(-count // TRITS) if levels == 3 else -(-count * bits(levels) // 8)


def packed(codes: Bytes, levels: int) -> Bytes:
    """Codes in [0, levels), any shape, as bytes, (size,).

    >>> packed(np.array([2, 1, 0, 2, 1], np.uint8), 3).tolist()
    [140]

    Raises:
        ValueError: for a code outside [0, levels), or as `bits`.
    """
    flat = codes.reshape(-1)
    if flat.dtype != np.uint8 or (flat.size and int(flat.max()) >= levels):
        raise ValueError(f"codes of {levels} levels are whole numbers from 0 to {levels - 1}")
    if levels == 3:
        full = np.zeros(size(flat.size, 3) * TRITS, np.uint8)
        full[: flat.size] = flat
        return (full.reshape(-1, TRITS) * _POWERS).sum(1, dtype=np.uint8)
    return np.packbits(np.unpackbits(flat[:, None], axis=1, count=bits(levels), bitorder="little"), bitorder="little")


def unpacked(stored: Bytes, count: int, levels: int) -> Bytes:
    """The codes, (count,), of what `packed` gave.

    Raises:
        ValueError: for another number of bytes, a byte that no codes give, something behind the last code, or as `bits`.
    """
    if stored.shape != (size(count, levels),):
        raise ValueError(f"{count} codes of {levels} levels take {size(count, levels)} bytes, not {stored.size}")
    if levels == 3:
        if stored.size and int(stored.max()) >= 3**TRITS:
            raise ValueError(f"byte {int(stored.max())} is of no ternary codes")
        all_ = (stored[:, None] // _POWERS % 3).reshape(-1)
    else:
        width = bits(levels)
        each = np.unpackbits(stored, bitorder="little")
        own = np.packbits(each[: count * width].reshape(count, width), axis=1, bitorder="little").reshape(-1)
        all_ = np.concatenate([own, each[count * width :]])
    if all_[count:].any():
        raise ValueError("something stands behind the last code")
    return all_[:count]
