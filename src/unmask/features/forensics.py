"""Forensics: sensor noise, flicker of the face, traces of an earlier compression."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from unmask.features.double_jpeg import double_quantisation
from unmask.features.observation import Clip, Floats, Moment, Null, Value
from unmask.features.prnu import BLOCK_PX, NoisePattern
from unmask.features.recompression import MAX_FRAMES, rhythm
from unmask.features.skin import SkinSeries, SkinSignals
from unmask.media.jpeg import CodedJpeg
from unmask.media.video import Frame

NOISE_SIDE_PX = 320
MIN_NOISE_SIDE_PX = 128
MIN_FLICKER_S = 1.0
MIN_RATE_HZ = 10.0
MIN_FACE_PX = 48
MIN_LUMA = 24.0  # of the face; below it is too dark
MAX_SHARED_GAIN = 1.5
CUT_DEVIATIONS = 6.0  # a jump so many robust deviations large is a cut


class Forensics:
    """`forensics.prnu`, `forensics.flicker`, `forensics.codec`.

    Args:
        n_frames: Expected length of the clip.
        skin: Collects the colours of the face on the same pass.
    """

    def __init__(self, n_frames: int, skin: SkinSignals) -> None:
        self._middle = n_frames / 2
        self._skin = skin
        self._noise: NoisePattern | None = None
        self._sizes: list[int] = []
        self._kinds: list[str] = []
        self._jpeg: CodedJpeg | None = None

    def see(self, moment: Moment) -> None:
        """Look at the next frame."""
        frame = moment.frame
        self._jpeg = frame.jpeg
        if len(self._sizes) < MAX_FRAMES:
            self._sizes.append(frame.coded_bytes)
            self._kinds.append(frame.coded_as)
        if moment.sampled:
            centre = _central_square(frame)
            if centre is not None:
                self._noise = self._noise or NoisePattern(len(centre))
                self._noise.add(centre, int(frame.index >= self._middle))

    def values(self, clip: Clip) -> dict[str, Value]:
        """Give the values of the family."""
        if clip.modality == "image":
            return {
                "forensics.prnu": Null("single_image"),
                "forensics.flicker": Null("single_image"),
                "forensics.codec": double_quantisation(self._jpeg) if self._jpeg else Null("not_applicable"),
            }
        return {
            "forensics.prnu": self._noise.agreement() if self._noise else Null("too_small"),
            "forensics.flicker": self._flicker(clip),
            "forensics.codec": rhythm(self._sizes, self._kinds),
        }

    def _flicker(self, clip: Clip) -> Value:
        if clip.main_track is None:
            return Null("no_face")
        series = self._skin.series(clip.main_track)
        return flicker(series, clip.fps) if series else Null("small_face")


def _central_square(frame: Frame) -> NDArray[np.uint8] | None:
    """The middle of the picture in the orientation of the sensor and of the coding grid, or None if it is too small."""
    luma = frame.coded_luma
    side = min(NOISE_SIDE_PX, *luma.shape) // BLOCK_PX * BLOCK_PX
    if side < MIN_NOISE_SIDE_PX:
        return None
    # Whole macroblocks, so that the coding grid lies the same way in every clip.
    top, left = ((n - side) // 2 // 16 * 16 for n in luma.shape)
    return np.ascontiguousarray(luma[top : top + side, left : left + side])


def flicker(series: SkinSeries, fps: float) -> Value:
    """Measure how the face's brightness jumps on its own from frame to frame.

    The second difference of the face's mean luma takes out every slow change; what the surroundings share with it
    (mains light, exposure control) is taken out by regression. For white flicker of deviation s the second difference
    has the deviation √6 · s.

    Args:
        series: The face's signals.
        fps: Frames a second.

    Returns:
        Per cent of the face's luma, or why it cannot be said.
    """
    if series.width_px < MIN_FACE_PX:
        return Null("small_face")
    if fps < MIN_RATE_HZ:
        return Null("too_slow")
    successive = (np.diff(series.frame_index, 2) == 0) & (np.diff(series.frame_index)[1:] == 1)
    if successive.sum() < max(8, MIN_FLICKER_S * fps):
        return Null("too_short")
    level = float(np.median(series.face_luma))
    if level < MIN_LUMA:
        return Null("dark")
    face = np.diff(series.face_luma / level, 2)[successive]
    around = np.diff(series.surround_luma / max(float(np.median(series.surround_luma)), MIN_LUMA), 2)[successive]
    kept = np.abs(face) <= CUT_DEVIATIONS * (1.4826 * np.median(np.abs(face)) + 5e-4)
    own = _without_shared(face[kept], around[kept])
    return 100 * float(np.sqrt((own**2).mean() / 6))


def _without_shared(face: Floats, around: Floats) -> Floats:
    """Take out of the face's relative changes what its surroundings share.

    Light that falls on both changes both by about the same share. A larger gain is not believed: neck and ears flicker
    along with a forged face, and would take all of it away.
    """
    power = float((around**2).sum())
    gain = float((face * around).sum()) / power if power > 0 else 0.0
    return face - around * min(max(gain, 0.0), MAX_SHARED_GAIN)
