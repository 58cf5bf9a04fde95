"""The average by written weights: its arithmetic by hand, when it is used, and what it never looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmask.config import FusionConfig
from unmask.errors import LeakError
from unmask.fusion.apply import apply_fusion, contributions
from unmask.fusion.fallback import average_by_rule
from unmask.fusion.fit import fit_fusion
from unmask.fusion.fuse_stage import run_fuse
from unmask.schemas import VIDEO_SCORES, ArtefactScale, FusionInfo, FusionRules, read_table

Draw = Callable[..., pd.DataFrame]
DIRECTIONS = {"temp.rppg": "higher_real", "art.edge": "higher_fake", "quality.blur": "none", "temp.flow_oddity": "none"}
TEMPERATURE = 2.0


def _reference() -> pd.DataFrame:
    """Values 0 … 8: median 4, median absolute deviation 2, so one robust standard deviation is 2.9652."""
    values = np.arange(9.0)
    columns = {"temp.rppg": values, "art.edge": 10 * values, "quality.blur": values, "temp.flow_oddity": values}
    return pd.DataFrame(columns | {"split": "calib"})


def _info(**changes: object) -> FusionInfo:
    stored = average_by_rule(_reference(), DIRECTIONS, TEMPERATURE)
    assert stored is not None
    info = FusionInfo(
        **asdict(stored), operating_points={}, default_operating_point="", importance={}, used=True, decision="",
        method="fallback", averaged=True,
    )  # fmt: skip
    return info.model_copy(update=changes)


def _columns(*rows: tuple[float, float, float]) -> dict[str, np.ndarray]:
    return dict(zip(("temp.rppg", "art.edge", "temp.flow_oddity"), np.array(rows, dtype=float).T, strict=True))


def _sigmoid(x: float) -> float:
    return 1 / (1 + float(np.exp(-x)))


def test_worked_by_hand() -> None:
    one = 1.4826 * 2
    columns = _columns((4 + one, 40 + 2 * one * 10, 0), (np.nan, 40 - one * 10, 0), (np.nan, np.nan, 0), (400, 40, 0))
    found = apply_fusion(_info(), [6.0, 6.0, 6.0, 0.0], columns)
    expected = [
        0.5 * 3 - 0.25 * 1 + 0.25 * 2,
        (0.5 * 3 - 0.25 * 1) / 0.75,  # the pulse is missing, and the others' weights grow
        3.0,  # the detectors alone
        -0.25 * 4,  # no feature says more than four logits
    ]
    assert found == pytest.approx([_sigmoid(logit) for logit in expected])
    assert np.isnan(apply_fusion(_info(), [np.nan], _columns((4, 40, 0)))).all()


def test_pushes_sum_to_the_probability() -> None:
    sample = {"temp.rppg": None, "art.edge": 75.0, "temp.flow_oddity": 1.0}
    pushes = dict(contributions(_info(), 1.0, sample))
    assert pushes["temp.rppg"] == 0
    p = apply_fusion(_info(), [1.0], _columns((np.nan, 75.0, 1.0)))
    assert _sigmoid(sum(pushes.values())) == pytest.approx(p[0])


def test_rules_shift_weight_and_the_sum_stays_one() -> None:
    one = 1.4826 * 2
    columns = _columns((4 + one, 40 + one * 10, 0))
    fed = _info(rules=FusionRules(feedback={"temp.rppg": 2.0}))
    assert apply_fusion(fed, [0.0], columns) == pytest.approx([_sigmoid((-0.25 * 2 + 0.25) / (0.5 + 0.5 + 0.25))])
    calm = _info(rules=FusionRules(artefact_scale=ArtefactScale(quiet=1.0, odd=3.0, least=0.2)))
    assert apply_fusion(calm, [0.0], columns) == pytest.approx([_sigmoid((-0.25 + 0.05) / (0.5 + 0.25 + 0.05))])


def test_what_cannot_be_measured_takes_no_part() -> None:
    few = _reference().assign(**{"temp.rppg": [1.0, 2.0] + [np.nan] * 7, "art.edge": 3.0})
    assert average_by_rule(few, DIRECTIONS, 1.0) is None
    some = average_by_rule(few.assign(**{"art.edge": np.arange(9.0)}), DIRECTIONS, 1.0)
    assert some is not None
    assert (some.inputs, some.coefficients) == (["ensemble", "art.edge"], [0.5, 0.5])


def test_it_sees_no_test_rows() -> None:
    with pytest.raises(LeakError):
        average_by_rule(_reference().assign(split="test"), DIRECTIONS, 1.0)


def test_it_stands_in_when_calib_is_too_small(draw: Draw) -> None:
    reference = draw(60, 5).assign(split="train")
    rows = draw(10, 3)
    config, rng = FusionConfig(), np.random.default_rng(0)
    fit = fit_fusion(rows, ["art.edge", "temp.rppg"], TEMPERATURE, config, rng, DIRECTIONS, reference)
    assert (fit.info.method, fit.info.used, fit.info.averaged) == ("fallback", True, True)
    assert fit.info.inputs == ["ensemble", "temp.rppg", "art.edge"]
    assert fit.messages[0].startswith("Rule-based fallback: no fusion was trained, because calib has 5 reals")
    assert "not calibrated" in fit.info.decision
    # Thresholds are those of what is stored, and labels changed nothing but the thresholds.
    columns = {name: rows[name].to_numpy() for name in DIRECTIONS}
    p = apply_fusion(fit.info, rows["logit"], columns)
    point = fit.info.operating_points["max_f1"]
    assert (p[rows["label"] == 1] >= point.threshold).mean() == pytest.approx(point.tpr.value)
    turned = rows.assign(label=1 - rows["label"])
    other = fit_fusion(turned, ["art.edge", "temp.rppg"], TEMPERATURE, config, rng, DIRECTIONS, reference)
    changed = {"operating_points", "decision"}
    assert other.info.model_dump(exclude=changed) == fit.info.model_dump(exclude=changed)
    alone = fit_fusion(rows, [], TEMPERATURE, FusionConfig(fallback="ensemble"), rng, DIRECTIONS, reference)
    assert (alone.info.method, alone.info.used) == ("ensemble", False)


def test_enough_samples_need_no_fallback(draw: Draw) -> None:
    fit = fit_fusion(draw(300, 3, feature=1.0), ["temp.flow_oddity"], 0.8, FusionConfig(), np.random.default_rng(0))
    assert (fit.info.method, fit.info.averaged) == ("fusion", False)


def test_the_stage_uses_it_and_names_it(
    build: Callable[..., tuple[Path, Path, Path]], draw: Draw, tmp_path: Path
) -> None:
    rows = draw(40, 4)
    rows["split"] = np.where(np.arange(40) < 8, "calib", "train")
    rows.loc[8:16, "label"] = None
    outcome = run_fuse(*build(rows), tmp_path / "out", FusionConfig(), 3)
    info = FusionInfo.load(tmp_path / "out" / "fusion.json")
    assert info.method == "fallback"
    assert outcome.messages[0].startswith("Rule-based fallback")
    assert not (tmp_path / "out" / "analysis.json").exists()
    scores = read_table(tmp_path / "out" / "scores.parquet", VIDEO_SCORES).to_pandas().set_index("sample_id")
    names = [name for name in info.inputs if name != "ensemble"]
    columns = {name: rows[name].to_numpy() for name in names}
    expected = apply_fusion(info, rows["logit"], columns)
    assert scores.loc[rows["sample_id"], "probability"].to_numpy() == pytest.approx(expected)


def test_without_any_label_there_is_still_a_probability(
    build: Callable[..., tuple[Path, Path, Path]], draw: Draw, tmp_path: Path
) -> None:
    rows = draw(40, 4)
    rows["split"] = "calib"
    rows["label"] = pd.array([None] * 40, dtype="Int64")
    run_fuse(*build(rows), tmp_path / "out", FusionConfig(), 3)
    info = FusionInfo.load(tmp_path / "out" / "fusion.json")
    assert info.method == "fallback"
    assert "0 reals and 0 fakes" in info.decision
    assert not info.operating_points["max_f1"].resolvable
    scores = read_table(tmp_path / "out" / "scores.parquet", VIDEO_SCORES).to_pandas()
    assert scores["probability"].notna().all()
