"""Marks by which the same picture or recording is known again after re-encoding, scaling or slight cropping.

A picture has a 64-bit hash of its coarse structure, by which candidates are found, and a tiny colour thumbnail, by
which they are verified: the hash alone takes any two portraits before a plain wall for one. A recording has a row of
32-bit words of the signs of band-energy differences (Haitsma and Kalker, ISMIR 2002), which survive coding and do not
depend on the level.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

HASH_SIDE = 8  # of the low frequencies that make the hash
HASH_INPUT_PX = 32
THUMB_PX = 12
THUMB_BYTES = 3 * THUMB_PX**2
FLAT_STD = 3.0  # grey levels; a picture with less contrast (a black frame) has nothing to be known by
SOUND_RATE_HZ = 8000
WINDOW = 2048  # samples, 0.256 s
HOP = 256  # samples, 32 ms
BANDS = 33
LOWEST_HZ, HIGHEST_HZ = 300.0, 3000.0
MAX_WORDS = 192  # 6 s
SILENT = 1e-4  # root mean square of full scale


@dataclass(frozen=True)
class PictureMark:
    """By what a picture is known again.

    Attributes:
        hash: 64 bits of its coarse structure; re-encoding changes few of them.
        thumb: Its colours on a grid of 12 by 12, RGB, 432 bytes.
    """

    hash: int
    thumb: bytes


def picture_mark(rgb: NDArray[np.uint8]) -> PictureMark | None:
    """Make the mark of a picture.

    The hash is the sign of each of the 64 lowest frequencies of the cosine transform of a 32 by 32 grey picture
    against their median (Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010).

    Args:
        rgb: ``(H, W, 3)``.

    Returns:
        The mark; None for a picture that is flat.
    """
    small = cv2.resize(rgb, (HASH_INPUT_PX, HASH_INPUT_PX), interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    if float(grey.std()) < FLAT_STD:
        return None
    low = cv2.dct(grey)[:HASH_SIDE, :HASH_SIDE].ravel()
    bits = low > np.median(low[1:])
    thumb = cv2.resize(rgb, (THUMB_PX, THUMB_PX), interpolation=cv2.INTER_AREA)
    return PictureMark(int.from_bytes(np.packbits(bits).tobytes(), "big"), thumb.tobytes())


def sound_words(samples: Floats) -> NDArray[np.uint32]:
    """Make the words of a recording.

    Bit m of word n is the sign of how the difference of the energies of the bands m and m + 1 changes from frame to
    frame (Haitsma and Kalker, 2002); frames are 0.256 s long, 32 ms apart, bands 300 to 3000 Hz on a logarithmic
    scale. Leading silence is left out.

    Args:
        samples: ``(N,)``, 8 kHz, mono.

    Returns:
        ``(W,)``, at most 192 words, which cover 6 s; none for silence or less than 0.3 s.
    """
    loud = np.flatnonzero(np.abs(samples) > SILENT)
    samples = samples[loud[0] :][: WINDOW + HOP * MAX_WORDS] if len(loud) else samples[:0]
    if len(samples) < WINDOW + HOP or float(np.sqrt(np.mean(np.square(samples)))) < SILENT:
        return np.zeros(0, np.uint32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW)[::HOP]
    window = np.hanning(WINDOW).astype(np.float32)
    power = np.square(np.abs(np.fft.rfft(frames * window, axis=1)))
    edges = np.geomspace(LOWEST_HZ, HIGHEST_HZ, BANDS + 1) * WINDOW / SOUND_RATE_HZ
    energy = np.add.reduceat(power, np.round(edges).astype(np.int64), axis=1)[:, :BANDS]
    across = energy[:, :-1] - energy[:, 1:]
    bits = np.diff(across, axis=0) > 0
    return np.packbits(bits, axis=1).view(">u4").ravel().astype(np.uint32)
