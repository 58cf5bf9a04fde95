"""Quality: sharpness, naturalness, bits per pixel, camera shake. Covariates that explain much and prove nothing."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.features.naturalness import brisque
from unmask.features.observation import Clip, Floats, Moment, Null, Value
from unmask.media.video import Frame

BLUR_SHORT_SIDE_PX = 360
SHAKE_SHORT_SIDE_PX = 96  # at least; the halved picture nearest above
SHAKE_HZ = 12.0  # at least; hands tremble at 1 to 6 Hz
MIN_SIDE_PX = 32
BRISQUE_SHORT_SIDE_PX = 384  # the regressor was trained on pictures of about this size
BLUR_EVERY, BRISQUE_EVERY = 2, 6  # of the sampled frames
MIN_BRISQUE_SIDE_PX = 64
MIN_SHAKE_S = 1.0
MIN_RESPONSE = 0.25  # of the phase correlation; cuts and pictures without structure stay below, real clips above 0.6


class Quality:
    """`quality.blur`, `quality.brisque`, `quality.bitrate` and `quality.shake`.

    Args:
        fps: Frames a second.
    """

    def __init__(self, fps: float) -> None:
        self._stride = max(1, int(fps / SHAKE_HZ))
        self._times_s: list[float] = []
        self._n_sampled = 0
        self._log_sharpness: list[float] = []
        self._brisque: list[float] = []
        self._steps_px: list[tuple[float, float]] = []
        self._previous: NDArray[np.float32] | None = None
        self._window: NDArray[np.float32] | None = None

    def see(self, moment: Moment) -> None:
        """Look at the next frame."""
        frame = moment.frame
        if frame.short_side_px < MIN_SIDE_PX:
            return
        if moment.sampled:
            if self._n_sampled % BRISQUE_EVERY == 0 and frame.short_side_px >= MIN_BRISQUE_SIDE_PX:
                self._brisque.append(brisque(_full_range(frame.luma_at(BRISQUE_SHORT_SIDE_PX), frame)))
            if self._n_sampled % BLUR_EVERY == 0:
                self._log_sharpness.append(log_sharpness(frame))
            self._n_sampled += 1
        if frame.index % self._stride == 0:
            self._step(frame.level_from(SHAKE_SHORT_SIDE_PX))
            self._times_s.append(frame.time_s)

    def _step(self, small: NDArray[np.uint8]) -> None:
        image = small.astype(np.float32)
        if self._window is None or self._window.shape != image.shape:
            self._window = np.asarray(cv2.createHanningWindow(image.shape[::-1], cv2.CV_32F), np.float32)
            self._previous = None
        if self._previous is not None:
            (dx, dy), response = cv2.phaseCorrelate(self._previous, image, self._window)
            self._steps_px.append((dx, dy) if response >= MIN_RESPONSE else (0.0, 0.0))
        self._previous = image

    def values(self, clip: Clip) -> dict[str, Value]:
        """Give the values of the family."""
        pixels = clip.width_px * clip.height_px * max(clip.n_frames, 1)
        blur: Value = float(np.median(self._log_sharpness)) if self._log_sharpness else Null("too_small")
        return {
            "quality.blur": blur,
            "quality.brisque": self._naturalness(),
            "quality.bitrate": float(np.log2(max(8 * clip.coded_bytes, 1) / pixels)),
            "quality.shake": self._shake(clip),
        }

    @property
    def times_s(self) -> Floats:
        """Times of the frames on which the camera was followed, ``(N,)``."""
        return np.array(self._times_s, np.float64)

    def path(self) -> Floats:
        """Where the camera looks on those frames, ``(N, 2)`` in pixels of the halved picture."""
        return np.cumsum(np.array([(0.0, 0.0), *self._steps_px]), axis=0)

    def _naturalness(self) -> Value:
        scores = [score for score in self._brisque if np.isfinite(score)]
        if scores:
            return float(np.median(scores))
        return Null("flat" if self._brisque else "too_small")

    def _shake(self, clip: Clip) -> Value:
        if clip.modality == "image":
            return Null("single_image")
        if self._window is None:
            return Null("too_small")
        if clip.duration_s < MIN_SHAKE_S or len(self._steps_px) < 8:
            return Null("too_short")
        path = self.path()
        trembling = path - running_mean(path, max(3, round(clip.fps / self._stride)))
        diagonal = float(np.hypot(*self._window.shape))
        return 100 * float(np.sqrt((trembling**2).sum(axis=1).mean())) / diagonal


def _full_range(luma: NDArray[np.uint8], frame: Frame) -> NDArray[np.float32]:
    """Luma as float32, black at 0 and white at 255."""
    image = luma.astype(np.float32)
    return image if frame.full_range else (image - np.float32(16)) * np.float32(255 / 219)


def log_sharpness(frame: Frame) -> float:
    """Log10 of the variance of the Laplacian of luma at a fixed scale (Pech-Pacheco et al. 2000)."""
    laplacian = cv2.Laplacian(frame.luma_at(BLUR_SHORT_SIDE_PX), cv2.CV_16S, ksize=1)
    scale = 1.0 if frame.full_range else 255 / 219
    deviation = float(cv2.meanStdDev(laplacian)[1][0, 0]) * scale
    return float(np.log10(deviation**2 + 0.1))


def running_mean(path: Floats, n: int) -> Floats:
    """Mean of each column of ``path`` ``(N, C)`` over a window of n rows; the path is mirrored at its ends."""
    n = min(n, len(path))
    before, after = (n - 1) // 2, n // 2
    # Odd reflection keeps a steady pan from looking like shake at the ends.
    head = 2 * path[0] - path[1 : before + 1][::-1]
    tail = 2 * path[-1] - path[-after - 1 : -1][::-1] if after else path[:0]
    sums = np.cumsum(np.concatenate([np.zeros((1, path.shape[1])), head, path, tail]), axis=0)
    return np.asarray((sums[n:] - sums[:-n]) / n)
