"""The stage `ensemble` on folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmask.config import EnsembleConfig
from unmask.ensemble.ensemble_stage import run_ensemble
from unmask.errors import ContractError, InputError
from unmask.metrics import roc_auc
from unmask.schemas import VIDEO_LOGITS, VIDEO_SCORES, EnsembleInfo, read_table

CONFIG = EnsembleConfig(trials=15, folds=4)


def _good(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return 3 * (1.6 * labels - 0.8 + rng.standard_normal(len(labels)))


def _noise(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal(len(labels))


def _run(build, tmp_path: Path, into: str, **how):
    dataset, trained, samples = build({"good": _good, "noise": _noise}, into=into, **how)
    outcome = run_ensemble(dataset, trained, tmp_path / into / "out", CONFIG, 7)
    return EnsembleInfo.load(tmp_path / into / "out" / "ensemble.json"), outcome, samples, tmp_path / into / "out"


def test_scores_every_sample_and_silences_noise(build, tmp_path: Path) -> None:
    info, outcome, samples, out = _run(build, tmp_path, "a")
    scores = read_table(out / "scores.parquet", VIDEO_SCORES).to_pandas()
    assert sorted(scores["sample_id"]) == sorted(samples["sample_id"])
    test = scores[scores["split"] == "test"]
    assert roc_auc(test["label"], test["probability"]) > 0.8
    assert info.detectors == ["good", "noise"]
    good, noise = np.array(info.weights) / info.temperatures
    assert noise < 0.2 * good
    assert outcome.metrics["weight_good"] + outcome.metrics["weight_noise"] == pytest.approx(1)
    assert outcome.metrics["calib_auc"] > 0.8
    assert outcome.metrics["scored"] == len(samples)
    assert outcome.messages[0] == info.decision


def test_labels_of_other_splits_change_nothing(build, tmp_path: Path) -> None:
    def shuffle(samples: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng(99)
        other = samples["split"] != "calib"
        return samples.assign(label=samples["label"].where(~other, rng.permutation(samples["label"])))

    _run(build, tmp_path, "a")
    _run(build, tmp_path, "b", edit=shuffle)
    a, b = (read_table(tmp_path / k / "out" / "scores.parquet", VIDEO_SCORES).to_pandas() for k in "ab")
    assert (a["label"] != b["label"]).any()
    assert (tmp_path / "a/out/ensemble.json").read_bytes() == (tmp_path / "b/out/ensemble.json").read_bytes()
    assert a["probability"].tolist() == b["probability"].tolist()


def test_same_bytes_again_and_in_any_order_of_detectors(build, tmp_path: Path) -> None:
    dataset, trained, _ = build({"good": _good, "noise": _noise})
    for name, folders in (("x", trained), ("y", trained[::-1])):
        run_ensemble(dataset, folders, tmp_path / name, CONFIG, 7)
    for file in ("ensemble.json", "scores.parquet"):
        assert (tmp_path / "x" / file).read_bytes() == (tmp_path / "y" / file).read_bytes()


def test_samples_without_a_score_are_rows_with_a_reason(build, tmp_path: Path) -> None:
    both, one = f"{5:016x}", f"{6:016x}"
    failed = f"{7:016x}"

    def fail(samples: pd.DataFrame) -> pd.DataFrame:
        bad = samples["sample_id"] == failed
        return samples.assign(
            split=samples["split"].mask(bad), status=samples["status"].mask(bad, "failed"),
            reason=pd.Series(None, index=samples.index, dtype=object).mask(bad, "truncated: half of it"),
        )  # fmt: skip

    _, outcome, samples, out = _run(build, tmp_path, "a", edit=fail, drop={"good": {both, one}, "noise": {both}})
    scores = read_table(out / "scores.parquet", VIDEO_SCORES).to_pandas().set_index("sample_id")
    assert failed not in scores.index
    assert len(scores) == len(samples) - 1
    assert scores.loc[both, ["logit", "probability", "agreement"]].isna().all()
    assert scores.loc[both, "reason"].startswith("no_score: ")
    assert np.isfinite(scores.loc[one, "probability"])
    assert scores["reason"].notna().sum() == 1
    assert outcome.metrics["unscored"] == 1


def test_one_detector(build, tmp_path: Path) -> None:
    dataset, trained, _ = build({"good": _good})
    run_ensemble(dataset, trained, tmp_path / "out", CONFIG, 7)
    info = EnsembleInfo.load(tmp_path / "out" / "ensemble.json")
    assert (info.method, info.weights, info.temperature) == ("single", [1.0], 1.0)


def test_what_does_not_belong_together_is_refused(build, dataset_writer, tmp_path: Path) -> None:
    dataset, trained, samples = build({"good": _good, "noise": _noise})
    with pytest.raises(InputError, match="No detector"):
        run_ensemble(dataset, [], tmp_path / "out", CONFIG, 7)
    with pytest.raises(InputError, match="twice"):
        run_ensemble(dataset, [trained[0], trained[0]], tmp_path / "out", CONFIG, 7)
    other = dataset_writer(tmp_path / "other", samples, version="v2")
    with pytest.raises(InputError, match="version v1, not on v2"):
        run_ensemble(other, trained, tmp_path / "out", CONFIG, 7)
    moved = dataset_writer(tmp_path / "moved", samples.assign(split=samples["split"].replace("test", "calib")))
    with pytest.raises(ContractError, match="of split test, but the data set says calib"):
        run_ensemble(moved, trained, tmp_path / "out", CONFIG, 7)
    assert not (tmp_path / "out").exists()


def test_weights_alone_are_fitted_anew_from_stored_scores(build, tmp_path: Path) -> None:
    """Other settings: platt calibrations are kept although temperatures are configured, weights follow the method."""
    dataset, trained, _ = build({"good": _good, "noise": _noise})
    platt = EnsembleConfig(trials=15, folds=4, method="equal", calibration="platt")
    run_ensemble(dataset, trained, tmp_path / "first", platt, 7)
    anew = CONFIG.model_copy(update={"method": "bayesian"})
    outcome = run_ensemble(dataset, [], tmp_path / "second", anew, 7, tmp_path / "first")
    first, second = (EnsembleInfo.load(tmp_path / name / "ensemble.json") for name in ("first", "second"))
    assert first.weights == [0.5, 0.5]
    assert (second.calibrations, second.temperatures) == (first.calibrations, first.temperatures)
    assert second.method == "bayesian"
    assert second.weights != first.weights
    assert second.calibrations[0].kind == "platt"
    assert "only the weights are new" in " ".join(outcome.messages)
    # From the folders of the detectors it is the same, and the first result is untouched.
    run_ensemble(dataset, trained, tmp_path / "third", anew, 7, tmp_path / "first")
    for file in ("ensemble.json", "scores.parquet", "detector_logits.parquet"):
        assert (tmp_path / "second" / file).read_bytes() == (tmp_path / "third" / file).read_bytes()


def test_other_detectors_or_another_data_set_cannot_be_reweighed(build, dataset_writer, tmp_path: Path) -> None:
    dataset, trained, samples = build({"good": _good, "noise": _noise})
    run_ensemble(dataset, trained, tmp_path / "first", CONFIG, 7)
    with pytest.raises(InputError, match="its detectors are good, noise, but the scores are of good"):
        run_ensemble(dataset, trained[:1], tmp_path / "out", CONFIG, 7, tmp_path / "first")
    other = dataset_writer(tmp_path / "other", samples, version="v2")
    with pytest.raises(InputError, match="calibrated on data set version v1, not on v2"):
        run_ensemble(other, [], tmp_path / "out", CONFIG, 7, tmp_path / "first")
    assert not (tmp_path / "out").exists()


def test_uncertain_ones_are_counted_and_pay(build, tmp_path: Path) -> None:
    def fair(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return 2 * (2 * labels - 1 + 1.5 * rng.standard_normal(len(labels)))

    dataset, trained, _ = build({"one": fair, "two": fair}, n=2000, groups=1000)
    outcome = run_ensemble(dataset, trained, tmp_path / "out", CONFIG, 7)
    info = EnsembleInfo.load(tmp_path / "out" / "ensemble.json")
    rows = read_table(tmp_path / "out" / "scores.parquet", VIDEO_SCORES).to_pandas()
    uncertain = rows["agreement"] < info.agreement_threshold
    assert outcome.metrics["uncertain"] == uncertain.sum()
    assert outcome.metrics["uncertain_share"] == pytest.approx(uncertain.mean())
    told = next(message for message in outcome.messages if message.startswith("Uncertain: "))
    logits = read_table(tmp_path / "out" / "detector_logits.parquet", VIDEO_LOGITS).to_pandas()
    sides = logits.assign(logit=logits["logit"] >= 0).pivot(index="sample_id", columns="detector", values="logit")
    by_head = int((sides["one"] != sides["two"]).sum())
    assert told == (
        f"Uncertain: {uncertain.sum()} of 2000 samples ({uncertain.mean():.0%}), where the detectors, each counted by "
        f"how sure it is, agree to less than 80%; counting heads would make it {by_head}."
    )
    assert uncertain.sum() < by_head
    right = (rows["probability"] >= 0.5) == (rows["label"] == 1)
    assert right[~uncertain].mean() > right[uncertain].mean() + 0.1
    calib = rows["split"] == "calib"
    share = right[calib & ~uncertain].mean()
    assert any(message.startswith(f"On calib the ensemble is right on {share:.0%} [") for message in outcome.messages)
