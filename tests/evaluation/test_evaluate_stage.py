"""The stage on folders with real tables: figures against independent computations, test rows only, no crash."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats
from sklearn import metrics as reference
from stage_folders import QUICK, Folders

from unmask.config import EvaluateConfig
from unmask.ensemble.apply import sigmoid
from unmask.errors import ContractError, InputError
from unmask.evaluation.figures import unresolved
from unmask.evaluation.perturbations import perturb
from unmask.evaluation.robustness import choose_samples
from unmask.media.preprocessing import decode_crop
from unmask.schemas import (
    FACES,
    FRAME_SCORES,
    ROBUSTNESS,
    SAMPLES,
    VIDEO_SCORES,
    DetectorInfo,
    Document,
    EnsembleInfo,
    EvaluationInfo,
    FusionInfo,
    read_table,
    write_table,
)


@pytest.fixture(scope="module")
def info(evaluation: Path) -> EvaluationInfo:
    return EvaluationInfo.load(evaluation / "metrics.json")


def test_rows(folders: Folders, system: str) -> pd.DataFrame:
    if system in ("ensemble", "fusion"):
        rows = read_table(folders.root / system / "scores.parquet", VIDEO_SCORES).to_pandas()
        return rows.loc[(rows["split"] == "test") & rows["probability"].notna()]
    frames = frame_rows(folders, system)
    rows = frames.groupby("sample_id").agg(label=("label", "first"), logit=("logit", "mean")).reset_index()
    return rows.assign(probability=sigmoid(rows["logit"] / temperature(folders, system)))


test_rows.__test__ = False  # type: ignore[attr-defined]


def frame_rows(folders: Folders, detector: str) -> pd.DataFrame:
    rows = read_table(folders.root / f"trained-{detector}" / "scores.parquet", FRAME_SCORES).to_pandas()
    return rows.loc[rows["split"] == "test"]


def temperature(folders: Folders, detector: str) -> float:
    ensemble = EnsembleInfo.load(folders.ensemble / "ensemble.json")
    return ensemble.temperatures[ensemble.detectors.index(detector)]


@pytest.mark.parametrize("system", ["fusion", "ensemble", "meso4", "meso4-b"])
def test_figures_equal_scikit_learn(folders: Folders, info: EvaluationInfo, system: str) -> None:
    rows = test_rows(folders, system)
    y, p = rows["label"].astype(int), rows["probability"]
    called = p >= FusionInfo.load(folders.fusion / "fusion.json").operating_points["max_f1"].threshold
    fpr, tpr, _ = reference.roc_curve(y, p, drop_intermediate=False)
    crossing = np.interp(0, fpr - (1 - tpr), fpr)
    expected = {
        "roc_auc": reference.roc_auc_score(y, p),
        "pr_auc": reference.average_precision_score(y, p),
        "eer": crossing,
        "tpr_at_fpr05": tpr[fpr <= 0.05].max(),
        "tpr_at_fpr01": tpr[fpr <= 0.01].max(),
        "accuracy": reference.accuracy_score(y, called),
        "precision": reference.precision_score(y, called),
        "recall": reference.recall_score(y, called),
        "f1": reference.f1_score(y, called),
        "brier": reference.brier_score_loss(y, p),
        "nll": reference.log_loss(y, p),
    }
    found = info.video[system]
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=1e-9)
    assert set(found) == {*expected, "ece", "ece_if_calibrated"}
    assert found["roc_auc"].n == len(rows) == 23
    assert found["recall"].n == int(y.sum())
    assert found["precision"].n == int(called.sum())


def test_frame_figures_equal_scikit_learn(folders: Folders, info: EvaluationInfo) -> None:
    for detector in ("meso4", "meso4-b"):
        found = info.frame[detector]
        rows = frame_rows(folders, detector)
        p = sigmoid(rows["logit"] / temperature(folders, detector))
        assert found["roc_auc"].value == pytest.approx(reference.roc_auc_score(rows["label"].astype(int), p))
        assert found["nll"].value == pytest.approx(reference.log_loss(rows["label"].astype(int), p))
        assert found["roc_auc"].n == len(rows) == 46
    assert set(info.frame) == {"meso4", "meso4-b", "ensemble"}


def test_the_ensemble_is_applied_frame_by_frame(folders: Folders, info: EvaluationInfo) -> None:
    """With equal weights it is the mean of the calibrated logits."""
    keys = ["sample_id", "face_index", "frame_index"]
    calibrated = [
        frame_rows(folders, name).set_index(keys)["logit"] / temperature(folders, name) for name in folders.detectors
    ]
    combined = sigmoid((calibrated[0] + calibrated[1]) / 2 / 1.1)
    labels = frame_rows(folders, "meso4").set_index(keys)["label"].astype(int)
    assert info.frame["ensemble"]["brier"].value == pytest.approx(reference.brier_score_loss(labels, combined))
    assert info.frame["ensemble"]["roc_auc"].value == pytest.approx(reference.roc_auc_score(labels, combined))


def test_every_system_is_measured_on_every_part(folders: Folders, info: EvaluationInfo) -> None:
    samples = read_table(folders.dataset / "samples.parquet", SAMPLES).to_pandas().set_index("sample_id")
    assert set(info.parts) == {"fusion", "ensemble", "meso4", "meso4-b"}
    assert info.parts["fusion"] == info.slices
    threshold = info.operating_point.threshold
    for system, parts in info.parts.items():
        rows = test_rows(folders, system).set_index("sample_id").join(samples[["source", "compression"]])
        for column in ("source", "compression"):
            for value, part in rows.groupby(column):
                y, p, found = part["label"].astype(int), part["probability"], parts[f"{column}={value}"]
                assert found["pr_auc"].value == pytest.approx(reference.average_precision_score(y, p))
                assert found["f1"].value == pytest.approx(reference.f1_score(y, p >= threshold))
                assert found["nll"].value == pytest.approx(reference.log_loss(y, p))
                assert found["tpr"].value == found["recall"].value
                assert set(info.video[system]) < set(found)


def test_what_so_few_reals_cannot_show_is_said(info: EvaluationInfo) -> None:
    assert "8 reals cannot show that the false alarm rate is at most 1%; 299" in info.unresolved["tpr_at_fpr01"]
    assert "59 without" in info.unresolved["tpr_at_fpr05"]
    # The counts are the fewest for which no alarm at all excludes a higher rate, one-sided at 95 %.
    assert unresolved(299) == {}
    assert set(unresolved(298)) == {"tpr_at_fpr01"}
    assert stats.binomtest(0, 299, 0.01, "less").pvalue <= 0.05 < stats.binomtest(0, 298, 0.01, "less").pvalue
    assert stats.binomtest(0, 59, 0.05, "less").pvalue <= 0.05 < stats.binomtest(0, 58, 0.05, "less").pvalue


def test_unscored_samples_are_counted_and_bound_the_figures(folders: Folders, info: EvaluationInfo) -> None:
    assert info.unscored == dict.fromkeys(("fusion", "ensemble", "meso4", "meso4-b"), 1)
    assert "in no figure" in info.unscored_policy
    (tn, fp), (fn, tp) = info.confusion
    worst = info.if_unscored_were_wrong["fusion"]
    # The one without a face is a fake.
    assert worst["tpr"].value == pytest.approx(tp / (fn + tp + 1))
    assert worst["fpr"].value == pytest.approx(fp / (tn + fp))
    assert worst["accuracy"].value == pytest.approx((tn + tp) / 24)
    assert worst["tpr"].value < info.operating_point.tpr.value


def test_every_figure_has_an_interval_around_it_and_n(info: EvaluationInfo) -> None:
    for group in (info.video, info.frame, info.slices):
        for figures in group.values():
            for name, one in figures.items():
                assert one.n > 0
                assert one.value is not None
                if one.low is None:
                    assert one.method.startswith("no interval"), name
                else:
                    assert one.low <= one.value <= one.high, name
                    assert one.low < one.high


def test_operating_point_is_that_of_calib_measured_on_test(folders: Folders, info: EvaluationInfo) -> None:
    chosen = FusionInfo.load(folders.fusion / "fusion.json").operating_points["max_f1"]
    rows = test_rows(folders, "fusion")
    called = rows["probability"] >= chosen.threshold
    matrix = reference.confusion_matrix(rows["label"].astype(int), called)
    assert np.asarray(info.confusion).tolist() == matrix.tolist()
    (tn, fp), (fn, tp) = info.confusion
    point = info.operating_point
    assert (point.name, point.threshold) == ("max_f1", chosen.threshold)
    for rate, hits, n in ((point.fpr, fp, tn + fp), (point.tpr, tp, fn + tp)):
        exact = stats.binomtest(hits, n).proportion_ci(method="exact")
        assert (rate.value, rate.low, rate.high, rate.n) == pytest.approx((hits / n, exact.low, exact.high, n))


def test_slices_compare_each_manipulation_with_all_reals(folders: Folders, info: EvaluationInfo) -> None:
    samples = read_table(folders.dataset / "samples.parquet", SAMPLES).to_pandas().set_index("sample_id")
    rows = test_rows(folders, "fusion").set_index("sample_id").join(samples[["manipulation", "source", "compression"]])
    for name in folders.manipulations:
        part = rows.loc[(rows["manipulation"] == name) | (rows["label"] == 0)]
        found = info.slices[f"manipulation={name}"]["roc_auc"]
        assert found.value == pytest.approx(reference.roc_auc_score(part["label"].astype(int), part["probability"]))
        assert found.n == len(part)
    for column in ("source", "compression"):
        for value, part in rows.groupby(column):
            found = info.slices[f"{column}={value}"]["roc_auc"]
            assert found.value == pytest.approx(reference.roc_auc_score(part["label"].astype(int), part["probability"]))
    assert not any("unknown" in name for name in info.slices)


def test_unscored_samples_are_counted_by_reason(info: EvaluationInfo) -> None:
    assert info.n_unscored == {"no_face": 1}
    assert info.n_scored == 23


def test_outcome_carries_what_the_pipeline_draws(folders: Folders, tmp_path: Path) -> None:
    outcome = folders.evaluate(tmp_path / "out")
    info = EvaluationInfo.load(tmp_path / "out" / "metrics.json")
    assert outcome.metrics["fusion_roc_auc"] == info.video["fusion"]["roc_auc"].value
    assert outcome.metrics["fusion_roc_auc_low"] < outcome.metrics["fusion_roc_auc"]
    assert all(math.isfinite(value) for value in outcome.metrics.values())
    assert outcome.confusion == info.confusion
    assert outcome.roc is not None
    assert (outcome.roc[0][1:], outcome.roc[-1][1:]) == ((0.0, 0.0), (1.0, 1.0))
    assert np.trapezoid([y for *_, y in outcome.roc], [x for _, x, _ in outcome.roc]) == pytest.approx(
        outcome.metrics["fusion_roc_auc"]
    )


def test_same_input_same_bytes(folders: Folders, evaluation: Path, tmp_path: Path) -> None:
    folders.evaluate(tmp_path / "again")
    for name in ("metrics.json", "robustness.parquet", "report.html", "summary.md"):
        assert (tmp_path / "again" / name).read_bytes() == (evaluation / name).read_bytes(), name


def shuffle_labels(path: Path, spec: object, splits: tuple[str, ...]) -> None:
    rows = read_table(path, spec).to_pandas()  # type: ignore[arg-type]
    chosen = rows["split"].isin(splits)
    rows.loc[chosen, "label"] = 1 - rows.loc[chosen, "label"]
    write_table(path, rows, spec)  # type: ignore[arg-type]


def test_labels_of_other_splits_change_no_test_figure(copied: Folders, info: EvaluationInfo, tmp_path: Path) -> None:
    for path, spec in (
        (copied.dataset / "samples.parquet", SAMPLES),
        (copied.ensemble / "scores.parquet", VIDEO_SCORES),
        (copied.fusion / "scores.parquet", VIDEO_SCORES),
        *((folder / "scores.parquet", FRAME_SCORES) for folder in copied.trained),
    ):
        shuffle_labels(path, spec, ("train", "val", "calib"))
    copied.evaluate(tmp_path / "out")
    assert EvaluationInfo.load(tmp_path / "out" / "metrics.json") == info


def test_labels_of_test_change_figures_but_nothing_that_was_chosen(
    copied: Folders, info: EvaluationInfo, tmp_path: Path
) -> None:
    for path in (copied.ensemble, copied.fusion):
        shuffle_labels(path / "scores.parquet", VIDEO_SCORES, ("test",))
    copied.evaluate(tmp_path / "out")
    flipped = EvaluationInfo.load(tmp_path / "out" / "metrics.json")
    assert flipped.video["fusion"]["roc_auc"].value == pytest.approx(1 - info.video["fusion"]["roc_auc"].value)
    assert flipped.operating_point.threshold == info.operating_point.threshold
    assert any("worse than guessing" in warning or "cannot be told" in warning for warning in flipped.warnings)


def only_label(folders: Folders, label: int) -> None:
    """Leave test samples of one class."""
    for path, spec in (
        (folders.dataset / "samples.parquet", SAMPLES),
        (folders.ensemble / "scores.parquet", VIDEO_SCORES),
        (folders.fusion / "scores.parquet", VIDEO_SCORES),
        *((folder / "scores.parquet", FRAME_SCORES) for folder in folders.trained),
    ):
        rows = read_table(path, spec).to_pandas()
        write_table(path, rows.loc[(rows["split"] != "test") | (rows["label"] == label)], spec)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_in_test_is_undefined_and_not_a_crash(copied: Folders, tmp_path: Path, label: int) -> None:
    only_label(copied, label)
    outcome = copied.evaluate(tmp_path / "out")
    found = EvaluationInfo.load(tmp_path / "out" / "metrics.json")
    assert found.video["fusion"]["roc_auc"].value is None
    assert found.video["fusion"]["brier"].value is not None
    assert "fusion_roc_auc" not in outcome.metrics
    assert outcome.roc is None
    assert found.warnings[0].startswith("Nothing can be said about the quality")
    assert "undefined" in (tmp_path / "out" / "report.html").read_text()
    robustness = read_table(tmp_path / "out" / "robustness.parquet", ROBUSTNESS).to_pandas()
    assert robustness.loc[robustness["metric"] == "roc_auc", "value"].isna().all()


def test_no_test_sample_at_all_is_no_crash(copied: Folders, tmp_path: Path) -> None:
    only_label(copied, 7)
    copied.evaluate(tmp_path / "out")
    found = EvaluationInfo.load(tmp_path / "out" / "metrics.json")
    assert found.n_scored == 0
    assert all(one.value is None and one.n == 0 for one in found.video["fusion"].values())


def test_a_slice_of_one_class_is_undefined(copied: Folders, tmp_path: Path) -> None:
    path = copied.dataset / "samples.parquet"
    samples = read_table(path, SAMPLES).to_pandas()
    samples.loc[(samples["split"] == "test") & (samples["label"] == 1), "source"] = "fakes-only"
    write_table(path, samples, SAMPLES)
    copied.evaluate(tmp_path / "out")
    found = EvaluationInfo.load(tmp_path / "out" / "metrics.json").slices["source=fakes-only"]
    assert found["roc_auc"].value is None
    assert found["tpr"].value is not None
    assert found["fpr"].n == 0


def test_robustness_of_undamaged_crops_is_that_of_the_stored_scores(
    folders: Folders, evaluation: Path, info: EvaluationInfo
) -> None:
    table = read_table(evaluation / "robustness.parquet", ROBUSTNESS).to_pandas()
    rows = table.loc[table["metric"] == "roc_auc"].set_index(["system", "perturbation", "severity"])["value"]
    for system in ("meso4", "meso4-b", "ensemble"):
        assert rows[system, "clean", 0] == pytest.approx(info.video[system]["roc_auc"].value, abs=1e-6)
    damages = table.loc[table["crafted_on"].isna()]
    assert set(damages["perturbation"]) == {"clean", "jpeg", "gaussian_blur"}
    assert set(damages["severity"]) == {0, 1, 5}
    changes = table.loc[table["metric"] == "roc_auc_change"].set_index(["system", "perturbation", "severity"])["value"]
    assert changes["meso4", "jpeg", 5] == pytest.approx(rows["meso4", "jpeg", 5] - rows["meso4", "clean", 0])
    assert changes["meso4", "clean", 0] == 0
    defined = table.dropna(subset=["low"])
    assert ((defined["low"] <= defined["value"]) & (defined["value"] <= defined["high"])).all()
    assert not any("cannot be reproduced" in warning for warning in info.warnings)


def test_robustness_of_one_condition_computed_by_hand(folders: Folders, evaluation: Path) -> None:
    from unmask.detectors import load_detector, score_images

    faces = read_table(folders.faces, FACES).to_pandas()
    rows = faces.loc[faces["split"] == "test"].reset_index(drop=True)
    rng = np.random.default_rng(0)
    images = [perturb(decode_crop(jpeg), "gaussian_blur", 5, rng) for jpeg in rows["jpeg"]]
    rows["logit"] = score_images(load_detector(folders.trained[0])[0], images)
    videos = rows.groupby("sample_id").agg(label=("label", "first"), logit=("logit", "mean"))
    expected = reference.roc_auc_score(videos["label"].astype(int), videos["logit"])
    table = read_table(evaluation / "robustness.parquet", ROBUSTNESS).to_pandas()
    found = table.set_index(["system", "perturbation", "severity", "metric"])["value"]
    assert found["meso4", "gaussian_blur", 5, "roc_auc"] == pytest.approx(expected, abs=1e-6)


def test_noise_does_not_depend_on_what_else_is_measured(folders: Folders, tmp_path: Path) -> None:
    def blurred(name: str, config: EvaluateConfig) -> pd.DataFrame:
        folders.evaluate(tmp_path / name, config)
        table = read_table(tmp_path / name / "robustness.parquet", ROBUSTNESS).to_pandas()
        return table.loc[table["perturbation"] == "gaussian_noise"].reset_index(drop=True)

    alone = blurred("alone", QUICK.model_copy(update={"perturbations": ("gaussian_noise",), "severities": (2,)}))
    both = blurred("both", QUICK.model_copy(update={"perturbations": ("jpeg", "gaussian_noise"), "severities": (2,)}))
    pd.testing.assert_frame_equal(alone, both)


def test_samples_are_capped_evenly_over_the_classes() -> None:
    samples = pd.DataFrame({"sample_id": [f"{k:02d}" for k in range(40)], "label": [0] * 30 + [1] * 10})
    chosen = choose_samples(samples, 16, np.random.default_rng(0))
    labels = samples.set_index("sample_id").loc[chosen, "label"]
    assert labels.value_counts().to_dict() == {0: 8, 1: 8}
    assert len(choose_samples(samples, 30, np.random.default_rng(0))) == 30
    assert len(choose_samples(samples, 100, np.random.default_rng(0))) == 40
    assert chosen == choose_samples(samples, 16, np.random.default_rng(0))
    assert chosen != choose_samples(samples, 16, np.random.default_rng(1))


def change(path: Path, kind: type[Document], **values: object) -> None:
    document = kind.load(path).model_dump(mode="json")
    path.write_text(json.dumps({**document, **values}))


def test_folders_of_different_runs_are_refused(copied: Folders, tmp_path: Path) -> None:
    change(copied.trained[0] / "detector.json", DetectorInfo, dataset_version="v0")
    with pytest.raises(InputError, match=r"version v1.*meso4 come from version v0"):
        copied.evaluate(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_detector_is_named(folders: Folders, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="made of meso4, meso4-b, but the trained detectors given are meso4"):
        Folders(folders.root, detectors=("meso4",)).evaluate(tmp_path / "out")


def test_scores_of_other_samples_are_refused(copied: Folders, tmp_path: Path) -> None:
    path = copied.fusion / "scores.parquet"
    rows = read_table(path, VIDEO_SCORES).to_pandas()
    write_table(
        path, rows.loc[rows["sample_id"] != rows.loc[rows["split"] == "test", "sample_id"].iloc[0]], VIDEO_SCORES
    )
    with pytest.raises(InputError, match="lacks 1 that it does"):
        copied.evaluate(tmp_path / "out")


def test_missing_faces_are_named(copied: Folders, tmp_path: Path) -> None:
    shutil.rmtree(copied.faces)
    with pytest.raises(ContractError, match="unmask extract"):
        copied.evaluate(tmp_path / "out")


def test_faces_without_the_scored_crops_are_refused(copied: Folders, tmp_path: Path) -> None:
    (copied.faces / "part-00001.parquet").unlink()
    with pytest.raises(InputError, match=r"lacks .* crops that the detectors scored"):
        copied.evaluate(tmp_path / "out")


def test_one_group_in_test_has_figures_but_no_intervals(copied: Folders, tmp_path: Path) -> None:
    for path, spec in (
        (copied.ensemble / "scores.parquet", VIDEO_SCORES),
        (copied.fusion / "scores.parquet", VIDEO_SCORES),
        *((folder / "scores.parquet", FRAME_SCORES) for folder in copied.trained),
    ):
        rows = read_table(path, spec).to_pandas()
        write_table(path, rows.assign(group_id="one"), spec)
    copied.evaluate(tmp_path / "out")
    found = EvaluationInfo.load(tmp_path / "out" / "metrics.json")
    assert found.video["fusion"]["roc_auc"].value is not None
    assert found.video["fusion"]["roc_auc"].low is None
    assert "proves nothing: 1 independent group in test" in found.warnings[0]
    summary = (tmp_path / "out" / "summary.md").read_text()
    assert "too few test samples to say how good it is (23 videos of 1 independent group" in summary


def test_scores_that_the_weights_do_not_give_are_told(copied: Folders, tmp_path: Path) -> None:
    path = copied.trained[0] / "scores.parquet"
    rows = read_table(path, FRAME_SCORES).to_pandas()
    write_table(path, rows.assign(logit=rows["logit"] + 0.5), FRAME_SCORES)
    copied.evaluate(tmp_path / "out")
    warnings = EvaluationInfo.load(tmp_path / "out" / "metrics.json").warnings
    assert any("meso4 cannot be reproduced" in warning and "0.5" in warning for warning in warnings)


def test_unlabelled_test_samples_are_counted_and_in_no_figure(copied: Folders, tmp_path: Path) -> None:
    some = read_table(copied.fusion / "scores.parquet", VIDEO_SCORES).to_pandas().query("split == 'test'")
    gone = set(some["sample_id"].iloc[:2])
    for path, spec in (
        (copied.dataset / "samples.parquet", SAMPLES),
        (copied.ensemble / "scores.parquet", VIDEO_SCORES),
        (copied.fusion / "scores.parquet", VIDEO_SCORES),
        *((folder / "scores.parquet", FRAME_SCORES) for folder in copied.trained),
    ):
        rows = read_table(path, spec).to_pandas()
        rows["label"] = rows["label"].astype("Int8").mask(rows["sample_id"].isin(gone))
        write_table(path, rows, spec)
    copied.evaluate(tmp_path / "out")
    found = EvaluationInfo.load(tmp_path / "out" / "metrics.json")
    assert found.n_unscored == {"no_face": 1, "unlabelled": 2}
    assert found.n_scored == 21
    assert found.frame["meso4"]["roc_auc"].n == 42


def test_robustness_table_is_readable_by_anything(evaluation: Path) -> None:
    table = pq.read_table(evaluation / "robustness.parquet")
    assert table.schema.equals(ROBUSTNESS.arrow_schema())
