"""Operating points: thresholds with names, chosen on calib, each with what calib can and cannot say about it."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from unmask.ensemble.apply import FloatArray
from unmask.metrics import clopper_pearson, confusion
from unmask.metrics.curves import IntArray, SortedScores
from unmask.schemas import OperatingPoint, rows_for_choice

ASSUMED_THRESHOLD = 0.5
CONFIDENCE = 0.95


def reals_needed(target_fpr: float) -> int:
    """Count the reals without which a false positive rate cannot be shown to be below a target.

    Even without a single false alarm, n reals bound the rate only by 1 - 0.05^(1/n) (at 95 %, one-sided): 59 reals
    for 5 %, 299 for 1 %.

    Args:
        target_fpr: In (0, 1).

    Returns:
        The number.
    """
    return math.ceil(math.log(1 - CONFIDENCE) / math.log(1 - target_fpr))


def choose_operating_points(
    rows: pd.DataFrame, target_fpr: float, target_precision: float = 0.95
) -> dict[str, OperatingPoint]:
    """Choose thresholds by F1, by Youden's index, by a limit on false alarms, and by precision.

    A threshold lies half-way between two neighbouring probabilities; of equally good ones the highest is taken,
    which raises fewer alarms.

    Args:
        rows: Calib rows with ``label`` 0 or 1, ``split`` and out-of-fold ``probability``.
        target_fpr: Largest share of reals that may be called fake at the point ``target_fpr``.
        target_precision: Smallest share of fakes among what is called fake at the point ``fixed_precision``.

    Returns:
        Name to operating point: max_f1, youden, target_fpr, fixed_precision.

    Raises:
        LeakError: A row is not of calib.
    """
    rows = rows_for_choice(rows, {"calib"}, "choose_operating_points")
    labels = rows["label"].to_numpy(dtype=np.int64)
    probabilities = rows["probability"].to_numpy(dtype=np.float64)
    if len(np.unique(labels)) < 2:
        note = "calib does not hold both classes, so this threshold is assumed, not chosen"
        return {
            name: _point(name, ASSUMED_THRESHOLD, labels, probabilities, False, note)
            for name in ("max_f1", "youden", "target_fpr", "fixed_precision")
        }
    scores = SortedScores(labels, probabilities)
    cuts = _cuts(scores.thresholds)
    hits = SortedScores.count_at_least(scores.fake_scores, cuts)
    alarms = SortedScores.count_at_least(scores.real_scores, cuts)
    fakes, reals = len(scores.fake_scores), len(scores.real_scores)
    f1 = 2 * hits / (hits + alarms + fakes)
    youden = hits / fakes - alarms / reals
    # The highest cut raises the fewest alarms; it is allowed even if probabilities of exactly 1 exceed the target.
    allowed = np.flatnonzero((alarms / reals <= target_fpr + 1e-12) | (alarms == alarms[0]))
    limited = allowed[np.argmax(hits[allowed])]
    return {
        "max_f1": _separating("max_f1", float(cuts[np.argmax(f1)]), labels, probabilities),
        "youden": _separating("youden", float(cuts[np.argmax(youden)]), labels, probabilities),
        "target_fpr": _limited(float(cuts[limited]), labels, probabilities, target_fpr),
        "fixed_precision": _precise(cuts, hits, alarms, labels, probabilities, target_precision),
    }


def _cuts(descending: FloatArray) -> FloatArray:
    """Place thresholds above, between and below the distinct probabilities, from the highest down."""
    edges = np.concatenate([[1.0], descending, [0.0]])
    middles: FloatArray = 0.5 * (edges[:-1] + edges[1:])
    return middles


def _point(
    name: str, threshold: float, labels: IntArray, probabilities: FloatArray, resolvable: bool, note: str
) -> OperatingPoint:
    (tn, fp), (fn, tp) = confusion(labels, probabilities, threshold)
    return OperatingPoint(
        name=name,
        threshold=threshold,
        fpr=clopper_pearson(fp, fp + tn, CONFIDENCE),
        tpr=clopper_pearson(tp, tp + fn, CONFIDENCE),
        resolvable=resolvable,
        note=note,
    )


def _separating(name: str, threshold: float, labels: IntArray, probabilities: FloatArray) -> OperatingPoint:
    """Build a point without a target: it is resolved when fakes are surely called fake more often than reals."""
    point = _point(name, threshold, labels, probabilities, True, "")
    if (point.fpr.high or 0.0) < (point.tpr.low or 0.0):
        return point
    note = f"{point.fpr.n} reals and {point.tpr.n} fakes of calib do not show that this threshold separates them"
    return point.model_copy(update={"resolvable": False, "note": note})


def _limited(threshold: float, labels: IntArray, probabilities: FloatArray, target_fpr: float) -> OperatingPoint:
    point = _point("target_fpr", threshold, labels, probabilities, True, f"at most {target_fpr:.1%} of calib reals")
    needed = reals_needed(target_fpr)
    if point.fpr.n >= needed:
        return point
    note = (
        f"calib has {point.fpr.n} reals; {needed} without a false alarm would be needed to claim {target_fpr:.1%}, "
        f"so the true rate may be as high as {point.fpr.high:.1%}"
    )
    return point.model_copy(update={"resolvable": False, "note": note})


def _precise(
    cuts: FloatArray, hits: IntArray, alarms: IntArray, labels: IntArray, probabilities: FloatArray, target: float
) -> OperatingPoint:
    """Find most fakes while the share of right alarms keeps to a target; it depends on how common fakes are."""
    called = hits + alarms
    reached = np.flatnonzero((called > 0) & (hits >= (target - 1e-12) * called))
    if not len(reached):
        note = f"no threshold reaches a precision of {target:.0%} on calib; this one raises the fewest alarms"
        return _point("fixed_precision", float(cuts[0]), labels, probabilities, False, note)
    best = reached[np.argmax(hits[reached])]
    precision = clopper_pearson(int(hits[best]), int(called[best]), CONFIDENCE)
    share = f"{labels.mean():.0%} of calib are fakes, and precision depends on that"
    note = f"precision on calib {precision}; {share}"
    # Resolved when all but one in twenty such samples would have shown less, were the true precision below the target.
    lowest = clopper_pearson(int(hits[best]), int(called[best]), 2 * CONFIDENCE - 1).low or 0.0
    return _point("fixed_precision", float(cuts[best]), labels, probabilities, lowest >= target, note)
