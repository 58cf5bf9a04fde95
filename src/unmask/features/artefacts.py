"""Artefacts of the face in single pictures: border, texture, colour step, spectrum."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.features.observation import Clip, Floats, Moment, Null, Value
from unmask.media.crops import crop_square
from unmask.media.faces import FACE_OVAL, Face, Image
from unmask.media.video import Frame

MIN_FACE_PX = 64
WORK_PX = 128  # side of the square on which border, texture and colour are measured
WORK_SCALE = 1.6  # of the face box, so that there is a ring around the face
MIN_LIGHT, MAX_LIGHT = 10.0, 98.0  # CIELAB L* of the face between which colour means something
SPECTRUM_SIDES_PX = (256, 128, 64)
SPECTRUM_BAND = (0.1, 0.45)  # cycles per pixel
# Log10 power of grey levels rounded to whole numbers under the window (1/12 · 0.375²), and half a decade more.
ROUNDING_FLOOR = -1.4
MIN_SPECTRUM_BINS = 6
NAMES = ("art.edge", "art.texture", "art.color", "art.freq")


@dataclass(frozen=True)
class FaceView:
    """A face on a fixed square.

    Attributes:
        rgb: ``(S, S, 3)``, uint8.
        grey: ``(S, S)``, uint8.
        inside: 255 well inside the face oval.
        border: 255 in a band along the oval.
        around: 255 in a ring outside of that band.
    """

    rgb: Image
    grey: Image
    inside: Image
    border: Image
    around: Image


class Artefacts:
    """`art.edge`, `art.texture`, `art.color`, `art.freq`."""

    def __init__(self) -> None:
        self._rows: dict[int, list[tuple[float, ...]]] = defaultdict(list)
        self._spectra: dict[int, list[Floats]] = defaultdict(list)
        self._seen: set[int] = set()

    def see(self, moment: Moment) -> None:
        """Look at the next frame."""
        if not (moment.sampled and moment.examined):
            return
        for track, face in moment.faces.items():
            self._seen.add(track)
            x0, y0, x1, y1 = face.box
            if min(x1 - x0, y1 - y0) < MIN_FACE_PX:
                continue
            view = view_face(moment.frame, face)
            row = (border_strength(view), texture_entropy(view), colour_step(view))
            self._rows[track].append((moment.frame.time_s, *row))
            spectrum = face_spectrum(moment.frame, face)
            if spectrum is not None:
                self._spectra[track].append(spectrum)

    def series(self, track: int) -> Floats:
        """Time, border, texture and colour step of a track, ``(N, 4)``; N is 0 if it was never large enough."""
        return np.array(self._rows.get(track, []), np.float64).reshape(-1, 4)

    def values(self, clip: Clip) -> dict[str, Value]:
        """Give the values of the family: medians over the sampled frames."""
        track = clip.main_track
        if track is None or track not in self._seen:
            return dict.fromkeys(NAMES, Null("no_face"))
        if not self._rows[track]:
            return dict.fromkeys(NAMES, Null("small_face"))
        _, edge, texture, colour = self.series(track).T
        lit = colour[np.isfinite(colour)]
        return {
            "art.edge": float(np.median(edge)),
            "art.texture": float(np.median(texture)),
            "art.color": float(np.median(lit)) if len(lit) else Null("dark"),
            "art.freq": spectral_slope(self._spectra[track]) if self._spectra[track] else Null("small_face"),
        }


def view_face(frame: Frame, face: Face) -> FaceView:
    """Bring a face to a fixed size and mark its inside, its outline and its surroundings."""
    left, top, side = crop_square(face, WORK_SCALE, WORK_PX, frame.width_px, frame.height_px)
    rgb = frame.rgb(left, top, left + side, top + side, (WORK_PX, WORK_PX))
    oval = (face.landmarks[list(FACE_OVAL), :2] - [left, top]) * (WORK_PX / side)
    filled = np.zeros((WORK_PX, WORK_PX), np.uint8)
    cv2.fillConvexPoly(filled, np.round(oval).astype(np.int32), 255)
    inside = _image(cv2.erode(filled, np.ones((7, 7), np.uint8)))
    outer = _image(cv2.dilate(filled, np.ones((7, 7), np.uint8)))
    around = _image(cv2.dilate(filled, np.ones((21, 21), np.uint8))) & ~outer
    black = ~_picture_mask(frame, left, top, side)
    around[black] = 0
    border = outer & ~inside
    border[black] = 0
    return FaceView(rgb, _image(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)), inside, border, around)


def _image(array: object) -> Image:
    return np.asarray(array, np.uint8)


def _picture_mask(frame: Frame, left: int, top: int, side: int) -> NDArray[np.bool_]:
    """Pixels of the working square that lie inside the picture."""
    centre = (np.arange(WORK_PX) + 0.5) * side / WORK_PX
    across = (left + centre >= 0) & (left + centre < frame.width_px)
    down = (top + centre >= 0) & (top + centre < frame.height_px)
    return down[:, None] & across[None]


def border_strength(view: FaceView) -> float:
    """Log2 of the mean gradient along the outline over that on both sides of it."""
    across, down = (cv2.Sobel(view.grey, cv2.CV_32F, *order) for order in ((1, 0), (0, 1)))
    # numpy, because cv2.magnitude and cv2.mean round differently depending on where an array lies in memory.
    gradient = np.sqrt(across * across + down * down)
    border, inside, around = (_mean(gradient[mask > 0]) for mask in (view.border, view.inside, view.around))
    return float(np.log2((border + 1) / ((inside + around) / 2 + 1)))


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean(dtype=np.float64)) if values.size else 0.0


def texture_entropy(view: FaceView) -> float:
    """Entropy in bits of the local binary patterns inside the face (Ojala et al. 2002), 0 to 8."""
    grey = view.grey
    centre = grey[1:-1, 1:-1]
    patterns = np.zeros_like(centre)
    ring = ((0, 0), (0, 1), (0, 2), (1, 2), (2, 2), (2, 1), (2, 0), (1, 0))
    for bit, (down, across) in enumerate(ring):
        neighbour = grey[down : down + centre.shape[0], across : across + centre.shape[1]]
        patterns |= (neighbour >= centre).astype(np.uint8) << bit
    counts = np.bincount(patterns[view.inside[1:-1, 1:-1] > 0], minlength=256)
    shares = counts[counts > 0] / max(counts.sum(), 1)
    return float(-(shares * np.log2(shares)).sum())


def colour_step(view: FaceView) -> float:
    """CIELAB a*b* distance of the medians inside and around the face; NaN where it is too dark or too bright."""
    inside, around = (view.rgb[mask > 0] for mask in (view.inside, view.around))
    if not len(inside) or not len(around):
        return float("nan")
    face, ring = (np.median(_lab(pixels), axis=0) for pixels in (inside, around))
    if not MIN_LIGHT <= face[0] <= MAX_LIGHT:
        return float("nan")
    return float(np.hypot(face[1] - ring[1], face[2] - ring[2]))


def _lab(rgb: Image) -> NDArray[np.float32]:
    """CIELAB ``(N, 3)`` of pixels ``(N, 3)``."""
    return np.asarray(cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0], np.float32)


def face_spectrum(frame: Frame, face: Face) -> Floats | None:
    """Azimuthally averaged power spectrum of the middle of the face, pixels as in the file.

    Args:
        frame: The frame.
        face: The face in it.

    Returns:
        Log10 of power at 64 frequencies up to 0.5 cycles per pixel; None if the face reaches out of the picture.
    """
    x0, y0, x1, y1 = face.box
    extent = min(x1 - x0, y1 - y0)
    side = next((n for n in SPECTRUM_SIDES_PX if n <= extent), None)
    left, top = round(float(x0 + x1 - (side or 0)) / 2), round(float(y0 + y1 - (side or 0)) / 2)
    if side is None or left < 0 or top < 0 or left + side > frame.width_px or top + side > frame.height_px:
        return None
    window, bins, counts = _spectrum_plan(side)
    patch = frame.luma[top : top + side, left : left + side].astype(np.float32)
    spectrum = np.fft.rfft2((patch - patch.mean()) * window)
    power = (spectrum.real**2 + spectrum.imag**2) / side**2
    sums = np.bincount(bins, power.ravel(), minlength=65)
    return np.asarray(np.log10(sums[1:] / counts[1:] + 1e-4))


@lru_cache(maxsize=len(SPECTRUM_SIDES_PX))
def _spectrum_plan(side: int) -> tuple[NDArray[np.float32], NDArray[np.intp], NDArray[np.intp]]:
    """Window ``(S, S)``, ring of each coefficient of a real 2D transform, and size of each ring (at least 1)."""
    window = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    radius = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    bins = np.minimum(np.round(radius * 128).astype(np.intp), 64).ravel()
    return window, bins, np.maximum(np.bincount(bins, minlength=65), 1)


def spectral_slope(spectra: list[Floats]) -> float:
    """Slope of mean log power over log frequency in the upper band (Durall et al. 2020).

    The band ends where only the rounding of grey levels is left: a strongly blurred picture would look flat there.
    """
    frequency = np.arange(1, 65) / 128
    power = np.mean(spectra, axis=0)
    band = np.flatnonzero((frequency >= SPECTRUM_BAND[0]) & (frequency <= SPECTRUM_BAND[1]))
    lost = np.flatnonzero(power[band] < ROUNDING_FLOOR)
    band = band[: max(MIN_SPECTRUM_BINS, lost[0] if len(lost) else len(band))]
    return float(np.polyfit(np.log10(frequency[band]), power[band], 1)[0])
