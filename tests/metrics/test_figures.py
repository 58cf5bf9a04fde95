"""Every figure against scikit-learn or a case worked by hand, with and without ties."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn import metrics as sk

from unmask.metrics import (
    accuracy,
    brier,
    calibration_intercept,
    calibration_slope,
    confusion,
    equal_error_rate,
    expected_calibration_error,
    f1,
    false_positive_rate,
    negative_log_likelihood,
    pr_auc,
    precision,
    recall,
    roc_auc,
    roc_points,
    tpr_at_fpr,
)
from unmask.metrics.curves import SortedScores
from unmask.metrics.figures import weighted_form


def _data(seed: int, n: int = 200, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = 0, 1
    probabilities = 1 / (1 + np.exp(-(2 * labels - 1 + rng.standard_normal(n) * 1.5)))
    return labels, np.round(probabilities, 1) if ties else probabilities


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_equal_to_scikit_learn(seed: int, ties: bool) -> None:
    y, p = _data(seed, ties=ties)
    called = p >= 0.4
    assert roc_auc(y, p) == pytest.approx(sk.roc_auc_score(y, p), abs=1e-12)
    assert pr_auc(y, p) == pytest.approx(sk.average_precision_score(y, p), abs=1e-12)
    assert brier(y, p) == pytest.approx(sk.brier_score_loss(y, p), abs=1e-12)
    inside = np.clip(p, 1e-6, 1 - 1e-6)
    assert negative_log_likelihood(y, inside) == pytest.approx(sk.log_loss(y, inside), abs=1e-9)
    assert accuracy(y, p, 0.4) == pytest.approx(sk.accuracy_score(y, called))
    assert precision(y, p, 0.4) == pytest.approx(sk.precision_score(y, called))
    assert recall(y, p, 0.4) == pytest.approx(sk.recall_score(y, called))
    assert f1(y, p, 0.4) == pytest.approx(sk.f1_score(y, called))
    assert confusion(y, p, 0.4) == tuple(map(tuple, sk.confusion_matrix(y, called).tolist()))
    fpr, tpr, _ = sk.roc_curve(y, p, drop_intermediate=False)
    for limit in (0.0, 0.01, 0.05, 0.5):
        assert tpr_at_fpr(y, p, limit) == pytest.approx(tpr[fpr <= limit].max())
    gap = fpr - (1 - tpr)
    k = int(np.argmax(gap >= 0))
    crossing = fpr[k - 1] + (fpr[k] - fpr[k - 1]) * -gap[k - 1] / (gap[k] - gap[k - 1])
    assert equal_error_rate(y, p) == pytest.approx(crossing, abs=1e-12)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_points_draw_the_curve_of_scikit_learn(ties: bool) -> None:
    y, p = _data(3, ties=ties)
    points = np.array(roc_points(y, p))
    fpr, tpr, _ = sk.roc_curve(y, p, drop_intermediate=False)
    assert np.all(np.isfinite(points))
    assert points[0, 1:].tolist() == [0, 0]
    assert points[-1, 1:].tolist() == [1, 1]
    assert np.all(np.diff(points[:, 0]) < 0)
    assert sk.auc(points[:, 1], points[:, 2]) == pytest.approx(roc_auc(y, p), abs=1e-12)
    corners = {(round(a, 12), round(b, 12)) for a, b in zip(fpr, tpr, strict=True)}
    assert {(round(a, 12), round(b, 12)) for _, a, b in points} <= corners
    for threshold, false_rate, true_rate in points:
        assert false_positive_rate(y, p, threshold) == pytest.approx(false_rate)
        assert recall(y, p, threshold) == pytest.approx(true_rate)
    assert len(roc_points(y, p, max_points=5)) <= 5
    assert len(roc_points(y, p)) < len(y)


def test_worked_by_hand() -> None:
    y = np.array([0, 0, 1, 1])
    p = np.array([0.1, 0.4, 0.35, 0.8])
    assert roc_auc(y, p) == 0.75
    assert pr_auc(y, p) == pytest.approx(5 / 6)
    assert brier(y, p) == pytest.approx((0.01 + 0.16 + 0.65**2 + 0.04) / 4)
    assert tpr_at_fpr(y, p, 0.0) == 0.5
    assert equal_error_rate(y, p) == 0.5
    assert confusion(y, p, 0.36) == ((1, 1), (1, 1))
    # Two bins of two: |0 + 1 - .1 - .35| = .55 and |0 + 1 - .4 - .8| = .2, over 4 samples.
    assert expected_calibration_error(y, p, bins=2) == pytest.approx((0.55 + 0.2) / 4)
    assert roc_auc(y, np.full(4, 0.5)) == 0.5
    assert expected_calibration_error(y, np.full(4, 0.75)) == pytest.approx(0.25)


def test_bins_of_equal_mass_when_nothing_is_tied() -> None:
    y, p = _data(8, n=150)
    order = np.argsort(p)
    gaps = [abs((y[b] - p[b]).sum()) for b in np.array_split(order, 15)]
    assert expected_calibration_error(y, p, bins=15) == pytest.approx(sum(gaps) / 150)


def test_order_of_samples_does_not_matter() -> None:
    y, p = _data(4, ties=True)
    shuffled = np.random.default_rng(0).permutation(len(y))
    for metric in (roc_auc, pr_auc, equal_error_rate, brier, expected_calibration_error):
        assert metric(y, p) == pytest.approx(metric(y[shuffled], p[shuffled]), abs=1e-12)


@pytest.mark.parametrize("label", [0, 1])
def test_undefined_figures_are_none(label: int) -> None:
    y, p = np.full(3, label), np.array([0.2, 0.3, 0.9])
    for metric in (roc_auc, pr_auc, equal_error_rate, partial(tpr_at_fpr, max_fpr=0.1)):
        assert metric(y, p) is None
    assert roc_points(y, p) == ()
    assert (recall(y, p) is None) == (label == 0)
    assert (false_positive_rate(y, p) is None) == (label == 1)
    assert precision(y, p, threshold=0.95) is None
    assert brier(y, p) is not None
    for metric in (roc_auc, brier, negative_log_likelihood, expected_calibration_error, accuracy, f1):
        assert metric(np.array([], dtype=int), np.array([])) is None


@pytest.mark.parametrize(
    ("labels", "scores", "what"),
    [([0, 1], [0.1], "length"), ([0, 2], [0.1, 0.2], "0 .real"), ([0, 1], [0.1, np.nan], "finite")],
)
def test_bad_input_is_refused(labels: list[int], scores: list[float], what: str) -> None:
    with pytest.raises(ValueError, match=what):
        roc_auc(labels, scores)


@pytest.mark.parametrize("ties", [False, True])
def test_weights_mean_repeated_rows(ties: bool) -> None:
    y, p = _data(5, n=60, ties=ties)
    weights = np.random.default_rng(1).integers(0, 4, (7, 60)).astype(np.int32)
    metrics = [
        roc_auc, pr_auc, equal_error_rate, partial(tpr_at_fpr, max_fpr=0.1), brier, negative_log_likelihood,
        expected_calibration_error, partial(expected_calibration_error, bins=4), accuracy, precision, recall,
        false_positive_rate, f1, partial(f1, threshold=0.7), calibration_slope, calibration_intercept,
    ]  # fmt: skip
    for metric in metrics:
        form = weighted_form(metric)
        assert form is not None
        got = form(SortedScores(y, p).weigh(weights))
        for row, counts in enumerate(weights):
            rows = np.repeat(np.arange(60), counts)
            assert got[row] == pytest.approx(metric(y[rows], p[rows]), abs=1e-9 if "slope" in str(metric) else 1e-11)


def test_calibration_line_as_statsmodels() -> None:
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 150)
    logits = 1.4 * (labels - 0.35) + rng.standard_normal(150)
    p = 1 / (1 + np.exp(-logits))
    line = api.Logit(labels, api.add_constant(logits)).fit(disp=0)
    assert calibration_slope(labels, p) == pytest.approx(line.params[1], abs=1e-7)
    shifted = api.GLM(labels, np.ones((150, 1)), family=api.families.Binomial(), offset=logits).fit()
    assert calibration_intercept(labels, p) == pytest.approx(shifted.params[0], abs=1e-7)


def test_calibration_line_by_hand() -> None:
    """Of samples that were all called 0.2, half are fake: logit 0.5 less logit 0.2. Twice too sure: slope a half."""
    labels = np.tile([0, 1], 50)
    assert calibration_intercept(labels, np.full(100, 0.2)) == pytest.approx(np.log(4), abs=1e-9)
    logits = np.repeat([-2.0, 2.0], 1000)
    share = 1 / (1 + np.exp(-logits / 2))
    right = (np.tile(np.arange(1000) / 1000, 2) < share).astype(int)
    assert calibration_slope(right, 1 / (1 + np.exp(-logits))) == pytest.approx(0.5, abs=0.01)
    assert calibration_slope([0, 0, 1, 1], [0.1, 0.2, 0.8, 0.9]) is None
    assert calibration_slope([0, 0], [0.1, 0.2]) is None
    assert calibration_intercept([1, 1], [0.1, 0.2]) is None
