"""The decision whether new data ask for a training."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from unmask.config import RetrainingConfig
from unmask.errors import ContractError
from unmask.evaluation.retraining import (
    KNOWN,
    Reference,
    decide_retraining,
    holm,
    measure_drift,
    population_stability_index,
    read_reference,
    render_markdown,
    with_scores,
)

CONFIG = RetrainingConfig()
NAMES = [f"temp.f{number}" for number in range(17)]


def rows(n: int, seed: int, shift: float = 0.0, first: int = 0, per_group: int = 1) -> pd.DataFrame:
    """Samples of both classes with 17 features; fakes lie elsewhere, and ``shift`` moves one feature of reals."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    group = np.arange(n) // (2 * per_group) + first
    effect = rng.standard_normal((n, len(NAMES)))[group - first] if per_group > 1 else 0.0
    values = rng.standard_normal((n, len(NAMES))) * (0.1 if per_group > 1 else 1.0) + effect + label[:, None]
    values[label == 0, 0] += shift
    frame = pd.DataFrame(values, columns=NAMES)
    frame.insert(0, "group_id", [f"g{number}" for number in group])
    frame.insert(0, "label", label)
    frame.insert(0, "sha256", [f"{first + number:064x}" for number in range(n)])
    return frame


def reference(known: pd.DataFrame, age_days: float = 10) -> Reference:
    return Reference("7", "champion", age_days, "v-old", frozenset(known["sha256"]), known.drop(columns="sha256"))


def decide(known: pd.DataFrame, new: pd.DataFrame, age_days: float = 10, **more: object):  # type: ignore[no-untyped-def]
    everything = pd.concat([known, new], ignore_index=True)
    return decide_retraining(everything, "v-new", "detector", reference(known, age_days), CONFIG, **more)  # type: ignore[arg-type]


def test_without_a_registered_version_it_trains() -> None:
    decision = decide_retraining(rows(10, 0), "v1", "detector", None, CONFIG)
    assert decision.retrain
    assert "No version" in decision.reason


def test_the_same_data_are_not_trained_on_again_however_old() -> None:
    known = rows(200, 0)
    same = reference(known, age_days=1000)
    decision = decide_retraining(known, "v-old", "detector", same, CONFIG)
    assert not decision.retrain
    assert decision.n_new == 0


@pytest.mark.parametrize(("n_new", "retrain"), [(19, False), (99, False), (100, True)])
def test_the_share_of_new_samples_decides(n_new: int, retrain: bool) -> None:
    decision = decide(rows(1000, 0), rows(n_new, 1, first=5000))
    assert decision.retrain is retrain
    assert (decision.n_known, decision.n_new) == (1000, n_new)
    assert str(n_new) in decision.reason


def test_a_file_that_moved_or_was_renamed_is_not_new() -> None:
    known = rows(300, 0)
    moved = known.assign(sample_id=[f"other{i}" for i in range(len(known))])
    assert decide_retraining(moved, "v-new", "detector", reference(known), CONFIG).n_new == 0


def test_drift_of_one_feature_of_one_class_asks_for_training() -> None:
    decision = decide(rows(3000, 0), rows(160, 1, shift=1.5, first=9000))
    assert decision.retrain
    assert "temp.f0 of real media" in decision.reason
    assert [(entry.name, entry.label) for entry in decision.drift if entry.drifted] == [("temp.f0", "real")]


def scored(frame: pd.DataFrame, seed: int, mean_of_reals: float) -> pd.DataFrame:
    """Give samples a score: a probability whose logit is normal, 1.5 for fakes."""
    mean = np.where(frame["label"] == 1, 1.5, mean_of_reals)
    return frame.assign(score=1 / (1 + np.exp(-np.random.default_rng(seed).normal(mean, 1.0))))


@pytest.mark.parametrize(("mean_of_reals", "drifts"), [(-1.5, False), (0.3, True)])
def test_drift_of_the_scores_alone_asks_for_training(mean_of_reals: float, drifts: bool) -> None:
    known, new = rows(3000, 0), rows(160, 1, first=9000)
    on_test = scored(rows(400, 2, first=20_000), 3, -1.5)[["label", "group_id", "score"]]
    before = replace(reference(known), scores=on_test)
    everything = pd.concat([known, scored(new, 4, mean_of_reals)], ignore_index=True)
    decision = decide_retraining(everything, "v-new", "detector", before, CONFIG)
    assert decision.retrain is drifts
    compared = [(entry.name, entry.label, entry.n_known, entry.n_new) for entry in decision.drift]
    assert {("score", "real", 200, 80), ("score", "fake", 200, 80)} <= set(compared)
    assert [(entry.name, entry.label) for entry in decision.drift if entry.drifted] == [("score", "real")] * drifts
    assert ("the version's own score of real media" in decision.reason) is drifts
    assert not any("scores was not judged" in note for note in decision.notes)


def test_only_new_samples_are_scored_and_one_a_group() -> None:
    known, new = rows(300, 0), rows(120, 1, first=9000, per_group=2)
    everything = pd.concat([known, new], ignore_index=True)
    everything["sample_id"] = [f"s{number}" for number in range(len(everything))]
    on_test = scored(rows(100, 2, first=20_000), 3, -1.5)[["label", "group_id", "score"]]
    asked: list[str] = []

    def score(sample_ids: Collection[str]) -> dict[str, float]:
        asked.extend(sample_ids)
        return {name: 0.25 for name in sample_ids if name != "s300"}  # one has no face

    before = replace(reference(known), scores=on_test)
    told = with_scores(everything, before, score, CONFIG)
    assert len(asked) == len(set(asked)) == 60  # 30 groups of each class
    assert all(int(name[1:]) >= 300 for name in asked)
    assert told["score"].notna().sum() == 59
    asked.clear()
    assert "score" not in with_scores(everything.head(310), before, score, CONFIG).columns  # too few to be judged
    assert "score" not in with_scores(everything, reference(known), score, CONFIG).columns  # nothing to compare with
    assert asked == []
    (note,) = [note for note in decide(known, new).notes if "scores" in note]
    assert "left no scores of test samples behind" in note


def test_another_mix_of_classes_is_no_drift() -> None:
    fakes_only = rows(300, 1, first=9000).query("label == 1")
    decision = decide(rows(3000, 0), fakes_only)
    assert not decision.retrain
    assert not any(entry.drifted for entry in decision.drift)
    assert any("real media was not judged" in note for note in decision.notes)


def test_without_drift_it_stays_quiet_where_uncorrected_tests_would_not() -> None:
    """17 features in two classes at 1 %: uncorrected, about three runs in ten would train for nothing."""
    alarms = uncorrected = 0
    for seed in range(40):
        known, new = rows(1500, seed), rows(140, 1000 + seed, first=9000)
        drift = measure_drift(known.drop(columns="sha256"), new, CONFIG)
        alarms += any(entry.drifted for entry in drift)
        raw = [
            stats.ks_2samp(known.loc[known["label"] == k, n], new.loc[new["label"] == k, n], method="asymp").pvalue
            for k in (0, 1)
            for n in NAMES
        ]
        uncorrected += min(raw) < CONFIG.drift_p
    assert alarms <= 2
    assert uncorrected >= 5


def test_samples_of_one_group_count_once() -> None:
    new = rows(400, 3, first=9000, per_group=20)
    decision = decide(rows(5000, 0), new)
    assert decision.drift == []  # ten groups are too few, though there are 400 samples
    assert all("not judged" in note for note in decision.notes)


def test_age_asks_only_together_with_new_samples() -> None:
    known = rows(1000, 0)
    assert decide(known, rows(30, 1, first=5000), age_days=91).retrain
    assert not decide(known, rows(30, 1, first=5000), age_days=89).retrain
    assert not decide(known, rows(5, 1, first=5000), age_days=1000).retrain


def test_force_trains_and_says_what_the_data_said() -> None:
    decision = decide(rows(1000, 0), rows(1, 1, first=5000), force=True)
    assert decision.retrain
    assert "Only 1 new samples" in decision.reason


def test_a_version_that_left_nothing_behind_is_compared_by_its_data_set_alone() -> None:
    bare = Reference("3", "champion", 5, "v-old", None, None)
    assert not decide_retraining(rows(50, 0), "v-old", "detector", bare, CONFIG).retrain
    other = decide_retraining(rows(50, 0), "v-new", "detector", bare, CONFIG)
    assert other.retrain
    assert other.n_new is None


def test_the_page_says_what_was_decided_and_compared() -> None:
    page = render_markdown(decide(rows(3000, 0), rows(160, 1, shift=1.5, first=9000)))
    assert page.startswith("# Training\n")
    assert "version 7 (champion), 10.0 days old" in page
    assert "| temp.f0 | real |" in page
    assert render_markdown(decide(rows(1000, 0), rows(1, 1, first=5000))).startswith("# Not training\n")


def test_psi_is_zero_for_the_same_values_and_known_for_a_known_move() -> None:
    values = np.arange(1000.0)
    assert population_stability_index(values, values) == pytest.approx(0, abs=1e-9)
    # Two bins of halves, and all new values in the upper one: (1 - .5) ln(1 / .5) + (0 - .5) ln(0 / .5), smoothed.
    upper = np.full(999, 999.0)
    shares = ((500.5 / 1001, 0.5 / 1000), (500.5 / 1001, 999.5 / 1000))
    expected = sum((new - old) * np.log(new / old) for old, new in shares)
    assert population_stability_index(values, upper, bins=2) == pytest.approx(expected, rel=1e-6)
    constant = np.zeros(50)
    assert np.isfinite(population_stability_index(constant, constant + 1))


def test_holm_is_that_of_the_textbook() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([]).tolist() == []
    assert holm([0.9, 0.8]).max() == 1.0


def test_a_broken_reference_is_told(tmp_path: Path) -> None:
    (tmp_path / KNOWN).write_bytes(b"PAR1")
    with pytest.raises(ContractError):
        read_reference(tmp_path)
