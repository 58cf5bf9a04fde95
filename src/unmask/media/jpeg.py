"""What a JPEG file holds before it is turned into a picture: luma in the coded grid, and its quantisation table."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg
from numpy.typing import NDArray

_START = b"\xff\xd8"
_TABLES, _SCAN = 0xDB, 0xDA
_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
# Rows and columns of the 64 coefficients in the order in which tables are written (ITU-T T.81, figure 5).
_DIAGONALS = sorted(((y, x) for y in range(8) for x in range(8)), key=lambda at: (sum(at), at[sum(at) % 2 == 0]))
ZIGZAG = np.array(_DIAGONALS)


@dataclass(frozen=True)
class CodedJpeg:
    """Luma of a JPEG as it was coded.

    Attributes:
        luma: ``(H, W)``, uint8, before any rotation.
        table: ``(8, 8)`` steps of the quantiser, vertical frequency first.
    """

    luma: NDArray[np.uint8]
    table: NDArray[np.float64]


def coded_jpeg(data: bytes) -> CodedJpeg | None:
    """Read luma and its quantisation table.

    Args:
        data: A file.

    Returns:
        None if it is no JPEG that can be read this way.
    """
    table = luma_table(data)
    if table is None:
        return None
    try:
        luma = simplejpeg.decode_jpeg(data, colorspace="GRAY")[..., 0]
    except ValueError:
        return None
    return CodedJpeg(np.asarray(luma, np.uint8), table)


def luma_table(data: bytes) -> NDArray[np.float64] | None:
    """Read the quantisation table of the first component, ``(8, 8)``; None if there is none.

    Args:
        data: A file; only its head is looked at.
    """
    if data[:2] != _START:
        return None
    tables: dict[int, NDArray[np.float64]] = {}
    used: int | None = None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _SCAN:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if marker == _TABLES:
            tables |= _tables(body)
        elif marker in _FRAMES and len(body) >= 9:
            used = body[8]
        at += 2 + max(length, 2)
    return tables.get(used) if used is not None else None


def _tables(body: bytes) -> dict[int, NDArray[np.float64]]:
    found = {}
    while body:
        wide, number = body[0] >> 4, body[0] & 15
        size = 128 if wide else 64
        if len(body) < 1 + size:
            break
        table = np.zeros((8, 8))
        table[ZIGZAG[:, 0], ZIGZAG[:, 1]] = np.frombuffer(body[1 : 1 + size], ">u2" if wide else "u1")
        found[number] = table
        body = body[1 + size :]
    return found
