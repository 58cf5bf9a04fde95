"""The damages: monotone, seeded, never touching their argument, and doing what their parameter says."""

from __future__ import annotations

import itertools
from typing import get_args

import cv2
import numpy as np
import pytest

from unmask.config import EvaluateConfig
from unmask.evaluation.perturbations import PERTURBATIONS, SEVERITIES, perturb


def face_like(size_px: int = 256) -> np.ndarray:
    """A smooth oval with fine texture and an edge: something that each damage can be seen on."""
    rng = np.random.default_rng(7)
    image = np.full((size_px, size_px, 3), (70, 90, 120), np.uint8)
    half = size_px // 2
    cv2.ellipse(image, (half, half), (size_px // 3, int(size_px / 2.4)), 0, 0, 360, (205, 160, 140), -1)
    texture = cv2.GaussianBlur(rng.normal(0, 40, image.shape).astype(np.float32), (0, 0), 1.0)
    return np.clip(image + texture, 0, 255).astype(np.uint8)


def psnr_db(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(float) - b.astype(float)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_each_severity_is_worse_than_the_one_before(name: str) -> None:
    image = face_like()
    values = [psnr_db(image, perturb(image, name, severity, np.random.default_rng(1))) for severity in (0, *SEVERITIES)]
    assert values[0] == float("inf")
    assert all(earlier > later + 0.5 for earlier, later in itertools.pairwise(values)), values
    assert 5 < values[-1] < values[1] < 45


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("shape", [(256, 256), (101, 77), (16, 16)])
def test_shape_and_type_stay_and_the_argument_is_untouched(name: str, shape: tuple[int, int]) -> None:
    image = cv2.resize(face_like(), shape[::-1])
    before = image.copy()
    for severity in SEVERITIES:
        damaged = perturb(image, name, severity, np.random.default_rng(1))
        assert damaged.shape == image.shape
        assert damaged.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_same_generator_same_bytes(name: str) -> None:
    image = face_like()
    once, again = (perturb(image, name, 3, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(once, again)


def test_only_noise_depends_on_the_generator() -> None:
    image = face_like()
    differ = {
        name
        for name in PERTURBATIONS
        if not np.array_equal(*(perturb(image, name, 3, np.random.default_rng(seed)) for seed in (1, 2)))
    }
    assert differ == {"gaussian_noise", "salt_pepper"}


def test_severity_zero_is_the_same_image() -> None:
    image = face_like()
    assert perturb(image, "jpeg", 0, np.random.default_rng(0)) is image


def test_unknown_names_and_severities_are_refused() -> None:
    with pytest.raises(KeyError):
        perturb(face_like(), "vignette", 1, np.random.default_rng(0))
    with pytest.raises(ValueError, match="severity 6"):
        perturb(face_like(), "jpeg", 6, np.random.default_rng(0))


def test_parameters_mean_what_they_say() -> None:
    rng = np.random.default_rng(3)
    grey = np.full((256, 256, 3), 128, np.uint8)
    noise = perturb(grey, "gaussian_noise", 2, rng).astype(float) - 128
    assert noise.std() / 255 == pytest.approx(0.04, rel=0.02)
    spots = perturb(grey, "salt_pepper", 5, rng)
    assert np.mean((spots == 0).all(2)) == pytest.approx(0.06, abs=0.005)
    assert np.mean((spots == 255).all(2)) == pytest.approx(0.06, abs=0.005)
    flat = perturb(face_like(), "contrast", 5, rng)
    spread = face_like().std(axis=(0, 1)).mean()
    assert flat.std(axis=(0, 1)).mean() == pytest.approx(0.2 * spread, rel=0.05)
    assert perturb(grey, "gamma", 5, rng)[0, 0, 0] == round(255 * (128 / 255) ** 3)
    assert perturb(grey, "brightness", 5, rng)[0, 0, 0] == round(255 * (128 / 255 + 0.4))


def test_a_blur_of_a_half_size_crop_is_half_as_wide() -> None:
    """Sigma is stated for 256 px, so the relative width of a step's blur does not depend on the crop's size."""
    widths = []
    for size in (256, 128):
        step = np.zeros((size, size, 3), np.uint8)
        step[:, size // 2 :] = 255
        row = perturb(step, "gaussian_blur", 5, np.random.default_rng(0))[size // 2, :, 0]
        widths.append(np.count_nonzero((row > 40) & (row < 215)) / size)
    assert widths[0] == pytest.approx(widths[1], abs=2 / 128)


def test_the_configuration_knows_exactly_these_perturbations() -> None:
    allowed = get_args(get_args(EvaluateConfig.model_fields["perturbations"].annotation)[0])
    assert set(allowed) == set(PERTURBATIONS)
