"""Which weights are used: better ones than equal only if the gain is real on calib."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from unmask.ensemble.apply import FloatArray, combine
from unmask.ensemble.calibrate import Temperature, fit_temperature
from unmask.ensemble.folds import group_folds
from unmask.ensemble.weights import (
    Weigher,
    bayesian_weights,
    best_single_weights,
    equal_weights,
    logistic_weights,
)
from unmask.metrics import bootstrap_estimate, bootstrap_values, percentile_estimate, roc_auc
from unmask.metrics.curves import IntArray
from unmask.metrics.intervals import group_codes
from unmask.schemas import Estimate, rows_for_choice

logger = logging.getLogger(__name__)
RESAMPLES = 2000
# With fewer groups, or fewer samples of a class, the interval of the gain is too narrow to be believed.
MIN_GROUPS = 10
MIN_PER_CLASS = 8


@dataclass(frozen=True)
class WeightChoice:
    """The weights that were chosen, and why.

    Attributes:
        weights: ``(D,)`` on the simplex.
        temperatures: Per detector.
        temperature: Of the combined logit.
        method: single, equal or bayesian.
        decision: Sentences for the report.
        candidates: Method to its cross-validated AUC on calib; ``detector NAME`` to the AUC of one detector.
        gain: Gain in AUC of the Bayesian weights over equal ones; None where they were not compared.
    """

    weights: FloatArray
    temperatures: tuple[Temperature, ...]
    temperature: Temperature
    method: Literal["bayesian", "equal", "single"]
    decision: str
    candidates: dict[str, Estimate]
    gain: Estimate | None


def choose_weights(
    rows: pd.DataFrame, detectors: Sequence[str], *, trials: int, folds: int, rng: np.random.Generator
) -> WeightChoice:
    """Choose temperatures and weights on calib.

    Temperatures and weights of every candidate are fitted on all group folds but one and judged on that one, each in
    turn. The Bayesian weights are taken only if their gain in AUC over equal weights is real: its interval, from
    resamples by group, lies above 0.

    Args:
        rows: Calib rows with ``label`` 0 or 1, ``group_id``, ``split`` and one column of raw video logits a detector
            (null where it has no score), each row with at least one logit.
        detectors: The columns of logits.
        trials: Trials of each Bayesian search.
        folds: Group folds.
        rng: Source of folds, trials and resamples.

    Returns:
        The choice.

    Raises:
        LeakError: A row is not of calib.
    """
    rows = rows_for_choice(rows, {"calib"}, "choose_weights").sort_values("sample_id")
    y = rows["label"].to_numpy(dtype=np.int64)
    groups = rows["group_id"].to_numpy(dtype=object)
    z = rows[list(detectors)].to_numpy(dtype=np.float64)
    temperatures = fit_temperatures(z, y)
    calibrated = _calibrated(z, temperatures)
    candidates = {f"detector {name}": _auc_of(y, z[:, k], groups, rng) for k, name in enumerate(detectors)}
    if len(detectors) == 1:
        decision = f"Only one detector ({detectors[0]}), so there is nothing to weigh."
        return WeightChoice(
            np.ones(1), temperatures, Temperature(1.0, temperatures[0].nll), "single", decision, candidates, None
        )
    weights = equal_weights(calibrated, y, rng)
    method: Literal["bayesian", "equal"] = "equal"
    gain = None
    decision = _too_small(y, groups)
    if not decision:
        compared, gain = _compare(z, y, groups, trials=trials, folds=folds, rng=rng)
        candidates = compared | candidates
        found = bayesian_weights(calibrated, y, rng, trials=trials)
        if gain.low is not None and gain.low > 0:
            weights, method = found, "bayesian"
        decision = _explain(method, gain, compared, dict(zip(detectors, found, strict=True)))
    temperature = fit_temperature(y, combine(calibrated, weights))
    return WeightChoice(weights, temperatures, temperature, method, decision, candidates, gain)


def fit_temperatures(logits: FloatArray, labels: IntArray) -> tuple[Temperature, ...]:
    """Fit one temperature a detector, each on the samples that it scored.

    Args:
        logits: ``(N, D)`` raw logits; NaN where a detector has no score.
        labels: ``(N,)``, 0 real and 1 fake.

    Returns:
        D temperatures.
    """
    there = ~np.isnan(logits)
    return tuple(fit_temperature(labels[there[:, k]], logits[there[:, k], k]) for k in range(logits.shape[1]))


def _calibrated(logits: FloatArray, temperatures: Sequence[Temperature]) -> FloatArray:
    divided: FloatArray = logits / np.array([temperature.value for temperature in temperatures])
    return divided


def _too_small(labels: IntArray, groups: npt.NDArray[np.object_]) -> str:
    """Say why calib is too small to compare weights on; empty when it is not."""
    n_groups = group_codes(groups)[1]
    fakes = int(labels.sum())
    reals = len(labels) - fakes
    if min(reals, fakes) >= MIN_PER_CLASS and n_groups >= MIN_GROUPS:
        return ""
    return (
        f"Equal weights: calib has {reals} reals and {fakes} fakes in {n_groups} groups; at least {MIN_PER_CLASS} of "
        f"each in {MIN_GROUPS} groups are needed before other weights can be shown to be better."
    )


def _compare(
    logits: FloatArray,
    labels: IntArray,
    groups: npt.NDArray[np.object_],
    *,
    trials: int,
    folds: int,
    rng: np.random.Generator,
) -> tuple[dict[str, Estimate], Estimate]:
    """Cross-validate the candidates; returns the AUC of each and the gain of Bayesian over equal weights."""
    weighers: dict[str, Weigher] = {
        "equal": equal_weights,
        "bayesian": partial(bayesian_weights, trials=trials),
        "logistic": logistic_weights,
        "best_single": best_single_weights,
    }
    fold = group_folds(labels, groups, folds, rng)
    scores = {name: np.empty(len(labels)) for name in weighers}
    for k in np.unique(fold):
        fitting, judged = fold != k, fold == k
        temperatures = fit_temperatures(logits[fitting], labels[fitting])
        calibrated = _calibrated(logits, temperatures)
        for name, weigh in weighers.items():
            weights = weigh(calibrated[fitting], labels[fitting], rng)
            scores[name][judged] = combine(calibrated[judged], weights)
    table = np.stack(list(scores.values()), axis=1)
    values = bootstrap_values([roc_auc], labels, table, groups, rng=rng, resamples=RESAMPLES)[:, :, 0]
    aucs = [roc_auc(labels, column) or 0.0 for column in table.T]
    n_groups, n = group_codes(groups)[1], len(labels)
    method = f"{len(np.unique(fold))} group folds, cluster bootstrap over {n_groups} groups"
    candidates = {
        name: percentile_estimate(aucs[k], values[:, k], n, method, n_groups=n_groups)
        for k, name in enumerate(weighers)
    }
    gain = values[:, 1] - values[:, 0]
    return candidates, percentile_estimate(aucs[1] - aucs[0], gain, n, f"paired, {method}", n_groups=n_groups)


def _auc_of(
    labels: IntArray, logits: FloatArray, groups: npt.NDArray[np.object_], rng: np.random.Generator
) -> Estimate:
    there = ~np.isnan(logits)
    return bootstrap_estimate(roc_auc, labels[there], logits[there], groups[there], rng=rng, resamples=RESAMPLES)


def _explain(method: str, gain: Estimate, candidates: Mapping[str, Estimate], found: Mapping[str, float]) -> str:
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in found.items())
    change = f"{gain.value:+.4f}"
    if gain.low is not None and gain.high is not None:
        change += f" [{gain.low:+.4f}, {gain.high:+.4f}]"
    real = f"The Bayesian search found {shares}; its cross-validated AUC differs from that of equal weights by {change}"
    verdict = (
        f"{real}: the gain is real, so these weights are used."
        if method == "bayesian"
        else f"{real}: the gain is not real, so equal weights are kept."
    )
    others = ", ".join(f"{name} {estimate.value:.4f}" for name, estimate in candidates.items())
    return f"{verdict} Cross-validated AUC on calib: {others} (n = {gain.n})."
