"""A logo over a moving picture is seen; without one there is none; a still camera cannot tell."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_face import FPS

from unmask.features.observation import Clip, Moment, Null
from unmask.features.watermark import Watermark
from unmask.media.video import Frame

WALL = cv2.resize(np.random.default_rng(4).integers(60, 200, (28, 56)).astype(np.uint8), (1400, 700), interpolation=0)


def value(logo: bool, speed_px: float, *, bars: int = 0, n: int = 32, corner: tuple[int, int] = (30, 40)):
    rng = np.random.default_rng(0)
    family = Watermark()
    for index in range(n):
        x = round(speed_px * index)
        picture = np.clip(WALL[60:540, x : x + 640] + rng.normal(0, 3, (480, 640)), 0, 255).astype(np.uint8)
        if logo:
            cv2.putText(picture, "AI", (corner[1], corner[0] + 40), cv2.FONT_HERSHEY_SIMPLEX, 1.5, 235, 4)
            cv2.rectangle(picture, corner[::-1], (corner[1] + 80, corner[0] + 60), 235, 3)
        if bars:
            picture[:bars], picture[-bars:] = 16, 16
        family.see(Moment(Frame(index, index / FPS, picture, None), {}, True, True))
    return family.values(Clip("video", n * 9, n * 9 / FPS, FPS, 640, 480, 1, None))["wm.detected"]


@pytest.mark.parametrize("corner", [(20, 20), (20, 520), (400, 30), (400, 540)])
def test_a_logo_in_any_corner_is_seen(corner):
    assert value(True, 20, corner=corner) > 0.05


def test_no_logo_no_overlay():
    assert value(False, 20) < 0.004


def test_black_bars_are_no_logo():
    assert value(False, 20, bars=60) < 0.004


@pytest.mark.parametrize("logo", [False, True])
def test_a_still_camera_cannot_tell(logo):
    assert value(logo, 0) == Null("static")


def test_too_few_frames():
    assert value(True, 20, n=5) == Null("too_short")
