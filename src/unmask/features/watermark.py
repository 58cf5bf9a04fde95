"""Overlays: logos and marks that stay in a corner while the picture behind them moves."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.features.observation import Clip, Moment, Null, Value

Gradient = NDArray[np.float32]

SHORT_SIDE_PX = 270
MIN_FRAMES = 8
MIN_DURATION_S = 2.0
MIN_GRADIENT = 12.0  # grey levels a pixel, of the mean gradient vector
MIN_AGREEMENT = 0.85  # length of the mean gradient vector over the mean length
MAX_STILL_SHARE = 0.05  # of the edges outside the corners; above this the camera stands still
MIN_EDGE_SHARE = 0.005  # of the pixels outside the corners; below this there is nothing to see moving
CORNER_HEIGHT, CORNER_WIDTH = 0.2, 0.25
BAR_LUMA = 28  # what never gets brighter than this is a black bar


@dataclass
class _Sums:
    """What is added up over the frames, each ``(H, W)``: gradient, its length, where it is strong; brightest luma."""

    x: Gradient
    y: Gradient
    length: Gradient
    strong: Gradient
    brightest: NDArray[np.uint8]


class Watermark:
    """`wm.detected`."""

    def __init__(self) -> None:
        self._n = 0
        self._sums: _Sums | None = None

    def see(self, moment: Moment) -> None:
        """Look at the next frame."""
        if not moment.sampled or moment.frame.short_side_px < SHORT_SIDE_PX // 2:
            return
        luma = moment.frame.luma_at(SHORT_SIDE_PX)
        x = np.asarray(cv2.Sobel(luma, cv2.CV_32F, 1, 0, scale=1 / 8), np.float32)
        y = np.asarray(cv2.Sobel(luma, cv2.CV_32F, 0, 1, scale=1 / 8), np.float32)
        length = np.sqrt(x * x + y * y)
        strong = (length > MIN_GRADIENT).astype(np.float32)
        self._n += 1
        if self._sums is None:
            self._sums = _Sums(x, y, length, strong, luma.copy())
            return
        self._sums.x += x
        self._sums.y += y
        self._sums.length += length
        self._sums.strong += strong
        np.maximum(self._sums.brightest, luma, out=self._sums.brightest)

    def values(self, clip: Clip) -> dict[str, Value]:
        """Give the value of the family."""
        return {"wm.detected": self._value(clip)}

    def _value(self, clip: Clip) -> Value:
        if clip.modality == "image":
            return Null("single_image")
        if self._sums is None:
            return Null("too_small")
        if self._n < MIN_FRAMES or clip.duration_s < MIN_DURATION_S:
            return Null("too_short")
        mean_length = np.hypot(self._sums.x, self._sums.y) / self._n
        agreement = mean_length / (self._sums.length / self._n + 1e-6)
        still = (mean_length > MIN_GRADIENT) & (agreement > MIN_AGREEMENT) & _no_bar(self._sums.brightest)
        corners = _corners(still.shape[0], still.shape[1])
        rest = np.ones(still.shape, bool)
        for corner in corners:
            rest[corner] = False
        edges = float(self._sums.strong[rest].mean()) / self._n
        if edges < MIN_EDGE_SHARE or float(still[rest].mean()) > MAX_STILL_SHARE * edges:
            return Null("static")
        return max(float(still[corner].mean()) for corner in corners)


def _no_bar(brightest: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Where there is neither a black bar nor its edge."""
    bar = (brightest < BAR_LUMA).astype(np.uint8)
    opened = cv2.morphologyEx(bar, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    return np.asarray(cv2.dilate(opened, np.ones((7, 7), np.uint8)) == 0)


def _corners(height: int, width: int) -> list[tuple[slice, slice]]:
    rows, columns = round(height * CORNER_HEIGHT), round(width * CORNER_WIDTH)
    return [
        (slice(*vertical), slice(*horizontal))
        for vertical in ((0, rows), (height - rows, height))
        for horizontal in ((0, columns), (width - columns, width))
    ]
