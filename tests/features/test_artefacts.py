"""Border, texture, colour step and spectrum follow what was done to a face."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from drawn_face import drawn

from unmask.features.artefacts import (
    Artefacts,
    FaceView,
    border_strength,
    colour_step,
    face_spectrum,
    spectral_slope,
    texture_entropy,
    view_face,
)
from unmask.features.observation import Clip, Moment, Null
from unmask.media.faces import Face, find_faces
from unmask.media.video import Frame


def as_frame(rgb: np.ndarray) -> Frame:
    luma, red, blue = cv2.split(cv2.cvtColor(rgb, cv2.COLOR_RGB2YCrCb))
    return Frame(0, 0.0, luma, (blue, red), "bt601", full_range=True)


def square_face(side: float, centre: float = 256.0) -> Face:
    landmarks = np.full((468, 3), centre, np.float32)
    landmarks[0, :2], landmarks[1, :2] = centre - side / 2, centre + side / 2
    return Face(landmarks, 1.0)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 3.0])
def test_slope_of_a_power_law_is_its_exponent(exponent):
    rng = np.random.default_rng(0)
    radius = np.hypot(np.fft.fftfreq(512)[:, None], np.fft.rfftfreq(512)[None])
    radius[0, 0] = 1
    spectrum = np.exp(2j * np.pi * rng.random(radius.shape)) * radius ** (-exponent / 2)
    picture = np.fft.irfft2(spectrum)
    picture = 128 + 45 * picture / picture.std()
    frame = Frame(0, 0.0, np.clip(picture, 0, 255).round().astype(np.uint8), None)
    spectra = [face_spectrum(frame, square_face(150, centre)) for centre in (150.0, 256.0, 350.0)]
    assert spectral_slope([s for s in spectra if s is not None]) == pytest.approx(-exponent, abs=0.35)


def test_slope_steepens_with_blur_and_does_not_depend_on_the_size_of_the_face():
    rng = np.random.default_rng(1)
    noise = rng.normal(128, 30, (512, 512))
    slopes = []
    for sigma in (0.0, 0.6, 1.0):
        luma = np.clip(noise if not sigma else cv2.GaussianBlur(noise, (0, 0), sigma), 0, 255).astype(np.uint8)
        small, large = (spectral_slope([face_spectrum(Frame(0, 0.0, luma, None), square_face(s))]) for s in (80, 300))
        assert small == pytest.approx(large, abs=0.4)
        slopes.append(large)
    assert slopes[0] > slopes[1] > slopes[2]
    assert slopes[0] == pytest.approx(0, abs=0.2)


def test_no_spectrum_of_a_face_that_leaves_the_picture():
    assert face_spectrum(Frame(0, 0.0, np.zeros((512, 512), np.uint8), None), square_face(200, 60.0)) is None


def view(grey_inside: float, grey_border: float, grey_around: float) -> FaceView:
    masks = np.zeros((3, 128, 128), np.uint8)
    cv2.circle(masks[0], (64, 64), 30, 255, -1)
    cv2.circle(masks[2], (64, 64), 55, 255, -1)
    cv2.circle(masks[1], (64, 64), 40, 255, -1)
    masks[2] &= ~masks[1]
    masks[1] &= ~masks[0]
    ramp = np.tile(np.arange(128) % 2, (128, 1)).astype(np.float64)
    grey = np.zeros((128, 128))
    for mask, amplitude in zip(masks, (grey_inside, grey_border, grey_around), strict=True):
        grey[mask > 0] = 100 + amplitude * ramp[mask > 0]
    image = np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    return FaceView(image, image[..., 0], *masks)


def test_a_face_with_a_seam_has_a_stronger_border():
    picture = drawn()
    (face,) = find_faces(picture)
    plain = view_face(as_frame(picture), face)
    oval = cv2.morphologyEx(plain.border, cv2.MORPH_ERODE, np.ones((3, 3), np.uint8))
    values = []
    for depth in (0, 20, 60):
        grey = plain.grey.copy()
        grey[oval > 0] = np.clip(grey[oval > 0].astype(int) - depth, 0, 255)
        values.append(border_strength(FaceView(plain.rgb, grey, plain.inside, plain.border, plain.around)))
    assert values[0] < values[1] < values[2]


def test_texture_grows_from_flat_to_noise():
    flat = view(0, 0, 0)
    values = []
    for deviation in (0.0, 1.0, 20.0):
        noise = np.random.default_rng(0).normal(0, 1, (128, 128)) * deviation
        grey = np.clip(100 + noise, 0, 255).round().astype(np.uint8)
        values.append(texture_entropy(FaceView(flat.rgb, grey, flat.inside, flat.border, flat.around)))
    assert values[0] == 0
    assert values[0] < values[1] < values[2] <= 8
    assert values[2] > 6.5


def test_colour_step_is_the_distance_in_ab():
    base = view(0, 0, 0)
    rgb = np.full((128, 128, 3), 120, np.uint8)
    same = FaceView(rgb, base.grey, base.inside, base.border, base.around)
    assert colour_step(same) == pytest.approx(0, abs=1e-3)
    rgb = rgb.copy()
    rgb[base.inside > 0] = (180, 120, 90)
    step = colour_step(FaceView(rgb, base.grey, base.inside, base.border, base.around))
    lab = cv2.cvtColor(np.float32([[[180, 120, 90]]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]
    assert step == pytest.approx(np.hypot(*lab[1:]), rel=0.02)
    assert np.isnan(colour_step(FaceView(rgb // 60, base.grey, base.inside, base.border, base.around)))


def test_masks_cover_face_outline_and_surroundings():
    picture = drawn()
    (face,) = find_faces(picture)
    seen = view_face(as_frame(picture), face)
    assert not (seen.inside & seen.border).any()
    assert not (seen.border & seen.around).any()
    assert 0.1 < (seen.inside > 0).mean() < 0.5
    nose = face.landmarks[4, :2]
    corner = view_face(as_frame(picture[:, : round(nose[0]) + 5].copy()), face)
    assert (corner.around[:, -5:] == 0).all()  # beyond the picture


@pytest.mark.parametrize(("track", "side", "code"), [(None, 100, "no_face"), (0, 40, "small_face")])
def test_nulls(track, side, code):
    family = Artefacts()
    frame = as_frame(np.full((512, 512, 3), 120, np.uint8))
    family.see(Moment(frame, {0: square_face(side)}, True, True))
    values = family.values(Clip("video", 30, 1.0, 30.0, 512, 512, 1, track))
    assert values == dict.fromkeys(values, Null(code))
    assert len(values) == 4
