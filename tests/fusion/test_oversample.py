"""Synthetic rows of the rarer class: where they lie, and that nothing but fitting sees them."""

import numpy as np
import pytest

from unmask.config import FusionConfig
from unmask.fusion import oversample
from unmask.fusion.apply import apply_fusion
from unmask.fusion.fit import fit_fusion
from unmask.fusion.model import FusionModel
from unmask.fusion.oversample import with_synthetic
from unmask.metrics import roc_auc

TEMPERATURE = 0.8
FEATURES = ["temp.flow_oddity", "temp.rppg", "art.edge", "quality.blur"]


def test_new_rows_lie_between_neighbours_of_the_rarer_class():
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (40, 3)), rng.normal(8, 1, (3, 3)), rng.normal(-8, 1, (3, 3))])
    labels = np.repeat([0, 1], [40, 6])
    more, theirs = with_synthetic(x, labels, np.random.default_rng(1))
    assert np.array_equal(more[: len(x)], x)
    assert np.bincount(theirs).tolist() == [40, 40]
    made = more[len(x) :]
    fakes = x[labels == 1]
    for row in made:
        # On the segment between two fakes: the way over the row is not longer than the direct one.
        ways = np.linalg.norm(fakes - row, axis=1)
        pairs = ways[:, None] + ways[None] - np.linalg.norm(fakes[:, None] - fakes[None], axis=2)
        np.fill_diagonal(pairs, np.inf)
        assert pairs.min() < 1e-9
    assert len(np.unique(made, axis=0)) == len(made)


def test_each_row_gives_as_many_and_flags_stay_flags():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(0, 1, 44), rng.integers(0, 2, 44)])
    labels = np.repeat([1, 0], [40, 4])
    more, theirs = with_synthetic(x, labels, np.random.default_rng(1))
    assert set(more[len(x) :, 1]) <= {0.0, 1.0}
    assert (theirs[len(x) :] == 0).all()


def test_one_row_is_no_class_and_equal_classes_need_nothing():
    x = np.arange(8.0)[:, None]
    for labels in (np.repeat([0, 1], [7, 1]), np.repeat([0, 1], [4, 4])):
        assert with_synthetic(x, labels, np.random.default_rng(0))[0] is x


@pytest.mark.parametrize(
    ("fakes", "setting", "expected"),
    [(8, "auto", True), (10, "auto", False), (8, "off", False), (40, "on", True), (100, "on", False)],
)
def test_auto_begins_above_ten_to_one(fakes, setting, expected):
    assert oversample.wanted(np.repeat([0, 1], [100, fakes]), setting) is expected


def test_a_rare_class_is_fitted_with_synthetic_rows_and_judged_without(draw, monkeypatch):
    rows = draw(400, 3, signal=0.6, feature=1.2, base_rate=0.05)
    seen: list[tuple[int, int]] = []
    real = oversample.with_synthetic

    def spy(x, labels, rng):
        more, theirs = real(x, labels, rng)
        seen.append((len(x), len(more)))
        return more, theirs

    monkeypatch.setattr(oversample, "with_synthetic", spy)
    fit = fit_fusion(rows, FEATURES, TEMPERATURE, FusionConfig(), np.random.default_rng(0))
    assert any("380 others (19:1)" in message and "SMOTE" in message for message in fit.messages)
    # Every fold fits on its own rows plus synthetic ones; the last fit sees all rows.
    folds = [len(fitting) for fitting, _ in fit.splits]
    assert {n for n, _ in seen} == {*folds, 400}
    assert all(made > n for n, made in seen)
    # What was made shifts the prior; calibration on real rows takes that back.
    fresh = draw(4000, 4, signal=0.6, feature=1.2, base_rate=0.05)
    probability = apply_fusion(fit.info, fresh["logit"].to_numpy(), {name: fresh[name].to_numpy() for name in FEATURES})
    assert probability.mean() == pytest.approx(0.05, abs=0.02)
    assert roc_auc(fresh["label"], probability) > roc_auc(fresh["label"], fresh["logit"]) + 0.05
    assert fit.info.operating_points["max_f1"].tpr.n == 20  # real samples only


def test_off_and_balanced_fit_as_before(draw):
    rows = draw(200, 5, feature=1.0)
    fits = [
        fit_fusion(rows, FEATURES, TEMPERATURE, FusionConfig(smote=setting), np.random.default_rng(0)).info
        for setting in ("auto", "off")
    ]
    assert fits[0] == fits[1]


def test_same_rows_same_coefficients(draw):
    rows = draw(300, 6, feature=1.0, base_rate=0.06)
    x = rows[["logit", *FEATURES]].to_numpy()
    labels = rows["label"].to_numpy()
    splits = [(np.arange(300) % 3 != k, np.arange(300) % 3 == k) for k in range(3)]
    splits = [(np.flatnonzero(a), np.flatnonzero(b)) for a, b in splits]
    stored = [FusionModel(FEATURES, 0.1, oversample=True).fit(x, labels, splits)[0] for _ in range(2)]
    assert stored[0] == stored[1]
