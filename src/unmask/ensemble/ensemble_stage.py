"""`unmask ensemble`: the scores of all detectors become one calibrated probability a sample."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unmask.config import EnsembleConfig
from unmask.ensemble.apply import apply_ensemble, video_logits
from unmask.ensemble.selection import EnsembleChoice, choose_weights
from unmask.errors import ContractError, InputError
from unmask.schemas import (
    FRAME_SCORES,
    SAMPLES,
    VIDEO_SCORES,
    DatasetInfo,
    DetectorInfo,
    EnsembleInfo,
    StageOutcome,
    new_directory,
    read_table,
    rows_for_choice,
    write_table,
)

logger = logging.getLogger(__name__)
KEYS = ["sample_id", "label", "group_id", "split"]
NO_SCORE = "no_score: no detector scored this sample; extraction gave no face crops of it"


def run_ensemble(dataset: Path, trained: Sequence[Path], out: Path, config: EnsembleConfig, seed: int) -> StageOutcome:
    """Fit temperatures and weights on calib and score every sample.

    Args:
        dataset: Folder with ``samples.parquet`` and ``dataset.json``.
        trained: Folders that `unmask train` wrote; their order does not matter.
        out: Folder for ``ensemble.json`` and ``scores.parquet``.
        config: Settings.
        seed: Of folds, search and resamples.

    Returns:
        Figures on calib, and sentences on what was decided.

    Raises:
        InputError: No detector, one detector twice, or a detector of another data set.
        ContractError: A file is missing or broken, or a table disagrees with the data set about a split.
    """
    samples = _samples(dataset)
    logits = _detector_logits(trained, DatasetInfo.load(dataset / "dataset.json").version)
    table = _join(samples, logits)
    names = list(logits)
    calib = rows_for_choice(table[_choosable(table, names)], {"calib"}, "run_ensemble")
    rng = np.random.default_rng(seed)
    choice = choose_weights(calib, names, config, rng)
    info = _info(names, choice, config)
    scores = _score(table, names, info)
    with new_directory(out) as folder:
        info.save(folder / "ensemble.json")
        write_table(folder / "scores.parquet", scores, VIDEO_SCORES)
    logger.info("ensemble of %s on %d calib samples", ", ".join(names), len(calib))
    return _outcome(scores, choice, info)


def _samples(dataset: Path) -> pd.DataFrame:
    samples = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    split: pd.DataFrame = samples.loc[samples["split"].notna(), KEYS]
    return split.sort_values("sample_id", ignore_index=True)


def _detector_logits(trained: Sequence[Path], version: str) -> dict[str, pd.DataFrame]:
    """Read the video logits of each detector, sorted by name so that the order of folders does not matter."""
    if not trained:
        raise InputError("No detector was given.", "Give --trained the folders that `unmask train` wrote.")
    logits: dict[str, pd.DataFrame] = {}
    for folder in trained:
        info = DetectorInfo.load(folder / "detector.json")
        if info.dataset_version != version:
            raise InputError(
                f"{folder}: {info.name} was trained on data set version {info.dataset_version}, not on {version}.",
                "Train all detectors on the data set that is given to --dataset.",
            )
        if info.name in logits:
            raise InputError(f"{folder}: detector {info.name} is given twice.", "Give each detector once.")
        frames = read_table(folder / "scores.parquet", FRAME_SCORES).to_pandas()
        logits[info.name] = video_logits(frames)
    return {name: logits[name] for name in sorted(logits)}


def _join(samples: pd.DataFrame, logits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Put one column of logits a detector beside the samples; labels, groups and splits come from the samples."""
    table = samples
    for name, scored in logits.items():
        known = scored.merge(samples[["sample_id", "split"]], on="sample_id", how="left", suffixes=("", "_of_sample"))
        wrong = known[known["split"] != known["split_of_sample"]]
        if len(wrong):
            first = wrong.iloc[0]
            raise ContractError(
                f"scores of {name}",
                f"sample {first['sample_id']}",
                f"is of split {first['split']}, but the data set says {first['split_of_sample']}",
                "Train the detector again on this data set.",
            )
        table = table.merge(scored[["sample_id", "logit"]].rename(columns={"logit": name}), on="sample_id", how="left")
    return table


def _choosable(table: pd.DataFrame, names: list[str]) -> pd.Series[bool]:
    return (table["split"] == "calib") & table["label"].notna() & table[names].notna().any(axis=1)


def _info(names: list[str], choice: EnsembleChoice, config: EnsembleConfig) -> EnsembleInfo:
    combination = choice.combination
    special = any(calibration.kind != "temperature" for calibration in choice.calibrations)
    return EnsembleInfo(
        detectors=names,
        temperatures=[temperature.value for temperature in choice.temperatures],
        weights=[float(weight) for weight in combination.weights],
        temperature=choice.temperature.value,
        method=choice.method,
        decision=choice.decision,
        candidates=choice.candidates,
        agreement_threshold=config.agreement_threshold,
        calibrations=list(choice.calibrations) if special else [],
        certainty=combination.certainty,
        deviation=combination.deviation,
        stacking=list(combination.stacking),
    )


def _score(table: pd.DataFrame, names: list[str], info: EnsembleInfo) -> pd.DataFrame:
    logit, probability, agreement = apply_ensemble(info, table[names].to_numpy(dtype=np.float64))
    reason = pd.Series([NO_SCORE if np.isnan(value) else None for value in logit], index=table.index, dtype=object)
    return table[KEYS].assign(logit=logit, probability=probability, agreement=agreement, reason=reason)


def _outcome(scores: pd.DataFrame, choice: EnsembleChoice, info: EnsembleInfo) -> StageOutcome:
    scored = scores["logit"].notna()
    uncertain = scored & (scores["agreement"] < info.agreement_threshold)
    metrics = {f"weight_{name}": weight for name, weight in zip(info.detectors, info.weights, strict=True)}
    metrics |= {"scored": float(scored.sum()), "unscored": float((~scored).sum()), "uncertain": float(uncertain.sum())}
    used = f"detector {info.detectors[0]}" if info.method == "single" else info.method
    auc = info.candidates.get(used)
    if auc is not None and auc.value is not None:
        metrics["calib_auc"] = auc.value
    messages = [choice.decision]
    if info.calibrations:
        kinds = ", ".join(f"{n} {c.kind}" for n, c in zip(info.detectors, info.calibrations, strict=True))
        messages.append(f"Calibration of the detectors: {kinds}.")
    for name, temperature in zip(
        [*info.detectors, "ensemble"], [*choice.temperatures, choice.temperature], strict=True
    ):
        if temperature.note:
            messages.append(f"{name}: {temperature.note}.")
    if len(info.detectors) > 1:
        messages.append(f"Detectors disagree on {int(uncertain.sum())} of {int(scored.sum())} samples (uncertain).")
    if not scored.all():
        messages.append(f"{int((~scored).sum())} samples have no score: no detector had crops of them.")
    return StageOutcome(metrics=metrics, messages=tuple(messages))
