"""Fixed-pattern sensor noise (PRNU): wavelet Wiener residuals and the agreement of two halves of a clip.

After Lukáš, Fridrich & Goljan 2006 (IEEE TIFS 1(2)) with the maximum-likelihood estimate and the zero-mean step of
Chen et al. 2008 (IEEE TIFS 3(1)); the denoiser is that of Mıhçak et al. 1999 (ICASSP).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.features.observation import Null, Value

Residual = NDArray[np.float32]

# Daubechies' orthonormal low-pass filter with four vanishing moments.
_LOW = np.array(
    [
        0.2303778133088965,
        0.7148465705529157,
        0.6308807679298589,
        -0.0279837694168599,
        -0.1870348117190931,
        0.0308413818355607,
        0.0328830116668852,
        -0.0105974017850690,
    ],
    np.float32,
)
_HIGH = _LOW[::-1] * np.array([1, -1] * 4, np.float32)
_WRAP = len(_LOW) // 2 - 1  # coefficients by which a half reaches over the edge
LEVELS = 4
NOISE_DEVIATION = 3.0  # grey levels, assumed by the Wiener step
WINDOWS_PX = (3, 5, 7, 9)
BLOCK_PX = 32
SCENE_SHRINK = 4  # the scene is compared at this fraction of the size, where sensor noise is averaged away
MIN_STRUCTURE = 4.0  # grey levels squared; without structure it cannot be told whether a block moves
MIN_MOVED = 0.3  # of the energy of two unlike frames; less is a still scene
MAX_STILL = 0.15  # share of a block's structure that never moves; blocks above this are masked out
MIN_BLOCK_SHARE = 0.2
MIN_HALF_FRAMES = 4
CODING_GRID_PX = 16


def residual(luma: NDArray[np.uint8]) -> Residual:
    """Take the noise out of a picture by wavelet Wiener filtering.

    Args:
        luma: ``(H, W)``, both multiples of 16.

    Returns:
        What the denoiser would remove: ``(H, W)``, float32, grey levels.
    """
    return _keep_noise(luma.astype(np.float32), LEVELS)


def _keep_noise(image: Residual, levels: int) -> Residual:
    low, high = _analyse(image, 0)
    low_low, low_high = _analyse(low, 1)
    high_low, high_high = _analyse(high, 1)
    inner = _keep_noise(low_low, levels - 1) if levels > 1 else np.zeros_like(low_low)
    rows_low = _synthesise(inner, _noise_part(low_high), 1)
    rows_high = _synthesise(_noise_part(high_low), _noise_part(high_high), 1)
    return _synthesise(rows_low, rows_high, 0)


def _noise_part(coefficients: Residual) -> Residual:
    """Wiener estimate of the noise in a sub-band; the local signal variance is the least of four windows."""
    squared = coefficients * coefficients
    variance = np.full_like(squared, np.inf)
    for window in WINDOWS_PX:
        local = cv2.boxFilter(squared, cv2.CV_32F, (window, window), borderType=cv2.BORDER_REFLECT_101)
        variance = np.minimum(variance, local)
    noise = np.float32(NOISE_DEVIATION**2)
    signal = np.maximum(variance - noise, 0)
    return np.asarray(coefficients * (noise / (signal + noise)), np.float32)


def _analyse(image: Residual, axis: int) -> tuple[Residual, Residual]:
    """One periodic wavelet step along an axis: the low and the high half."""
    even, odd = (_wrapped(_every_second(image, axis, first), axis, after=_WRAP) for first in (0, 1))
    n = image.shape[axis] // 2
    low, high = (_correlate(even, taps[0::2], axis, n) + _correlate(odd, taps[1::2], axis, n) for taps in (_LOW, _HIGH))
    return low, high


def _synthesise(low: Residual, high: Residual, axis: int) -> Residual:
    """Undo `_analyse` (the transform is orthonormal: its transpose is its inverse)."""
    low, high = (_wrapped(half, axis, before=_WRAP) for half in (low, high))
    n = low.shape[axis] - _WRAP
    even, odd = (
        _correlate(low, _LOW[first::2][::-1], axis, n) + _correlate(high, _HIGH[first::2][::-1], axis, n)
        for first in (0, 1)
    )
    both = np.stack([even, odd], axis=axis + 1)
    return both.reshape([2 * n if at == axis else size for at, size in enumerate(even.shape)])


def _every_second(image: Residual, axis: int, first: int) -> Residual:
    return image[first::2] if axis == 0 else image[:, first::2]


def _wrapped(image: Residual, axis: int, *, before: int = 0, after: int = 0) -> Residual:
    """Repeat an image periodically beyond its edges along an axis."""
    parts = [image.take(range(-before, 0), axis), image] if before else [image, image.take(range(after), axis)]
    return np.concatenate(parts, axis=axis)


def _correlate(image: Residual, taps: Residual, axis: int, n: int) -> Residual:
    """Weighted sums of successive rows or columns: n of them, the first from the first ``len(taps)``."""
    kernel = taps[:, None] if axis == 0 else taps[None]
    found = cv2.filter2D(image, cv2.CV_32F, kernel, anchor=(0, 0), borderType=cv2.BORDER_CONSTANT)
    return np.asarray(found[:n] if axis == 0 else found[:, :n], np.float32)


class NoisePattern:
    """Collects residuals of two halves of a clip and compares them.

    Where scene or camera stand still, the scene itself (and macroblocks that the coder copied) would correlate like a
    sensor. So a frame counts only if the scene has moved since the last one that counted, and a block only if
    structure moved through it.

    Args:
        size_px: Side of the central square that is looked at; a multiple of 32.
    """

    def __init__(self, size_px: int) -> None:
        shape = (2, size_px, size_px)
        self._weighted = np.zeros(shape, np.float32)  # Σ residual · luma
        self._weights = np.zeros(shape, np.float32)  # Σ luma²
        small = size_px // SCENE_SHRINK
        self._scene = np.zeros((small, small), np.float32)  # Σ structure
        self._scene_squared = np.zeros((small, small), np.float32)
        self._last_scene: Residual | None = None
        self._counts = [0, 0]
        self._n_still = 0

    def add(self, luma: NDArray[np.uint8], half: int) -> None:
        """Add a frame, if the scene has moved.

        Args:
            luma: The central square, uint8.
            half: 0 for the first half of the clip, 1 for the second.
        """
        scene = _structure(luma)
        if self._last_scene is not None and not _has_moved(self._last_scene, scene):
            self._n_still += 1
            return
        self._last_scene = scene
        self._scene += scene
        self._scene_squared += scene * scene
        image = luma.astype(np.float32)
        self._weighted[half] += residual(luma) * image
        self._weights[half] += image * image
        self._counts[half] += 1

    def agreement(self) -> Value:
        """Correlate the noise of both halves where the scene moves.

        Returns:
            Normalised correlation; null with ``too_short`` or ``static``.
        """
        if min(self._counts) < MIN_HALF_FRAMES:
            return Null("static" if self._n_still else "too_short")
        moving = self._moving_blocks()
        if moving.mean() < MIN_BLOCK_SHARE:
            return Null("static")
        mask = np.kron(moving, np.ones((BLOCK_PX, BLOCK_PX), bool))
        first, second = (_zero_mean(self._weighted[h] / (self._weights[h] + 1), mask) for h in (0, 1))
        norm = float(np.sqrt((first**2).sum() * (second**2).sum()))
        return float((first * second).sum()) / norm if norm > 0 else Null("static")

    def _moving_blocks(self) -> NDArray[np.bool_]:
        n = sum(self._counts)
        still, total = _block_means((self._scene / n) ** 2), _block_means(self._scene_squared / n)
        return np.asarray((total > MIN_STRUCTURE) & (still < (MAX_STILL + 1 / n) * total))


def _structure(luma: NDArray[np.uint8]) -> Residual:
    """Band-passed scene at a quarter of the size: too coarse for sensor noise, too fine for shading."""
    side = len(luma) // SCENE_SHRINK
    small = np.asarray(cv2.resize(luma, (side, side), interpolation=cv2.INTER_AREA), np.float32)
    return np.asarray(small - cv2.boxFilter(small, cv2.CV_32F, (9, 9)), np.float32)


def _has_moved(before: Residual, now: Residual) -> bool:
    energy = _block_means(before**2) + _block_means(now**2)
    structured = energy > 2 * MIN_STRUCTURE
    if structured.mean() < MIN_BLOCK_SHARE:
        return False
    changed = _block_means((now - before) ** 2)[structured] / energy[structured]
    return float(np.median(changed)) > MIN_MOVED


def _block_means(image: NDArray[Any]) -> NDArray[Any]:
    block = BLOCK_PX // SCENE_SHRINK
    n = len(image) // block
    return np.asarray(image.reshape(n, block, n, block).mean(axis=(1, 3)))


def _zero_mean(pattern: Residual, mask: NDArray[np.bool_]) -> Residual:
    """Take out what reading-out and coding leave in every sensor: means of rows, columns and of the coding grid."""
    pattern = np.where(mask, pattern, 0)
    for axis in (0, 1):
        counts = np.maximum(mask.sum(axis=axis, keepdims=True), 1)
        pattern = np.where(mask, pattern - pattern.sum(axis=axis, keepdims=True) / counts, 0)
    n = len(pattern) // CODING_GRID_PX
    cells = pattern.reshape(n, CODING_GRID_PX, n, CODING_GRID_PX)
    counts = np.maximum(mask.reshape(cells.shape).sum(axis=(0, 2), keepdims=True), 1)
    grid = cells.sum(axis=(0, 2), keepdims=True) / counts
    return np.asarray(np.where(mask, (cells - grid).reshape(pattern.shape), 0), np.float32)
