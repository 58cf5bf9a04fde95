"""The stage `fuse` on folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmask.config import FusionConfig
from unmask.errors import ContractError, InputError
from unmask.fusion.analysis import FusionAnalysis
from unmask.fusion.fuse_stage import run_fuse
from unmask.metrics import roc_auc
from unmask.schemas import VIDEO_SCORES, FusionInfo, read_table

CONFIG = FusionConfig()
Draw = Callable[..., pd.DataFrame]
Build = Callable[..., tuple[Path, Path, Path]]


def _halves(rows: pd.DataFrame) -> pd.DataFrame:
    group = rows["group_id"].str[1:].astype(int)
    return rows.assign(split=np.where(group % 2 == 0, "calib", "test"))


def _scores(out: Path) -> pd.DataFrame:
    return read_table(out / "scores.parquet", VIDEO_SCORES).to_pandas()


def test_scores_every_sample(build: Build, draw: Draw, tmp_path: Path) -> None:
    rows = _halves(draw(400, 0, feature=1.0))
    outcome = run_fuse(*build(rows), tmp_path / "out", CONFIG, 3)
    info, scores = FusionInfo.load(tmp_path / "out" / "fusion.json"), _scores(tmp_path / "out")
    assert info.used
    assert sorted(scores["sample_id"]) == sorted(rows["sample_id"])
    test = scores[scores["split"] == "test"]
    before = rows.set_index("sample_id").loc[test["sample_id"]]
    assert roc_auc(test["label"], test["probability"]) > roc_auc(before["label"], before["logit"]) + 0.03
    assert outcome.metrics["fusion_used"] == 1
    assert outcome.metrics["scored"] == 400
    assert outcome.metrics["calib_nll_fusion"] < outcome.metrics["calib_nll_ensemble"]
    assert outcome.messages[0] == info.decision
    assert "max_f1" in outcome.messages[1]
    assert FusionAnalysis.load(tmp_path / "out" / "analysis.json").weights[0].input in {"ensemble", "temp.flow_oddity"}


def test_labels_and_features_of_test_change_nothing_that_is_chosen(build: Build, draw: Draw, tmp_path: Path) -> None:
    rows = _halves(draw(200, 1, feature=0.7, missing=0.2))
    rng = np.random.default_rng(0)
    other = rows["split"] == "test"
    shuffled = rows.assign(
        label=rows["label"].where(~other, rng.permutation(rows["label"])),
        **{"art.edge": rows["art.edge"].where(~other, 17.0)},
    )
    run_fuse(*build(rows, "a"), tmp_path / "a" / "out", CONFIG, 3)
    run_fuse(*build(shuffled, "b"), tmp_path / "b" / "out", CONFIG, 3)
    for file in ("fusion.json", "analysis.json"):
        assert (tmp_path / "a/out" / file).read_bytes() == (tmp_path / "b/out" / file).read_bytes()


def test_same_bytes_again(build: Build, draw: Draw, tmp_path: Path) -> None:
    folders = build(_halves(draw(160, 2, feature=1.0, missing=0.2)))
    for name in "xy":
        run_fuse(*folders, tmp_path / name, CONFIG, 3)
    for file in ("fusion.json", "analysis.json", "scores.parquet"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()


def test_what_cannot_be_scored_is_a_row_with_a_reason(build: Build, draw: Draw, tmp_path: Path) -> None:
    rows = _halves(draw(160, 3, feature=1.0))
    rows.loc[[4, 5], "logit"] = np.nan
    names = rows["sample_id"]
    folders = build(
        rows, failed={names[5]: "no_face: none in 30 frames", names[6]: "truncated: half"}, absent=frozenset({names[7]})
    )
    outcome = run_fuse(*folders, tmp_path / "out", CONFIG, 3)
    scores = _scores(tmp_path / "out").set_index("sample_id").loc[names]
    missing = scores[scores["probability"].isna()]
    assert missing["reason"].str.split(":").str[0].tolist() == ["no_score", "no_face", "truncated", "no_features"]
    assert missing.index.tolist() == names[4:8].tolist()
    assert missing[["logit", "agreement"]].isna().all(axis=None)
    assert scores.loc[scores["probability"].notna(), "reason"].isna().all()
    assert outcome.metrics["unscored"] == 4
    assert "no_face 1" in outcome.messages[-1]


def test_few_samples_go_through(build: Build, draw: Draw, tmp_path: Path) -> None:
    rows = _halves(draw(24, 4))
    outcome = run_fuse(*build(rows), tmp_path / "out", CONFIG.model_copy(update={"fallback": "ensemble"}), 3)
    info = FusionInfo.load(tmp_path / "out" / "fusion.json")
    assert not info.used
    assert not (tmp_path / "out" / "analysis.json").exists()
    assert "used as it is" in outcome.messages[0]
    assert _scores(tmp_path / "out")["probability"].notna().all()


def test_what_does_not_belong_together_is_refused(build: Build, draw: Draw, tmp_path: Path) -> None:
    rows = _halves(draw(40, 5))
    with pytest.raises(InputError, match="version v0, not of v1"):
        run_fuse(*build(rows, feature_version="v0"), tmp_path / "out", CONFIG, 3)
    dataset, ensemble, _ = build(rows, "b")
    _, _, moved = build(rows.assign(split="calib"), "c")
    with pytest.raises(ContractError, match="of split calib, but the data set says test"):
        run_fuse(dataset, ensemble, moved, tmp_path / "out", CONFIG, 3)
    assert not (tmp_path / "out").exists()
