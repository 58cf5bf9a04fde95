"""Blur falls with blurring, shake is what the camera was made to do, bits are counted."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_face import FPS, backdrop

from unmask.features.observation import Clip, Moment, Null
from unmask.features.quality import Quality, running_mean
from unmask.media.video import Frame

WALL = cv2.resize(backdrop(2, 512), (900, 700))[..., 1]


def clip(n: int, width: int = 640, height: int = 480, coded_bytes: int = 1000, modality: str = "video") -> Clip:
    return Clip(modality, n, n / FPS, FPS, width, height, coded_bytes, None)


def watch(lumas: list[np.ndarray], **facts) -> dict:
    family = Quality(FPS)
    for index, luma in enumerate(lumas):
        family.see(Moment(Frame(index, index / FPS, luma, None), {}, True, index % 4 == 0))
    return family.values(clip(len(lumas), lumas[0].shape[1], lumas[0].shape[0], **facts))


def camera(path_px: np.ndarray, size: tuple[int, int] = (640, 480), seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    frames = []
    for dx, dy in path_px:
        view = cv2.warpAffine(WALL, np.float32([[1, 0, dx - 100], [0, 1, dy - 100]]), size, flags=cv2.INTER_LINEAR)
        frames.append(np.clip(view + rng.normal(0, 2, view.shape), 0, 255).astype(np.uint8))
    return frames


def test_blur_falls_steadily():
    sharp = np.random.default_rng(0).integers(0, 256, (480, 640)).astype(np.uint8)
    values = [
        watch([sharp if not s else cv2.GaussianBlur(sharp, (0, 0), s)] * 4)["quality.blur"] for s in (0, 1, 2, 4, 8)
    ]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[-1] > 1


def test_blur_does_not_depend_on_resolution():
    content = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (360, 640)).astype(np.float32), (0, 0), 2)
    content = ((content - content.min()) / np.ptp(content) * 255).astype(np.uint8)
    values = [
        watch([cv2.resize(content, (h * 16 // 9, h), interpolation=cv2.INTER_CUBIC)] * 4)["quality.blur"]
        for h in (720, 1080)
    ]
    assert values[0] == pytest.approx(values[1], abs=0.15)


@pytest.mark.parametrize("amplitude_px", [2.0, 5.0, 12.0])
def test_shake_is_the_amplitude_within_15_per_cent(amplitude_px):
    times = np.arange(90) / FPS
    path = amplitude_px * np.stack([np.sin(2 * np.pi * 3 * times), np.zeros(90)], axis=1)
    expected = 100 * amplitude_px / np.sqrt(2) / np.hypot(640, 480)
    assert watch(camera(path))["quality.shake"] == pytest.approx(expected, rel=0.15)


def test_a_tripod_and_a_steady_pan_do_not_shake():
    still = watch(camera(np.zeros((60, 2))))["quality.shake"]
    pan = watch(camera(np.linspace([0, 0], [60, 20], 60)))["quality.shake"]
    assert still < 0.05  # a third of a pixel
    assert pan < 0.12


def test_a_cut_is_not_shake():
    before = camera(np.zeros((30, 2)))
    after = [np.ascontiguousarray(frame[::-1, ::-1]) for frame in before]
    assert watch(before + after)["quality.shake"] < 0.06


@pytest.mark.parametrize(
    ("lumas", "facts", "code"),
    [
        ([WALL[:480, :640]], {"modality": "image"}, "single_image"),
        ([WALL[:480, :640]] * 5, {}, "too_short"),
        ([WALL[:20, :20]] * 60, {}, "too_small"),
    ],
)
def test_shake_is_null_where_it_cannot_be_told(lumas, facts, code):
    assert watch(lumas, **facts)["quality.shake"] == Null(code)


def test_bits_per_pixel():
    values = watch([WALL[:480, :640]] * 10, coded_bytes=480 * 640 * 10 // 8)
    assert values["quality.bitrate"] == pytest.approx(0)


def test_running_mean_leaves_a_straight_line():
    line = np.stack([np.arange(40.0), 3 - 2 * np.arange(40.0)], axis=1)
    np.testing.assert_allclose(running_mean(line, 9), line, atol=1e-9)
    assert running_mean(line, 10).shape == line.shape
    assert running_mean(line[:3], 10).shape == (3, 2)
