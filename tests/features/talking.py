"""Clips of a drawn person who talks, blinks, has a pulse, or does none of it; the truth is what was asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from drawn_face import FPS, drawn, noisy

MOUTHS = (0.02, 0.15, 0.3, 0.45)


def talk(
    seconds: float,
    *,
    blinks_s: Sequence[float] = (),
    speaking: bool = True,
    pulse_bpm: float | None = None,
    flicker: float = 0.0,
    size: int = 256,
    noise: float = 1.5,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Yield RGB frames.

    `blinks_s` are the middles of blinks of 0.2 s, `flicker` is the relative deviation of the face's brightness from
    frame to frame.
    """
    rng = np.random.default_rng(seed)
    inside = np.any(drawn(size=size) != drawn(size=size, skin=0.97), axis=2)
    for index in range(round(seconds * FPS)):
        now = index / FPS
        shut = any(abs(now - blink) <= 0.1 for blink in blinks_s)
        mouth = MOUTHS[round(1.5 + 1.5 * np.sin(2 * np.pi * 2.3 * now))] if speaking else MOUTHS[0]
        frame = drawn(mouth, 0.0 if shut else 1.0, size).astype(np.float64)
        if pulse_bpm is not None:
            frame[inside] *= 1 + np.array([0.003, 0.010, 0.006]) * np.sin(2 * np.pi * pulse_bpm / 60 * now)
        if flicker:
            frame[inside] *= 1 + flicker * rng.normal()
        yield noisy(frame, rng, noise)
