"""`unmask fuse`: detectors and features become the probability and the verdict of each sample."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from unmask.config import FusionConfig
from unmask.ensemble.folds import counted
from unmask.ensemble.phrases import share_of
from unmask.errors import ContractError, InputError
from unmask.features.catalogue import CATALOGUE
from unmask.fusion.analysis import analyse
from unmask.fusion.apply import apply_fusion, fusion_logit
from unmask.fusion.fit import FusionFit, fit_fusion
from unmask.schemas import (
    FEATURES,
    SAMPLES,
    VIDEO_SCORES,
    DatasetInfo,
    EnsembleInfo,
    ExtractionInfo,
    FusionInfo,
    StageOutcome,
    new_directory,
    read_table,
    rows_for_choice,
    write_table,
)

logger = logging.getLogger(__name__)
KEYS = ["sample_id", "label", "group_id", "split"]
NOT_EXTRACTED = "no_features: this sample is not in the table of features"
NO_SCORE = "no_score: no detector scored this sample"


def run_fuse(dataset: Path, ensemble: Path, features: Path, out: Path, config: FusionConfig, seed: int) -> StageOutcome:
    """Fit fusion and operating points on calib and score every sample.

    Args:
        dataset: Folder with ``samples.parquet`` and ``dataset.json``.
        ensemble: Folder that `unmask ensemble` wrote.
        features: Folder with ``features.parquet`` and ``extraction.json``.
        out: Folder for ``fusion.json``, ``scores.parquet`` and, unless calib is too small, ``analysis.json``.
        config: Settings.
        seed: Of folds and resamples.

    Returns:
        Figures on calib, and sentences on what was decided.

    Raises:
        InputError: The features are of another data set.
        ContractError: A file is missing or broken, or tables disagree about a split.
    """
    table, names = _read(dataset, ensemble, features)
    info = EnsembleInfo.load(ensemble / "ensemble.json")
    scorable = table["reason"].isna()
    calib = table[scorable & (table["split"] == "calib") & table["label"].notna()]
    calib = rows_for_choice(calib, {"calib"}, "run_fuse")
    rng = np.random.default_rng(seed)
    directions = {name: spec.direction for name, spec in CATALOGUE.items()}
    measured = table[table["split"].isin(["train", "val", "calib"])]
    fit = fit_fusion(calib, names, info.temperature, config, rng, directions, measured)
    scores = _score(table, names, fit.info)
    with new_directory(out) as folder:
        fit.info.save(folder / "fusion.json")
        if fit.usable:
            analysis = analyse(calib, fit.usable, fit.splits, config, rng)
            analysis.save(folder / "analysis.json")
        write_table(folder / "scores.parquet", scores, VIDEO_SCORES)
    return _outcome(scores, fit, len(calib))


def _read(dataset: Path, ensemble: Path, features: Path) -> tuple[pd.DataFrame, list[str]]:
    """Put ensemble scores and features beside the samples; ``reason`` says why a sample cannot be scored."""
    version = DatasetInfo.load(dataset / "dataset.json").version
    extracted = ExtractionInfo.load(features / "extraction.json")
    if extracted.dataset_version != version:
        raise InputError(
            f"{features}: the features are of data set version {extracted.dataset_version}, not of {version}.",
            "Extract features of the data set that is given to --dataset.",
        )
    samples: pd.DataFrame = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    samples = samples.loc[samples["split"].notna(), KEYS].sort_values("sample_id", ignore_index=True)
    scored: pd.DataFrame = read_table(ensemble / "scores.parquet", VIDEO_SCORES).to_pandas()
    measured: pd.DataFrame = read_table(features / "features.parquet", FEATURES).to_pandas()
    for source, rows in ((ensemble / "scores.parquet", scored), (features / "features.parquet", measured)):
        _check_splits(source, rows, samples)
    known = {column.name for column in FEATURES.columns}
    names = [name for name in measured.columns if name not in known]
    table = samples.merge(scored[["sample_id", "logit", "agreement", "reason"]], on="sample_id", how="left")
    measured = measured[["sample_id", "status", "reason", *names]].rename(columns={"reason": "failure"})
    table = table.merge(measured, on="sample_id", how="left")
    reasons = pd.Series([_reason(*row) for row in _states(table)], index=table.index, dtype=object)
    return table.assign(reason=reasons), names


def _check_splits(source: Path, rows: pd.DataFrame, samples: pd.DataFrame) -> None:
    """Refuse a table whose splits are not those of the data set, because calib rows could be test rows there."""
    both = rows[["sample_id", "split"]].merge(samples[["sample_id", "split"]], on="sample_id", suffixes=("", "_true"))
    wrong = both[both["split"].notna() & (both["split"] != both["split_true"])]
    if len(wrong):
        first = wrong.iloc[0]
        raise ContractError(
            source,
            f"sample {first['sample_id']}",
            f"is of split {first['split']}, but the data set says {first['split_true']}",
            "Run the stage that wrote it again on this data set.",
        )


def _states(table: pd.DataFrame) -> list[tuple[str | None, str | None, str | None, bool]]:
    text = table[["status", "failure", "reason"]].astype(object)
    text = text.where(text.notna(), None)
    return [(*row, bool(there)) for row, there in zip(text.to_numpy().tolist(), table["logit"].notna(), strict=True)]


def _reason(status: str | None, failure: str | None, unscored: str | None, has_logit: bool) -> str | None:
    """Say why a sample cannot be scored; the extractor knows best, because it looked at the media."""
    if status is None:
        return NOT_EXTRACTED
    if status == "failed":
        return failure or "failed: extraction failed without a reason"
    return None if has_logit else (unscored or NO_SCORE)


def _score(table: pd.DataFrame, names: list[str], info: FusionInfo) -> pd.DataFrame:
    possible = table["reason"].isna().to_numpy()
    columns = {name: table[name].to_numpy(dtype=np.float64) for name in names}
    ensemble_logit = np.where(possible, table["logit"].to_numpy(dtype=np.float64), np.nan)
    logit = fusion_logit(info, ensemble_logit, columns)
    probability = apply_fusion(info, ensemble_logit, columns)
    agreement = table["agreement"].where(possible)
    return table[KEYS].assign(logit=logit, probability=probability, agreement=agreement, reason=table["reason"])


def _outcome(scores: pd.DataFrame, fit: FusionFit, n_calib: int) -> StageOutcome:
    point = fit.info.operating_points[fit.info.default_operating_point]
    scored = scores["probability"].notna()
    metrics = {"scored": float(scored.sum()), "unscored": float((~scored).sum()), "threshold": point.threshold}
    metrics |= {"calib_samples": float(n_calib), "fusion_used": float(fit.info.used)}
    metrics |= {f"calib_nll_{name}": estimate.value for name, estimate in fit.nll.items() if estimate.value is not None}
    messages = [
        fit.messages[0],
        f"Operating point {point.name}: called fake from probability {point.threshold:.3f} on. On calib that finds "
        f"{share_of(point.tpr, 'fake')} and is a false alarm for {share_of(point.fpr, 'real')}.",
    ]
    if not point.resolvable:
        messages.append(f"Calib is too small to promise that: {point.note}.")
    unresolved = [other.name for other in fit.info.operating_points.values() if not other.resolvable]
    if unresolved and point.resolvable:
        messages.append(f"Calib is too small to promise what these operating points aim at: {', '.join(unresolved)}.")
    messages += fit.messages[1:]
    if not scored.all():
        codes = scores.loc[~scored, "reason"].str.split(":").str[0].value_counts()
        reasons = ", ".join(f"{code} {count}" for code, count in codes.items())
        n = int((~scored).sum())
        messages.append(f"{counted(n, 'sample')} without a probability ({reasons}).")
    return StageOutcome(metrics=metrics, messages=tuple(messages))
