"""What carries fusion: coefficients with intervals, and what is left when a family of inputs is taken away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.linear_model import LogisticRegression

from unmask.config import FusionConfig
from unmask.ensemble.apply import FloatArray
from unmask.fusion.apply import ENSEMBLE, input_matrix, standardised
from unmask.fusion.model import EMPHASIS, FusionModel, Splits, StoredModel, as_info
from unmask.fusion.oversample import wanted
from unmask.metrics import bootstrap_values, percentile_estimate, roc_auc
from unmask.metrics.curves import IntArray
from unmask.metrics.intervals import group_codes, resample_counts
from unmask.schemas import Ablation, Estimate, FusionAnalysis, InputWeight, rows_for_choice

COEFFICIENT_RESAMPLES = 200
AUC_RESAMPLES = 2000
FULL = "full"
QUALITY = ("quality.", "forensics.codec")


def analyse(
    rows: pd.DataFrame,
    features: Sequence[str],
    splits: Splits,
    config: FusionConfig,
    rng: np.random.Generator,
) -> FusionAnalysis:
    """Fit fusion on calib with and without families of inputs.

    Args:
        rows: Calib rows with ``label`` 0 or 1, ``group_id``, ``split``, ``logit`` and the features.
        features: The usable feature columns.
        splits: Group folds, as row numbers of the rows sorted by ``sample_id``.
        config: As fusion was fitted with.
        rng: Source of the resamples.

    Returns:
        The analysis.

    Raises:
        LeakError: A row is not of calib.
    """
    rows = rows_for_choice(rows, {"calib"}, "analyse").sort_values("sample_id", ignore_index=True)
    labels = rows["label"].to_numpy(dtype=np.int64)
    groups = rows["group_id"].to_numpy(dtype=object)
    oversample = wanted(labels, config.smote)
    quality = [name for name in features if name.startswith(QUALITY)]
    removals = {FULL: [], "without_quality": quality, "without_detectors": [ENSEMBLE], "without_features": [*features]}
    models, decided = {}, {}
    for name, removed in removals.items():
        kept = [feature for feature in features if feature not in removed]
        if not kept and ENSEMBLE in removed:
            continue
        model = FusionModel(
            kept, config.inverse_regularisation, with_ensemble=ENSEMBLE not in removed, oversample=oversample
        )
        x = rows[["logit", *kept]].to_numpy(dtype=np.float64)
        decided[name] = model.out_of_fold(x, labels, splits)
        models[name] = model.fit(x, labels, splits)[0]
    aucs, changes = _ablated(decided, labels, groups, rng)
    ablations = [
        Ablation(name=name, removed=removals[name], auc=aucs[name], change=changes.get(name), model=as_info(model))
        for name, model in models.items()
    ]
    return FusionAnalysis(weights=_weights(models[FULL], rows, labels, groups, config, rng), ablations=ablations)


def _ablated(
    decided: Mapping[str, FloatArray], labels: IntArray, groups: npt.NDArray[np.object_], rng: np.random.Generator
) -> tuple[dict[str, Estimate], dict[str, Estimate]]:
    table = np.stack(list(decided.values()), axis=1)
    values = bootstrap_values([roc_auc], labels, table, groups, rng=rng, resamples=AUC_RESAMPLES)[:, :, 0]
    found = [roc_auc(labels, column) or 0.0 for column in table.T]
    n, n_groups = len(labels), group_codes(groups)[1]
    method = f"out-of-fold, cluster bootstrap over {n_groups} groups"
    aucs = {
        name: percentile_estimate(found[k], values[:, k], n, method, n_groups=n_groups)
        for k, name in enumerate(decided)
    }
    changes = {
        name: percentile_estimate(
            found[k] - found[0], values[:, k] - values[:, 0], n, f"paired, {method}", n_groups=n_groups
        )
        for k, name in enumerate(decided)
        if name != FULL
    }
    return aucs, changes


def _weights(
    stored: StoredModel,
    rows: pd.DataFrame,
    labels: IntArray,
    groups: npt.NDArray[np.object_],
    config: FusionConfig,
    rng: np.random.Generator,
) -> list[InputWeight]:
    """Fit the coefficients again on groups drawn with replacement; the standardisation stays as it is."""
    info = as_info(stored)
    columns = {name: rows[name].to_numpy(dtype=np.float64) for name in stored.inputs if name in rows}
    z = standardised(info, input_matrix(stored.inputs, stored.impute, rows["logit"], columns))
    factors = np.array([EMPHASIS if name == ENSEMBLE else 1.0 for name in stored.inputs]) * stored.calibration_slope
    emphasised = z * np.where(np.array(stored.inputs) == ENSEMBLE, EMPHASIS, 1.0)
    codes, n_groups = group_codes(groups)
    counts_of_class = np.bincount(labels, minlength=2)
    # A linear model sees synthetic rows much as it sees heavier ones.
    weight = (counts_of_class.max() / counts_of_class)[labels] if wanted(labels, config.smote) else np.ones(len(labels))
    drawn = np.full((COEFFICIENT_RESAMPLES, len(stored.inputs)), np.nan)
    start = 0
    for counts in resample_counts(n_groups, COEFFICIENT_RESAMPLES, len(labels), rng):
        for counted in counts[:, codes]:
            if len(np.unique(labels[counted > 0])) == 2:
                logistic = LogisticRegression(C=config.inverse_regularisation, solver="newton-cholesky")
                drawn[start] = logistic.fit(emphasised, labels, sample_weight=counted * weight).coef_[0] * factors
            start += 1
    value = np.array(stored.coefficients) * stored.calibration_slope
    method, n = f"refitted on {n_groups} groups drawn with replacement", len(labels)
    weights = []
    shares = np.abs(drawn) / np.abs(drawn).sum(axis=1, keepdims=True)
    total = float(np.abs(value).sum()) or 1.0
    for k, name in enumerate(stored.inputs):
        coefficient = percentile_estimate(float(value[k]), drawn[:, k], n, method, n_groups=n_groups)
        share = percentile_estimate(float(abs(value[k])) / total, shares[:, k], n, method, n_groups=n_groups)
        low, high = coefficient.low, coefficient.high
        clear = low is not None and high is not None and (low > 0 or high < 0)
        weights.append(InputWeight(input=name, coefficient=coefficient, share=share, clear=clear))
    return sorted(weights, key=lambda weight: -abs(weight.coefficient.value or 0.0))
