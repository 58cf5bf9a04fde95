"""Rules on top of fusion: what they do, that they are off by default, and that they are told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmask.config import FusionConfig
from unmask.errors import LeakError
from unmask.features.catalogue import CATALOGUE
from unmask.fusion.apply import apply_fusion, artefact_factor, contributions, real_evidence
from unmask.fusion.fit import FusionFit, fit_fusion
from unmask.fusion.fuse_stage import run_fuse
from unmask.fusion.rules import (
    FeedbackCount,
    count_feedback,
    feedback_factors,
    fit_rules,
    rule_changes,
    rule_effects,
    with_feedback,
)
from unmask.schemas import VIDEO_SCORES, ArtefactScale, FusionInfo, FusionRules, RealEvidence, read_table

Draw = Callable[..., pd.DataFrame]
FEATURES = ["temp.flow_oddity", "temp.rppg", "art.edge", "quality.blur"]
DIRECTIONS = {
    "temp.flow_oddity": "higher_fake",
    "temp.rppg": "higher_real",
    "art.edge": "higher_fake",
    "quality.blur": "none",
}
BOTH = FusionConfig(rules=("real_evidence", "artefact_scale"), real_evidence_count=1, real_evidence_cap=0.3)


def _rows(draw: Draw, n: int = 400, seed: int = 0) -> pd.DataFrame:
    rows = draw(n, seed, feature=0.8, missing=0.1)
    rows["temp.rppg"] += 1.5 * (1 - rows["label"])
    rows["art.edge"] += 0.8 * rows["label"]
    return rows


def _fit(rows: pd.DataFrame, config: FusionConfig) -> FusionFit:
    return fit_fusion(rows, FEATURES, 0.8, config, np.random.default_rng(0), DIRECTIONS)


def _columns(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    return {name: rows[name].to_numpy() for name in FEATURES}


def test_off_by_default(draw: Draw) -> None:
    info = _fit(_rows(draw), FusionConfig()).info
    assert info.rules == FusionRules()
    assert rule_effects(info, 1.0, dict.fromkeys(FEATURES, 0.0)) == []


def test_bounds_are_rare_among_fakes_and_the_frequency_is_told(draw: Draw) -> None:
    rows = _rows(draw)
    rules, told = fit_rules(rows, DIRECTIONS, BOTH, FEATURES)
    rule = rules.real_evidence
    assert set(rule.bounds) == {"temp.flow_oddity", "temp.rppg"}  # neither traces nor quality are camera evidence
    fakes, reals = rows[rows["label"] == 1], rows[rows["label"] == 0]
    assert 0.03 <= (fakes["temp.rppg"].dropna() > rule.bounds["temp.rppg"]).mean() <= 0.05
    assert 0.03 <= (fakes["temp.flow_oddity"] < rule.bounds["temp.flow_oddity"]).mean() <= 0.05
    hit = [
        (part["temp.rppg"] > rule.bounds["temp.rppg"]) | (part["temp.flow_oddity"] < rule.bounds["temp.flow_oddity"])
        for part in (reals, fakes)
    ]
    assert (rule.reals.value, rule.fakes.value) == pytest.approx((hit[0].mean(), hit[1].mean()))
    assert rule.reals.value > 5 * rule.fakes.value
    assert told[0].startswith("Rule real_evidence: on calib, 1 strong sign of a camera or more hold")
    assert f"of {int((rows['label'] == 0).sum())} reals and " in told[0]
    assert told[0].count("at 0.3 or less") == 1
    assert ("are usual" in told[0]) == (not 0.1 <= rule.reals.value <= 0.3)


def test_strong_evidence_caps_and_nothing_else_does() -> None:
    nothing = {"value": None, "n": 0}
    rule = RealEvidence(
        bounds={"temp.a": 2.0, "face.b": -1.0}, higher={"temp.a": True, "face.b": False}, count=2, cap=0.4,
        reals=nothing, fakes=nothing,
    )  # fmt: skip
    info = FusionInfo(
        inputs=["ensemble"], impute=[0], center=[0], scale=[1], coefficients=[1], intercept=0, calibration_slope=1,
        calibration_offset=0, operating_points={}, default_operating_point="", importance={}, used=False, decision="",
        rules=FusionRules(real_evidence=rule),
    )  # fmt: skip
    columns = {"temp.a": np.array([3.0, 3.0, np.nan, 3.0]), "face.b": np.array([-2.0, 0.0, -2.0, -2.0])}
    assert real_evidence(rule, columns, 4).tolist() == [2, 1, 1, 2]
    p = apply_fusion(info, np.array([3.0, 3.0, 3.0, -3.0]), columns)
    free = 1 / (1 + np.exp(-3))
    assert p == pytest.approx([0.4, free, free, 1 - free])
    (effect,) = rule_effects(info, 3.0, {"temp.a": 3.0, "face.b": -2.0})
    assert effect.rule == "real_evidence"
    assert effect.change == pytest.approx(0.4 - free)
    assert effect.sentence == "2 strong signs of a camera (temp.a, face.b): the probability is held at 40% or less."


def test_artefacts_count_less_in_calm_motion(draw: Draw) -> None:
    scale = ArtefactScale(quiet=1.0, odd=3.0, least=0.2)
    assert artefact_factor(scale, [0.0, 1.0, 2.0, 3.0, 9.0, np.nan]) == pytest.approx([0.2, 0.2, 0.6, 1.0, 1.0, 1.0])
    rows = _rows(draw)
    plain, scaled = (_fit(rows, FusionConfig(rules=rules)).info for rules in ((), ("artefact_scale",)))
    calm = {"temp.flow_oddity": -3.0, "temp.rppg": 0.0, "art.edge": 3.0, "quality.blur": 0.0}
    before, after = (dict(contributions(info, 1.0, calm)) for info in (plain, scaled))
    assert before["art.edge"] > 0
    assert after["art.edge"] == pytest.approx(0.2 * before["art.edge"])
    assert {k: v for k, v in after.items() if k != "art.edge"} == {k: v for k, v in before.items() if k != "art.edge"}
    (effect,) = rule_effects(scaled, 1.0, calm)
    assert (effect.rule, effect.change < 0) == ("artefact_scale", True)
    assert "count 0.20 times" in effect.sentence
    assert rule_effects(scaled, 1.0, calm | {"temp.flow_oddity": 9.0}) == []


def test_feedback_is_smoothed_and_limited(draw: Draw) -> None:
    counts = {"a": FeedbackCount(), "b": FeedbackCount(1, 0), "c": FeedbackCount(500, 0), "d": FeedbackCount(0, 500)}
    assert feedback_factors(counts) == {"a": 1.0, "b": 2.0, "c": 2.2, "d": 0.3}
    info = _fit(_rows(draw), FusionConfig()).info
    assert info.used
    counts = {}
    for _ in range(9):
        counts = count_feedback(counts, [("art.edge", 0.5), ("temp.rppg", -0.5), ("quality.blur", 0.0)], label=0)
    assert counts == {"art.edge": FeedbackCount(0, 9), "temp.rppg": FeedbackCount(9, 0)}
    fed = with_feedback(info, counts | {"unknown": FeedbackCount(5, 0)})
    assert fed.rules.feedback == {"art.edge": 0.3, "temp.rppg": 2.2}
    values = dict.fromkeys(FEATURES, 1.0)
    before, after = dict(contributions(info, 1.0, values)), dict(contributions(fed, 1.0, values))
    assert after["art.edge"] == pytest.approx(0.3 * before["art.edge"])
    (effect,) = rule_effects(fed, 1.0, values)
    assert effect.rule == "feedback"
    edge, pulse = CATALOGUE["art.edge"].title, CATALOGUE["temp.rppg"].title
    assert f"{edge} 0.30 times, {pulse} 2.20 times" in effect.sentence


def test_thresholds_are_chosen_on_what_the_rules_leave(draw: Draw) -> None:
    rows = _rows(draw)
    fit = _fit(rows, BOTH)
    p = apply_fusion(fit.info, rows["logit"], _columns(rows))
    free = apply_fusion(fit.info.model_copy(update={"rules": FusionRules()}), rows["logit"], _columns(rows))
    assert (p < free).any()
    reals = rows["label"] == 0
    for name in ("max_f1", "target_fpr"):
        point = fit.info.operating_points[name]
        assert (p[reals] >= point.threshold).mean() == pytest.approx(point.fpr.value, abs=0.03)
    assert any("real_evidence" in message for message in fit.messages)
    assert any("artefact_scale" in message for message in fit.messages)


def test_rules_that_calib_is_too_small_for_are_left_out(draw: Draw) -> None:
    rows = _rows(draw, n=12)
    rules, told = fit_rules(rows, DIRECTIONS, BOTH, FEATURES)
    assert rules == FusionRules()
    assert all("left out" in sentence for sentence in told)
    assert _fit(rows, BOTH).info.rules == FusionRules()


def test_a_rule_with_nothing_to_act_on_is_left_out(draw: Draw) -> None:
    rules, told = fit_rules(_rows(draw), DIRECTIONS, BOTH, ["ensemble", "temp.rppg"])
    assert rules.artefact_scale is None
    assert "have no say" in told[1]


def test_changes_of_many_samples_are_those_of_each(draw: Draw) -> None:
    rows = _rows(draw)
    info = with_feedback(_fit(rows, BOTH).info, {"art.edge": FeedbackCount(0, 9)})
    changes = rule_changes(info, rows["logit"], _columns(rows))
    assert list(changes) == ["feedback", "artefact_scale", "real_evidence"]
    total = apply_fusion(info, rows["logit"], _columns(rows))
    free = apply_fusion(info.model_copy(update={"rules": FusionRules()}), rows["logit"], _columns(rows))
    assert sum(changes.values()) == pytest.approx(total - free)
    for place in (0, 7, 31):
        row = rows.iloc[place]
        values = {name: None if np.isnan(row[name]) else float(row[name]) for name in FEATURES}
        effects = {effect.rule: effect.change for effect in rule_effects(info, float(row["logit"]), values)}
        expected = {name: change[place] for name, change in changes.items() if change[place] != 0}
        assert effects == pytest.approx(expected)


def test_rules_see_calib_only(draw: Draw) -> None:
    with pytest.raises(LeakError):
        fit_rules(_rows(draw).assign(split="test"), DIRECTIONS, BOTH, FEATURES)


def test_rules_reach_the_scores(build: Callable[..., tuple[Path, Path, Path]], draw: Draw, tmp_path: Path) -> None:
    rows = _rows(draw)
    rows["split"] = np.where(rows["group_id"].str[1:].astype(int) % 2 == 0, "calib", "test")
    run_fuse(*build(rows), tmp_path / "out", BOTH, 3)
    info = FusionInfo.load(tmp_path / "out" / "fusion.json")
    assert info.rules.real_evidence.cap == 0.3
    scores = read_table(tmp_path / "out" / "scores.parquet", VIDEO_SCORES).to_pandas().set_index("sample_id")
    expected = apply_fusion(info, rows["logit"], _columns(rows))
    assert scores.loc[rows["sample_id"], "probability"].to_numpy() == pytest.approx(expected)
    assert (scores["probability"] == 0.3).any()
