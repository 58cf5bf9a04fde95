"""Is one system better than another on the same samples?

Three answers to three questions: DeLong's test and the paired bootstrap ask whether the rankings differ, McNemar's
test whether the decisions at a threshold do. All three compare the two systems sample by sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import stats

from unmask.metrics.curves import FloatArray, IntArray
from unmask.metrics.figures import Metric, roc_auc
from unmask.metrics.intervals import bootstrap_values, group_codes, percentile_estimate
from unmask.schemas.documents import Estimate


@dataclass(frozen=True)
class DeLong:
    """Test of equal AUC of two systems.

    Attributes:
        auc_a: AUC of the first system.
        auc_b: AUC of the second.
        difference: ``auc_b - auc_a``.
        standard_error: Of the difference; 0 when both rank alike.
        p_value: Two-sided, that the AUCs are equal.
    """

    auc_a: float
    auc_b: float
    difference: float
    standard_error: float
    p_value: float


@dataclass(frozen=True)
class McNemar:
    """Test of equally many right decisions.

    Attributes:
        only_a: Samples that only the first system decides rightly.
        only_b: Samples that only the second decides rightly.
        p_value: Two-sided and exact, that either is as likely.
    """

    only_a: int
    only_b: int
    p_value: float


@dataclass(frozen=True)
class Comparison:
    """Two systems on the same samples.

    Attributes:
        n: Samples that both scored.
        difference: AUC of the second minus AUC of the first, with the interval of the paired bootstrap by group.
        delong: DeLong's test, with samples of a group taken together.
        effect: Difference in d', the distance of fakes from reals in standard deviations of a normal score that has
            this AUC; about 0.2 is small and 0.8 large. None where an AUC is 0 or 1.
        mcnemar: McNemar's test at the thresholds; None without thresholds.
    """

    n: int
    difference: Estimate
    delong: DeLong
    effect: float | None
    mcnemar: McNemar | None


def delong_covariance(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: npt.ArrayLike | None = None
) -> tuple[FloatArray, FloatArray]:
    """Compute AUCs and their covariance (DeLong et al., 1988; of groups: Obuchowski, 1997).

    Args:
        labels: ``(N,)``, 0 real and 1 fake, at least two of each.
        scores: ``(N, S)``, one column a system.
        groups: ``(N,)``; samples of a group may depend on one another. None: all samples are independent.

    Returns:
        AUCs ``(S,)`` and covariance ``(S, S)``.

    Raises:
        ValueError: There are fewer than two samples, or groups, of a class.
    """
    y = np.asarray(labels) == 1
    table = np.asarray(scores, dtype=np.float64)
    codes, n_groups = group_codes(np.arange(len(y)) if groups is None else groups)
    with_fakes, with_reals = len(np.unique(codes[y])), len(np.unique(codes[~y]))
    if min(with_fakes, with_reals) < 2:
        raise ValueError(f"{with_fakes} groups with fakes and {with_reals} with reals; two of each are needed")
    of_fakes, of_reals = _placements(y, table)
    aucs = of_fakes.mean(axis=0)
    # What each group adds to the two means beyond its share.
    fakes = _group_sums(codes[y], of_fakes - aucs, n_groups) / y.sum()
    reals = _group_sums(codes[~y], of_reals - aucs, n_groups) / (~y).sum()
    cross = fakes.T @ reals * n_groups / (n_groups - 1) if groups is not None else np.zeros((len(aucs), len(aucs)))
    covariance: FloatArray = fakes.T @ fakes * with_fakes / (with_fakes - 1) + reals.T @ reals * with_reals / (
        with_reals - 1
    )
    return aucs, covariance + cross + cross.T


def _placements(fake: npt.NDArray[np.bool_], scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return, per fake, the share of reals below it, and, per real, the share of fakes above it; ties count half."""
    of_fakes, of_reals = scores[fake], scores[~fake]
    everyone = np.concatenate([of_fakes, of_reals])
    ranks = stats.rankdata(everyone, axis=0)
    m, n = len(of_fakes), len(of_reals)
    above = (ranks[:m] - stats.rankdata(of_fakes, axis=0)) / n
    below = 1 - (ranks[m:] - stats.rankdata(of_reals, axis=0)) / m
    return above, below


def _group_sums(codes: IntArray, values: FloatArray, n_groups: int) -> FloatArray:
    sums = np.zeros((n_groups, values.shape[1]))
    np.add.at(sums, codes, values)
    return sums


def delong(labels: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> DeLong:
    """Test whether two systems have the same AUC on the same samples.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        a: ``(N,)`` scores of the first system.
        b: ``(N,)`` scores of the second.
        groups: ``(N,)``; samples of a group may depend on one another. None: all samples are independent.

    Returns:
        The test; with equal rankings the p-value is 1. Of groups the difference is held against Student's t with as
        many degrees of freedom as the class in fewer groups has, less one: a handful of groups tells its own spread
        badly, and the normal distribution would call almost anything certain. Where all groups agree to the last bit,
        so that there is no spread, it is that of a sign test.

    Raises:
        ValueError: There are fewer than two samples, or groups, of a class.
    """
    table = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)], axis=1)
    aucs, covariance = delong_covariance(labels, table, groups)
    difference = float(aucs[1] - aucs[0])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    # Rounding can leave a difference of two equal rankings a hair beside zero.
    error = float(np.sqrt(variance)) if variance > 1e-15 else 0.0
    fewest = _fewest_groups(labels, groups)
    if abs(difference) < 1e-12:
        p_value = 1.0
    elif error == 0:
        p_value = float(2.0 ** (1 - fewest))
    elif groups is None:
        p_value = float(2 * stats.norm.sf(abs(difference) / error))
    else:
        p_value = float(2 * stats.t.sf(abs(difference) / error, fewest - 1))
    return DeLong(float(aucs[0]), float(aucs[1]), difference, error, p_value)


def _fewest_groups(labels: npt.ArrayLike, groups: npt.ArrayLike | None) -> int:
    """Count the groups, or samples, of the class that has fewer."""
    y = np.asarray(labels) == 1
    codes = np.arange(len(y)) if groups is None else np.asarray(groups)
    return min(len(np.unique(codes[y])), len(np.unique(codes[~y])))


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for testing several hypotheses at once (Holm, 1979).

    Args:
        p_values: One a hypothesis.

    Returns:
        Corrected values, in the same order, each at most 1.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order])
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(raised, 1.0)
    return [float(value) for value in corrected]


def mcnemar(labels: npt.ArrayLike, called_a: npt.ArrayLike, called_b: npt.ArrayLike) -> McNemar:
    """Test whether two systems decide rightly equally often (McNemar, 1947; exact).

    It takes samples as independent.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        called_a: ``(N,)``, whether the first system calls the sample fake.
        called_b: ``(N,)``, whether the second does.

    Returns:
        The test; without any disagreement the p-value is 1.
    """
    y = np.asarray(labels) == 1
    right_a = np.asarray(called_a, dtype=bool) == y
    right_b = np.asarray(called_b, dtype=bool) == y
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p_value = float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)


def paired_difference(
    metric: Metric,
    labels: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int,
    confidence: float = 0.95,
) -> Estimate:
    """Estimate by how much a figure differs between two systems, from the same resamples by group for both.

    Args:
        metric: Figure of labels and scores.
        labels: ``(N,)``, 0 real and 1 fake.
        a: ``(N,)`` scores of the first system.
        b: ``(N,)`` scores of the second.
        groups: ``(N,)``; what shares a group is drawn together.
        rng: Source of the draws.
        resamples: How many.
        confidence: Coverage of the interval.

    Returns:
        Second minus first; without a value where either figure is undefined.
    """
    first, second = metric(labels, a), metric(labels, b)
    n = len(np.asarray(labels))
    if first is None or second is None:
        return Estimate(value=None, n=n, confidence=confidence, method="undefined for one of the systems")
    table = np.stack([np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)], axis=1)
    values = bootstrap_values([metric], labels, table, groups, rng=rng, resamples=resamples)[:, :, 0]
    n_groups = group_codes(groups)[1]
    if n_groups < 2:
        return Estimate(value=second - first, n=n, confidence=confidence, method=f"no interval: {n_groups} groups")
    method = f"paired cluster bootstrap over {n_groups} groups"
    difference = values[:, 1] - values[:, 0]
    return percentile_estimate(second - first, difference, n, method, confidence, n_groups=n_groups)


def effect_size(auc_a: float, auc_b: float) -> float | None:
    """Express a difference in AUC as a difference in d' = √2 Φ⁻¹(AUC).

    The step from .50 to .55 and the step from .990 to .994 are then about as large.

    Args:
        auc_a: AUC of the first system.
        auc_b: AUC of the second.

    Returns:
        Second minus first, in standard deviations; None where an AUC is 0 or 1.
    """
    if not (0 < auc_a < 1 and 0 < auc_b < 1):
        return None
    return float(np.sqrt(2) * (stats.norm.ppf(auc_b) - stats.norm.ppf(auc_a)))


def compare_systems(
    labels: npt.ArrayLike,
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups: npt.ArrayLike,
    *,
    rng: np.random.Generator,
    resamples: int = 2000,
    thresholds: tuple[float, float] | None = None,
) -> Comparison:
    """Compare two systems on the same samples.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        a: ``(N,)`` scores of the first system, larger means more fake.
        b: ``(N,)`` scores of the second.
        groups: ``(N,)``; samples of a group may depend on one another.
        rng: Source of the resamples.
        resamples: How many.
        thresholds: Of the first and the second system: fake if the score is at least this.

    Returns:
        The comparison.

    Raises:
        ValueError: There are fewer than two groups with fakes, or with reals.
    """
    tested = delong(labels, a, b, groups)
    difference = paired_difference(roc_auc, labels, a, b, groups, rng=rng, resamples=resamples)
    decided = None
    if thresholds is not None:
        decided = mcnemar(labels, np.asarray(a) >= thresholds[0], np.asarray(b) >= thresholds[1])
    return Comparison(difference.n, difference, tested, effect_size(tested.auc_a, tested.auc_b), decided)
