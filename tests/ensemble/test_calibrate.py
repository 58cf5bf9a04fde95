"""Temperatures: recovered where the truth is known, bounded where there is none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize

from unmask.ensemble.apply import sigmoid
from unmask.ensemble.calibrate import (
    HIGHEST_TEMPERATURE,
    LOWEST_TEMPERATURE,
    fit_slope,
    fit_temperature,
    likelihood_loss,
    smoothed_targets,
)
from unmask.metrics import expected_calibration_error, negative_log_likelihood


@pytest.mark.parametrize("truth", [0.3, 1.0, 2.5, 8.0])
def test_temperature_is_recovered(truth: float) -> None:
    rng = np.random.default_rng(int(truth * 10))
    z = 2 * rng.standard_normal(20_000)
    labels = (rng.random(20_000) < sigmoid(z)).astype(int)
    fitted = fit_temperature(labels, z * truth)
    assert fitted.value == pytest.approx(truth, rel=0.05)
    assert fitted.note == ""
    before, after = (negative_log_likelihood(labels, sigmoid(z * truth / t)) for t in (1.0, fitted.value))
    assert after <= before + 1e-6
    assert expected_calibration_error(labels, sigmoid(z * truth / fitted.value)) < 0.02


@pytest.mark.parametrize("n", [6, 30, 500])
def test_newton_finds_what_scipy_finds(n: int) -> None:
    rng = np.random.default_rng(n)
    labels = np.arange(n) % 2
    z = 3 * labels + 2 * rng.standard_normal(n)
    target = smoothed_targets(labels)
    bounds = (np.log(1 / HIGHEST_TEMPERATURE), np.log(1 / LOWEST_TEMPERATURE))
    best = optimize.minimize_scalar(
        lambda a: likelihood_loss(np.exp(a) * z, target), bounds=bounds, method="bounded", options={"xatol": 1e-10}
    )
    assert likelihood_loss(fit_slope(z, target) * z, target) <= best.fun + 1e-10
    assert fit_slope(z, target, start=15.0) == pytest.approx(fit_slope(z, target, start=0.05), rel=1e-6)


def test_one_class_says_nothing() -> None:
    fitted = fit_temperature(np.ones(5, dtype=int), np.arange(5.0))
    assert fitted.value == 1.0
    assert "one class" in fitted.note
    assert fit_temperature(np.array([], dtype=int), np.array([])).value == 1.0


def test_separated_samples_do_not_become_certain() -> None:
    """Six samples in perfect order justify about 80 % (4 of 5), not 99.9 %."""
    fitted = fit_temperature(np.array([0, 0, 0, 1, 1, 1]), np.array([-9.0, -9.0, -9.0, 9.0, 9.0, 9.0]))
    assert sigmoid(np.array([9.0]) / fitted.value)[0] == pytest.approx(0.8, abs=1e-6)


def test_useless_scores_reach_the_bound_and_say_so() -> None:
    labels = np.array([0, 1] * 50)
    upside_down = fit_temperature(labels, np.where(labels == 1, -1.0, 1.0))
    assert upside_down.value == pytest.approx(HIGHEST_TEMPERATURE, rel=1e-5)
    assert "do not rank" in upside_down.note
    tiny = fit_temperature(labels, np.where(labels == 1, 0.001, -0.001))
    assert tiny.value == pytest.approx(LOWEST_TEMPERATURE, rel=1e-5)
    assert "separate" in tiny.note
    assert np.isfinite(fit_temperature(labels, np.zeros(100)).value)
