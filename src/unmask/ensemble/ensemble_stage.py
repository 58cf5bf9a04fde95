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
from unmask.ensemble.wording import outcome_of
from unmask.errors import ContractError, InputError
from unmask.schemas import (
    FRAME_SCORES,
    SAMPLES,
    VIDEO_LOGITS,
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
LOGITS_FILE = "detector_logits.parquet"
NO_SCORE = (
    "no_score: no detector scored this sample; extraction gave no face crops or sound of it that one of them takes"
)


def run_ensemble(
    dataset: Path,
    trained: Sequence[Path],
    out: Path,
    config: EnsembleConfig,
    seed: int,
    reweigh: Path | None = None,
) -> StageOutcome:
    """Fit calibrations and weights on calib and score every sample.

    Args:
        dataset: Folder with ``samples.parquet`` and ``dataset.json``.
        trained: Folders that `unmask train` wrote; their order does not matter. May be empty with ``reweigh``.
        out: Folder for ``ensemble.json``, ``scores.parquet`` and ``detector_logits.parquet``.
        config: Settings.
        seed: Of folds, search and resamples.
        reweigh: Folder of an earlier ensemble: the calibrations of its detectors are kept, and only the combination
            is fitted anew, from its own stored logits unless trained folders are given.

    Returns:
        Figures on calib, and sentences on what was decided.

    Raises:
        InputError: No detector, one detector twice, other detectors than those of the earlier ensemble, or a detector
            of another data set.
        ContractError: A file is missing or broken, or a table disagrees with the data set about a split.
    """
    samples = _samples(dataset)
    version = DatasetInfo.load(dataset / "dataset.json").version
    kept = _earlier(reweigh, version) if reweigh else None
    stored = reweigh is not None and not trained
    logits = _stored_logits(reweigh) if reweigh is not None and stored else _detector_logits(trained, version)
    if kept is not None and kept.detectors != list(logits):
        raise InputError(
            f"{reweigh}: its detectors are {', '.join(kept.detectors)}, but the scores are of {', '.join(logits)}.",
            "Give --trained the folders of the same detectors, or leave --reweigh out to calibrate anew.",
        )
    table = _join(samples, logits)
    names = list(logits)
    calib = rows_for_choice(table[_choosable(table, names)], {"calib"}, "run_ensemble")
    rng = np.random.default_rng(seed)
    choice = choose_weights(calib, names, config, rng, kept)
    info = _info(names, choice, config, version)
    scores = _score(table, names, info)
    with new_directory(out) as folder:
        info.save(folder / "ensemble.json")
        write_table(folder / "scores.parquet", scores, VIDEO_SCORES)
        write_table(folder / LOGITS_FILE, _long(table, names), VIDEO_LOGITS)
    logger.info("ensemble of %s on %d calib samples", ", ".join(names), len(calib))
    return outcome_of(table, scores, choice, info, kept is not None)


def _earlier(folder: Path, version: str) -> EnsembleInfo:
    """Read the ensemble whose calibrations are kept."""
    info = EnsembleInfo.load(folder / "ensemble.json")
    if info.dataset_version not in ("", version):
        raise InputError(
            f"{folder}: the ensemble was calibrated on data set version {info.dataset_version}, not on {version}.",
            "Samples may have moved between splits; leave --reweigh out to calibrate anew.",
        )
    return info


def _stored_logits(folder: Path) -> dict[str, pd.DataFrame]:
    rows = read_table(folder / LOGITS_FILE, VIDEO_LOGITS).to_pandas()
    return {str(name): own for name, own in rows.groupby("detector", sort=True)}


def _long(table: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Give each logit a row, so that weights can be fitted again without the folders of the detectors."""
    long = table.melt(["sample_id", "split"], names, "detector", "logit").dropna(subset=["logit"])
    return long.sort_values(["sample_id", "detector"], ignore_index=True)


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
        logits[info.name] = video_logits(frames, info.aggregation)
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


def _info(names: list[str], choice: EnsembleChoice, config: EnsembleConfig, version: str) -> EnsembleInfo:
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
        gains=choice.gains,
        dataset_version=version,
    )


def _score(table: pd.DataFrame, names: list[str], info: EnsembleInfo) -> pd.DataFrame:
    logit, probability, agreement = apply_ensemble(info, table[names].to_numpy(dtype=np.float64))
    reason = pd.Series([NO_SCORE if np.isnan(value) else None for value in logit], index=table.index, dtype=object)
    return table[KEYS].assign(logit=logit, probability=probability, agreement=agreement, reason=reason)
