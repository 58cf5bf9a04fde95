"""Weights: recovered when one detector is noise, equal when nothing is gained, never from test rows."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from unmask.config import EnsembleConfig
from unmask.ensemble.folds import group_folds
from unmask.ensemble.selection import choose_weights
from unmask.ensemble.weights import bayesian_weights, best_single_weights, logistic_weights, on_simplex
from unmask.errors import LeakError

QUICK = EnsembleConfig(trials=5, folds=5)


def _rows(n: int, seed: int, **shifts: float) -> pd.DataFrame:
    """One column of logits a detector: shift × (±1) plus noise; each group is a real and its fake."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    columns = {name: shift * (2 * label - 1) + rng.standard_normal(n) for name, shift in shifts.items()}
    keys = {"sample_id": [f"{k:04d}" for k in range(n)], "label": label, "group_id": [f"g{k // 2}" for k in range(n)]}
    return pd.DataFrame(keys | {"split": "calib"} | columns)


def test_noise_gets_no_weight() -> None:
    """Twice: the search gives it none, and its temperature has already silenced it."""
    rows = _rows(600, 0, good=0.8, also=0.8, noise=0.0)
    detectors = ["good", "also", "noise"]
    weights = bayesian_weights(
        rows[detectors].to_numpy(), rows["label"].to_numpy(), np.random.default_rng(0), trials=80
    )
    assert weights.sum() == pytest.approx(1)
    assert weights[2] < 0.08
    assert weights[:2] == pytest.approx(0.5, abs=0.15)
    choice = choose_weights(rows, detectors, EnsembleConfig(trials=20, folds=5), np.random.default_rng(0))
    influence = choice.weights / [temperature.value for temperature in choice.temperatures]
    assert influence[2] < 0.1 * influence[:2].min()


def test_a_weak_detector_counted_four_times_is_found_out() -> None:
    """Calibrated logits of independent detectors are best added as they are; of near copies they count too much."""
    rows = _rows(240, 1, strong=1.0, weak=0.4)
    rng = np.random.default_rng(1)
    for k in range(3):
        rows[f"copy{k}"] = rows["weak"] + 0.05 * rng.standard_normal(len(rows))
    detectors = ["strong", "weak", "copy0", "copy1", "copy2"]
    choice = choose_weights(rows, detectors, EnsembleConfig(trials=60, folds=5), np.random.default_rng(0))
    assert choice.method == "bayesian"
    assert choice.weights[0] > 0.4
    assert choice.gain.low > 0
    assert "the interval lies above 0" in choice.decision
    assert {"equal", "bayesian", "logistic", "best_single", "detector weak"} <= set(choice.candidates)
    assert choice.candidates["bayesian"].value > choice.candidates["equal"].value


def test_optimal_weights_are_recovered() -> None:
    """For independent equal-variance logits of shifts 1.2 and 0.4 the best weights are 3 : 1 (Fisher)."""
    rows = _rows(20_000, 1, strong=1.2, weak=0.4)
    z, y = rows[["strong", "weak"]].to_numpy(), rows["label"].to_numpy()
    assert bayesian_weights(z, y, np.random.default_rng(0), trials=60)[0] == pytest.approx(0.75, abs=0.05)
    assert logistic_weights(z, y, np.random.default_rng(0))[0] == pytest.approx(0.75, abs=0.02)
    assert best_single_weights(z, y, np.random.default_rng(0))[0] > 0.999


def test_copies_keep_equal_weights() -> None:
    rows = _rows(100, 2, one=0.7)
    rows = rows.assign(two=rows["one"], three=rows["one"])
    choice = choose_weights(rows, ["one", "two", "three"], EnsembleConfig(trials=20, folds=5), np.random.default_rng(0))
    assert choice.method == "equal"
    assert choice.weights == pytest.approx(1 / 3)
    assert (choice.gain.low, choice.gain.value, choice.gain.high) == (0, 0, 0)
    assert "is not real" in choice.decision


def test_the_gate_seldom_opens_for_luck(capsys: pytest.CaptureFixture[str]) -> None:
    """Three equally good detectors on 60 calib videos: other weights than equal can only look better by luck."""
    opened = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        choice = choose_weights(
            _rows(60, 100 + seed, a=0.6, b=0.6, c=0.6), ["a", "b", "c"], EnsembleConfig(trials=10, folds=3), rng
        )
        opened += choice.method == "bayesian"
    with capsys.disabled():
        sys.stdout.write(f"\nequally good detectors: the gate opened in {opened} of 20 simulations\n")
    assert opened <= 2


@pytest.mark.parametrize("n", [2, 6, 14])
def test_tiny_calib_keeps_equal_weights_and_says_why(n: int) -> None:
    choice = choose_weights(_rows(n, 3, a=2.0, b=0.0), ["a", "b"], QUICK, np.random.default_rng(0))
    assert choice.method == "equal"
    said = "1 real and 1 fake in 1 group;" if n == 2 else f"{n // 2} reals and {n // 2} fakes in {n // 2} groups;"
    assert said in choice.decision
    assert choice.gain is None


def test_no_calib_at_all_and_one_class_do_not_crash() -> None:
    empty = choose_weights(_rows(0, 3, a=1, b=1), ["a", "b"], QUICK, np.random.default_rng(0))
    assert empty.weights == pytest.approx(0.5)
    assert empty.temperature.value == 1.0
    one = _rows(40, 3, a=1, b=1).query("label == 1")
    assert choose_weights(one, ["a", "b"], QUICK, np.random.default_rng(0)).method == "equal"


def test_one_detector_alone() -> None:
    choice = choose_weights(_rows(50, 4, a=1.0), ["a"], QUICK, np.random.default_rng(0))
    assert (choice.method, choice.weights.tolist(), choice.temperature.value) == ("single", [1.0], 1.0)


def test_missing_scores_are_survived() -> None:
    rows = _rows(200, 5, a=1.0, b=0.0)
    rows.loc[rows.index[::3], "a"] = np.nan
    choice = choose_weights(rows, ["a", "b"], EnsembleConfig(trials=20, folds=5), np.random.default_rng(0))
    assert np.all(choice.weights > 0)
    assert choice.candidates["detector a"].n == 133


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_of_other_splits_are_refused(split: str) -> None:
    rows = _rows(40, 6, a=1.0, b=1.0)
    rows.loc[3, "split"] = split
    with pytest.raises(LeakError, match=f"1 of {split}"):
        choose_weights(rows, ["a", "b"], QUICK, np.random.default_rng(0))


def test_same_seed_same_choice() -> None:
    rows = _rows(120, 7, a=0.8, b=0.1)
    chosen = [
        choose_weights(r, ["a", "b"], EnsembleConfig(trials=15, folds=4), np.random.default_rng(9))
        for r in (rows, rows[::-1])
    ]
    assert chosen[0].weights.tolist() == chosen[1].weights.tolist()
    assert chosen[0].candidates == chosen[1].candidates


def test_no_weight_is_zero() -> None:
    assert on_simplex(np.array([1.0, 0.0])).min() > 0
    assert on_simplex(np.zeros(4)) == pytest.approx(0.25)


@pytest.mark.parametrize("seed", range(5))
def test_folds_keep_groups_together_and_classes_even(seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, 30, 200)
    labels = (rng.random(200) < 0.3).astype(int)
    fold = group_folds(labels, groups, 5, rng)
    assert all(len(np.unique(fold[groups == g])) == 1 for g in np.unique(groups))
    assert sorted(np.unique(fold)) == [0, 1, 2, 3, 4]
    assert max(abs(labels[fold == k].mean() - labels.mean()) for k in range(5)) < 0.12
    assert len(np.unique(group_folds(labels[:4], [0, 1, 1, 0], 5, rng))) == 2
    with pytest.raises(ValueError, match="1 groups"):
        group_folds(labels[:2], [0, 0], 5, rng)
