"""How the deployed versions are doing: rates on material whose truth is known, rules, drift; all with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from unmask.metrics import clopper_pearson, holm
from unmask.schemas import Document, Estimate
from unmask.serving.store import Judged

PSI_BINS = 10
SMALLEST_SAMPLE = 20
# The usual reading of the population stability index (Siddiqi 2006): below 0.1 stable, from 0.25 on shifted.
PSI_SHIFTED = 0.25
ALPHA = 0.05


class Drift(Document):
    """How the recent values of one quantity compare with those before.

    Attributes:
        name: ``probability`` or a feature.
        n_before: Values before the window.
        n_recent: Values in it.
        psi: Population stability index over ten bins that are equally full before the window; null if undefined.
        psi_by_chance: The value that two samples of these sizes stay below in 95 % of cases without any drift.
        ks: Largest distance of the two distribution functions.
        p: Of the Kolmogorov-Smirnov test, corrected for the number of quantities (Holm).
        state: stable, shifted, or too few values.
    """

    name: str
    n_before: int = Field(ge=0)
    n_recent: int = Field(ge=0)
    psi: float | None = None
    psi_by_chance: float | None = None
    ks: float | None = None
    p: float | None = None
    state: Literal["stable", "shifted", "too few"]


class VersionReport(Document):
    """One version.

    Attributes:
        version: Its name.
        arms: The roles that it had.
        n: Judgements.
        n_answered: Of these, answers that a caller got.
        verdicts: Verdict to number.
        false_positive_rate: Share of verified reals that were called fake.
        true_positive_rate: Share of verified fakes that were called fake.
        right: Share of all told truths that the verdict agreed with; uncertain counts as not agreeing.
        override_rate: Share of scored files whose probability was capped by camera evidence; n is 0 without the rule.
        artefact_factor: Mean factor of frame traces; n is 0 without the rule.
        feedback_weights: Factor of each input from users' feedback, as it would be applied.
        drift: Probability and features, recent against before.
    """

    version: str
    arms: tuple[str, ...]
    n: int
    n_answered: int
    verdicts: dict[str, int]
    false_positive_rate: Estimate
    true_positive_rate: Estimate
    right: Estimate
    override_rate: Estimate
    artefact_factor: Estimate
    feedback_weights: dict[str, float] = Field(default_factory=dict)
    drift: list[Drift] = Field(default_factory=list)


class Monitoring(Document):
    """All versions.

    Attributes:
        window_days: Recent time that drift compares with the time before.
        versions: The latest used first.
    """

    window_days: float
    versions: list[VersionReport]


def report(
    judged: Sequence[Judged], weights: dict[str, dict[str, float]], now: float, window_days: float
) -> Monitoring:
    """Sum up what was judged.

    Args:
        judged: In order of time.
        weights: Version to its factors from feedback.
        now: Seconds since the epoch.
        window_days: What counts as recent for drift.

    Returns:
        A report a version.
    """
    by_version: dict[str, list[Judged]] = {}
    for each in judged:
        by_version.setdefault(each.record.version, []).append(each)
    order = sorted(by_version, key=lambda name: -by_version[name][-1].record.at)
    start = now - window_days * 86_400
    return Monitoring(
        window_days=window_days,
        versions=[_version(name, by_version[name], weights.get(name, {}), start) for name in order],
    )


def _version(name: str, judged: Sequence[Judged], weights: dict[str, float], start: float) -> VersionReport:
    verdicts: dict[str, int] = {}
    for each in judged:
        verdicts[each.record.verdict] = verdicts.get(each.record.verdict, 0) + 1
    scored = [each for each in judged if each.record.probability is not None]
    known = [each for each in scored if each.label is not None]
    capped = [each.record.capped for each in scored if each.record.capped is not None]
    factors = [each.record.artefact_factor for each in scored if each.record.artefact_factor is not None]
    return VersionReport(
        version=name,
        arms=tuple(sorted({each.record.arm for each in judged})),
        n=len(judged),
        n_answered=sum(each.record.answered for each in judged),
        verdicts=verdicts,
        false_positive_rate=_called_fake(known, "real"),
        true_positive_rate=_called_fake(known, "fake"),
        right=clopper_pearson(sum(each.record.verdict == each.label for each in known), len(known)),
        override_rate=clopper_pearson(sum(capped), len(capped)),
        artefact_factor=_mean(factors),
        feedback_weights=weights,
        drift=_drift(scored, start),
    )


def _called_fake(known: Sequence[Judged], label: str) -> Estimate:
    of_class = [each for each in known if each.verified and each.label == label]
    return clopper_pearson(sum(each.record.verdict == "fake" for each in of_class), len(of_class))


def _mean(values: Sequence[float]) -> Estimate:
    if not values:
        return Estimate(value=None, n=0)
    mean, n = float(np.mean(values)), len(values)
    if n < 2 or float(np.ptp(values)) == 0:
        return Estimate(value=mean, n=n)
    half = float(stats.t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(value=mean, low=mean - half, high=mean + half, n=n, method="Student's t")


def _drift(scored: Sequence[Judged], start: float) -> list[Drift]:
    names = ["probability", *sorted({name for each in scored for name in each.record.features})]
    found = []
    for name in names:
        before, recent = (
            _values([each for each in scored if (each.record.at >= start) == late], name) for late in (False, True)
        )
        found.append(compare(name, before, recent))
    tested = [index for index, each in enumerate(found) if each.p is not None]
    corrected = holm([found[index].p or 0.0 for index in tested])
    for index, p in zip(tested, corrected, strict=True):
        each = found[index]
        # A tiny shift is significant with enough traffic: it must also be large.
        large = each.psi is not None and each.psi >= max(PSI_SHIFTED, each.psi_by_chance or 0.0)
        found[index] = each.model_copy(update={"p": p, "state": "shifted" if p < ALPHA and large else "stable"})
    return found


def _values(judged: Sequence[Judged], name: str) -> NDArray[np.float64]:
    values = [each.record.probability if name == "probability" else each.record.features.get(name) for each in judged]
    return np.array([value for value in values if value is not None], np.float64)


def compare(name: str, before: NDArray[np.float64], recent: NDArray[np.float64]) -> Drift:
    """Compare two samples of one quantity.

    Args:
        name: Of the quantity.
        before: ``(N,)``.
        recent: ``(M,)``.

    Returns:
        PSI and KS with an uncorrected p; "too few" below 20 values on a side.
    """
    drift = Drift(name=name, n_before=len(before), n_recent=len(recent), state="too few")
    if min(len(before), len(recent)) < SMALLEST_SAMPLE:
        return drift
    tested = stats.ks_2samp(before, recent, method="asymp")
    psi, bins = population_stability(before, recent)
    by_chance = float(stats.chi2.ppf(0.95, bins - 1) * (1 / len(before) + 1 / len(recent))) if bins > 1 else 0.0
    figures = {"psi": psi, "psi_by_chance": by_chance, "ks": float(tested.statistic), "p": float(tested.pvalue)}
    return drift.model_copy(update={**figures, "state": "stable"})


def population_stability(before: NDArray[np.float64], recent: NDArray[np.float64]) -> tuple[float, int]:
    """Compute the population stability index, with half a value added to each bin so that none is empty.

    Args:
        before: ``(N,)``; its quantiles are the edges of the bins.
        recent: ``(M,)``.

    Returns:
        The index (0 for equal shares), and the number of bins; ties make them fewer than ten.
    """
    inner = np.unique(np.quantile(before, np.arange(1, PSI_BINS) / PSI_BINS))
    shares = []
    for values in (before, recent):
        counts = np.bincount(np.searchsorted(inner, values, side="right"), minlength=len(inner) + 1) + 0.5
        shares.append(counts / counts.sum())
    expected, found = shares
    return float(((found - expected) * np.log(found / expected)).sum()), len(inner) + 1
