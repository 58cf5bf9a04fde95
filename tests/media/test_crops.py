"""Crops lie around the face, inside the picture, and are spread over the whole clip."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.media.crops import EvenSampler, crop_square, cut_crop, encode_crop
from unmask.media.faces import Face
from unmask.media.preprocessing import decode_crop
from unmask.media.video import Frame


def face_at(x0: float, y0: float, x1: float, y1: float) -> Face:
    landmarks = np.zeros((468, 3), np.float32)
    landmarks[0, :2], landmarks[1:, :2] = (x0, y0), (x1, y1)
    return Face(landmarks, 1.0)


def picked(n_frames: int, n_wanted: int, usable=lambda index: True) -> list[int]:
    sampler = EvenSampler(n_frames, n_wanted)
    taken = []
    for index in range(n_frames):
        if sampler.due(index) and usable(index):
            sampler.take(index)
            taken.append(index)
    return taken


@given(st.integers(1, 2000), st.integers(1, 64))
def test_as_many_as_wanted_evenly_over_the_whole_clip(n_frames, n_wanted):
    taken = picked(n_frames, n_wanted)
    assert len(taken) == min(n_frames, n_wanted)
    steps = np.diff([-1, *taken, n_frames])
    assert steps[1:-1].max(initial=0) <= -(-n_frames // len(taken))
    assert steps[0] + steps[-1] <= 2 * n_frames / len(taken) + 2


def test_frames_without_a_face_are_made_up_for():
    taken = picked(300, 30, usable=lambda index: index % 7 == 3)
    assert len(taken) == 30
    assert max(np.diff(taken)) <= 17


def test_targets_that_have_passed_are_not_crowded_together():
    assert picked(100, 10, usable=lambda index: index >= 50)[:2] == [50, 55]


@given(
    st.floats(-50, 600),
    st.floats(-50, 400),
    st.floats(4, 400),
    st.floats(4, 400),
    st.floats(1, 3),
    st.integers(32, 512),
)
def test_squares_are_even_and_inside_where_they_fit(x, y, width, height, scale, size_px):
    left, top, side = crop_square(face_at(x, y, x + width, y + height), scale, size_px, 640, 480)
    assert left % 2 == top % 2 == side % 2 == 0
    assert abs(side - max(width, height) * scale) <= 4.001
    if side <= 640:
        assert 0 <= left <= 640 - side
    if side <= 480:
        assert 0 <= top <= 480 - side


def test_a_square_is_centred_on_the_face():
    left, top, side = crop_square(face_at(280, 200, 360, 300), 1.3, 256, 640, 480)
    assert (left + side / 2, top + side / 2, side) == pytest.approx((320, 250, 130), abs=2)


def test_a_crop_shows_what_is_there():
    luma = np.full((480, 640), 60, np.uint8)
    luma[200:300, 280:380] = 180
    frame = Frame(0, 0.0, luma, None, full_range=True)
    crop = cut_crop(frame, face_at(280, 200, 380, 300), 1.5, 150)
    assert crop.shape == (150, 150, 3)
    assert (crop[30:120, 30:120] == 180).all()
    assert (crop[:20] == 60).all()


def test_a_square_larger_than_the_picture_is_padded_with_black():
    frame = Frame(0, 0.0, np.full((100, 60), 200, np.uint8), None, full_range=True)
    crop = cut_crop(frame, face_at(0, 0, 60, 100), 2.0, 128)
    assert crop.shape == (128, 128, 3)
    assert (crop[:, :8] == 0).all()
    assert (crop[60:68, 60:68] == 200).all()


def test_jpeg_keeps_the_picture():
    ramp = np.linspace(0, 255, 128).astype(np.uint8)
    image = np.stack(
        [np.tile(ramp, (128, 1)), np.tile(ramp[::-1], (128, 1)), np.full((128, 128), 90, np.uint8)], axis=2
    )
    high, low = encode_crop(image, 95), encode_crop(image, 50)
    assert len(low) < len(high)
    assert np.abs(decode_crop(high).astype(int) - image).mean() < 3
