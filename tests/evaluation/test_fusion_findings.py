"""What the report says about fusion: ablations, rules, certainty, each against a computation by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from stage_folders import FEATURE_NAMES, QUICK, Folders
from test_report import Parsed

from unmask.config import FusionConfig
from unmask.evaluation.fusion_findings import measure_ablations, measure_certainty, measure_rules
from unmask.evaluation.inputs import Inputs, load_inputs
from unmask.fusion.analysis import analyse
from unmask.fusion.apply import apply_fusion
from unmask.metrics import clopper_pearson, roc_auc
from unmask.schemas import FEATURES, VIDEO_SCORES, FusionInfo, FusionRules, RealEvidence, read_table

BARE = QUICK.model_copy(update={"perturbations": (), "attacks": ()})


def _load(folders: Folders) -> Inputs:
    return load_inputs(
        folders.dataset, folders.faces, folders.features, folders.trained, folders.ensemble, folders.fusion
    )


def _change_fusion(folders: Folders, **changes: object) -> None:
    path = folders.fusion / "fusion.json"
    FusionInfo.load(path).model_copy(update=changes).save(path)


@pytest.fixture
def analysed(copied: Folders) -> Folders:
    """The same folders with the analysis that `unmask fuse` would write."""
    scores = read_table(copied.ensemble / "scores.parquet", VIDEO_SCORES).to_pandas()
    features = read_table(copied.features / "features.parquet", FEATURES).to_pandas()
    rows = scores.merge(features[["sample_id", *FEATURE_NAMES]], on="sample_id")
    calib = rows[(rows["split"] == "calib") & rows["logit"].notna() & rows["label"].notna()]
    calib = calib.sort_values("sample_id", ignore_index=True)
    fold = calib["group_id"].astype("category").cat.codes.to_numpy() % 3
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(3)]
    analyse(calib, FEATURE_NAMES, splits, FusionConfig(), np.random.default_rng(0)).save(
        copied.fusion / "analysis.json"
    )
    return copied


def test_ablations_are_the_stored_fits_on_test(analysed: Folders) -> None:
    inputs = _load(analysed)
    assert inputs.analysis is not None
    found = measure_ablations(inputs, 200, 1)
    assert [one.name for one in found] == ["full", "without_quality", "without_detectors", "without_features"]
    rows = inputs.ensemble_rows.merge(inputs.features[["sample_id", *FEATURE_NAMES]], on="sample_id")
    scored = set(inputs.fusion_rows.dropna(subset=["probability"])["sample_id"])
    rows = rows[rows["sample_id"].isin(scored)]
    columns = {name: rows[name].to_numpy(float) for name in FEATURE_NAMES}
    aucs = [
        roc_auc(rows["label"], apply_fusion(one.model, rows["logit"], columns)) for one in inputs.analysis.ablations
    ]
    for finding, stored, auc in zip(found, inputs.analysis.ablations, aucs, strict=True):
        assert finding.test.value == pytest.approx(auc)
        assert finding.calib == stored.auc
    assert found[0].change is None
    assert found[2].change is not None
    assert found[2].change.value == pytest.approx(aucs[2] - aucs[0])


def test_without_an_analysis_there_are_no_ablations(folders: Folders) -> None:
    assert measure_ablations(_load(folders), 100, 1) == []


def test_rules_are_counted_on_test(copied: Folders) -> None:
    calib = clopper_pearson(1, 40)
    rule = RealEvidence(
        bounds={"art.texture": 4.5}, higher={"art.texture": True}, count=1, cap=0.2, reals=calib, fakes=calib
    )
    _change_fusion(copied, rules=FusionRules(real_evidence=rule))
    inputs = _load(copied)
    (found,) = measure_rules(inputs)
    rows = inputs.fusion_rows.merge(inputs.features[["sample_id", *FEATURE_NAMES]], on="sample_id")
    rows = rows.merge(inputs.ensemble_rows[["sample_id", "logit"]], on="sample_id", suffixes=("", "_ensemble"))
    rows = rows[rows["probability"].notna()]
    columns = {name: rows[name].to_numpy(float) for name in FEATURE_NAMES}
    free = apply_fusion(inputs.fusion.model_copy(update={"rules": FusionRules()}), rows["logit_ensemble"], columns)
    held = (rows["art.texture"] > 4.5) & (free > 0.2)
    for finding, label in ((found.reals, 0), (found.fakes, 1)):
        of = rows["label"] == label
        assert finding == clopper_pearson(int((held & of).sum()), int(of.sum()))
    assert held.any()
    assert found.largest == pytest.approx(0.2 - free[held].max())
    assert found.unusual  # 1 of 40 is less than 10 %
    assert found.calib_reals == calib


def test_certainty_is_counted_on_test(folders: Folders) -> None:
    inputs = _load(folders)
    certain, uncertain = measure_certainty(inputs)
    rows = inputs.fusion_rows.dropna(subset=["probability"])
    sure = rows["agreement"] >= 0.8
    right = (rows["probability"] >= inputs.operating_point.threshold) == (rows["label"] == 1)
    assert certain.share == clopper_pearson(int(sure.sum()), len(rows))
    assert uncertain.share == clopper_pearson(int((~sure).sum()), len(rows))
    assert certain.right == clopper_pearson(int((right & sure).sum()), int(sure.sum()))
    assert uncertain.right == clopper_pearson(int((right & ~sure).sum()), int((~sure).sum()))


def test_the_report_shows_what_fusion_rests_on(analysed: Folders, tmp_path: Path) -> None:
    calib = clopper_pearson(1, 40)
    rule = RealEvidence(
        bounds={"art.texture": 4.5}, higher={"art.texture": True}, count=1, cap=0.2, reals=calib, fakes=calib
    )
    heavy = {"ensemble": 0.4, "quality.blur": 0.05, "art.texture": 0.5, "temp.rppg": 0.03, "missing:temp.rppg": 0.02}
    _change_fusion(analysed, rules=FusionRules(real_evidence=rule), importance=heavy)
    analysed.evaluate(tmp_path / "out", BARE)
    page = Parsed((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    for words in (
        "Features that fusion leans on",
        "Without some of the inputs, on calib",
        "Without some of the inputs, on test",
        "no quality measures leaves out Sharpness (quality.blur)",
        "Rules on top",
        "Strong camera evidence holds the probability of 1 of 40 calib reals (0.1–13 %) down",
        "Artefact and frequency features carry 83 % of the weight of all features (60 % of that of fusion)",
        "At 0.460, the threshold in use",
        "At 0.5, for comparison",
        "When the networks contradict each other",
    ):
        assert words in page.text, words


def test_the_report_names_the_fallback(copied: Folders, tmp_path: Path) -> None:
    _change_fusion(copied, method="fallback", decision="Rule-based fallback: no fusion was trained, for a reason.")
    copied.evaluate(tmp_path / "out", BARE)
    page = Parsed((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "averaged by written weights with 3 forensic features" in page.text
    assert page.text.count("Rule-based fallback: no fusion was trained, for a reason.") == 2
    assert "Written weights of the features" in page.text
