"""The figures of an evaluation: every system, every slice, with intervals. Measured on test, nothing is chosen here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask import metrics
from unmask.ensemble.apply import apply_ensemble
from unmask.evaluation.inputs import Inputs, Kind, SystemScores, groups_of
from unmask.schemas import Estimate, OperatingPoint

ECE_BINS = 15
FRAME_KEY = ["sample_id", "face_index", "frame_index"]
LOW_FPRS = {"tpr_at_fpr05": 0.05, "tpr_at_fpr01": 0.01}
NO_SPREAD = "no interval: every resample gave the same value, which shows few mistakes and not certainty"


@dataclass(frozen=True)
class FigureSpec:
    """What a figure is called and how to read it.

    Attributes:
        title: Its name.
        meaning: What it says, in plain words.
        better: Which direction is better; ``none`` for a yardstick.
        thresholded: Whether it depends on the operating point.
        unit: How it is written.
    """

    title: str
    meaning: str
    better: Literal["higher", "lower", "none"]
    thresholded: bool = False
    unit: Literal["", "%"] = ""


FIGURES: Mapping[str, FigureSpec] = MappingProxyType(
    {
        "roc_auc": FigureSpec(
            "ROC AUC", "chance that a fake gets a higher score than a real; 0.5 is guessing", "higher"
        ),
        "pr_auc": FigureSpec("PR AUC", "average precision; guessing gives the share of fakes", "higher"),
        "eer": FigureSpec("EER", "error rate where both kinds of error are equally frequent", "lower", unit="%"),
        "tpr_at_fpr05": FigureSpec(
            "TPR at FPR 5 %", "share of fakes found while at most 5 % of reals are called fake", "higher", unit="%"
        ),
        "tpr_at_fpr01": FigureSpec(
            "TPR at FPR 1 %", "share of fakes found while at most 1 % of reals are called fake", "higher", unit="%"
        ),
        "accuracy": FigureSpec("Accuracy", "share of right verdicts", "higher", True, "%"),
        "precision": FigureSpec("Precision", "share of fakes among what was called fake", "higher", True, "%"),
        "recall": FigureSpec("Recall", "share of fakes that were called fake", "higher", True, "%"),
        "f1": FigureSpec("F1", "harmonic mean of precision and recall", "higher", True),
        "brier": FigureSpec("Brier", "mean squared error of the probability; 0.25 is always saying 0.5", "lower"),
        "nll": FigureSpec("NLL", "mean surprise in nats; 0.69 is always saying 0.5", "lower"),
        "ece": FigureSpec("ECE", "mean gap between stated probability and observed share of fakes", "lower"),
        "ece_if_calibrated": FigureSpec(
            "ECE if calibrated", "what the ECE would be by chance with perfect probabilities on so many samples", "none"
        ),
    }
)


def measure(scores: SystemScores, threshold: float, rng: np.random.Generator, resamples: int) -> dict[str, Estimate]:
    """Measure all figures of one system.

    Args:
        scores: Its probabilities on test.
        threshold: Fake if the probability is at least this; chosen earlier, on calib.
        rng: Source of the resamples.
        resamples: How many, drawn by group.

    Returns:
        Name in `FIGURES` to estimate, in that order. Undefined figures have the value None and their n.
    """
    chosen: dict[str, metrics.Metric] = {
        "roc_auc": metrics.roc_auc,
        "pr_auc": metrics.pr_auc,
        "eer": metrics.equal_error_rate,
        **{name: partial(metrics.tpr_at_fpr, max_fpr=limit) for name, limit in LOW_FPRS.items()},
        "accuracy": partial(metrics.accuracy, threshold=threshold),
        "precision": partial(metrics.precision, threshold=threshold),
        "recall": partial(metrics.recall, threshold=threshold),
        "f1": partial(metrics.f1, threshold=threshold),
        "brier": metrics.brier,
        "nll": metrics.negative_log_likelihood,
        "ece": partial(metrics.expected_calibration_error, bins=ECE_BINS),
    }
    found = bootstrap(chosen, scores.labels, scores.probabilities, scores.groups, rng, resamples)
    found |= _of_proportions(found, scores.labels, scores.probabilities, threshold)
    found["ece_if_calibrated"] = metrics.calibration_error_if_perfect(scores.probabilities, rng=rng, bins=ECE_BINS)
    return found


def frame_systems(inputs: Inputs) -> list[SystemScores]:
    """Collect the frame scores of each detector, and of the ensemble applied frame by frame.

    Fusion has none: forensic features belong to a whole file.

    Args:
        inputs: With the detectors and the fitted ensemble.

    Returns:
        The detectors, and with more than one of them the ensemble, over the frames that any of them scored.
    """
    found = [
        _of_frames(one.info.name, "detector", one.frames, one.probabilities(one.frames["logit"]))
        for one in inputs.detectors
    ]
    if len(inputs.detectors) < 2:
        return found
    frames = pd.concat([one.frames for one in inputs.detectors]).drop_duplicates(FRAME_KEY).sort_values(FRAME_KEY)
    places = pd.MultiIndex.from_frame(frames[FRAME_KEY])
    logits = [one.frames.set_index(FRAME_KEY)["logit"].reindex(places).to_numpy() for one in inputs.detectors]
    probabilities = apply_ensemble(inputs.ensemble, np.stack(logits, axis=1))[1]
    return [*found, _of_frames("ensemble", "ensemble", frames, probabilities)]


def _of_frames(name: str, kind: Kind, rows: pd.DataFrame, probabilities: NDArray[np.float64]) -> SystemScores:
    labels = rows["label"].to_numpy(np.int64)
    return SystemScores(name, kind, rows["sample_id"].to_numpy(object), labels, probabilities, groups_of(rows))


def parts_of(scores: SystemScores, samples: pd.DataFrame) -> dict[str, SystemScores]:
    """Cut the test split: each manipulation against all reals, each source and compression by itself.

    A manipulation has no reals of its own, so its fakes meet all reals of test. A source or a compression is compared
    within itself, because between them a detector can score by the look of the source.

    Args:
        scores: Of one system.
        samples: Rows of SAMPLES.

    Returns:
        ``manipulation=…``, ``source=…``, ``compression=…``, and ``modality=…`` where there are several, to the scores
        of that part.
    """
    about = samples.set_index("sample_id").reindex(scores.sample_ids)
    parts: dict[str, NDArray[np.bool_]] = {}
    columns = ["manipulation", "source", "compression"]
    if about["modality"].nunique() > 1:
        columns.append("modality")
    for column in columns:
        values = about[column].fillna("unknown").to_numpy(object)
        against = (scores.labels == 0) if column == "manipulation" else np.zeros(len(values), bool)
        relevant = values[scores.labels == 1] if column == "manipulation" else values
        for value in sorted(set(relevant)):
            own = (values == value) & ((scores.labels == 1) | (column != "manipulation"))
            parts[f"{column}={value}"] = own | against
    return {name: scores.only(rows) for name, rows in parts.items()}


def measure_parts(
    scores: SystemScores, samples: pd.DataFrame, threshold: float, seed: int, resamples: int
) -> dict[str, dict[str, Estimate]]:
    """Measure one system on each part of the test split.

    Args:
        scores: Of the system.
        samples: Rows of SAMPLES.
        threshold: Chosen earlier, on calib.
        seed: Of the resamples; every system meets the same.
        resamples: How many.

    Returns:
        Name of the part, see `parts_of`, to the figures of `measure` and to ``tpr`` and ``fpr``; undefined where the
        part has one class only.
    """
    found = {}
    for name, part in parts_of(scores, samples).items():
        fpr, tpr = rates_at(part.labels, part.probabilities, threshold)
        found[name] = {
            **measure(part, threshold, np.random.default_rng([seed, 3]), resamples),
            "tpr": tpr,
            "fpr": fpr,
        }
    return found


def unresolved(n_reals: int) -> dict[str, str]:
    """Say which figures at a low false positive rate so few reals cannot support.

    A rate below a limit is shown, with 95 % certainty, by no false alarm among log(0.05) / log(1 - limit) reals.

    Args:
        n_reals: Reals with a score.

    Returns:
        Name of the figure to a sentence; empty when there are enough.
    """
    sentences = {}
    for name, limit in LOW_FPRS.items():
        needed = math.ceil(math.log(0.05) / math.log1p(-limit))
        if n_reals < needed:
            sentences[name] = (
                f"{n_reals} reals cannot show that the false alarm rate is at most {limit:.0%}; "
                f"{needed} without a false alarm would."
            )
    return sentences


def if_unscored_were_wrong(scores: SystemScores, rows: pd.DataFrame, threshold: float) -> dict[str, Estimate]:
    """Bound the figures from below: every labelled test sample without a score counts as a mistake.

    Args:
        scores: Of one system.
        rows: All labelled test samples, with ``sample_id`` and ``label``.
        threshold: Chosen earlier, on calib.

    Returns:
        ``accuracy``, ``tpr`` and ``fpr`` with exact intervals.
    """
    missing = rows.loc[~rows["sample_id"].isin(set(scores.sample_ids)), "label"]
    lost_reals, lost_fakes = int((missing == 0).sum()), int((missing == 1).sum())
    (tn, fp), (fn, tp) = metrics.confusion(scores.labels, scores.probabilities, threshold)
    n_reals, n_fakes = tn + fp + lost_reals, fn + tp + lost_fakes
    return {
        "accuracy": metrics.clopper_pearson(tn + tp, n_reals + n_fakes),
        "tpr": metrics.clopper_pearson(tp, n_fakes),
        "fpr": metrics.clopper_pearson(fp + lost_reals, n_reals),
    }


def rates_at(
    labels: NDArray[np.int64], probabilities: NDArray[np.float64], threshold: float
) -> tuple[Estimate, Estimate]:
    """Measure false and true positive rate at a threshold, with exact intervals.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``.
        threshold: Fake if the probability is at least this.

    Returns:
        False positive rate (n counts reals) and true positive rate (n counts fakes), Clopper-Pearson.
    """
    (tn, fp), (fn, tp) = metrics.confusion(labels, probabilities, threshold)
    return metrics.clopper_pearson(fp, tn + fp), metrics.clopper_pearson(tp, fn + tp)


def as_measured(point: OperatingPoint, scores: SystemScores) -> OperatingPoint:
    """Take an operating point that was chosen on calib and measure it on test.

    Args:
        point: Name and threshold.
        scores: The system that it belongs to.

    Returns:
        The same name and threshold, with the rates of test.
    """
    fpr, tpr = rates_at(scores.labels, scores.probabilities, point.threshold)
    note = "threshold chosen on calib, rates measured on test"
    return point.model_copy(update={"fpr": fpr, "tpr": tpr, "note": f"{point.note}; {note}" if point.note else note})


def bootstrap(
    chosen: Mapping[str, metrics.Metric],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    groups: NDArray[np.object_],
    rng: np.random.Generator,
    resamples: int,
) -> dict[str, Estimate]:
    """Estimate figures of one system, with no samples and no spread told apart from certainty.

    Args:
        chosen: Name to figure.
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``.
        groups: ``(N,)``; what shares one is drawn together.
        rng: Source of the resamples.
        resamples: How many.

    Returns:
        Name to estimate.
    """
    if not len(labels):
        return {name: Estimate(value=None, n=0, method="no samples") for name in chosen}
    found = metrics.bootstrap_estimates(chosen, labels, {"system": probabilities}, groups, rng=rng, resamples=resamples)
    return {name: _without_false_certainty(estimate) for name, estimate in found["system"].items()}


def _without_false_certainty(estimate: Estimate) -> Estimate:
    """Drop an interval of no width: with few samples and no mistake, all resamples agree, and prove nothing."""
    if estimate.low is None or estimate.high is None or estimate.low < estimate.high:
        return estimate
    return estimate.model_copy(update={"low": None, "high": None, "method": NO_SPREAD})


def _of_proportions(
    found: Mapping[str, Estimate],
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float64],
    threshold: float,
) -> dict[str, Estimate]:
    """Give proportions their true n, and those of exactly 0 or 1 the exact interval that the bootstrap cannot give."""
    if not len(labels):
        return {}
    (tn, fp), (fn, tp) = metrics.confusion(labels, probabilities, threshold)
    n_fakes = fn + tp
    counts: Sequence[tuple[str, int, int]] = (
        ("accuracy", tn + tp, len(labels)),
        ("precision", tp, tp + fp),
        ("recall", tp, n_fakes),
        *((name, round((found[name].value or 0) * n_fakes), n_fakes) for name in LOW_FPRS),
    )
    return {name: _of_proportion(found[name], hits, trials) for name, hits, trials in counts}


def _of_proportion(estimate: Estimate, hits: int, trials: int) -> Estimate:
    if estimate.value is None or estimate.low is not None:
        return estimate.model_copy(update={"n": trials})
    return metrics.clopper_pearson(hits, trials)
