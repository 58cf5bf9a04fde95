"""Blinks are counted, mouths talk or are still, and asymmetry does not depend on pose or size."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from unmask.features.face_motion import (
    _MIDDLE,
    _PAIRS,
    FaceMotion,
    ShapeSeries,
    asymmetry,
    blinks_per_minute,
    mouth_ratio,
    still_share,
)
from unmask.features.observation import Clip, Null

RATE_HZ = 15.0


def eye_trace(seconds: float, blinks_s, noise: float = 0.01, seed: int = 0, length_s: float = 0.2):
    time_s = np.arange(0, seconds, 1 / RATE_HZ)
    rng = np.random.default_rng(seed)
    eye = 0.32 + 0.03 * np.sin(time_s / 3) + rng.normal(0, noise, len(time_s))
    for blink in blinks_s:
        eye[np.abs(time_s - blink) <= length_s / 2] = 0.12
    return time_s, eye


@pytest.mark.parametrize("n", [0, 1, 3, 6])
def test_blinks_are_counted(n):
    time_s, eye = eye_trace(20, 2 + np.arange(n) * 2.7)
    assert blinks_per_minute(time_s, eye, RATE_HZ) == pytest.approx(3 * n, rel=0.02)


def test_eyes_shut_for_long_are_no_blink():
    time_s, eye = eye_trace(20, [8], length_s=1.5)
    assert blinks_per_minute(time_s, eye, RATE_HZ) == 0


@pytest.mark.parametrize(("seconds", "rate", "code"), [(4, 15.0, "too_short"), (20, 6.0, "too_slow")])
def test_blinks_are_null_where_they_cannot_be_counted(seconds, rate, code):
    time_s, eye = eye_trace(seconds, [2])
    assert blinks_per_minute(time_s, eye, rate) == Null(code)


def test_time_without_a_face_does_not_count():
    time_s, eye = eye_trace(20, [2, 15])
    seen = (time_s < 5) | (time_s > 12)
    found = blinks_per_minute(time_s[seen], eye[seen], RATE_HZ)
    assert found == pytest.approx(2 / 13 * 60, rel=0.03)


def test_still_share_counts_the_still_seconds():
    time_s = np.arange(0, 20, 1 / RATE_HZ)
    noise = np.random.default_rng(0).normal(0, 0.006, len(time_s))
    talking = 0.15 + 0.1 * np.sin(2 * np.pi * 3 * time_s)
    assert still_share(time_s, talking + noise, RATE_HZ) == 0
    assert still_share(time_s, 0.1 + noise, RATE_HZ) == 1
    half = np.where(time_s < 10, talking, 0.1)
    assert still_share(time_s, half + noise, RATE_HZ) == pytest.approx(0.5, abs=0.06)
    assert still_share(time_s[:15], noise[:15], RATE_HZ) == Null("too_short")


def symmetric_face(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    points = np.zeros((468, 3))
    left = rng.uniform([0.2, -1, -0.3], [1, 1, 0.3], (len(_PAIRS), 3))
    points[_PAIRS[:, 1]], points[_PAIRS[:, 0]] = left, left * [-1, 1, 1]
    points[_MIDDLE] = rng.uniform([0, -1, -0.3], [0, 1, 0.3], (len(_MIDDLE), 3))
    return points


@pytest.mark.parametrize("angles", [(0, 0, 0), (20, -10, 5), (-35, 15, 30)])
@pytest.mark.parametrize("scale", [1.0, 80.0])
def test_asymmetry_is_free_of_pose_and_size(angles, scale):
    turn = Rotation.from_euler("yxz", angles, degrees=True).as_matrix()
    face = symmetric_face()
    assert asymmetry(face @ turn.T * scale + 100) == pytest.approx(0, abs=1e-5)
    face[_PAIRS[3, 0], 1] += 0.2
    upright, turned = asymmetry(face), asymmetry(face @ turn.T * scale + 100)
    assert upright > 0.01
    assert turned == pytest.approx(upright, rel=1e-4)


def test_mouth_ratio_is_height_over_width():
    points = np.zeros((468, 3))
    points[[78, 308], 0] = -20, 20
    points[[13, 14], 1] = -3, 5
    assert mouth_ratio(points) == pytest.approx(0.2, rel=1e-4)


def family(columns: dict[str, np.ndarray]) -> FaceMotion:
    n = len(columns["time_s"])
    neutral = {
        "eye": np.full(n, 0.3),
        "mouth": np.full(n, 0.1),
        "asymmetry": np.full(n, 0.02),
        "yaw_deg": np.zeros(n),
        "pitch": np.zeros(n),
        "width_px": np.full(n, 120.0),
    }
    made = FaceMotion()
    rows = {"time_s": columns["time_s"]} | neutral | columns
    made._rows[0] = list(zip(*(rows[name] for name in ShapeSeries.__dataclass_fields__), strict=True))
    return made


CLIP = Clip("video", 300, 10.0, 30.0, 640, 480, 1, 0)
TIME_S = np.arange(0, 10, 1 / RATE_HZ)


def test_drift_grows_with_the_change_and_not_with_turning_the_head():
    rng = np.random.default_rng(0)
    yaw = 25 * np.sin(TIME_S)
    turning = 0.02 + 0.001 * np.abs(yaw)
    values = [
        family({"time_s": TIME_S, "yaw_deg": yaw, "asymmetry": turning + s * rng.normal(size=len(TIME_S))}).values(CLIP)
        for s in (0, 0.005, 0.02)
    ]
    drift = [value["face.sym_drift"] for value in values]
    assert drift[0] < 0.01
    assert drift[1] == pytest.approx(0.5, rel=0.15)
    assert drift[2] == pytest.approx(2.0, rel=0.15)


@pytest.mark.parametrize(
    ("columns", "clip", "code"),
    [
        ({"yaw_deg": np.full(len(TIME_S), 50.0)}, CLIP, "not_frontal"),
        ({"width_px": np.full(len(TIME_S), 30.0)}, CLIP, "small_face"),
        ({}, Clip("video", 300, 10.0, 30.0, 640, 480, 1, None), "no_face"),
    ],
)
def test_all_four_are_null_together(columns, clip, code):
    values = family({"time_s": TIME_S, **columns}).values(clip)
    assert values == dict.fromkeys(values, Null(code))
    assert len(values) == 4


def test_a_single_picture_has_a_mouth_and_no_movement():
    values = family({"time_s": np.zeros(1)}).values(Clip("image", 1, 0.0, 1.0, 640, 480, 1, 0))
    assert values.pop("face.mouth_exag") == pytest.approx(0.1)
    assert set(values.values()) == {Null("single_image")}
