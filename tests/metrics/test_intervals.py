"""Intervals: exact against scipy, the fast bootstrap against a plain loop, coverage in simulation."""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from unmask.metrics import (
    accuracy,
    bootstrap_estimate,
    bootstrap_estimates,
    bootstrap_values,
    brier,
    calibration_error_if_perfect,
    clopper_pearson,
    expected_calibration_error,
    f1,
    negative_log_likelihood,
    roc_auc,
)
from unmask.metrics.intervals import group_codes, resample_counts


@pytest.mark.parametrize(("k", "n"), [(0, 10), (10, 10), (3, 17), (59, 600), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_clopper_pearson_is_the_exact_interval(k: int, n: int, confidence: float) -> None:
    expected = stats.binomtest(k, n).proportion_ci(confidence, method="exact")
    got = clopper_pearson(k, n, confidence)
    assert (got.value, got.n) == (k / n, n)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_clopper_pearson_worked_by_hand() -> None:
    assert clopper_pearson(0, 59).high == pytest.approx(1 - 0.025 ** (1 / 59))
    assert clopper_pearson(0, 0).value is None
    with pytest.raises(ValueError, match="3 successes of 2"):
        clopper_pearson(3, 2)


def _clustered(seed: int, groups: int, size: int = 4, shift: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups of half reals and half fakes that share a random effect on either class."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), size)
    labels = np.tile(np.arange(size) % 2, groups)
    effect = rng.standard_normal((groups, 2))[group, labels]
    return labels, shift * labels + 0.8 * effect + 0.6 * rng.standard_normal(len(group)), group


def test_resamples_draw_whole_groups() -> None:
    rng = np.random.default_rng(0)
    counts = np.concatenate(list(resample_counts(50, 999, 200_000, rng)))
    assert counts.shape == (999, 50)
    assert np.all(counts.sum(axis=1) == 50)
    assert counts.var(axis=1).mean() == pytest.approx(1 - 1 / 50, rel=0.05)


def test_equal_to_a_plain_loop_on_the_same_draws() -> None:
    y, s, g = _clustered(1, 12)
    names = np.array([f"g{k}" for k in g], dtype=object)
    values = bootstrap_values(
        [roc_auc, partial(f1, threshold=0.4)], y, s, names, rng=np.random.default_rng(5), resamples=40
    )
    counts = np.concatenate(list(resample_counts(12, 40, len(y), np.random.default_rng(5))))
    for row, count in enumerate(counts):
        rows = np.concatenate([np.flatnonzero(g == k) for k in range(12) for _ in range(count[k])])
        assert values[row, 0, 0] == pytest.approx(roc_auc_score(y[rows], s[rows]), abs=1e-12)
        assert values[row, 0, 1] == pytest.approx(f1(y[rows], s[rows], 0.4), abs=1e-12)


def test_own_figures_work_and_agree_with_the_fast_path() -> None:
    y, s, g = _clustered(2, 10)
    slow = bootstrap_estimate(lambda a, b: roc_auc(a, b), y, s, g, rng=np.random.default_rng(1), resamples=100)
    fast = bootstrap_estimate(roc_auc, y, s, g, rng=np.random.default_rng(1), resamples=100)
    assert slow.value == fast.value
    assert slow.low < slow.value < slow.high
    metrics = [roc_auc, lambda a, b: roc_auc(a, b)]
    both = bootstrap_values(metrics, y, s, g, rng=np.random.default_rng(1), resamples=100)[:, 0]
    assert both[:, 0] == pytest.approx(both[:, 1], abs=1e-12)
    assert fast.method == "cluster bootstrap over 10 groups, 100 resamples, t on the logit scale"
    assert slow.method == "cluster bootstrap over 10 groups, 100 resamples, percentile widened for the number of groups"
    assert fast != bootstrap_estimate(roc_auc, y, s, g, rng=np.random.default_rng(2), resamples=100)


def test_systems_share_their_resamples() -> None:
    y, s, g = _clustered(3, 15)
    both = bootstrap_estimates(
        {"auc": roc_auc, "acc": accuracy}, y, {"a": s, "b": s}, g, rng=np.random.default_rng(1), resamples=200
    )
    assert both["a"] == both["b"]
    assert set(both["a"]) == {"auc", "acc"}


def test_resamples_with_one_class_are_left_out_and_counted() -> None:
    y, s = np.array([0, 0, 1, 1, 0, 1]), np.array([0.1, 0.7, 0.6, 0.9, 0.3, 0.2])
    groups = ["a", "a", "b", "b", "c", "c"]
    estimate = bootstrap_estimate(roc_auc, y, s, groups, rng=np.random.default_rng(0), resamples=2000)
    assert "undefined left out" in estimate.method
    dropped = int(estimate.method.split(", ")[-1].split()[0])
    # One class only: all three draws are a, or all three are b: 2 of 27.
    assert dropped == pytest.approx(2000 * 2 / 27, abs=40)
    ones, rng = np.ones(4, dtype=int), np.random.default_rng(0)
    one_class = bootstrap_estimate(roc_auc, ones, np.arange(4.0), list("abcd"), rng=rng, resamples=100)
    assert (one_class.value, one_class.low, one_class.n) == (None, None, 4)


def test_one_group_has_no_interval_and_missing_groups_stand_alone() -> None:
    y, s, _ = _clustered(4, 3)
    single = bootstrap_estimate(roc_auc, y, s, np.zeros(len(y)), rng=np.random.default_rng(0), resamples=100)
    assert (single.low, single.method) == (None, "no interval: 1 groups")
    codes, n_groups = group_codes(np.array(["x", None, "x", None], dtype=object))
    assert (codes.tolist(), n_groups) == ([0, 1, 0, 2], 3)


def test_perfect_ranking_is_bounded_by_independent_pairs() -> None:
    y, s = np.array([0, 1] * 6), np.array([0.0, 1.0] * 6)
    groups = np.arange(12) // 2
    estimate = bootstrap_estimate(roc_auc, y, s, groups, rng=np.random.default_rng(0), resamples=100)
    assert (estimate.value, estimate.high) == (1.0, 1.0)
    assert estimate.low == pytest.approx(0.025 ** (1 / 3))  # six groups make three pairs that share no group
    flipped = bootstrap_estimate(roc_auc, y, -s, groups, rng=np.random.default_rng(0), resamples=100)
    assert flipped.high == pytest.approx(1 - 0.025 ** (1 / 3))


def test_expected_calibration_error_of_perfect_probabilities() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(600)
    labels = (rng.random(600) < p).astype(int)
    perfect = calibration_error_if_perfect(p, rng=np.random.default_rng(1))
    assert perfect.low <= expected_calibration_error(labels, p) <= perfect.high
    assert 0.03 < perfect.value < 0.06
    assert expected_calibration_error(1 - labels, p) > perfect.high


@pytest.mark.parametrize("decimals", [1, 2, 9])
def test_expected_calibration_error_is_drawn_as_it_is_measured(decimals: int) -> None:
    """The quick way with bins that are made once, against the plain figure of each draw."""
    p = np.random.default_rng(2).random(137).round(decimals)
    quick = calibration_error_if_perfect(p, rng=np.random.default_rng(1), draws=40)
    rng = np.random.default_rng(1)
    plain = [expected_calibration_error((rng.random(137) < p).astype(int), p) for _ in range(40)]
    assert quick.value == pytest.approx(np.mean(plain), abs=1e-12)
    assert (quick.low, quick.high) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=1e-12)


def test_interval_by_hand() -> None:
    """Logit, bootstrap standard error times √(G / (G - 1)), and the t quantile of G - 1."""
    y, s, g = _clustered(6, 8)
    values = bootstrap_values([roc_auc], y, s, g, rng=np.random.default_rng(3), resamples=500)[:, 0, 0]
    e = bootstrap_estimate(roc_auc, y, s, g, rng=np.random.default_rng(3), resamples=500)
    reach = 2.364624 * np.std(values) * np.sqrt(8 / 7) / (e.value * (1 - e.value))
    logit = np.log(e.value / (1 - e.value))
    assert e.low == pytest.approx(1 / (1 + np.exp(-(logit - reach))), abs=1e-6)
    assert e.high == pytest.approx(1 / (1 + np.exp(-(logit + reach))), abs=1e-6)
    loss = bootstrap_estimate(
        negative_log_likelihood, y, np.full(len(y), 0.01), g, rng=np.random.default_rng(3), resamples=99
    )
    assert loss.value > 1
    assert loss.method.endswith("t on the log scale")


@pytest.mark.parametrize("n_groups", [10, 40])
def test_intervals_cover_the_truth(n_groups: int, capsys: pytest.CaptureFixture[str]) -> None:
    """300 data sets with correlated members of groups; resampling by sample instead is too narrow."""

    def scores(seed: int, groups: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y, s, g = _clustered(seed, groups)
        return y, 1 / (1 + np.exp(-s)), g

    truth = {metric: metric(*scores(12345, 50_000)[:2]) for metric in (roc_auc, brier)}
    covered = dict.fromkeys(["AUC by group", "Brier by group", "AUC by sample"], 0)
    for seed in range(300):
        y, s, g = scores(seed, n_groups)
        ways = ((roc_auc, g), (brier, g), (roc_auc, np.arange(len(y))))
        for name, (metric, groups) in zip(covered, ways, strict=True):
            e = bootstrap_estimate(metric, y, s, groups, rng=np.random.default_rng(seed), resamples=300)
            covered[name] += e.low <= truth[metric] <= e.high
    share = {name: count / 300 for name, count in covered.items()}
    with capsys.disabled():
        sys.stdout.write(f"\ncoverage of 95 % intervals, {n_groups} groups: {share}\n")
    # The binomial error of 300 simulations at 95 % is 1.3 points.
    assert 0.915 <= share["AUC by group"] <= 0.985
    assert 0.915 <= share["Brier by group"] <= 0.985
    assert share["AUC by sample"] < share["AUC by group"] - 0.02
