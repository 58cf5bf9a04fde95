"""Fitting fusion on calib, and finding out there whether it is worth using."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import pandas as pd

from unmask.config import FusionConfig
from unmask.ensemble.apply import FloatArray, sigmoid
from unmask.ensemble.calibrate import fit_platt, fit_temperature
from unmask.ensemble.folds import counted, group_folds
from unmask.fusion.apply import (
    ENSEMBLE,
    LARGEST_SHARE_OF_TRACES,
    apply_fusion,
    capped,
    fusion_logit,
    share_of_traces,
)
from unmask.fusion.fallback import ENSEMBLE_SHARE, average_by_rule
from unmask.fusion.model import FusionModel, Splits, StoredModel, as_info
from unmask.fusion.oversample import wanted
from unmask.fusion.rules import fit_rules
from unmask.fusion.thresholds import choose_operating_points
from unmask.metrics import bootstrap_values, negative_log_likelihood, percentile_estimate
from unmask.metrics.curves import IntArray
from unmask.metrics.intervals import group_codes
from unmask.schemas import Estimate, FusionInfo, rows_for_choice

logger = logging.getLogger(__name__)
MIN_PER_CLASS = 8
MIN_GROUPS = 3
# A feature with fewer values than this on calib says nothing that could be relied on.
MIN_VALUES = 8
RESAMPLES = 2000
# How far the stored coefficients may be from scikit-learn's own probabilities.
PARITY = 1e-9
SMALLEST_PROBABILITY = 1e-12
DESCRIPTIONS = {
    "ensemble": "the ensemble alone",
    "recalibrated": "the ensemble recalibrated",
    "fusion": "ensemble and features together",
}


@dataclass(frozen=True)
class FusionFit:
    """A fitted fusion.

    Attributes:
        info: What is stored.
        messages: Sentences for the user, the decision first.
        nll: Candidate to its out-of-fold negative log-likelihood on calib; empty when calib is too small.
        usable: Features that calib has enough values of; empty when calib is too small.
        splits: Group folds, as row numbers of the calib rows sorted by ``sample_id``; empty when calib is too small.
    """

    info: FusionInfo
    messages: tuple[str, ...]
    nll: dict[str, Estimate]
    usable: list[str]
    splits: Splits


def fit_fusion(
    rows: pd.DataFrame,
    features: Sequence[str],
    temperature: float,
    config: FusionConfig,
    rng: np.random.Generator,
    directions: Mapping[str, str] = MappingProxyType({}),
    reference: pd.DataFrame | None = None,
) -> FusionFit:
    """Fit fusion and operating points on calib.

    Three ways to a probability are compared by their out-of-fold likelihood: the ensemble as it is, the ensemble
    with slope and offset fitted anew, and ensemble and features together. A more complex one is taken only if it is
    better than every simpler one. When calib is too small for this, the fallback of `unmask.fusion.fallback` is used,
    or the ensemble as it is, as the configuration says.

    Args:
        rows: Calib rows with ``sample_id``, ``label`` 0 or 1, ``group_id``, ``split``, ``logit`` (of the ensemble,
            not null) and one column a feature, null where not measured.
        features: The feature columns.
        temperature: Last temperature of the ensemble.
        config: Settings.
        rng: Source of folds and resamples.
        directions: Feature to higher_fake, higher_real or none; the rule on camera evidence and the fallback need it.
        reference: Rows of train, val and calib that tell the fallback what is usual; the calib rows when None.

    Returns:
        The fit.

    Raises:
        LeakError: A row is not of calib.
    """
    rows = rows_for_choice(rows, {"calib"}, "fit_fusion").sort_values("sample_id", ignore_index=True)
    labels = rows["label"].to_numpy(dtype=np.int64)
    splits, shortage = _splits(rows, labels, config.folds, rng)
    if shortage:
        way = _without_fusion(rows, directions, temperature, config, shortage, reference)
    else:
        way = _best_way(rows, features, temperature, config, splits, rng)
    probability, remarks = way.probability, way.remarks
    info = as_info(way.stored).model_copy(
        update={
            "default_operating_point": config.operating_point,
            "importance": _importance(way.stored),
            "used": way.name in ("fusion", "fallback"),
            "method": way.name,
            "averaged": way.name == "fallback",
            "decision": way.decision,
        }
    )
    if config.rules:
        rules, told = fit_rules(rows, directions, config, info.inputs)
        ruled = info.model_copy(update={"rules": rules})
        probability = _ruled(info, ruled, rows, probability)
        info, remarks = ruled, [*remarks, *told]
    points = choose_operating_points(rows.assign(probability=probability), config.target_fpr, config.target_precision)
    info = info.model_copy(update={"operating_points": points})
    return FusionFit(info, (way.decision, *remarks), way.nll, way.usable, splits)


@dataclass(frozen=True)
class _Way:
    """How the ensemble's logit and the features become a probability: coefficients, and what led to them."""

    name: str
    stored: StoredModel
    probability: FloatArray
    decision: str
    remarks: list[str] = field(default_factory=list)
    nll: dict[str, Estimate] = field(default_factory=dict)
    usable: list[str] = field(default_factory=list)


def _without_fusion(
    rows: pd.DataFrame,
    directions: Mapping[str, str],
    temperature: float,
    config: FusionConfig,
    shortage: str,
    reference: pd.DataFrame | None,
) -> _Way:
    """Make do without fitting: the fallback, or the ensemble as it is."""
    logit = rows["logit"].to_numpy(dtype=np.float64)
    average = average_by_rule(rows if reference is None else reference, directions, temperature)
    if average is None or config.fallback == "ensemble":
        decision = f"The ensemble's probability is used as it is, because {shortage}."
        return _Way("ensemble", *_ensemble_alone(logit, temperature), decision)
    info = as_info(average).model_copy(update={"averaged": True})
    probability = apply_fusion(info, logit, _feature_columns(rows))
    return _Way("fallback", average, probability, _explain_fallback(average, shortage))


def _best_way(
    rows: pd.DataFrame,
    features: Sequence[str],
    temperature: float,
    config: FusionConfig,
    splits: Splits,
    rng: np.random.Generator,
) -> _Way:
    """Compare the candidates out of fold and fit the best one."""
    labels = rows["label"].to_numpy(dtype=np.int64)
    logit = rows["logit"].to_numpy(dtype=np.float64)
    usable, remarks = usable_features(rows, features)
    oversample = wanted(labels, config.smote)
    model = FusionModel(usable, config.inverse_regularisation, oversample=oversample)
    x = rows[["logit", *usable]].to_numpy(dtype=np.float64)
    decided = model.out_of_fold(x, labels, splits)
    nll, difference = _compare(logit, decided, labels, rows["group_id"].to_numpy(dtype=object), splits, rng)
    best = _best(nll, _sensible(logit, decided, labels, usable))
    stored, probability = _ensemble_alone(logit, temperature)
    if best == "recalibrated":
        stored, probability = _recalibrated(logit, labels)
    elif best == "fusion":
        stored, probability = _fused(model, x, labels, splits, decided)
        remarks += _cautions(stored)
        if oversample:
            remarks.append(_explain_oversampling(labels))
    return _Way(best, stored, probability, _explain(best, nll, difference, len(usable)), remarks, nll, usable)


def _explain_oversampling(labels: IntArray) -> str:
    fakes = int(labels.sum())
    rarer, few, many = (
        ("fake", fakes, len(labels) - fakes) if 2 * fakes < len(labels) else ("real", len(labels) - fakes, fakes)
    )
    return (
        f"Calib has {counted(few, rarer)} for {many} others ({many / few:.0f}:1), so features were fitted with "
        f"{many - few} synthetic ones (SMOTE); calibration and thresholds saw real samples only. More {rarer} samples "
        "on calib would be better."
    )


def _ruled(before: FusionInfo, after: FusionInfo, rows: pd.DataFrame, probability: FloatArray) -> FloatArray:
    """Carry rules over to out-of-fold probabilities: the shift of the logit is that of the final fit."""
    columns = _feature_columns(rows)
    shift = fusion_logit(after, rows["logit"], columns) - fusion_logit(before, rows["logit"], columns)
    inside = np.clip(probability, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    logit = np.log(inside) - np.log1p(-inside)
    return capped(after, sigmoid(logit + before.calibration_slope * shift), columns)


def _feature_columns(rows: pd.DataFrame) -> dict[str, FloatArray]:
    return {str(name): rows[name].to_numpy(dtype=np.float64) for name in rows.columns if "." in str(name)}


def _explain_fallback(average: StoredModel, shortage: str) -> str:
    return (
        f"Rule-based fallback: no fusion was trained, because {shortage}. The probability is an average of the "
        f"detectors (weight {ENSEMBLE_SHARE:g}) and {counted(len(average.inputs) - 1, 'feature')} (together "
        f"{1 - ENSEMBLE_SHARE:g}), by written weights and the directions that the catalogue of features expects; it is "
        "not calibrated. More labelled calib samples would let fusion be trained."
    )


def usable_features(rows: pd.DataFrame, features: Sequence[str]) -> tuple[list[str], list[str]]:
    """Leave out features that calib says nothing about.

    Args:
        rows: Calib rows.
        features: The feature columns.

    Returns:
        The features that are left, and sentences on those that are not.
    """
    rows = rows_for_choice(rows, {"calib"}, "usable_features")
    values = rows[list(features)]
    known = values.notna().sum()
    few = [name for name in features if known[name] < MIN_VALUES]
    constant = [name for name in features if name not in few and values[name].nunique() < 2]
    remarks = []
    if few:
        remarks.append(f"Not used, because fewer than {MIN_VALUES} calib samples have a value: {', '.join(few)}.")
    if constant:
        remarks.append(f"Not used, because all calib samples have the same value: {', '.join(constant)}.")
    return [name for name in features if name not in {*few, *constant}], remarks


def _splits(rows: pd.DataFrame, labels: IntArray, folds: int, rng: np.random.Generator) -> tuple[Splits, str]:
    """Make group folds, or say in half a sentence why calib is too small for them."""
    fakes = int(labels.sum())
    reals = len(labels) - fakes
    n_groups = group_codes(rows["group_id"].to_numpy(dtype=object))[1]
    size = f"calib has {counted(reals, 'real')} and {counted(fakes, 'fake')} in {counted(n_groups, 'group')}"
    if min(reals, fakes) < MIN_PER_CLASS or n_groups < MIN_GROUPS:
        needed = f"at least {MIN_PER_CLASS} of each in {MIN_GROUPS} groups are needed"
        return [], f"{size}; {needed} to fit features"
    fold = group_folds(labels, rows["group_id"].to_numpy(dtype=object), folds, rng)
    splits = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in np.unique(fold)]
    if any(len(np.unique(labels[fitting])) < 2 for fitting, _ in splits):
        return [], f"{size}, and a fold would be left without one of the classes"
    return splits, ""


def _compare(
    logit: FloatArray,
    decided: FloatArray,
    labels: IntArray,
    groups: npt.NDArray[np.object_],
    splits: Splits,
    rng: np.random.Generator,
) -> tuple[dict[str, Estimate], Estimate]:
    """Give each candidate the likelihood of probabilities that never saw their own fold, calibration included.

    Returns:
        Candidate to its mean negative log-likelihood, and the difference of fusion to the better of the other two.
    """
    table = np.empty((len(labels), 3))
    for fitting, judged in splits:
        y = labels[fitting]
        table[judged, 0] = sigmoid(logit[judged] / fit_temperature(y, logit[fitting]).value)
        slope, offset = fit_platt(y, logit[fitting])
        table[judged, 1] = sigmoid(slope * logit[judged] + offset)
        slope, offset = fit_platt(y, decided[fitting])
        # Out-of-fold values of useless features rank the classes upside down, because each fold lacks what the
        # others have too much of. Turning them round would look like knowledge, so they count as no knowledge.
        share = (y.sum() + 1) / (len(y) + 2)
        table[judged, 2] = sigmoid(slope * decided[judged] + offset) if slope > 0 else share
    values = bootstrap_values([negative_log_likelihood], labels, table, groups, rng=rng, resamples=RESAMPLES)[:, :, 0]
    found = [negative_log_likelihood(labels, column) or 0.0 for column in table.T]
    n_groups, n = group_codes(groups)[1], len(labels)
    method = f"out of {len(splits)} group folds, cluster bootstrap over {n_groups} groups"
    nll = {
        name: percentile_estimate(found[k], values[:, k], n, method, n_groups=n_groups)
        for k, name in enumerate(DESCRIPTIONS)
    }
    # Against the ensemble as it is, features would be credited with what recalibration alone gains.
    other = int(np.argmin(found[:2]))
    change = values[:, 2] - values[:, other]
    return nll, percentile_estimate(found[2] - found[other], change, n, f"paired, {method}", n_groups=n_groups)


def _sensible(logit: FloatArray, decided: FloatArray, labels: IntArray, usable: Sequence[str]) -> list[str]:
    """List the candidates that may be chosen.

    One that ranks calib upside down may not: turned round, it would fit calib and mean nothing elsewhere.
    """
    sensible = ["ensemble"]
    if fit_platt(labels, logit)[0] > 0:
        sensible.append("recalibrated")
    if usable and fit_platt(labels, decided)[0] > 0:
        sensible.append("fusion")
    return sensible


def _best(nll: dict[str, Estimate], sensible: Sequence[str]) -> str:
    """Pick the smallest; the candidates come from simple to complex, and of equals the simpler one wins."""
    return min(sensible, key=lambda name: float(nll[name].value or 0.0))


def _explain(best: str, nll: dict[str, Estimate], difference: Estimate, n_features: int) -> str:
    figures = ", ".join(f"{DESCRIPTIONS[name]} {estimate.value:.3f}" for name, estimate in nll.items())
    interval = f" [{difference.low:+.3f}, {difference.high:+.3f}]" if difference.low is not None else ""
    return (
        f"Used: {DESCRIPTIONS[best]}; {counted(n_features, 'feature')} tried. Mean surprise at calib samples that were "
        f"not fitted on (negative log-likelihood, smaller is better, n = {difference.n}): {figures}. Features change "
        f"the better of the first two by {difference.value:+.3f}{interval}."
    )


def _ensemble_alone(logit: FloatArray, temperature: float) -> tuple[StoredModel, FloatArray]:
    stored = StoredModel([ENSEMBLE], [0.0], [0.0], [temperature], [1.0], 0.0, 1.0, 0.0)
    return stored, sigmoid(logit / temperature)


def _recalibrated(logit: FloatArray, labels: IntArray) -> tuple[StoredModel, FloatArray]:
    slope, offset = fit_platt(labels, logit)
    return StoredModel([ENSEMBLE], [0.0], [0.0], [1.0], [1.0], 0.0, slope, offset), sigmoid(slope * logit + offset)


def _fused(
    model: FusionModel, x: FloatArray, labels: IntArray, splits: Splits, decided: FloatArray
) -> tuple[StoredModel, FloatArray]:
    """Fit the model; returns it with out-of-fold probabilities.

    Raises:
        RuntimeError: The stored coefficients do not give scikit-learn's probabilities, which would be a defect here.
    """
    stored, theirs = model.fit(x, labels, splits)
    ours = apply_fusion(as_info(stored), x[:, 0], dict(zip(model.features, x[:, 1:].T, strict=True)))
    worst = float(np.abs(ours - theirs).max())
    if not worst <= PARITY:
        raise RuntimeError(f"stored fusion differs from scikit-learn by {worst:.3g} in probability")
    return stored, sigmoid(stored.calibration_slope * decided + stored.calibration_offset)


def _importance(stored: StoredModel) -> dict[str, float]:
    sizes = np.abs(stored.coefficients)
    total = float(sizes.sum()) or 1.0
    return {name: float(size) / total for name, size in zip(stored.inputs, sizes, strict=True)}


def _cautions(stored: StoredModel) -> list[str]:
    traces, features = share_of_traces(_importance(stored))
    if traces <= LARGEST_SHARE_OF_TRACES:
        return []
    return [
        f"Artefact and frequency features (art.*) carry {traces:.0%} of the weight of all features, which is "
        f"{features:.0%} of that of fusion. They depend on compression and size more than on forgery: check that these "
        "are matched between reals and fakes."
    ]
