"""Coefficients with intervals, and ablations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmask.config import FusionConfig
from unmask.ensemble.folds import group_folds
from unmask.errors import LeakError
from unmask.fusion.analysis import FusionAnalysis, analyse
from unmask.fusion.apply import apply_fusion
from unmask.fusion.fit import fit_fusion
from unmask.metrics import roc_auc

Draw = Callable[..., pd.DataFrame]
FEATURES = ["temp.flow_oddity", "temp.rppg", "art.edge", "quality.blur"]


def _analyse(rows: pd.DataFrame) -> FusionAnalysis:
    fold = group_folds(rows["label"], rows["group_id"], 3, np.random.default_rng(0))
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    return analyse(rows, FEATURES, splits, FusionConfig(), np.random.default_rng(0))


def test_signs_and_intervals(draw: Draw) -> None:
    rows = draw(300, 0, feature=1.0)
    rows["quality.blur"] -= 0.8 * rows["label"]
    weights = {weight.input: weight for weight in _analyse(rows).weights}
    assert weights["temp.flow_oddity"].clear
    assert weights["temp.flow_oddity"].coefficient.low > 0
    assert weights["quality.blur"].clear
    assert weights["quality.blur"].coefficient.high < 0
    assert not weights["art.edge"].clear
    assert sum(weight.share.value for weight in weights.values()) == pytest.approx(1)
    for weight in weights.values():
        assert weight.coefficient.low < weight.coefficient.value < weight.coefficient.high


def test_weights_are_those_of_the_fit(draw: Draw) -> None:
    rows = draw(300, 1, feature=1.0)
    fit = fit_fusion(rows, FEATURES, 0.8, FusionConfig(), np.random.default_rng(0))
    assert fit.info.used
    analysis = analyse(rows, fit.usable, fit.splits, FusionConfig(), np.random.default_rng(0))
    weights = {weight.input: weight for weight in analysis.weights}
    for name, coefficient in zip(fit.info.inputs, fit.info.coefficients, strict=True):
        assert weights[name].coefficient.value == pytest.approx(coefficient * fit.info.calibration_slope, rel=1e-9)
        assert weights[name].share.value == pytest.approx(fit.info.importance[name], rel=1e-9)


def test_ablations_lose_what_they_remove(draw: Draw) -> None:
    rows = draw(400, 2, feature=1.0, missing=0.1)
    ablations = {ablation.name: ablation for ablation in _analyse(rows).ablations}
    assert list(ablations) == ["full", "without_quality", "without_detectors", "without_features"]
    assert ablations["full"].change is None
    assert ablations["without_quality"].removed == ["quality.blur"]
    assert abs(ablations["without_quality"].change.value) < 0.02
    for name in ("without_detectors", "without_features"):
        assert ablations[name].change.high < 0
    assert "ensemble" not in ablations["without_detectors"].model.inputs
    assert ablations["without_features"].model.inputs == ["ensemble"]
    fresh = draw(3000, 3, feature=1.0, missing=0.1)
    columns = {name: fresh[name].to_numpy() for name in FEATURES}
    for ablation in ablations.values():
        p = apply_fusion(ablation.model, fresh["logit"].to_numpy(), columns)
        assert np.isfinite(p).all()
        assert roc_auc(fresh["label"], p) == pytest.approx(ablation.auc.value, abs=0.05)


def test_only_quality_features_leave_nothing_without_detectors(draw: Draw) -> None:
    rows = draw(60, 4)
    splits = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]
    analysis = analyse(rows, ["quality.blur"], splits, FusionConfig(), np.random.default_rng(0))
    names = [ablation.name for ablation in analysis.ablations]
    assert names == ["full", "without_quality", "without_detectors", "without_features"]


def test_analysis_goes_to_disk_and_comes_back(draw: Draw, tmp_path: Path) -> None:
    analysis = _analyse(draw(80, 5))
    analysis.save(tmp_path / "analysis.json")
    assert FusionAnalysis.load(tmp_path / "analysis.json") == analysis


def test_test_rows_are_refused(draw: Draw) -> None:
    with pytest.raises(LeakError):
        _analyse(draw(80, 6).assign(split="test"))
