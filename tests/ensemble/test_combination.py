"""Combinations whose weights depend on the sample, stacking, and kinds of calibration."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from unmask.config import EnsembleConfig
from unmask.ensemble.apply import apply_calibration, combine, sigmoid, stack
from unmask.ensemble.calibrate import choose_calibration, fit_calibration, fit_platt, likelihood_loss
from unmask.ensemble.combination import by_attention, by_confidence, by_stacking, combiners
from unmask.ensemble.selection import choose_weights
from unmask.errors import LeakError
from unmask.metrics import roc_auc
from unmask.schemas import DetectorCalibration, EnsembleInfo


def test_sample_weights_by_hand() -> None:
    z = np.array([[2.0, 0.0, -1.0], [1.0, np.nan, np.nan], [np.nan] * 3])
    w = np.array([0.5, 0.25, 0.25])
    p = 1 / (1 + np.exp(-z[0]))
    others = np.array([(p[1] + p[2]) / 2, (p[0] + p[2]) / 2, (p[0] + p[1]) / 2])
    eff = w * (0.05 + np.abs(2 * p - 1)) ** 1.5 * np.exp(-3 * np.abs(p - others))
    combined = combine(z, w, certainty=1.5, deviation=3.0)
    assert combined[0] == pytest.approx((eff * z[0]).sum() / eff.sum())
    assert combined[1] == pytest.approx(1.0)
    assert np.isnan(combined[2])
    assert combine(z, w, 0.0, 1e-12)[:2] == pytest.approx(combine(z, w)[:2])
    assert stack(z, [1.0, 2.0, 3.0, 0.5]) == pytest.approx([2 - 3 + 0.5, 1.5, np.nan], nan_ok=True)


def _outliers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three detectors; in a tenth of the samples one of them is thrown far off, sure of itself."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    z = (2 * y - 1)[:, None] * 1.2 + rng.standard_normal((n, 3))
    thrown = rng.random(n) < 0.25
    z[thrown, rng.integers(0, 3, thrown.sum())] = rng.choice([-6.0, 6.0], thrown.sum())
    return y, z


def test_attention_learns_to_leave_out_the_one_that_is_alone() -> None:
    y, z = _outliers(1500, 0)
    fitted = by_attention(z, y, np.random.default_rng(0))
    assert fitted.deviation > 1
    fresh_y, fresh = _outliers(5000, 1)
    equal = roc_auc(fresh_y, combine(fresh, np.full(3, 1 / 3)))
    assert roc_auc(fresh_y, fitted.apply(fresh)) > equal + 0.01


def test_attention_is_the_mean_when_detectors_are_alike() -> None:
    y = np.arange(40) % 2
    z = np.repeat((2 * y - 1 + np.random.default_rng(0).standard_normal(40))[:, None], 3, axis=1)
    fitted = by_attention(z, y, np.random.default_rng(0))
    assert fitted.weights == pytest.approx(1 / 3, abs=1e-3)
    assert fitted.apply(z) == pytest.approx(z[:, 0])


def test_confidence_follows_the_sure_detector() -> None:
    z = np.array([[4.0, -0.1]])
    sure = by_confidence(z, np.array([1]), np.random.default_rng(0)).apply(z)[0]
    assert sure > combine(z, np.array([0.5, 0.5]))[0] + 1


def test_stacking_is_logistic_regression() -> None:
    rng = np.random.default_rng(0)
    y = np.arange(800) % 2
    shared = rng.standard_normal(800)
    z = np.stack([2 * y - 1 + 1.5 * shared + 0.5 * rng.standard_normal(800), shared], axis=1)
    fitted = by_stacking(z, y, rng)
    plain = LogisticRegression(C=1 / (0.01 * 800), tol=1e-10, max_iter=1000).fit(z, y)
    assert fitted.stacking == pytest.approx([*plain.coef_[0], plain.intercept_[0]], abs=0.05)
    assert fitted.stacking[1] < 0  # the second detector knows only what disturbs the first
    assert roc_auc(y, fitted.apply(z)) > roc_auc(y, combine(z, np.full(2, 0.5))) + 0.05


@pytest.mark.parametrize("name", list(combiners(3)))
def test_every_way_survives_gaps_and_single_classes(name: str) -> None:
    rng = np.random.default_rng(0)
    z = rng.standard_normal((30, 3))
    z[rng.random((30, 3)) < 0.3] = np.nan
    z[0] = np.nan
    for y in (np.arange(30) % 2, np.ones(30, dtype=int)):
        fitted = combiners(3)[name](z, y, np.random.default_rng(0))
        combined = fitted.apply(z)
        assert np.isnan(combined[np.isnan(z).all(axis=1)]).all()
        assert np.isfinite(combined[~np.isnan(z).all(axis=1)]).all()
        assert fitted.weights.sum() == pytest.approx(1)


def _detector(n: int, seed: int, shape: str) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    truth = 2 * rng.standard_normal(n) + (1.5 if shape == "shifted" else 0)
    label = (rng.random(n) < sigmoid(truth)).astype(int)
    logit = {"plain": 3 * truth, "shifted": 3 * (truth - 1.5), "bent": np.sign(truth) * truth**2}[shape]
    keys = {"sample_id": [f"{k:05d}" for k in range(n)], "label": label, "group_id": np.arange(n) // 2}
    return pd.DataFrame(keys | {"split": "calib", "a": logit, "truth": truth})


@pytest.mark.parametrize(("shape", "expected"), [("shifted", {"platt"}), ("bent", {"isotonic"})])
def test_the_right_kind_of_calibration_is_chosen(shape: str, expected: set[str]) -> None:
    rows = _detector(3000, 1, shape)
    kind = choose_calibration(rows, "a", folds=5, rng=np.random.default_rng(0))
    assert kind in expected
    fitted = fit_calibration(rows["label"], rows["a"], kind)
    fresh = _detector(20_000, 2, shape)
    y = fresh["label"].to_numpy(dtype=float)
    loss = likelihood_loss(apply_calibration(fitted, fresh["a"]), y)
    assert loss < likelihood_loss(
        apply_calibration(fit_calibration(rows["label"], rows["a"], "temperature"), fresh["a"]), y
    )
    assert loss == pytest.approx(likelihood_loss(fresh["truth"].to_numpy(), y), abs=0.01)


def test_few_samples_get_a_temperature() -> None:
    assert choose_calibration(_detector(30, 3, "shifted"), "a", folds=5, rng=np.random.default_rng(0)) == "temperature"
    assert fit_calibration(np.ones(5, dtype=int), np.arange(5.0), "isotonic").kind == "temperature"
    upside_down = fit_calibration(np.arange(60) % 2, -(np.arange(60) % 2).astype(float), "platt")
    assert upside_down.kind == "temperature"
    with pytest.raises(LeakError):
        choose_calibration(_detector(30, 3, "plain").assign(split="test"), "a", folds=5, rng=np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["temperature", "platt", "isotonic"])
def test_calibration_keeps_the_order(kind: str) -> None:
    rows = _detector(500, 4, "bent")
    fitted = fit_calibration(rows["label"], rows["a"], kind)
    assert fitted.kind == kind
    places = np.linspace(-100, 100, 4001)
    moved = apply_calibration(fitted, places)
    assert np.all(np.diff(moved) > 0)
    assert np.isnan(apply_calibration(fitted, np.array([np.nan]))).all()


def test_isotonic_by_hand() -> None:
    knots = DetectorCalibration(kind="isotonic", knots=[(0.0, -1.0), (1.0, 1.0), (2.0, 1.5)])
    assert apply_calibration(knots, [-1.0, 0.5, 1.5, 3.0]).tolist() == [-3.0, 0.0, 1.25, 2.0]


def _rows(n: int, seed: int) -> pd.DataFrame:
    y, z = _outliers(n, seed)
    keys = {"sample_id": [f"{k:05d}" for k in range(n)], "label": y, "group_id": np.arange(n) // 2, "split": "calib"}
    return pd.DataFrame(keys | {name: z[:, k] for k, name in enumerate("abc")})


@pytest.mark.parametrize("method", ["equal", "bayesian", "confidence", "attention", "stacking"])
def test_the_configuration_decides_and_the_gain_is_told(method: str) -> None:
    config = EnsembleConfig(trials=8, folds=3, method=method)
    choice = choose_weights(_rows(200, 5), list("abc"), config, np.random.default_rng(0))
    assert choice.method == method
    assert "configuration says" in choice.decision
    assert {"equal", "bayesian", "logistic", "best_single", "confidence", "attention", "stacking"} <= set(
        choice.candidates
    )
    tiny = choose_weights(_rows(10, 5), list("abc"), config, np.random.default_rng(0))
    assert tiny.method == "equal"


def test_offsets_reach_the_combined_probability() -> None:
    rows = _detector(1200, 6, "shifted").assign(b=lambda r: r["a"])
    config = EnsembleConfig(trials=5, folds=3, calibration="auto")
    choice = choose_weights(rows, ["a", "b"], config, np.random.default_rng(0))
    assert [calibration.kind for calibration in choice.calibrations] == ["platt", "platt"]
    slope, offset = fit_platt(rows["label"], rows["a"])
    assert choice.calibrations[0].slope == pytest.approx(slope)
    assert choice.calibrations[0].offset == pytest.approx(offset)
    assert choice.temperature.value == pytest.approx(1.0, abs=0.02)


def test_older_documents_still_read() -> None:
    """An ensemble.json written before there were other ways than weights."""
    old = {"detectors": ["a"], "temperatures": [2.0], "weights": [1.0], "temperature": 1.0, "method": "single"}
    info = EnsembleInfo.model_validate(old | {"decision": "", "candidates": {}, "agreement_threshold": 0.8})
    assert (info.calibrations, info.certainty, info.deviation, info.stacking) == ([], 0.0, 0.0, [])
