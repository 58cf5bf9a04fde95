"""Fusion finds what features add, leaves them out when they add nothing, and stores what scikit-learn computes."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression

from unmask.config import FusionConfig
from unmask.ensemble.apply import sigmoid
from unmask.ensemble.calibrate import fit_platt
from unmask.errors import LeakError
from unmask.fusion.apply import apply_fusion, base_logit, contributions
from unmask.fusion.fit import FusionFit, fit_fusion, usable_features
from unmask.fusion.model import FusionModel
from unmask.metrics import negative_log_likelihood, roc_auc

Draw = Callable[..., pd.DataFrame]
FEATURES = ["temp.flow_oddity", "temp.rppg", "art.edge", "quality.blur"]
TEMPERATURE = 0.8
CONFIG = FusionConfig()


def _fit(rows: pd.DataFrame, seed: int = 0, config: FusionConfig = CONFIG) -> FusionFit:
    return fit_fusion(rows, FEATURES, TEMPERATURE, config, np.random.default_rng(seed))


def _probability(fit: FusionFit, rows: pd.DataFrame) -> np.ndarray:
    return apply_fusion(fit.info, rows["logit"].to_numpy(), {name: rows[name].to_numpy() for name in FEATURES})


def test_a_useful_feature_is_used(draw: Draw) -> None:
    fit = _fit(draw(200, 0, feature=1.0))
    assert fit.info.used
    assert "ensemble and features together" in fit.info.decision
    assert max(fit.info.importance, key=lambda name: fit.info.importance[name]) in {"ensemble", "temp.flow_oddity"}
    assert sum(fit.info.importance.values()) == pytest.approx(1)
    assert fit.info.importance["temp.flow_oddity"] > 2 * max(fit.info.importance[name] for name in FEATURES[1:])
    fresh = draw(4000, 1, feature=1.0)
    assert roc_auc(fresh["label"], _probability(fit, fresh)) > roc_auc(fresh["label"], fresh["logit"]) + 0.03
    alone = negative_log_likelihood(fresh["label"], sigmoid(fresh["logit"] / TEMPERATURE))
    assert negative_log_likelihood(fresh["label"], _probability(fit, fresh)) < alone - 0.05


def test_useless_features_are_seldom_used(draw: Draw, capsys: pytest.CaptureFixture[str]) -> None:
    fits = [_fit(draw(40, seed), seed) for seed in range(20)]
    used = sum(fit.info.used for fit in fits)
    with capsys.disabled():
        sys.stdout.write(f"\nuseless features, 40 calib samples: fusion used in {used} of 20 simulations\n")
    assert used <= 5
    kept = next(fit for fit in fits if "the ensemble alone" in fit.info.decision.split(" (")[0])
    rows = draw(50, 99)
    assert _probability(kept, rows) == pytest.approx(sigmoid(rows["logit"] / TEMPERATURE), abs=1e-15)
    assert kept.info.importance == {"ensemble": 1.0}


def test_other_base_rate_is_recalibrated(draw: Draw) -> None:
    """The logit is right for equal classes; nine fakes to one real call for an offset of log 9."""
    fit = _fit(draw(600, 3, base_rate=0.9))
    assert not fit.info.used
    assert fit.info.method == "recalibrated"
    assert fit.info.decision.startswith("Used: the ensemble recalibrated")
    # What recalibration gains is not credited to the features, which are noise here.
    change = float(re.search(r"the better of the first two by ([+-][0-9.]+)", fit.info.decision).group(1))
    assert change == pytest.approx(fit.nll["fusion"].value - fit.nll["recalibrated"].value, abs=1e-3)
    assert change > 0
    assert fit.info.calibration_offset == pytest.approx(np.log(9), abs=0.5)
    fresh = draw(5000, 4, base_rate=0.9)
    assert _probability(fit, fresh).mean() == pytest.approx(0.9, abs=0.02)


def test_stored_numbers_are_scikit_learns(draw: Draw) -> None:
    """An independent way: dense numpy columns into scikit-learn's own calibrated classifier."""
    rows = draw(120, 5, feature=0.7, missing=0.3)
    x, y = rows[["logit", *FEATURES]].to_numpy(), rows["label"].to_numpy()
    splits = [(np.flatnonzero(np.arange(120) % 3 != k), np.flatnonzero(np.arange(120) % 3 == k)) for k in range(3)]
    stored, theirs = FusionModel(FEATURES, 0.1).fit(x, y, splits)
    assert stored.inputs == ["ensemble", *FEATURES, "missing:temp.rppg", "missing:art.edge"]
    template = _fit(draw(10, 0)).info.model_copy(update=asdict(stored))
    columns = {name: rows[name].to_numpy() for name in FEATURES}
    assert apply_fusion(template, x[:, 0], columns) == pytest.approx(theirs, abs=1e-9)

    complete = draw(120, 6, feature=0.7)
    dense = complete[["logit", *FEATURES]].to_numpy()
    stored, _ = FusionModel(FEATURES, 0.1).fit(dense, y, splits)
    z = (dense - dense.mean(0)) / dense.std(0) * np.array([10, 1, 1, 1, 1])
    assert np.abs(z[:, 1:]).max() < 4
    plain = LogisticRegression(C=0.1, max_iter=10_000, tol=1e-8).fit(z, y)
    assert stored.coefficients == pytest.approx((plain.coef_[0] * [10, 1, 1, 1, 1]).tolist(), rel=1e-4)
    assert stored.intercept == pytest.approx(plain.intercept_[0], rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("n", [12, 60, 400])
def test_platt_is_scikit_learns(draw: Draw, n: int) -> None:
    rows = draw(n, n)
    x, y = rows[["logit"]].to_numpy(), rows["label"].to_numpy()

    class Identity(LogisticRegression):
        def fit(self, x: np.ndarray, y: np.ndarray) -> Identity:
            self.classes_ = np.array([0, 1])
            return self

        def decision_function(self, x: np.ndarray) -> np.ndarray:
            return x[:, 0]

    whole = [(np.arange(n), np.arange(n))]
    theirs = CalibratedClassifierCV(Identity(), method="sigmoid", cv=whole, ensemble=False).fit(x, y)
    slope, offset = fit_platt(y, x[:, 0])
    assert sigmoid(slope * x[:, 0] + offset) == pytest.approx(theirs.predict_proba(x)[:, 1], abs=1e-4)
    with pytest.raises(ValueError, match="one class"):
        fit_platt(np.ones(3, dtype=int), np.arange(3.0))


def test_contributions_add_up(draw: Draw) -> None:
    rows = draw(200, 7, feature=1.0, missing=0.3)
    fit = _fit(rows)
    assert fit.info.used
    for _, row in rows.head(20).iterrows():
        values = {name: None if np.isnan(row[name]) else float(row[name]) for name in FEATURES}
        pushes = contributions(fit.info, float(row["logit"]), values)
        assert [name for name, _ in pushes] == fit.info.inputs
        total = base_logit(fit.info) + sum(push for _, push in pushes)
        expected = _probability(fit, row.to_frame().T.astype(dict.fromkeys(["logit", *FEATURES], float)))[0]
        assert sigmoid(np.array([total]))[0] == pytest.approx(expected, abs=1e-12)


def test_one_wild_measurement_does_not_decide(draw: Draw) -> None:
    fit = _fit(draw(200, 8, feature=1.0))
    row = draw(1, 9)
    far = row.assign(**{"temp.flow_oddity": 1e6})
    near = row.assign(**{"temp.flow_oddity": 8.0})
    assert _probability(fit, far) == pytest.approx(_probability(fit, near))


def test_missing_values_and_missing_ensemble(draw: Draw) -> None:
    fit = _fit(draw(200, 10, feature=1.0, missing=0.3))
    rows = draw(5, 11)
    rows.loc[0, FEATURES] = np.nan
    rows.loc[1, "logit"] = np.nan
    p = _probability(fit, rows)
    assert np.isfinite(p[[0, 2, 3, 4]]).all()
    assert np.isnan(p[1])
    with pytest.raises(ValueError, match=r"temp\.rppg"):
        apply_fusion(fit.info, rows["logit"], {"temp.flow_oddity": rows["temp.flow_oddity"]})


def test_empty_and_constant_features_are_left_out_with_a_sentence(draw: Draw) -> None:
    rows = draw(100, 12, feature=1.0).assign(**{"art.edge": np.nan, "quality.blur": 3.0})
    fit = _fit(rows)
    assert not {"art.edge", "quality.blur"} & set(fit.info.inputs)
    assert any("art.edge" in message and "fewer than 8" in message for message in fit.messages)
    assert any("quality.blur" in message and "same value" in message for message in fit.messages)
    only_null = rows.assign(**dict.fromkeys(FEATURES, np.nan))
    assert not _fit(only_null).info.used


@pytest.mark.parametrize(
    ("reals", "fakes", "groups"), [(0, 0, 0), (1, 1, 2), (7, 30, 18), (30, 7, 18), (40, 0, 20), (20, 20, 2)]
)
def test_tiny_calib_passes_the_ensemble_through(draw: Draw, reals: int, fakes: int, groups: int) -> None:
    n = reals + fakes
    rows = draw(max(n, 1), 13).head(n)
    rows["label"] = np.arange(n) < fakes
    rows["label"] = rows["label"].astype(int)
    rows["group_id"] = [f"g{k % groups}" for k in range(n)]
    fit = _fit(rows)
    assert not fit.info.used
    said = (f"{reals} real", f"{fakes} fake", f"{groups} group")
    assert all(part in fit.info.decision for part in said)
    assert "used as it is" in fit.info.decision
    assert fit.nll == {}
    fresh = draw(20, 14)
    assert _probability(fit, fresh) == pytest.approx(sigmoid(fresh["logit"] / TEMPERATURE), abs=1e-15)
    assert set(fit.info.operating_points) == {"max_f1", "youden", "target_fpr", "fixed_precision"}


def test_an_ensemble_that_is_upside_down_on_calib_is_not_turned_round(draw: Draw) -> None:
    rows = draw(40, 15)
    fit = _fit(rows.assign(logit=-rows["logit"]))
    assert fit.info.calibration_slope > 0
    assert fit.info.method != "recalibrated"


def test_warns_when_traces_carry_fusion(draw: Draw) -> None:
    rows = draw(300, 16, signal=0.2)
    rows["art.edge"] += 2.0 * rows["label"]
    fit = _fit(rows)
    assert fit.info.used
    assert any("art.*" in message and "compression" in message for message in fit.messages)
    assert not any("art.*" in message for message in _fit(draw(300, 17, feature=1.0)).messages)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_rows_of_other_splits_are_refused(draw: Draw, split: str) -> None:
    rows = draw(40, 18)
    rows.loc[7, "split"] = split
    with pytest.raises(LeakError, match=f"1 of {split}"):
        _fit(rows)
    with pytest.raises(LeakError, match=f"1 of {split}"):
        usable_features(rows, FEATURES)


def test_same_rows_in_any_order_give_the_same_bytes(draw: Draw) -> None:
    rows = draw(100, 19, feature=0.8, missing=0.2)
    assert _fit(rows).info.model_dump_json() == _fit(rows[::-1]).info.model_dump_json()
