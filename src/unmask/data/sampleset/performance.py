"""What happens in a clip over time: speech, blinks, glances, movements of head and camera, and the pulse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.data.sampleset.expression import Expression
from unmask.data.sampleset.identity import Identity
from unmask.data.sampleset.voice import Syllable, mouth_track, plan_speech

Floats = NDArray[np.float64]

BLINK_CLOSING_S, BLINK_SHUT_S, BLINK_OPENING_S = 0.08, 0.05, 0.15
# Slow sway and quick tremor of the camera, face units: one clip in four is on a tripod, the rest are held by hand.
HANDS = ((0.0, 0.0), (0.09, 0.0014), (0.11, 0.003), (0.13, 0.003))
SWAY_S = 0.6
# Share of the pulse's amplitude that each colour shows: blood absorbs green most (Verkruysse 2008).
PULSE_RGB = (0.45, 1.0, 0.6)


@dataclass(frozen=True)
class Pose:
    """Where the head is in one frame.

    Attributes:
        yaw: Turn to the right of the picture, radians.
        pitch: Nod downwards, radians.
        roll: Tilt, radians.
        shift: Movement of the head, right and down, face units.
        camera: Movement of the whole picture, right and down, pixels.
    """

    yaw: float
    pitch: float
    roll: float
    shift: tuple[float, float]
    camera: tuple[float, float]


@dataclass(frozen=True)
class Performance:
    """A clip's movements, one entry a frame, and the truth about them.

    Attributes:
        poses: Head and camera.
        expressions: Eyes and mouth.
        pulse: Relative brightness of the skin's green, around 0, ``(T,)``.
        syllables: The speech.
        blink_times_s: When each blink begins.
    """

    poses: tuple[Pose, ...]
    expressions: tuple[Expression, ...]
    pulse: Floats
    syllables: tuple[Syllable, ...]
    blink_times_s: tuple[float, ...]


def _drift(times_s: Floats, knot_s: float, size: float, rng: np.random.Generator) -> Floats:
    """Smooth random movement: cosine-interpolated knots."""
    position = times_s / knot_s + rng.random()
    knots = rng.normal(0, size, int(position[-1]) + 2)
    whole = position.astype(int)
    share = 0.5 - 0.5 * np.cos(np.pi * (position - whole))
    return np.asarray(knots[whole] * (1 - share) + knots[whole + 1] * share)


def _blinks(identity: Identity, duration_s: float, rng: np.random.Generator) -> tuple[float, ...]:
    """Times of blinks: gamma-distributed gaps around the person's rate."""
    mean_s = 60 / identity.blinks_per_min
    times: list[float] = []
    time_s = rng.uniform(0, mean_s)
    while time_s < duration_s - 0.3:
        times.append(round(time_s, 3))
        time_s += 0.5 + rng.gamma(2.5, max(0.2, mean_s - 0.5) / 2.5)
    return tuple(times)


def _closure(times_s: Floats, blinks: tuple[float, ...]) -> Floats:
    closed = np.zeros_like(times_s)
    for start_s in blinks:
        knots = np.cumsum([start_s, BLINK_CLOSING_S, BLINK_SHUT_S, BLINK_OPENING_S])
        closed = np.maximum(closed, np.interp(times_s, knots, [0, 1, 1, 0]))
    return closed


def _glances(times_s: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Gaze that rests and jumps."""
    jumps = np.cumsum(rng.uniform(0.4, 1.6, int(times_s[-1] / 0.4) + 2))
    fixation = np.searchsorted(jumps, times_s)
    return rng.normal(0, 0.016, len(jumps) + 1)[fixation], rng.normal(0, 0.008, len(jumps) + 1)[fixation]


def perform(identity: Identity, n_frames: int, fps: int, px_per_unit: float, rng: np.random.Generator) -> Performance:
    """Draw what a person does in a clip.

    Args:
        identity: The person: blink rate and pulse.
        n_frames: Frames in the clip.
        fps: Frames per second.
        px_per_unit: Pixels per face unit, for the camera's movement.
        rng: Draws everything else.

    Returns:
        The performance.
    """
    times_s = np.arange(n_frames) / fps
    duration_s = n_frames / fps
    syllables = plan_speech(duration_s, rng)
    opening, rounding = mouth_track(syllables, times_s)
    blinks = _blinks(identity, duration_s, rng)
    closed = _closure(times_s, blinks)
    gaze_x, gaze_y = _glances(times_s, rng)
    yaw = rng.normal(0, 0.09) + _drift(times_s, 0.9, 0.06, rng)
    pitch = rng.normal(0, 0.03) + _drift(times_s, 0.7, 0.03, rng) + 0.12 * opening
    roll = rng.normal(0, 0.03) + _drift(times_s, 1.1, 0.025, rng)
    shift_x, shift_y = _drift(times_s, 0.9, 0.03, rng), _drift(times_s, 0.8, 0.018, rng)
    smile = np.clip(rng.normal(0.02, 0.012) + _drift(times_s, 1.5, 0.008, rng), 0, 0.05)
    beat = 2 * np.pi * (identity.pulse_bpm / 60 * times_s + rng.random())
    pulse = rng.uniform(0.005, 0.008) * (np.sin(beat) + 0.35 * np.sin(2 * beat - 0.9))
    sway, tremor = HANDS[int(rng.integers(len(HANDS)))]
    camera_x = px_per_unit * (_drift(times_s, SWAY_S, sway, rng) + _drift(times_s, 0.09, tremor, rng))
    camera_y = px_per_unit * (_drift(times_s, SWAY_S, 0.7 * sway, rng) + _drift(times_s, 0.09, tremor, rng))
    poses = tuple(
        Pose(a, b, c, (d, e), (f, g))
        for a, b, c, d, e, f, g in np.stack([yaw, pitch, roll, shift_x, shift_y, camera_x, camera_y], axis=1).tolist()
    )
    expressions = tuple(
        Expression(a, (b, c), d, e, f)
        for a, b, c, d, e, f in np.stack([closed, gaze_x, gaze_y, opening, rounding, smile], axis=1).tolist()
    )
    return Performance(poses, expressions, pulse, syllables, blinks)
