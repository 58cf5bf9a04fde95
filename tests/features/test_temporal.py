"""A pulse is found at its rate, noise has none, and odd movement of the face stands out."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_face import backdrop

from unmask.features.observation import Clip, Moment, Null
from unmask.features.skin import SkinSeries, SkinSignals
from unmask.features.temporal import Temporal, pulse, signal_to_noise
from unmask.media.faces import FACE_OVAL, Face
from unmask.media.video import Frame


def skin(bpm: float | None, seconds: float = 12, fps: float = 30, noise: float = 0.15, seed: int = 0, **changes):
    """Skin with a pulse of 0.6 grey levels in green, sway of the light, and noise of the mean."""
    rng = np.random.default_rng(seed)
    time_s = np.arange(0, seconds, 1 / fps)
    light = 1 + 0.02 * np.sin(2 * np.pi * 0.23 * time_s + 1)[:, None]
    colours = np.array([190.0, 140.0, 115.0]) * light
    if bpm is not None:
        colours = colours + np.outer(np.sin(2 * np.pi * bpm / 60 * time_s), [0.25, 0.6, 0.35])
    regions = colours[:, None] + rng.normal(0, noise, (len(time_s), 3, 3))
    facts = {"width_px": 120.0} | changes
    return SkinSeries(np.arange(len(time_s)), time_s, colours[:, 1], colours[:, 1], regions, **facts)


@pytest.mark.parametrize("bpm", [52, 75, 98, 140])
@pytest.mark.parametrize("fps", [25, 30])
def test_a_pulse_is_found_within_3_bpm(bpm, fps):
    decibels, found = pulse(skin(bpm, fps=fps), fps)
    assert found == pytest.approx(bpm, abs=3)
    assert decibels > 3


def test_without_a_pulse_the_ratio_is_low():
    values = [pulse(skin(None, seed=seed), 30)[0] for seed in range(5)]
    assert max(values) < 0


def test_stronger_noise_lowers_the_ratio():
    ratios = [pulse(skin(75, noise=noise), 30)[0] for noise in (0.1, 0.5, 2.0)]
    assert ratios[0] > ratios[1] > ratios[2]


@pytest.mark.parametrize(
    ("series", "fps", "code"),
    [
        (skin(75, seconds=4), 30, "too_short"),
        (skin(75, width_px=40.0), 30, "small_face"),
        (skin(75, fps=10), 10, "too_slow"),
    ],
)
def test_pulse_is_null_where_it_cannot_be_told(series, fps, code):
    assert pulse(series, fps) == Null(code)


def test_a_frozen_face_has_no_pulse():
    frozen = skin(75)
    frozen.skin_rgb[:] = frozen.skin_rgb[0]
    assert pulse(frozen, 30) == Null("static")


def test_signal_to_noise_of_a_sine_is_high():
    time_s = np.arange(300) / 30
    decibels, bpm = signal_to_noise(np.sin(2 * np.pi * 1.5 * time_s), 30)
    assert decibels > 15
    assert bpm == pytest.approx(90, abs=2)


def oddity(face_noise: float, sway_px: float = 3.0, n: int = 24):
    """A face that sways with its surroundings, its inside redrawn a little on every frame."""
    rng = np.random.default_rng(0)
    wall = cv2.resize(backdrop(6, 256), (560, 420))[..., 1]
    landmarks = np.zeros((468, 3), np.float32)
    angles = np.linspace(0, 2 * np.pi, len(FACE_OVAL), endpoint=False)
    landmarks[:, :2] = 240, 180
    landmarks[list(FACE_OVAL), 0] = 240 + 60 * np.cos(angles)
    landmarks[list(FACE_OVAL), 1] = 180 + 80 * np.sin(angles)
    family = Temporal(SkinSignals())
    for index in range(n):
        x = 40 + round(sway_px * np.sin(index))
        luma = wall[30:390, x : x + 480].astype(np.float64)
        mask = np.zeros(luma.shape, np.uint8)
        cv2.fillConvexPoly(mask, landmarks[list(FACE_OVAL), :2].astype(np.int32), 1)
        patches = cv2.GaussianBlur(rng.normal(0, 1, luma.shape), (0, 0), 2)
        luma += mask * patches / patches.std() * face_noise
        frame = Frame(index, index / 30, np.clip(luma, 0, 255).astype(np.uint8), None)
        family.see(Moment(frame, {0: Face(landmarks, 1.0)}, True, index % 2 == 0))
    return family.values(Clip("video", n, n / 30, 30.0, 480, 360, 1, 0))["temp.flow_oddity"]


def test_a_face_redrawn_on_every_frame_is_odd():
    values = [oddity(noise) for noise in (0, 3, 8)]
    assert values[0] < values[1] < values[2]
    assert abs(values[0]) < 0.6
    assert values[2] > 1


def test_where_nothing_moves_flow_tells_nothing():
    assert oddity(0, sway_px=0) == Null("static")


def test_too_few_pairs():
    assert oddity(3, n=5) == Null("too_short")
