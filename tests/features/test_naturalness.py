"""BRISQUE: its statistics agree with slow textbook formulas, and its score rises with what is done to a picture."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from leaves import dead_leaves
from scipy import optimize, signal, stats
from scipy.special import gamma

from unmask.errors import InputError
from unmask.features import naturalness
from unmask.features.naturalness import asymmetric_fit, brisque, model_file, normalised, regressor, scene_statistics


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    return dead_leaves(0).astype(np.float32)


def slow_fit(values: np.ndarray) -> tuple[float, float, float]:
    """Moments of an asymmetric generalised Gaussian, solved by a root finder instead of a table."""
    flat = values.astype(np.float64).ravel()
    left, right = (np.sqrt(np.mean(side**2)) for side in (flat[flat < 0], flat[flat >= 0]))
    balance = left / right
    ratio = np.mean(np.abs(flat)) ** 2 / np.mean(flat**2)
    wanted = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = optimize.brentq(lambda a: gamma(2 / a) ** 2 / (gamma(1 / a) * gamma(3 / a)) - wanted, 0.2, 10)
    return shape, left, right


def test_normalised_luma_agrees_with_plain_convolution(picture):
    axis = np.arange(7) - 3
    window = np.exp(-(axis[:, None] ** 2 + axis[None] ** 2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    image = picture[:64, :80].astype(np.float64)
    mean, power = (signal.convolve2d(plane, window, "valid") for plane in (image, image**2))
    expected = (image[3:-3, 3:-3] - mean) / (np.sqrt(np.abs(power - mean**2)) + 1)
    np.testing.assert_allclose(normalised(picture[:64, :80])[3:-3, 3:-3], expected, atol=5e-3)


@pytest.mark.parametrize("shape", [0.6, 1.0, 2.0, 4.0])
def test_the_fit_finds_shape_and_both_deviations(shape):
    rng = np.random.default_rng(0)
    values = np.abs(stats.gennorm.rvs(shape, size=200_000, random_state=rng))
    values *= np.where(rng.random(200_000) < 0.5, -0.7, 1.3)
    found = asymmetric_fit(values.astype(np.float32))
    np.testing.assert_allclose(found, slow_fit(values.astype(np.float32)), rtol=2e-3)
    assert found[1] / found[2] == pytest.approx(0.7 / 1.3, rel=0.02)


def test_statistics_are_those_of_the_paper(picture):
    found = scene_statistics(picture)
    normal = normalised(picture)
    shape, left, right = slow_fit(normal[1:, :-1] * normal[:-1, 1:])
    mean = (right - left) * gamma(2 / shape) / gamma(1 / shape) * np.sqrt(gamma(1 / shape) / gamma(3 / shape))
    assert found.shape == (36,)
    np.testing.assert_allclose(found[14:18], [shape, mean, left**2, right**2], rtol=5e-3)


def test_the_regressor_is_a_sum_over_its_support_vectors():
    model = regressor()
    assert model.vectors.shape == (770, 36)
    lines = model_file().read_text().splitlines()
    weight, *entries = lines[8].split()
    assert model.weights[0] == float(weight)
    np.testing.assert_array_equal(model.vectors[0], [float(entry.split(":")[1]) for entry in entries])
    at = naturalness._LEAST + (model.vectors[3] + 1) / 2 * (naturalness._GREATEST - naturalness._LEAST)
    slow = sum(w * np.exp(-0.05 * np.sum((v - model.vectors[3]) ** 2)) for w, v in zip(*_parts(model), strict=True))
    assert model.predict(at) == pytest.approx(slow + 155.845, rel=1e-9)


def _parts(model):
    return model.weights, model.vectors


@pytest.mark.parametrize("seed", range(3))
def test_the_score_rises_with_blur_noise_and_compression(seed):
    luma = dead_leaves(seed)
    rng = np.random.default_rng(1)
    grain = rng.normal(size=luma.shape)
    ways = {
        "blur": [cv2.GaussianBlur(luma, (0, 0), sigma) for sigma in (1, 1.5, 2, 3)],
        "noise": [np.clip(luma + deviation * grain, 0, 255) for deviation in (8, 14, 22, 32)],
        "jpeg": [cv2.imdecode(cv2.imencode(".jpg", luma, [1, q])[1], cv2.IMREAD_GRAYSCALE) for q in (90, 30, 10, 5)],
    }
    for way, pictures in ways.items():
        scores = [brisque(image.astype(np.float32)) for image in pictures]
        assert scores == sorted(scores), way
        assert scores[-1] > scores[0] + 15, way
        assert all(0 < score < 100 for score in scores), way


def test_a_uniform_picture_has_no_score():
    assert np.isnan(brisque(np.full((64, 64), 90, np.float32)))


def test_another_file_is_refused(monkeypatch):
    monkeypatch.setattr(naturalness, "MODEL_SHA256", "0" * 64)
    with pytest.raises(InputError, match=r"brisque==0\.2\.0"):
        model_file()
