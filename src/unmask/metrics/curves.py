"""Scores sorted once, weighed many times: the one place from which every figure is computed.

A bootstrap resample is nothing but a vector of integer weights, so a figure that is written for weights serves the
plain case (all weights 1) and two thousand resamples with the same lines.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
# How often each sample was drawn. Whole numbers, because a running sum of int32 is six times as fast as one of floats.
CountArray = npt.NDArray[np.int32]


class SortedScores:
    """Labels and scores, split by class and sorted from the highest score down.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        scores: ``(N,)``, finite; larger means more fake.

    Attributes:
        n: Number of samples.
        fake_order: ``(P,)`` positions of the fakes, highest score first.
        real_order: ``(R,)`` positions of the reals, highest score first.
        fake_scores: ``(P,)`` their scores.
        real_scores: ``(R,)`` their scores.

    Raises:
        ValueError: Shapes differ, a label is neither 0 nor 1, or a score is not finite.
    """

    def __init__(self, labels: npt.ArrayLike, scores: npt.ArrayLike) -> None:
        y = np.asarray(labels)
        s = np.asarray(scores, dtype=np.float64)
        if y.ndim != 1 or y.shape != s.shape:
            raise ValueError(f"labels {y.shape} and scores {s.shape} must be one-dimensional and of equal length")
        fake = y == 1
        if not np.all(fake | (y == 0)):
            raise ValueError("labels must be 0 (real) or 1 (fake)")
        if not np.all(np.isfinite(s)):
            raise ValueError("scores must be finite; leave out samples without a score and count them")
        self.n = len(s)
        order = np.argsort(-s)
        self.fake_order: IntArray = order[fake[order]].astype(np.int64)
        self.real_order: IntArray = order[~fake[order]].astype(np.int64)
        self.fake_scores: FloatArray = s[self.fake_order]
        self.real_scores: FloatArray = s[self.real_order]
        self._descending: FloatArray = s[order]

    @cached_property
    def thresholds(self) -> FloatArray:
        """``(K,)`` distinct scores, highest first."""
        s = self._descending
        last_of_its_value = np.concatenate([s[1:] != s[:-1], np.ones(min(1, len(s)), dtype=bool)])
        distinct: FloatArray = s[last_of_its_value]
        return distinct

    @cached_property
    def fakes_at(self) -> IntArray:
        """``(K,)`` fakes with a score of at least each threshold."""
        return self.count_at_least(self.fake_scores, self.thresholds)

    @cached_property
    def reals_at(self) -> IntArray:
        """``(K,)`` reals with a score of at least each threshold."""
        return self.count_at_least(self.real_scores, self.thresholds)

    @staticmethod
    def count_at_least(descending: FloatArray, thresholds: npt.ArrayLike) -> IntArray:
        """Count the scores that reach each threshold.

        Args:
            descending: ``(M,)`` scores, highest first.
            thresholds: Any shape.

        Returns:
            Counts, of the shape of ``thresholds``.
        """
        found = np.searchsorted(-descending, -np.asarray(thresholds, dtype=np.float64), side="right")
        return np.asarray(found, dtype=np.int64)

    @cached_property
    def reals_above_fakes(self) -> tuple[IntArray, IntArray]:
        """For each fake ``(P,)``: how many reals lie strictly above it, and how many at or above it.

        The same array twice when no real ties with a fake.
        """
        strictly = np.searchsorted(-self.real_scores, -self.fake_scores, side="left").astype(np.int64)
        at_or_above = self.count_at_least(self.real_scores, self.fake_scores)
        return strictly, strictly if np.array_equal(strictly, at_or_above) else at_or_above

    def weigh(
        self, weights: CountArray | None = None, totals: tuple[FloatArray, FloatArray] | None = None
    ) -> WeightedScores:
        """Attach weights.

        Args:
            weights: ``(B, N)`` how often each sample counts, one row a resample; None counts every sample once.
            totals: Weight of all fakes and of all reals, each ``(B,)``, where it is known; systems share it.

        Returns:
            The weighed scores.
        """
        if weights is None:
            weights = np.ones((1, self.n), dtype=np.int32)
        return WeightedScores(self, _pick(weights, self.fake_order), _pick(weights, self.real_order), totals)


class WeightedScores:
    """Sorted scores with ``B`` sets of weights.

    Args:
        base: The sorted scores.
        fake_weights: ``(B, P)``, in the order of ``base.fake_order``.
        real_weights: ``(B, R)``, in the order of ``base.real_order``.
        totals: Their sums, each ``(B,)``; None computes them.
    """

    def __init__(
        self,
        base: SortedScores,
        fake_weights: CountArray,
        real_weights: CountArray,
        totals: tuple[FloatArray, FloatArray] | None = None,
    ) -> None:
        self.base = base
        self.fake_weights = fake_weights
        self.real_weights = real_weights
        self.fakes, self.reals = totals or (_total(fake_weights), _total(real_weights))

    @cached_property
    def cumulative_reals(self) -> CountArray:
        """``(B, R + 1)`` weight of the first 0, 1, …, R reals."""
        return _cumulative(self.real_weights)

    @cached_property
    def true_positives(self) -> FloatArray:
        """``(B, K)`` weight of the fakes at or above each distinct score."""
        return _pick(_cumulative(self.fake_weights), self.base.fakes_at).astype(np.float64)

    @cached_property
    def false_positives(self) -> FloatArray:
        """``(B, K)`` weight of the reals at or above each distinct score."""
        return _pick(self.cumulative_reals, self.base.reals_at).astype(np.float64)

    def counts_at(self, threshold: float) -> tuple[FloatArray, FloatArray]:
        """Weight of what is called fake at a threshold.

        Args:
            threshold: Fake if the score is at least this.

        Returns:
            True positives and false positives, each ``(B,)``.
        """
        fakes = int(SortedScores.count_at_least(self.base.fake_scores, threshold))
        reals = int(SortedScores.count_at_least(self.base.real_scores, threshold))
        hits, alarms = self.fake_weights[:, :fakes].sum(axis=1), self.real_weights[:, :reals].sum(axis=1)
        return hits.astype(np.float64), alarms.astype(np.float64)


def _total(weights: CountArray) -> FloatArray:
    total: FloatArray = weights.sum(axis=1).astype(np.float64)
    return total


def _pick(rows: CountArray, columns: IntArray) -> CountArray:
    # The columns are known to lie within; "clip" only spares numpy the check.
    return np.take(rows, columns, 1, mode="clip")


def _cumulative(weights: CountArray) -> CountArray:
    total = np.zeros((weights.shape[0], weights.shape[1] + 1), dtype=np.int32)
    np.cumsum(weights, axis=1, out=total[:, 1:])
    return total


def ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide; NaN where the denominator is 0, because the figure is then undefined.

    Args:
        numerator: ``(B,)``.
        denominator: ``(B,)``.

    Returns:
        ``(B,)``.
    """
    out: FloatArray = np.full(np.broadcast_shapes(numerator.shape, denominator.shape), np.nan)
    np.divide(numerator, denominator, out=out, where=denominator > 0)
    return out


def single(values: FloatArray) -> float | None:
    """Turn the figure of a single set of weights into a number.

    Args:
        values: ``(1,)``.

    Returns:
        The number; None when it is undefined.
    """
    value = float(values[0])
    return None if np.isnan(value) else value
