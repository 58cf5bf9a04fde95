"""Intervals: exact for proportions, cluster bootstrap for everything else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special, stats

from unmask.metrics.curves import CountArray, FloatArray, IntArray, SortedScores
from unmask.metrics.figures import (
    Metric,
    calibration_bins,
    calibration_intercept,
    calibration_slope,
    negative_log_likelihood,
    roc_auc,
    weighted_form,
)
from unmask.schemas.documents import Estimate

# Elements of the weight matrix worked on at once: small enough to stay in the cache of one core.
CHUNK_ELEMENTS = 131_072


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Give a proportion its exact interval (Clopper & Pearson, 1934): never too narrow, however small n is.

    Args:
        successes: Number of hits.
        n: Number of trials.
        confidence: Coverage of the interval, in (0, 1).

    Returns:
        The proportion with its interval; undefined when n is 0.

    Raises:
        ValueError: ``successes`` does not lie in 0 to n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} trials")
    if n == 0:
        return Estimate(value=None, n=0, confidence=confidence, method="Clopper-Pearson")
    tail = (1 - confidence) / 2
    low = float(stats.beta.ppf(tail, successes, n - successes + 1)) if successes else 0.0
    high = float(stats.beta.ppf(1 - tail, successes + 1, n - successes)) if successes < n else 1.0
    return Estimate(value=successes / n, low=low, high=high, n=n, confidence=confidence, method="Clopper-Pearson")


def group_codes(groups: npt.ArrayLike) -> tuple[IntArray, int]:
    """Number the groups.

    Args:
        groups: ``(N,)`` identifiers; a missing one (None, NaN) makes a group of its own.

    Returns:
        Codes ``(N,)`` in 0 to G - 1, in order of first appearance, and G.
    """
    seen: dict[Any, int] = {}
    codes = np.empty(len(np.asarray(groups)), dtype=np.int64)
    for row, group in enumerate(np.asarray(groups).tolist()):
        alone = group is None or group != group
        codes[row] = seen.setdefault(("alone", row) if alone else ("group", group), len(seen))
    return codes, len(seen)


def resample_counts(n_groups: int, resamples: int, rows: int, rng: np.random.Generator) -> Iterator[CountArray]:
    """Draw groups with replacement and count how often each was drawn.

    Args:
        n_groups: G.
        resamples: B.
        rows: Rows of the table that the counts will be spread over; sets the size of a chunk.
        rng: Source of the draws.

    Yields:
        Chunks ``(b, G)`` of counts, each row summing to G, B rows in all.
    """
    chunk = max(1, CHUNK_ELEMENTS // max(1, rows, n_groups))
    for start in range(0, resamples, chunk):
        b = min(chunk, resamples - start)
        drawn = rng.integers(0, n_groups, size=(b, n_groups), dtype=np.int64)
        drawn += np.arange(b, dtype=np.int64)[:, None] * n_groups
        yield np.bincount(drawn.ravel(), minlength=b * n_groups).reshape(b, n_groups).astype(np.int32)


def bootstrap_values(
    metrics: Sequence[Metric],
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int,
) -> FloatArray:
    """Compute figures of several systems on the same resamples, drawn by group.

    All systems and figures see the same draws, so that differences between them can be formed row by row.

    Args:
        metrics: Figures; those of `unmask.metrics` (also as ``partial`` with keywords) run fast, others row by row.
        labels: ``(N,)``, 0 real and 1 fake.
        scores: ``(N, S)``, one column a system, or ``(N,)``.
        groups: ``(N,)``; what shares a group is drawn together.
        rng: Source of the draws.
        resamples: B.

    Returns:
        ``(B, S, M)``; NaN where a figure is undefined, for example because only one class was drawn.
    """
    y = np.asarray(labels)
    table = np.asarray(scores, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    codes, n_groups = group_codes(groups)
    fast = [weighted_form(metric) for metric in metrics]
    systems = [SortedScores(y, table[:, column]) for column in range(table.shape[1])]
    out = np.full((resamples, len(systems), len(metrics)), np.nan)
    of_fakes = np.flatnonzero(y == 1)
    start = 0
    for counts in resample_counts(n_groups, resamples, len(y), rng) if n_groups else ():
        weights = np.take(counts, codes, 1)
        fakes = np.take(weights, of_fakes, 1).sum(axis=1).astype(np.float64)
        totals = fakes, weights.sum(axis=1) - fakes
        rows = slice(start, start + len(counts))
        start += len(counts)
        for s, system in enumerate(systems):
            weighed = system.weigh(weights, totals)
            for m, (metric, form) in enumerate(zip(metrics, fast, strict=True)):
                out[rows, s, m] = _by_rows(metric, y, table[:, s], weights) if form is None else form(weighed)
    return out


def _by_rows(metric: Metric, labels: npt.NDArray[Any], scores: FloatArray, weights: CountArray) -> FloatArray:
    values = np.full(len(weights), np.nan)
    for b, counts in enumerate(weights):
        rows = np.repeat(np.arange(len(labels)), counts)
        value = metric(labels[rows], scores[rows])
        values[b] = np.nan if value is None else value
    return values


def bootstrap_estimates(
    metrics: Mapping[str, Metric],
    labels: npt.ArrayLike,
    scores: Mapping[str, npt.ArrayLike],
    groups: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int,
    confidence: float = 0.95,
) -> dict[str, dict[str, Estimate]]:
    """Estimate figures of several systems with intervals from one set of resamples.

    Args:
        metrics: Name to figure.
        labels: ``(N,)``, 0 real and 1 fake.
        scores: System to ``(N,)`` scores.
        groups: ``(N,)``; what shares a group is drawn together.
        rng: Source of the draws.
        resamples: How many.
        confidence: Coverage of the intervals.

    Returns:
        System to name of the figure to estimate.
    """
    y = np.asarray(labels)
    table = np.stack([np.asarray(column, dtype=np.float64) for column in scores.values()], axis=1)
    values = bootstrap_values(list(metrics.values()), y, table, groups, rng=rng, resamples=resamples)
    codes, n_groups = group_codes(groups)
    return {
        system: {
            name: _estimate(metric, y, table[:, s], codes, n_groups, values[:, s, m], confidence)
            for m, (name, metric) in enumerate(metrics.items())
        }
        for s, system in enumerate(scores)
    }


def bootstrap_estimate(
    metric: Metric,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int,
    confidence: float = 0.95,
) -> Estimate:
    """Estimate a figure with an interval from resamples drawn by group.

    For the figures of `unmask.metrics`, the standard error comes from the resamples and the interval is symmetric on
    the scale of the logit (of the logarithm, for the likelihood), with the quantile of Student's t for the number of
    groups: with 10 groups it covers about 95 %, where percentiles of the resamples cover 86 %. Any other figure gets
    percentiles, widened for few groups.

    Resamples in which the figure is undefined (one class only) are left out and counted in ``method``. The bootstrap
    cannot see beyond a perfect ranking, so an AUC of exactly 0 or 1 gets an exact one-sided bound instead.

    Args:
        metric: Figure of labels and scores.
        labels: ``(N,)``, 0 real and 1 fake.
        scores: ``(N,)``.
        groups: ``(N,)``; what shares a group is drawn together.
        rng: Source of the draws.
        resamples: How many.
        confidence: Coverage of the interval.

    Returns:
        The estimate; without an interval when there are fewer than two groups or most resamples are undefined.
    """
    named = bootstrap_estimates(
        {"": metric}, labels, {"": scores}, groups, rng=rng, resamples=resamples, confidence=confidence
    )
    return named[""][""]


def _estimate(
    metric: Metric,
    labels: npt.NDArray[Any],
    scores: FloatArray,
    codes: IntArray,
    n_groups: int,
    values: FloatArray,
    confidence: float,
) -> Estimate:
    value = metric(labels, scores)
    n = len(labels)
    if value is None or n_groups < 2:
        return Estimate(value=value, n=n, confidence=confidence, method=f"no interval: {n_groups} groups")
    if metric is roc_auc and value in (0.0, 1.0):
        return _perfect_auc(value, labels, codes, n_groups, confidence)
    method = f"cluster bootstrap over {n_groups} groups"
    scale = _SCALES.get(metric.func if isinstance(metric, partial) else metric, _LOGIT)
    if weighted_form(metric) is not None and scale.holds(value):
        return _studentised(value, values, n, method, n_groups, confidence, scale)
    return percentile_estimate(value, values, n, method, confidence, n_groups=n_groups)


@dataclass(frozen=True)
class _Scale:
    """A scale without ends, on which the resampled figures are nearly normal.

    Attributes:
        name: For ``method``.
        high: Upper end of the figure's own scale; the lower one is 0. Without number: the figure has no ends.
    """

    name: str
    high: float

    def holds(self, value: float) -> bool:
        return math.isnan(self.high) or 0 < value < self.high

    def slope(self, value: float) -> float:
        """How fast the transformed value grows with the value."""
        if math.isnan(self.high):
            return 1.0
        return 1 / value if math.isinf(self.high) else 1 / (value * (1 - value))

    def moved(self, value: float, by: float) -> float:
        """Move by a distance on the transformed scale and come back."""
        if math.isnan(self.high):
            return value + by
        if math.isinf(self.high):
            return value * math.exp(by)
        return float(special.expit(special.logit(value) + by))


_LOGIT = _Scale("logit", 1.0)
# Slopes of resamples are skewed the same way as slopes of few samples, so their percentiles err twice.
_PLAIN = _Scale("plain", math.nan)
_SCALES: dict[Any, _Scale] = {
    negative_log_likelihood: _Scale("log", math.inf),
    calibration_slope: _PLAIN,
    calibration_intercept: _PLAIN,
}


def _studentised(
    value: float, values: FloatArray, n: int, method: str, n_groups: int, confidence: float, scale: _Scale
) -> Estimate:
    defined, method = _defined(values, f"{method}, {len(values)} resamples, t on the {scale.name} scale")
    if len(defined) < max(2, len(values) / 2):
        return Estimate(value=value, n=n, confidence=confidence, method=f"no interval: {method}")
    # Groups drawn with replacement vary a little less than groups drawn from the world.
    error = float(np.std(defined)) * math.sqrt(n_groups / (n_groups - 1))
    reach = float(stats.t.ppf(0.5 + confidence / 2, n_groups - 1)) * error * scale.slope(value)
    low, high = scale.moved(value, -reach), scale.moved(value, reach)
    return Estimate(value=value, low=low, high=high, n=n, confidence=confidence, method=method)


def percentile_estimate(
    value: float, values: FloatArray, n: int, method: str, confidence: float = 0.95, *, n_groups: int | None = None
) -> Estimate:
    """Put a percentile interval of resampled values around an estimate.

    Args:
        value: The estimate on all samples.
        values: ``(B,)`` on the resamples; NaN where undefined.
        n: Samples.
        method: What the resamples are.
        confidence: Coverage of the interval.
        n_groups: Groups that were drawn from; the percentiles are moved outwards as far as Student's t is wider than
            the normal distribution (Hesterberg, 2015). None: they are not.

    Returns:
        The estimate; ``method`` counts the resamples and what was left out.
    """
    kind = "percentile" if n_groups is None else "percentile widened for the number of groups"
    defined, method = _defined(values, f"{method}, {len(values)} resamples, {kind}")
    if len(defined) < max(2, len(values) / 2):
        return Estimate(value=value, n=n, confidence=confidence, method=f"no interval: {method}")
    tail = (1 - confidence) / 2
    if n_groups is not None:
        reach = math.sqrt(n_groups / (n_groups - 1)) * stats.t.ppf(1 - tail, n_groups - 1)
        tail = float(stats.norm.sf(reach))
    low, high = np.percentile(defined, [100 * tail, 100 * (1 - tail)])
    return Estimate(value=value, low=float(low), high=float(high), n=n, confidence=confidence, method=method)


def _defined(values: FloatArray, method: str) -> tuple[FloatArray, str]:
    defined = values[~np.isnan(values)]
    dropped = len(values) - len(defined)
    return defined, method + (f", {dropped} undefined left out" if dropped else "")


def _perfect_auc(value: float, labels: npt.NDArray[Any], codes: IntArray, n_groups: int, confidence: float) -> Estimate:
    """Bound an AUC of exactly 0 or 1, of which every resample is 0 or 1 too.

    Take m pairs of a real and a fake, no group in two pairs: they are independent, and each is in order with
    probability AUC. That all m are has probability AUC^m, so AUC below ((1 - confidence) / 2)^(1 / m) is refuted.
    """
    with_fake = len(np.unique(codes[labels == 1]))
    with_real = len(np.unique(codes[labels == 0]))
    pairs = min(n_groups // 2, with_fake, with_real)
    bound = float(((1 - confidence) / 2) ** (1 / pairs))
    low, high = (bound, 1.0) if value == 1.0 else (0.0, 1.0 - bound)
    method = f"exact bound from {pairs} independent pairs of real and fake, because the ranking is perfect"
    return Estimate(value=value, low=low, high=high, n=len(labels), confidence=confidence, method=method)


def calibration_error_if_perfect(
    probabilities: npt.ArrayLike, *, rng: np.random.Generator, draws: int = 200, bins: int = 15
) -> Estimate:
    """Estimate what `expected_calibration_error` would be if the probabilities were exactly right.

    Labels are drawn from the probabilities themselves. An observed error inside the interval is no sign of
    miscalibration.

    Args:
        probabilities: ``(N,)``, P(fake) in [0, 1].
        rng: Source of the draws.
        draws: How many sets of labels.
        bins: Number of bins.

    Returns:
        Mean over the draws with the 2.5th and 97.5th percentile.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    method = f"labels drawn from the probabilities, {draws} draws"
    if not len(p):
        return Estimate(value=None, n=0, method=method)
    order, starts = calibration_bins(p, bins)
    descending = p[order]
    values = np.empty(draws)
    for draw in range(draws):
        gaps = (rng.random(len(p)) < p)[order] - descending
        values[draw] = np.abs(np.add.reduceat(gaps, starts)).sum() / len(p)
    low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(value=float(values.mean()), low=float(low), high=float(high), n=len(p), method=method)
