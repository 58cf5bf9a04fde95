"""How detectors are combined: other weights than equal ones only if the gain is real on calib."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from unmask.config import EnsembleConfig
from unmask.ensemble.apply import FloatArray, apply_calibration
from unmask.ensemble.calibrate import Kind, Temperature, choose_calibration, fit_calibration, fit_temperature
from unmask.ensemble.combination import Combination, combiners
from unmask.ensemble.folds import counted, group_folds
from unmask.metrics import bootstrap_estimate, bootstrap_values, percentile_estimate, roc_auc
from unmask.metrics.curves import IntArray
from unmask.metrics.intervals import group_codes
from unmask.schemas import DetectorCalibration, EnsembleInfo, Estimate, rows_for_choice

logger = logging.getLogger(__name__)
RESAMPLES = 2000
# With fewer groups, or fewer samples of a class, the interval of the gain is too narrow to be believed.
MIN_GROUPS = 10
MIN_PER_CLASS = 8

Method = Literal["bayesian", "equal", "single", "confidence", "attention", "stacking"]
# Logits to fit on, their labels, and logits to calibrate; returns the calibrations and what they make of the latter.
Calibrate = Callable[[FloatArray, IntArray, FloatArray], tuple[tuple[DetectorCalibration, ...], FloatArray]]


@dataclass(frozen=True)
class EnsembleChoice:
    """How the detectors are combined, and why.

    Attributes:
        combination: Weights and the like.
        calibrations: Per detector.
        temperatures: Per detector, whatever its calibration is.
        temperature: Of the combined logit.
        method: How the combination was found.
        decision: Sentences for the report.
        candidates: Method to its cross-validated AUC on calib; ``detector NAME`` to the AUC of one detector.
        gain: Gain in AUC over equal weights of the method that was considered; None where none was.
        gains: Method to its cross-validated gain in AUC over equal weights; empty when calib is too small.
    """

    combination: Combination
    calibrations: tuple[DetectorCalibration, ...]
    temperatures: tuple[Temperature, ...]
    temperature: Temperature
    method: Method
    decision: str
    candidates: dict[str, Estimate]
    gain: Estimate | None
    gains: dict[str, Estimate]

    @property
    def weights(self) -> FloatArray:
        """``(D,)`` on the simplex."""
        return self.combination.weights


def choose_weights(
    rows: pd.DataFrame,
    detectors: Sequence[str],
    config: EnsembleConfig,
    rng: np.random.Generator,
    kept: EnsembleInfo | None = None,
) -> EnsembleChoice:
    """Choose calibrations and the combination on calib.

    Everything that a candidate fits is fitted on all group folds but one and judged on that one, each in turn. With
    ``method: auto``, Bayesian weights are taken only if their gain in AUC over equal weights is real: its interval,
    from resamples by group, lies above 0. Another method is taken because the configuration says so.

    Args:
        rows: Calib rows with ``sample_id``, ``label`` 0 or 1, ``group_id``, ``split`` and one column of raw video
            logits a detector (null where it has no score), each row with at least one logit.
        detectors: The columns of logits.
        config: Settings.
        rng: Source of folds, trials and resamples.
        kept: An earlier ensemble of these detectors, in this order; its calibrations are kept and only the
            combination is chosen anew.

    Returns:
        The choice.

    Raises:
        LeakError: A row is not of calib.
    """
    rows = rows_for_choice(rows, {"calib"}, "choose_weights").sort_values("sample_id")
    y = rows["label"].to_numpy(dtype=np.int64)
    groups = rows["group_id"].to_numpy(dtype=object)
    z = rows[list(detectors)].to_numpy(dtype=np.float64)
    calibrate = _keeping(kept) if kept else _fitting([_kind(rows, name, config, rng) for name in detectors])
    calibrations, calibrated = calibrate(z, y, z)
    ways = combiners(config.trials)
    candidates = {f"detector {name}": _auc_of(y, z[:, k], groups, rng) for k, name in enumerate(detectors)}
    method: Method = "single" if len(detectors) == 1 else "equal"
    gain = None
    gains: dict[str, Estimate] = {}
    decision = f"Only one detector ({detectors[0]}), so there is nothing to weigh."
    combination = ways["equal"](calibrated, y, rng)
    if len(detectors) > 1:
        decision = _too_small(y, groups)
    if not decision:
        compared, gains = _compare(z, y, groups, calibrate, config, rng)
        candidates = compared | candidates
        considered: Method = "bayesian" if config.method == "auto" else config.method
        gain = gains.get(considered)
        found = ways[considered](calibrated, y, rng)
        if config.method != "auto" or (gain is not None and gain.low is not None and gain.low > 0):
            combination, method = found, considered
        shares = dict(zip(detectors, found.weights, strict=True))
        decision = _explain(method, config.method, gain, compared, shares)
    temperatures = _temperatures(z, y) if kept is None else tuple(Temperature(t, np.nan) for t in kept.temperatures)
    temperature = fit_temperature(y, combination.apply(calibrated))
    if method == "single" and calibrations[0].kind == "temperature":
        temperature = Temperature(1.0, temperature.nll)
    return EnsembleChoice(
        combination, calibrations, temperatures, temperature, method, decision, candidates, gain, gains
    )


def _kind(rows: pd.DataFrame, detector: str, config: EnsembleConfig, rng: np.random.Generator) -> Kind:
    if config.calibration == "auto":
        return choose_calibration(rows, detector, folds=config.folds, rng=rng)
    return config.calibration


def _temperatures(logits: FloatArray, labels: IntArray) -> tuple[Temperature, ...]:
    there = ~np.isnan(logits)
    return tuple(fit_temperature(labels[there[:, k]], logits[there[:, k], k]) for k in range(logits.shape[1]))


def _fitting(kinds: Sequence[Kind]) -> Calibrate:
    """Fit the calibration of each detector on the samples that it scored, and apply it to others."""

    def calibrate(
        fitting: FloatArray, labels: IntArray, judged: FloatArray
    ) -> tuple[tuple[DetectorCalibration, ...], FloatArray]:
        there = ~np.isnan(fitting)
        fitted = tuple(
            fit_calibration(labels[there[:, k]], fitting[there[:, k], k], kind) for k, kind in enumerate(kinds)
        )
        return fitted, _applied(fitted, judged)

    return calibrate


def _keeping(info: EnsembleInfo) -> Calibrate:
    """Apply the calibrations of an earlier ensemble, whatever the samples say."""
    kept = tuple(info.calibrations) or tuple(
        DetectorCalibration(kind="temperature", slope=1 / temperature) for temperature in info.temperatures
    )
    return lambda fitting, labels, judged: (kept, _applied(kept, judged))


def _applied(calibrations: Sequence[DetectorCalibration], logits: FloatArray) -> FloatArray:
    return np.stack([apply_calibration(one, logits[:, k]) for k, one in enumerate(calibrations)], axis=1)


def _too_small(labels: IntArray, groups: npt.NDArray[np.object_]) -> str:
    """Say why calib is too small to compare weights on; empty when it is not."""
    n_groups = group_codes(groups)[1]
    fakes = int(labels.sum())
    reals = len(labels) - fakes
    if min(reals, fakes) >= MIN_PER_CLASS and n_groups >= MIN_GROUPS:
        return ""
    return (
        f"Equal weights: calib has {counted(reals, 'real')} and {counted(fakes, 'fake')} in "
        f"{counted(n_groups, 'group')}; at least {MIN_PER_CLASS} of each in {MIN_GROUPS} groups are needed before "
        "other weights can be shown to be better."
    )


def _compare(
    logits: FloatArray,
    labels: IntArray,
    groups: npt.NDArray[np.object_],
    calibrate: Calibrate,
    config: EnsembleConfig,
    rng: np.random.Generator,
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    """Cross-validate the candidates; returns the AUC of each and its gain over equal weights."""
    ways = combiners(config.trials)
    fold = group_folds(labels, groups, config.folds, rng)
    scores = {name: np.empty(len(labels)) for name in ways}
    for k in np.unique(fold):
        fitting, judged = fold != k, fold == k
        _, calibrated = calibrate(logits[fitting], labels[fitting], logits)
        for name, fit in ways.items():
            scores[name][judged] = fit(calibrated[fitting], labels[fitting], rng).apply(calibrated[judged])
    table = np.stack(list(scores.values()), axis=1)
    values = bootstrap_values([roc_auc], labels, table, groups, rng=rng, resamples=RESAMPLES)[:, :, 0]
    aucs = [roc_auc(labels, column) or 0.0 for column in table.T]
    n_groups, n = group_codes(groups)[1], len(labels)
    method = f"{len(np.unique(fold))} group folds, cluster bootstrap over {n_groups} groups"

    def estimate(value: float, resampled: FloatArray, how: str) -> Estimate:
        return percentile_estimate(value, resampled, n, how, n_groups=n_groups)

    candidates = {name: estimate(aucs[k], values[:, k], method) for k, name in enumerate(ways)}
    gains = {
        name: estimate(aucs[k] - aucs[0], values[:, k] - values[:, 0], f"paired, {method}")
        for k, name in enumerate(ways)
        if k > 0
    }
    return candidates, gains


def _auc_of(
    labels: IntArray, logits: FloatArray, groups: npt.NDArray[np.object_], rng: np.random.Generator
) -> Estimate:
    there = ~np.isnan(logits)
    return bootstrap_estimate(roc_auc, labels[there], logits[there], groups[there], rng=rng, resamples=RESAMPLES)


def _explain(
    method: Method, wanted: str, gain: Estimate | None, candidates: Mapping[str, Estimate], found: Mapping[str, float]
) -> str:
    listed = ", ".join(f"{name.replace('_', ' ')} {estimate.value:.4f}" for name, estimate in candidates.items())
    compared = f"Cross-validated AUC on calib (n = {next(iter(candidates.values())).n}): {listed}."
    if wanted == "equal" or gain is None:
        return f"Equal weights, because the configuration says so. {compared}"
    change = f"{gain.value:+.4f}"
    if gain.low is not None and gain.high is not None:
        change += f" [{gain.low:+.4f}, {gain.high:+.4f}]"
    shares = ", ".join(f"{name} {weight:.2f}" for name, weight in found.items())
    real = gain.low is not None and gain.low > 0
    if wanted == "auto" and real:
        said = (
            f"Weights by Bayesian search ({shares}): they rank calib better than equal weights by {change} of AUC, and "
            "the interval lies above 0."
        )
    elif wanted == "auto":
        said = (
            f"Equal weights: the Bayesian search found {shares}, but its gain over equal weights of {change} of AUC is "
            "not real, because the interval reaches 0 or less."
        )
    else:
        shown = "a real gain" if real else "no real gain; `ensemble.method: auto` would keep equal weights"
        said = (
            f"Combined by {method}, because the configuration says so (shares {shares}). Against equal weights the AUC "
            f"differs by {change}: {shown}."
        )
    return f"{said} {compared}"
