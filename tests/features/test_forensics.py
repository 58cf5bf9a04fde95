"""Sensor noise of one camera, flicker of known size, and the rhythm of an earlier encoder."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_face import backdrop, write_clip

from unmask.features.forensics import flicker
from unmask.features.observation import Null
from unmask.features.prnu import NoisePattern, residual
from unmask.features.recompression import rhythm, size_excess
from unmask.features.skin import SkinSeries
from unmask.media.video import VideoReader


def series(face: np.ndarray, around: np.ndarray | None = None, width: float = 120, index=None) -> SkinSeries:
    n = len(face)
    index = np.arange(n) if index is None else index
    around = np.full(n, 90.0) if around is None else around
    return SkinSeries(index, index / 30, face, around, np.full((n, 3, 3), 100.0), width)


@pytest.mark.parametrize("percent", [0.5, 1.0, 3.0])
def test_flicker_is_its_deviation_within_15_per_cent(percent):
    rng = np.random.default_rng(1)
    slow = 120 + 10 * np.sin(np.arange(300) / 40)
    face = slow * (1 + percent / 100 * rng.normal(size=300))
    assert flicker(series(face), 30) == pytest.approx(percent, rel=0.15)


def test_light_that_falls_on_everything_is_no_flicker():
    rng = np.random.default_rng(2)
    light = 1 + 0.02 * rng.normal(size=300)
    assert flicker(series(120 * light, 80 * light), 30) < 0.05
    assert flicker(series(120 * light), 30) > 1.5


@pytest.mark.parametrize(
    ("given", "fps", "code"),
    [
        (series(np.full(300, 120.0), width=30), 30, "small_face"),
        (series(np.full(12, 120.0)), 30, "too_short"),
        (series(np.full(300, 10.0)), 30, "dark"),
        (series(np.full(300, 120.0)), 8, "too_slow"),
        (series(np.full(100, 120.0), index=np.arange(0, 200, 2)), 30, "too_short"),
    ],
)
def test_flicker_is_null_where_it_cannot_be_told(given, fps, code):
    assert flicker(given, fps) == Null(code)


def test_the_residual_is_the_noise_and_not_the_scene():
    rng = np.random.default_rng(0)
    scene = cv2.GaussianBlur(rng.uniform(40, 210, (256, 256)), (0, 0), 12)
    scene = (scene - scene.min()) / np.ptp(scene) * 170 + 40
    noise = rng.normal(0, 2, scene.shape)
    found = residual(np.clip(scene + noise, 0, 255).round().astype(np.uint8))
    assert np.corrcoef(found.ravel(), noise.ravel())[0, 1] > 0.9
    assert abs(np.corrcoef(found.ravel(), scene.ravel())[0, 1]) < 0.05


def noise_agreement(seed: int, cameras: tuple[int, int], step_px: float):
    """Agreement of two halves of a clip, each shot with a camera of its own; -1 is a camera without a pattern."""
    rng = np.random.default_rng(seed)
    wall = cv2.resize(backdrop(seed, 256), (1000, 1000))[..., 1].astype(np.float64)
    wall = np.clip(wall + cv2.GaussianBlur(rng.normal(0, 60, wall.shape), (0, 0), 3), 20, 230)
    patterns = {c: 0 if c < 0 else np.random.default_rng(100 + c).normal(0, 0.012, (256, 256)) for c in cameras}
    pattern = NoisePattern(256)
    place = np.array([370.0, 370.0])
    for index in range(16):
        place = np.clip(place + rng.normal(0, step_px, 2), 0, 740)
        x, y = place.astype(int)
        half = int(index >= 8)
        shot = wall[y : y + 256, x : x + 256] * (1 + patterns[cameras[half]]) + rng.normal(0, 1.5, (256, 256))
        pattern.add(np.clip(shot, 0, 255).round().astype(np.uint8), half)
    return pattern.agreement()


def test_one_camera_agrees_with_itself_and_not_with_another():
    same = [noise_agreement(seed, (1, 1), 40) for seed in range(4)]
    other = [noise_agreement(seed, (1, 2), 40) for seed in range(4)]
    none = [noise_agreement(seed, (-1, -1), 40) for seed in range(4)]
    assert min(same) > 0.1
    assert max(np.abs(other + none)) < 0.05


def test_a_still_scene_is_null_with_and_without_a_pattern():
    assert noise_agreement(0, (1, 1), 0) == Null("static")
    assert noise_agreement(0, (-1, -1), 0) == Null("static")


def moving_pictures(seed: int, n: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    wall = cv2.resize(backdrop(seed, 256), (640, 480))
    inset = cv2.resize(backdrop(seed + 50, 64), (100, 100))
    frames = []
    for index in range(n):
        x, y = round(40 + 25 * np.sin(index / 30)), round(40 + 15 * np.sin(index / 17))
        frame = wall[y : y + 192, x : x + 320].copy()
        left = round(110 + 60 * np.sin(index / 20))
        frame[40:140, left : left + 100] = inset
        frames.append(np.clip(frame + rng.normal(0, 1.5, frame.shape), 0, 255).astype(np.uint8))
    return frames


def sizes_of(path) -> tuple[list[int], list[str], list[np.ndarray]]:
    sizes, kinds, pictures = [], [], []
    with VideoReader(path) as reader:
        for frame in reader:
            sizes.append(frame.coded_bytes)
            kinds.append(frame.coded_as)
            pictures.append(frame.rgb(0, 0, frame.width_px, frame.height_px))
    return sizes, kinds, pictures


def test_an_earlier_encoder_leaves_its_rhythm(tmp_path):
    # One thread: with several, the encoder's sizes differ from run to run.
    once, twice = [], []
    again = {"crf": "23", "preset": "veryfast", "g": "250", "threads": "1"}
    for seed, period in enumerate((12, 15, 12)):
        source = moving_pictures(seed, 160)
        first = {"crf": "30", "preset": "veryfast", "g": str(period), "threads": "1"}
        decoded = sizes_of(write_clip(tmp_path / "1.mp4", source, options=first))[2]
        trimmed = decoded[period // 3 :]  # the phase is unknown
        once.append(rhythm(*sizes_of(write_clip(tmp_path / "2.mp4", source, options=again))[:2]))
        twice.append(rhythm(*sizes_of(write_clip(tmp_path / "3.mp4", trimmed, options=again))[:2]))
    # Clip by clip: three scenes are too few to rank unlike scenes against each other.
    assert np.greater(twice, once).all(), (once, twice)
    assert np.mean(twice) > 1.4 * np.mean(once), (once, twice)


def test_a_rhythm_put_into_sizes_is_found_and_noise_is_none():
    rng = np.random.default_rng(0)
    kinds = ["I"] + ["B", "B", "P"] * 80
    base = np.where(np.array(kinds) == "P", 4000, 1500) * rng.lognormal(0, 0.1, 241)
    marked = base.copy()
    marked[7::18] *= 1.6
    plain, found = (rhythm(list(sizes.astype(int)), kinds) for sizes in (base, marked))
    assert found > 2 * plain
    assert plain < 4


def test_key_frames_and_unknown_sizes_are_left_out():
    sizes = np.full(40, 1000.0)
    sizes[10] = 0
    excess = size_excess(sizes, ["I", *["P"] * 19, "I", *["P"] * 19])
    assert np.isnan(excess[[0, 1, 10, 20, 21]]).all()
    assert (excess[[5, 15, 30]] == 0).all()


@pytest.mark.parametrize(("kinds", "n", "code"), [("I", 100, "not_applicable"), ("P", 30, "too_short")])
def test_rhythm_is_null_where_it_cannot_be_told(kinds, n, code):
    assert rhythm([1000] * n, [kinds] * n) == Null(code)
