"""Earlier compression of a JPEG: the clumps that a first quantiser leaves in the histograms of the second.

Coefficients that were quantised before lie at multiples of the first step, so their histogram under the second step
has gaps and peaks (Popescu & Farid 2004, IH; Lukáš & Fridrich 2003, DFRWS). What the scene itself does to histograms is
estimated from the same picture with its blocks shifted by half a block, which breaks the first grid.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.features.observation import Floats, Null, Value
from unmask.media.jpeg import ZIGZAG, CodedJpeg

MIN_SIDE_PX = 64
N_FREQUENCIES = 15  # the lowest ones besides the mean; higher ones are mostly 0
MAX_LEVEL = 40
MIN_COUNT = 9  # coefficients in three neighbouring bins
MIN_BINS = 10
FLOOR = 0.3  # added to both roughnesses, which are 1 for a smooth histogram
_ANGLES = (2 * np.arange(8)[None] + 1) * np.arange(8)[:, None] * np.pi / 16
_COSINES = (np.sqrt(np.where(np.arange(8) == 0, 1, 2) / 8)[:, None] * np.cos(_ANGLES)).astype(np.float32)


def double_quantisation(picture: CodedJpeg) -> Value:
    """Measure how much rougher the histograms of coefficients are on the coded grid than off it.

    Args:
        picture: Luma and quantisation table.

    Returns:
        Log2 of a ratio: about 0 after one compression, 1 and more after two with unlike steps; or why not.
    """
    if min(picture.luma.shape) < MIN_SIDE_PX:
        return Null("too_small")
    steps = picture.table[ZIGZAG[1 : N_FREQUENCIES + 1, 0], ZIGZAG[1 : N_FREQUENCIES + 1, 1]]
    on_grid, off_grid = (_roughness(levels(luma, steps)) for luma in (picture.luma, picture.luma[4:-4, 4:-4]))
    if on_grid is None or off_grid is None:
        return Null("too_small")
    return float(np.log2((on_grid + FLOOR) / (off_grid + FLOOR)))


def levels(luma: NDArray[np.uint8], steps: Floats) -> Floats:
    """Transform blocks of 8 × 8 and quantise.

    Args:
        luma: ``(H, W)``, uint8.
        steps: ``(K,)`` of the K lowest frequencies after the mean, in zigzag order.

    Returns:
        ``(K, N)`` whole numbers, N blocks.
    """
    rows, columns = luma.shape[0] // 8, luma.shape[1] // 8
    blocks = luma[: rows * 8, : columns * 8].astype(np.float32).reshape(rows, 8, columns, 8)
    along = np.tensordot(blocks, _COSINES, axes=(3, 1))  # (rows, 8, columns, horizontal frequency)
    both = np.tensordot(along, _COSINES, axes=(1, 1))  # (rows, columns, horizontal, vertical frequency)
    wanted = ZIGZAG[1 : len(steps) + 1]
    coefficients = both[:, :, wanted[:, 1], wanted[:, 0]].reshape(-1, len(steps)).T
    return np.round(np.asarray(coefficients, np.float64) / steps[:, None])


def _roughness(found: Floats) -> float | None:
    """Mean squared second difference of the histograms' square roots over what counting alone gives (Anscombe 1948)."""
    total, n_bins = 0.0, 0
    for one in found:
        for side in (one, -one):
            counts = np.histogram(side, np.arange(0.5, MAX_LEVEL + 1))[0].astype(np.float64)
            bends = np.diff(2 * np.sqrt(counts + 0.375), 2)
            enough = counts[:-2] + counts[1:-1] + counts[2:] >= MIN_COUNT
            total += float((bends[enough] ** 2).sum()) / 6
            n_bins += int(enough.sum())
    return total / n_bins if n_bins >= MIN_BINS else None
