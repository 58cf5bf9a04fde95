"""Operating points: optimal by trying everything, honest about small n, blind to test rows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from unmask.errors import LeakError
from unmask.fusion.thresholds import choose_operating_points, reals_needed
from unmask.metrics import f1, false_positive_rate, precision, recall


def _rows(n: int, seed: int, ties: bool = False) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    probability = 1 / (1 + np.exp(-(2 * label - 1 + 1.5 * rng.standard_normal(n))))
    return pd.DataFrame(
        {"label": label, "probability": probability.round(1) if ties else probability, "split": "calib"}
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [2, 9, 60, 300])
def test_no_other_threshold_is_better(n: int, ties: bool) -> None:
    rows = _rows(n, n, ties)
    y, p = rows["label"].to_numpy(), rows["probability"].to_numpy()
    points = choose_operating_points(rows, 0.1)
    every = np.unique(np.concatenate([p, np.nextafter(p, 1), [0.0, 1.0]]))
    youden = [recall(y, p, t) - false_positive_rate(y, p, t) for t in every]
    at = points["youden"].threshold
    assert f1(y, p, points["max_f1"].threshold) == pytest.approx(max(f1(y, p, t) for t in every))
    assert recall(y, p, at) - false_positive_rate(y, p, at) == pytest.approx(max(youden))
    limited = points["target_fpr"]
    assert limited.fpr.value <= 0.1
    assert limited.tpr.value == pytest.approx(
        max(recall(y, p, t) for t in every if false_positive_rate(y, p, t) <= 0.1)
    )


def test_threshold_lies_between_probabilities() -> None:
    rows = pd.DataFrame({"label": [0, 0, 1, 1], "probability": [0.1, 0.3, 0.7, 0.9], "split": "calib"})
    points = choose_operating_points(rows, 0.05)
    assert [point.threshold for point in points.values()] == [pytest.approx(0.5)] * 4
    assert [*points] == ["max_f1", "youden", "target_fpr", "fixed_precision"]
    assert all(point.name == name for name, point in points.items())


def test_59_reals_are_needed_for_5_percent() -> None:
    assert reals_needed(0.05) == 59
    assert reals_needed(0.01) == 299
    assert stats.binomtest(0, 59, alternative="less").proportion_ci(0.95, method="exact").high <= 0.05
    assert stats.binomtest(0, 58, alternative="less").proportion_ci(0.95, method="exact").high > 0.05
    for reals, resolvable in ((58, False), (59, True)):
        rows = _rows(2 * reals, 0)
        point = choose_operating_points(rows, 0.05)["target_fpr"]
        assert (point.fpr.n, point.resolvable) == (reals, resolvable)
        assert ("59 without a false alarm" in point.note) == (not resolvable)


def test_rates_carry_their_exact_interval() -> None:
    rows = _rows(40, 3)
    point = choose_operating_points(rows, 0.05)["youden"]
    called = (rows["probability"] >= point.threshold) & (rows["label"] == 1)
    expected = stats.binomtest(int(called.sum()), 20).proportion_ci(method="exact")
    assert (point.tpr.low, point.tpr.high, point.tpr.n) == pytest.approx((expected.low, expected.high, 20))


def test_few_samples_do_not_resolve_any_point() -> None:
    rows = pd.DataFrame({"label": [0, 1], "probability": [0.2, 0.8], "split": "calib"})
    points = choose_operating_points(rows, 0.05)
    assert not any(point.resolvable for point in points.values())
    assert all(point.note for point in points.values())


@pytest.mark.parametrize("labels", [[], [1, 1], [0, 0, 0]])
def test_one_class_assumes_one_half(labels: list[int]) -> None:
    rows = pd.DataFrame({"label": labels, "probability": [0.3] * len(labels), "split": ["calib"] * len(labels)})
    points = choose_operating_points(rows, 0.05)
    assert {point.threshold for point in points.values()} == {0.5}
    assert all("assumed" in point.note and not point.resolvable for point in points.values())


def test_certain_probabilities_keep_to_the_rules() -> None:
    rows = pd.DataFrame({"label": [0, 0, 1], "probability": [1.0, 0.0, 1.0], "split": "calib"})
    point = choose_operating_points(rows, 0.05)["target_fpr"]
    assert point.threshold == 1.0
    assert point.fpr.value == 0.5  # nothing lies above a probability of 1, and the point says what it costs


def test_test_rows_are_refused() -> None:
    with pytest.raises(LeakError, match="1 of test"):
        choose_operating_points(_rows(10, 0).assign(split=["calib"] * 9 + ["test"]), 0.05)


@pytest.mark.parametrize("n", [9, 60, 300])
def test_fixed_precision_finds_most_fakes_at_its_precision(n: int) -> None:
    rows = _rows(n, n)
    y, p = rows["label"].to_numpy(), rows["probability"].to_numpy()
    point = choose_operating_points(rows, 0.05, 0.8)["fixed_precision"]
    every = [t for t in np.unique(p) if precision(y, p, t) >= 0.8]
    assert precision(y, p, point.threshold) >= 0.8
    assert recall(y, p, point.threshold) == pytest.approx(max(recall(y, p, t) for t in every))
    assert "precision on calib" in point.note


def test_precision_that_cannot_be_had_or_shown_is_told() -> None:
    upside_down = pd.DataFrame({"label": [1, 1, 0, 0], "probability": [0.1, 0.2, 0.8, 0.9], "split": "calib"})
    point = choose_operating_points(upside_down, 0.05, 0.95)["fixed_precision"]
    assert not point.resolvable
    assert "no threshold reaches" in point.note
    for fakes, resolvable in ((58, False), (59, True)):  # as many right alarms in a row as 95 % needs, like 59 reals
        rows = pd.DataFrame(
            {"label": [1] * fakes + [0] * 5, "probability": [0.9] * fakes + [0.1] * 5, "split": "calib"}
        )
        assert choose_operating_points(rows, 0.05, 0.95)["fixed_precision"].resolvable == resolvable
