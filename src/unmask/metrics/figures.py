"""The figures: of ranking, of probabilities, and of decisions at a threshold.

Each figure exists twice: as a function of labels and scores, and (with the same lines underneath) as a function of
weighed scores that gives one value for each of ``B`` resamples. Undefined figures, for example an AUC of one class,
are None, and NaN in the weighed form.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from unmask.metrics.curves import FloatArray, IntArray, SortedScores, WeightedScores, ratio, single

Metric = Callable[[Any, Any], float | None]
WeightedMetric = Callable[[WeightedScores], FloatArray]
# A probability of exactly 0 or 1 that turns out wrong costs this much at most: -log(1e-12) is 27.6 nats.
SMALLEST_PROBABILITY = 1e-12
NEWTON_STEPS = 50


def roc_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Compute the area under the ROC curve: the chance that a fake scores above a real, ties counting one half.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        scores: ``(N,)``, larger means more fake.

    Returns:
        In [0, 1]; None with one class only.
    """
    return single(_roc_auc(SortedScores(labels, scores).weigh()))


def _roc_auc(scores: WeightedScores) -> FloatArray:
    above, at_or_above = scores.base.reals_above_fakes
    beaten_by = np.take(scores.cumulative_reals, above, 1, mode="clip").astype(np.float64)
    # Without ties between the classes, which is the rule for logits, the second look-up is not needed.
    if above is not at_or_above:
        beaten_by = 0.5 * (beaten_by + np.take(scores.cumulative_reals, at_or_above, 1, mode="clip"))
    lost = np.vecdot(scores.fake_weights.astype(np.float64), beaten_by)
    return 1.0 - ratio(lost, scores.fakes * scores.reals)


def pr_auc(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Compute the average precision: precision at each distinct score, weighed by the recall gained there.

    A guess at random gets the share of fakes, so the figure must be read against that share.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        scores: ``(N,)``, larger means more fake.

    Returns:
        In [0, 1]; None with one class only.
    """
    return single(_pr_auc(SortedScores(labels, scores).weigh()))


def _pr_auc(scores: WeightedScores) -> FloatArray:
    hits, alarms = scores.true_positives, scores.false_positives
    reached = np.divide(hits, hits + alarms, out=np.zeros_like(hits), where=hits + alarms > 0)
    gained = np.diff(hits, axis=1, prepend=0.0)
    return _needs_both(scores, ratio(np.vecdot(reached, gained), scores.fakes))


def equal_error_rate(labels: npt.ArrayLike, scores: npt.ArrayLike) -> float | None:
    """Compute the error rate where as large a share of reals is called fake as of fakes is called real.

    Between two points of the ROC curve it is interpolated linearly.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        scores: ``(N,)``, larger means more fake.

    Returns:
        In [0, 1]; None with one class only.
    """
    return single(_equal_error_rate(SortedScores(labels, scores).weigh()))


def _equal_error_rate(scores: WeightedScores) -> FloatArray:
    fpr, tpr = _rates(scores)
    gap = fpr - (1.0 - tpr)  # rises from -1 to 1 along the curve
    rows = np.arange(len(gap))
    after = np.argmax(gap >= 0, axis=1)
    before = np.maximum(after - 1, 0)
    step = gap[rows, after] - gap[rows, before]
    share = np.divide(-gap[rows, before], step, out=np.zeros_like(step), where=step > 0)
    return _needs_both(scores, fpr[rows, before] + share * (fpr[rows, after] - fpr[rows, before]))


def tpr_at_fpr(labels: npt.ArrayLike, scores: npt.ArrayLike, max_fpr: float) -> float | None:
    """Compute the largest share of fakes found while no more than a share of reals is called fake.

    Only thresholds that exist count, nothing is interpolated: with 20 reals, a limit of 1 % allows no false alarm.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        scores: ``(N,)``, larger means more fake.
        max_fpr: Largest false positive rate, in [0, 1].

    Returns:
        In [0, 1]; None with one class only.
    """
    return single(_tpr_at_fpr(SortedScores(labels, scores).weigh(), max_fpr=max_fpr))


def _tpr_at_fpr(scores: WeightedScores, *, max_fpr: float) -> FloatArray:
    fpr, tpr = _rates(scores)
    best = np.where(fpr <= max_fpr + 1e-12, tpr, 0.0).max(axis=1)
    return _needs_both(scores, best)


def _rates(scores: WeightedScores) -> tuple[FloatArray, FloatArray]:
    """Return false and true positive rates, each ``(B, K + 1)``, from (0, 0) to (1, 1)."""
    nothing: FloatArray = np.zeros((len(scores.fakes), 1))
    fpr = ratio(scores.false_positives, scores.reals[:, None])
    tpr = ratio(scores.true_positives, scores.fakes[:, None])
    return np.concatenate([nothing, fpr], axis=1), np.concatenate([nothing, tpr], axis=1)


def _needs_both(scores: WeightedScores, values: FloatArray) -> FloatArray:
    return np.where((scores.fakes > 0) & (scores.reals > 0), values, np.nan)


def brier(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """Compute the mean squared difference between probability and label (Brier, 1950).

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``, P(fake) in [0, 1].

    Returns:
        In [0, 1], smaller is better; None without samples.
    """
    return single(_brier(SortedScores(labels, probabilities).weigh()))


def _brier(scores: WeightedScores) -> FloatArray:
    return _mean_loss(scores, (1.0 - scores.base.fake_scores) ** 2, scores.base.real_scores**2)


def negative_log_likelihood(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """Compute the mean negative logarithm of the probability given to the true class, in nats.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``, P(fake) in [0, 1]; taken to within 1e-12 of 0 and 1.

    Returns:
        At least 0, smaller is better; None without samples.
    """
    return single(_negative_log_likelihood(SortedScores(labels, probabilities).weigh()))


def _negative_log_likelihood(scores: WeightedScores) -> FloatArray:
    of_fakes = -np.log(np.clip(scores.base.fake_scores, SMALLEST_PROBABILITY, 1.0))
    of_reals = -np.log(np.clip(1.0 - scores.base.real_scores, SMALLEST_PROBABILITY, 1.0))
    return _mean_loss(scores, of_fakes, of_reals)


def _mean_loss(scores: WeightedScores, of_fakes: FloatArray, of_reals: FloatArray) -> FloatArray:
    total = scores.fake_weights @ of_fakes + scores.real_weights @ of_reals
    return ratio(total, scores.fakes + scores.reals)


def expected_calibration_error(labels: npt.ArrayLike, probabilities: npt.ArrayLike, bins: int = 15) -> float | None:
    """Compute the mean gap between stated and observed share of fakes, over bins of equal mass.

    Equal probabilities always share a bin. The figure is biased upwards: even perfect probabilities score well above
    0 on few samples, so read it against `calibration_error_if_perfect`.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``, P(fake) in [0, 1].
        bins: Number of bins.

    Returns:
        In [0, 1], smaller is better; None without samples.
    """
    return single(_expected_calibration_error(SortedScores(labels, probabilities).weigh(), bins=bins))


def _expected_calibration_error(scores: WeightedScores, *, bins: int = 15) -> FloatArray:
    total = scores.fakes + scores.reals
    if not scores.base.n:
        return np.full(len(total), np.nan)
    fakes = np.diff(scores.true_positives, axis=1, prepend=0.0)
    mass = fakes + np.diff(scores.false_positives, axis=1, prepend=0.0)
    gap = fakes - mass * scores.base.thresholds
    middle = np.cumsum(mass, axis=1) - 0.5 * mass
    place = np.floor(ratio(middle, total[:, None]) * bins)
    place = np.clip(np.nan_to_num(place), 0, bins - 1).astype(np.int64)
    flat = (np.arange(len(total))[:, None] * bins + place).ravel()
    per_bin = np.bincount(flat, weights=gap.ravel(), minlength=len(total) * bins).reshape(-1, bins)
    return ratio(np.abs(per_bin).sum(axis=1), total)


def calibration_bins(probabilities: npt.ArrayLike, bins: int) -> tuple[IntArray, IntArray]:
    """Cut probabilities into the bins of `expected_calibration_error`, which do not depend on the labels.

    Args:
        probabilities: ``(N,)``, N at least 1.
        bins: Number of bins.

    Returns:
        ``(N,)`` positions, highest probability first, and ``(K,)`` where each of the K bins that hold anything begins.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    order = np.argsort(-p, kind="stable")
    begins = np.flatnonzero(np.diff(p[order], prepend=np.inf) != 0)
    mass = np.diff(begins, append=len(p))
    middle = np.cumsum(mass) - 0.5 * mass
    place = np.clip(np.floor(middle / len(p) * bins), 0, bins - 1)
    return order, begins[np.flatnonzero(np.diff(place, prepend=-1.0) != 0)]


def calibration_slope(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """Compute the slope of the logistic regression of the label on the logit of the probability (Cox, 1958).

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``, P(fake) in [0, 1].

    Returns:
        1 when the probabilities are as spread as they should be, less when they are too sure, negative when they rank
        wrongly; None with one class, or when the classes are apart, so that no slope is the likeliest.
    """
    return single(_calibration_slope(SortedScores(labels, probabilities).weigh()))


def calibration_intercept(labels: npt.ArrayLike, probabilities: npt.ArrayLike) -> float | None:
    """Compute what must be added to the logit of the probability so that its mean is right.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``, P(fake) in [0, 1].

    Returns:
        0 when as many fakes are expected as there are, positive when fakes are underrated; None with one class.
    """
    return single(_calibration_intercept(SortedScores(labels, probabilities).weigh()))


def _calibration_slope(scores: WeightedScores) -> FloatArray:
    z, y, weights = _logits(scores)
    # From 0, where the curvature is largest, Newton's steps are short and end at the optimum.
    offset, slope = np.zeros(len(weights)), np.zeros(len(weights))
    moved = np.full(len(weights), np.inf)
    for _ in range(NEWTON_STEPS):
        p = special.expit(offset[:, None] + slope[:, None] * z)
        wrong, curved = weights * (y - p), weights * p * (1 - p)
        down = np.stack([wrong.sum(axis=1), wrong @ z])
        bend = np.stack([curved.sum(axis=1), curved @ z, curved @ z**2])
        area = bend[0] * bend[2] - bend[1] ** 2
        safe = np.where(area > 0, area, np.inf)
        by_offset, by_slope = (
            (bend[2] * down[0] - bend[1] * down[1]) / safe,
            (bend[0] * down[1] - bend[1] * down[0]) / safe,
        )
        short = np.minimum(1.0, 5.0 / np.maximum(np.abs(by_slope), np.abs(by_offset) + 1e-300))
        offset, slope, moved = offset + short * by_offset, slope + short * by_slope, np.abs(by_slope)
        moved = np.where(area > 0, moved, np.inf)
        if np.all((moved < 1e-9) | ~np.isfinite(moved)):
            break
    auc = _roc_auc(scores)
    apart = (auc < 1e-12) | (auc > 1 - 1e-12)  # then the likeliest slope is infinite
    return _needs_both(scores, np.where((moved < 1e-6) & ~apart, slope, np.nan))


def _calibration_intercept(scores: WeightedScores) -> FloatArray:
    z, y, weights = _logits(scores)
    offset = np.zeros(len(weights))
    for _ in range(NEWTON_STEPS):
        p = special.expit(offset[:, None] + z)
        curved = np.maximum((weights * p * (1 - p)).sum(axis=1), 1e-12)
        step = np.clip((weights * (y - p)).sum(axis=1) / curved, -2.0, 2.0)
        offset = offset + step
        if np.max(np.abs(step)) < 1e-9:
            break
    return _needs_both(scores, offset)


def _logits(scores: WeightedScores) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return logits ``(N,)`` and labels ``(N,)``, fakes first, and weights ``(B, N)`` in that order."""
    p = np.concatenate([scores.base.fake_scores, scores.base.real_scores])
    p = np.clip(p, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    y = np.concatenate([np.ones(len(scores.base.fake_scores)), np.zeros(len(scores.base.real_scores))])
    weights = np.concatenate([scores.fake_weights, scores.real_weights], axis=1).astype(np.float64)
    return special.logit(p), y, weights


def accuracy(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = 0.5) -> float | None:
    """Compute the share of right decisions; None without samples.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``.
        threshold: Fake if the probability is at least this.

    Returns:
        In [0, 1].
    """
    return single(_accuracy(SortedScores(labels, probabilities).weigh(), threshold=threshold))


def _accuracy(scores: WeightedScores, *, threshold: float = 0.5) -> FloatArray:
    hits, alarms = scores.counts_at(threshold)
    return ratio(hits + scores.reals - alarms, scores.fakes + scores.reals)


def precision(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = 0.5) -> float | None:
    """Compute the share of fakes among what is called fake; None when nothing is called fake.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``.
        threshold: Fake if the probability is at least this.

    Returns:
        In [0, 1].
    """
    return single(_precision(SortedScores(labels, probabilities).weigh(), threshold=threshold))


def _precision(scores: WeightedScores, *, threshold: float = 0.5) -> FloatArray:
    hits, alarms = scores.counts_at(threshold)
    return ratio(hits, hits + alarms)


def recall(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = 0.5) -> float | None:
    """Compute the share of fakes that is called fake (the true positive rate); None without fakes.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``.
        threshold: Fake if the probability is at least this.

    Returns:
        In [0, 1].
    """
    return single(_recall(SortedScores(labels, probabilities).weigh(), threshold=threshold))


def _recall(scores: WeightedScores, *, threshold: float = 0.5) -> FloatArray:
    return ratio(scores.counts_at(threshold)[0], scores.fakes)


def false_positive_rate(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = 0.5) -> float | None:
    """Compute the share of reals that is called fake; None without reals.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``.
        threshold: Fake if the probability is at least this.

    Returns:
        In [0, 1].
    """
    return single(_false_positive_rate(SortedScores(labels, probabilities).weigh(), threshold=threshold))


def _false_positive_rate(scores: WeightedScores, *, threshold: float = 0.5) -> FloatArray:
    return ratio(scores.counts_at(threshold)[1], scores.reals)


def f1(labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float = 0.5) -> float | None:
    """Compute the harmonic mean of precision and recall; None when there are no fakes and none are called.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``.
        threshold: Fake if the probability is at least this.

    Returns:
        In [0, 1].
    """
    return single(_f1(SortedScores(labels, probabilities).weigh(), threshold=threshold))


def _f1(scores: WeightedScores, *, threshold: float = 0.5) -> FloatArray:
    hits, alarms = scores.counts_at(threshold)
    return ratio(2.0 * hits, hits + alarms + scores.fakes)


def confusion(
    labels: npt.ArrayLike, probabilities: npt.ArrayLike, threshold: float
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Count right and wrong decisions.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        probabilities: ``(N,)``.
        threshold: Fake if the probability is at least this.

    Returns:
        ``((TN, FP), (FN, TP))``; rows are the truth.
    """
    scores = SortedScores(labels, probabilities).weigh()
    hits, alarms = (int(count[0]) for count in scores.counts_at(threshold))
    return (int(scores.reals[0]) - alarms, alarms), (int(scores.fakes[0]) - hits, hits)


def roc_points(
    labels: npt.ArrayLike, scores: npt.ArrayLike, max_points: int | None = None
) -> tuple[tuple[float, float, float], ...]:
    """List the corners of the ROC curve.

    Points on a straight line between their neighbours are left out. The first point, where nothing is called fake,
    has the next number above the highest score as its threshold, so that every threshold is finite.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        scores: ``(N,)``, larger means more fake.
        max_points: Keep about this many, evenly spaced along the curve, for a drawing; None keeps all.

    Returns:
        ``(threshold, false positive rate, true positive rate)`` from (0, 0) to (1, 1); empty with one class only.
    """
    base = SortedScores(labels, scores)
    if not len(base.fake_scores) or not len(base.real_scores):
        return ()
    fpr, tpr = (rates[0] for rates in _rates(base.weigh()))
    thresholds = np.concatenate([[np.nextafter(base.thresholds[0], np.inf)], base.thresholds])
    bends = np.abs(np.diff(fpr)[1:] * np.diff(tpr)[:-1] - np.diff(fpr)[:-1] * np.diff(tpr)[1:]) > 1e-15
    keep = np.flatnonzero(np.concatenate([[True], bends, [True]]))
    if max_points is not None and len(keep) > max_points:
        keep = keep[np.unique(np.linspace(0, len(keep) - 1, max(2, max_points)).round().astype(np.int64))]
    return tuple((float(thresholds[k]), float(fpr[k]), float(tpr[k])) for k in keep)


_WEIGHTED: dict[Any, Callable[..., FloatArray]] = {
    roc_auc: _roc_auc,
    pr_auc: _pr_auc,
    equal_error_rate: _equal_error_rate,
    tpr_at_fpr: _tpr_at_fpr,
    brier: _brier,
    negative_log_likelihood: _negative_log_likelihood,
    expected_calibration_error: _expected_calibration_error,
    calibration_slope: _calibration_slope,
    calibration_intercept: _calibration_intercept,
    accuracy: _accuracy,
    precision: _precision,
    recall: _recall,
    false_positive_rate: _false_positive_rate,
    f1: _f1,
}


def weighted_form(metric: Metric) -> WeightedMetric | None:
    """Find the weighed form of a figure.

    Args:
        metric: A figure of this module, or a ``functools.partial`` of one that sets keywords only, for example
            ``partial(f1, threshold=0.3)``.

    Returns:
        The same figure over weighed scores; None for any other callable.
    """
    if isinstance(metric, partial):
        inner = None if metric.args else _WEIGHTED.get(metric.func)
        return None if inner is None else partial(inner, **metric.keywords)
    return _WEIGHTED.get(metric)
