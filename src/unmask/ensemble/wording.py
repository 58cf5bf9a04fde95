"""What `unmask ensemble` tells about its decisions: figures, and sentences for a person."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd

from unmask.ensemble.apply import FloatArray, calibrated_logits
from unmask.ensemble.folds import counted
from unmask.ensemble.phrases import share_of
from unmask.ensemble.selection import EnsembleChoice
from unmask.metrics import clopper_pearson
from unmask.schemas import EnsembleInfo, StageOutcome, rows_for_choice


def outcome_of(
    table: pd.DataFrame, scores: pd.DataFrame, choice: EnsembleChoice, info: EnsembleInfo, kept: bool
) -> StageOutcome:
    """Sum up an ensemble.

    Args:
        table: One row a sample with one column of raw logits a detector.
        scores: Rows of VIDEO_SCORES of the same samples in the same order.
        choice: What was decided, and why.
        info: What is stored.
        kept: Whether the calibrations are those of an earlier ensemble.

    Returns:
        Figures on calib, and sentences.
    """
    scored = scores["logit"].notna()
    uncertain = scored & (scores["agreement"] < info.agreement_threshold)
    metrics = {f"weight_{name}": weight for name, weight in zip(info.detectors, info.weights, strict=True)}
    metrics |= {"scored": float(scored.sum()), "unscored": float((~scored).sum()), "uncertain": float(uncertain.sum())}
    used = f"detector {info.detectors[0]}" if info.method == "single" else info.method
    auc = info.candidates.get(used)
    if auc is not None and auc.value is not None:
        metrics["calib_auc"] = auc.value
    messages = [choice.decision]
    if kept:
        messages.append("The calibration of the detectors is that of the earlier ensemble; only the weights are new.")
    elif info.calibrations:
        kinds = ", ".join(f"{n} {c.kind}" for n, c in zip(info.detectors, info.calibrations, strict=True))
        messages.append(f"Calibration of the detectors: {kinds}.")
    named = zip([*info.detectors, "the ensemble"], [*choice.temperatures, choice.temperature], strict=True)
    messages += [f"Calibration of {name}: {one.note}." for name, one in named if one.note]
    if len(info.detectors) > 1 and scored.any():
        metrics["uncertain_share"] = float(uncertain.sum() / scored.sum())
        messages.append(_disagreement(table, scores, info))
        messages += _right_when_certain(scores[(scores["split"] == "calib") & scored], info.agreement_threshold)
    if not scored.all():
        n = int((~scored).sum())
        messages.append(f"{counted(n, 'sample')} without a score: no detector had face crops or sound of {_them(n)}.")
    if partly := _partly_scored(table[info.detectors]):
        metrics["partly_scored"] = float(sum(partly.values()))
        messages.append(_renormalised(partly))
    return StageOutcome(metrics=metrics, messages=tuple(messages))


def _partly_scored(logits: pd.DataFrame) -> dict[str, int]:
    """Count the samples that some detectors could not score, by the names of those that could."""
    there = logits.notna()
    some = there[there.any(axis=1) & ~there.all(axis=1)]
    return Counter(", ".join(name for name in some.columns if row[name]) for _, row in some.iterrows())


def _renormalised(partly: dict[str, int]) -> str:
    shares = "; ".join(f"{n} by {names}" for names, n in sorted(partly.items()))
    return (
        f"{counted(sum(partly.values()), 'sample')} scored by some of the detectors only, whose weights were scaled up "
        f"to 1 there: {shares}."
    )


def _them(n: int) -> str:
    return "it" if n == 1 else "them"


def heads(calibrated: FloatArray) -> FloatArray:
    """Compute the share of detectors on the majority's side, each counted alike.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.

    Returns:
        ``(N,)`` in [0.5, 1]; NaN where none has a score.
    """
    scored = (~np.isnan(calibrated)).sum(axis=1)
    fake = (calibrated >= 0).sum(axis=1)
    out: FloatArray = np.full(len(calibrated), np.nan)
    np.divide(np.maximum(fake, scored - fake), scored, out=out, where=scored > 0)
    return out


def _disagreement(table: pd.DataFrame, scores: pd.DataFrame, info: EnsembleInfo) -> str:
    scored = int(scores["logit"].notna().sum())
    uncertain = int((scores["agreement"] < info.agreement_threshold).sum())
    by_head = heads(calibrated_logits(info, table[info.detectors].to_numpy(dtype=np.float64)))
    alike = int((by_head < info.agreement_threshold).sum())
    return (
        f"Uncertain: {uncertain} of {counted(scored, 'sample')} ({uncertain / scored:.0%}), where the detectors, each "
        f"counted by how sure it is, agree to less than {info.agreement_threshold:.0%}; counting heads would make it "
        f"{alike}."
    )


def _right_when_certain(rows: pd.DataFrame, threshold: float) -> list[str]:
    """Say whether calling verdicts uncertain pays, on calib and at the probability 0.5."""
    rows = rows_for_choice(rows[rows["label"].notna()], {"calib"}, "outcome_of")
    right = ((rows["probability"] >= 0.5) == (rows["label"] == 1)).to_numpy()
    certain = (rows["agreement"] >= threshold).to_numpy()
    if not len(rows) or certain.all() or not certain.any():
        return []
    sure, unsure = (clopper_pearson(int(right[part].sum()), int(part.sum())) for part in (certain, ~certain))
    told = f"{share_of(sure, 'certain one')} and {share_of(unsure, 'uncertain one')}"
    return [f"On calib the ensemble is right on {told}."]
