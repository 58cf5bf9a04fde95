"""Fusion as plain arithmetic on stored coefficients; numpy only, so that serving can use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unmask.ensemble.apply import FloatArray, sigmoid
from unmask.schemas import ArtefactScale, FusionInfo, RealEvidence

ENSEMBLE = "ensemble"
MISSING = "missing:"
TRACES = "art."
FLOW_ODDITY = "temp.flow_oddity"
# A feature counts as at most this many standard deviations from its mean on calib, so that one measurement far
# outside of everything seen cannot decide alone. The ensemble's logit is not limited.
LARGEST_DEVIATION = 4.0
# Traces in single frames that carry more of the features' weight than this get a warning.
LARGEST_SHARE_OF_TRACES = 0.5


def input_matrix(
    inputs: Sequence[str], impute: npt.ArrayLike, ensemble_logit: npt.ArrayLike, features: Mapping[str, npt.ArrayLike]
) -> FloatArray:
    """Put the inputs side by side, missing ones replaced and flagged.

    Args:
        inputs: K names: ``ensemble``, feature names, ``missing:<feature>`` indicators.
        impute: ``(K,)`` value for a missing input.
        ensemble_logit: ``(N,)``; NaN where there is none, which is not replaced.
        features: Feature name to ``(N,)`` values, NaN where not measured.

    Returns:
        ``(N, K)``.

    Raises:
        ValueError: A feature among the inputs is not among the features.
    """
    logit = np.asarray(ensemble_logit, dtype=np.float64)
    needed = {name.removeprefix(MISSING) for name in inputs} - {ENSEMBLE}
    unknown = sorted(needed - set(features))
    if unknown:
        raise ValueError(f"fusion needs features that are not there: {', '.join(unknown)}; extract with its version")
    columns = []
    for name, value in zip(inputs, np.asarray(impute, dtype=np.float64), strict=True):
        if name == ENSEMBLE:
            columns.append(logit)
            continue
        measured = np.asarray(features[name.removeprefix(MISSING)], dtype=np.float64)
        absent = np.isnan(measured)
        columns.append(absent.astype(np.float64) if name.startswith(MISSING) else np.where(absent, value, measured))
    return np.stack(columns, axis=1) if columns else np.empty((len(logit), 0))


def standardised(info: FusionInfo, matrix: FloatArray) -> FloatArray:
    """Subtract ``center``, divide by ``scale``, and limit features to 4 standard deviations.

    Args:
        info: The fitted fusion.
        matrix: ``(N, K)`` of `input_matrix`.

    Returns:
        ``(N, K)``.
    """
    z: FloatArray = (matrix - np.asarray(info.center)) / np.asarray(info.scale)
    limited = np.array([name != ENSEMBLE and not name.startswith(MISSING) for name in info.inputs], dtype=bool)
    z[:, limited] = np.clip(z[:, limited], -LARGEST_DEVIATION, LARGEST_DEVIATION)
    return z


def fusion_logit(info: FusionInfo, ensemble_logit: npt.ArrayLike, features: Mapping[str, npt.ArrayLike]) -> FloatArray:
    """Compute the linear predictor before the last calibration.

    Args:
        info: The fitted fusion.
        ensemble_logit: ``(N,)`` combined logits of the ensemble; NaN where there is none.
        features: Feature name to ``(N,)`` values, NaN where not measured.

    Returns:
        ``(N,)``; NaN where there is no ensemble logit.

    Raises:
        ValueError: A feature that fusion uses is not among the features.
    """
    logit: FloatArray = info.intercept + _moves(info, ensemble_logit, features).sum(axis=1)
    return logit


def _moves(info: FusionInfo, ensemble_logit: npt.ArrayLike, features: Mapping[str, npt.ArrayLike]) -> FloatArray:
    """Compute what each input adds to the linear predictor ``(N, K)``, after feedback and artefact scaling."""
    matrix = input_matrix(info.inputs, info.impute, ensemble_logit, features)
    weights = np.tile(np.asarray(info.coefficients, dtype=np.float64), (len(matrix), 1))
    weights *= [info.rules.feedback.get(name, 1.0) for name in info.inputs]
    scale = info.rules.artefact_scale
    if scale is not None and FLOW_ODDITY in features:
        factor = artefact_factor(scale, features[FLOW_ODDITY])
        traces = [name.removeprefix(MISSING).startswith(TRACES) for name in info.inputs]
        weights[:, traces] *= factor[:, None]
    if info.averaged:
        weights /= _mass(info, weights, features)
    moves: FloatArray = standardised(info, matrix) * weights
    return moves


def _mass(info: FusionInfo, weights: FloatArray, features: Mapping[str, npt.ArrayLike]) -> FloatArray:
    """Sum the sizes of the weights of what was measured ``(N, 1)``, so that what is missing leaves no gap."""
    sizes = np.abs(weights)
    for k, name in enumerate(info.inputs):
        if name != ENSEMBLE and not name.startswith(MISSING):
            sizes[np.isnan(np.asarray(features[name], dtype=np.float64)), k] = 0.0
    total: FloatArray = sizes.sum(axis=1, keepdims=True)
    return total


def artefact_factor(scale: ArtefactScale, flow_oddity: npt.ArrayLike) -> FloatArray:
    """Compute how much traces in single frames count, given how odd the motion is.

    Args:
        scale: The rule.
        flow_oddity: ``(N,)``, NaN where not measured.

    Returns:
        ``(N,)`` in [least, 1], rising in a straight line from quiet to odd; 1 where not measured.
    """
    odd = np.asarray(flow_oddity, dtype=np.float64)
    factor: FloatArray = np.interp(odd, [scale.quiet, scale.odd], [scale.least, 1.0])
    return np.where(np.isnan(odd), 1.0, factor)


def real_evidence(rule: RealEvidence, features: Mapping[str, npt.ArrayLike], n: int) -> npt.NDArray[np.int64]:
    """Count strong signs of a camera.

    Args:
        rule: The rule.
        features: Feature name to ``(N,)`` values, NaN where not measured.
        n: N.

    Returns:
        ``(N,)`` number of features beyond their bound; one that was not measured is no sign.
    """
    count = np.zeros(n, dtype=np.int64)
    for name, bound in rule.bounds.items():
        if name in features:
            values = np.asarray(features[name], dtype=np.float64)
            count += (values > bound) if rule.higher[name] else (values < bound)
    return count


def apply_fusion(info: FusionInfo, ensemble_logit: npt.ArrayLike, features: Mapping[str, npt.ArrayLike]) -> FloatArray:
    """Compute the calibrated probability of being fake.

    Args:
        info: The fitted fusion.
        ensemble_logit: ``(N,)`` combined logits of the ensemble; NaN where there is none.
        features: Feature name to ``(N,)`` values, NaN where not measured.

    Returns:
        P(fake) ``(N,)``; NaN where there is no ensemble logit, because fusion never saw such rows.

    Raises:
        ValueError: A feature that fusion uses is not among the features.
    """
    logit = fusion_logit(info, ensemble_logit, features)
    return capped(info, sigmoid(info.calibration_slope * logit + info.calibration_offset), features)


def capped(info: FusionInfo, probability: FloatArray, features: Mapping[str, npt.ArrayLike]) -> FloatArray:
    """Apply the cap by camera evidence, if the fusion has that rule.

    Args:
        info: The fitted fusion.
        probability: ``(N,)``.
        features: Feature name to ``(N,)`` values, NaN where not measured.

    Returns:
        ``(N,)``.
    """
    rule = info.rules.real_evidence
    if rule is None:
        return probability
    enough = real_evidence(rule, features, len(probability)) >= rule.count
    return np.where(enough, np.minimum(probability, rule.cap), probability)


def contributions(
    info: FusionInfo, ensemble_logit: float, features: Mapping[str, float | None]
) -> list[tuple[str, float]]:
    """Say how far each input moves the logit of one sample away from that of an average calib sample.

    The calibrated logit is the sum of all contributions and of `base_logit`, before the cap by camera evidence.

    Args:
        info: The fitted fusion.
        ensemble_logit: Combined logit of the ensemble.
        features: Feature name to value, None where not measured.

    Returns:
        Input name and signed contribution in logit units (positive: towards fake), in the order of ``info.inputs``.

    Raises:
        ValueError: A feature that fusion uses is not among the features.
    """
    moves = info.calibration_slope * _moves(info, np.array([ensemble_logit]), as_row(features))[0]
    return [(name, float(move)) for name, move in zip(info.inputs, moves, strict=True)]


def as_row(features: Mapping[str, float | None]) -> dict[str, FloatArray]:
    """Make columns of length one from the features of one sample.

    Args:
        features: Feature name to value, None where not measured.

    Returns:
        Feature name to ``(1,)``, NaN where not measured.
    """
    return {name: np.array([np.nan if value is None else value], dtype=np.float64) for name, value in features.items()}


def base_logit(info: FusionInfo) -> float:
    """Compute the calibrated logit of a sample whose inputs are all average.

    Args:
        info: The fitted fusion.

    Returns:
        In logit units.
    """
    return info.calibration_slope * info.intercept + info.calibration_offset


def share_of_traces(importance: Mapping[str, float]) -> tuple[float, float]:
    """Compute how much of what the features carry is carried by traces in single frames (``art.*``).

    Args:
        importance: Input to its share of the absolute standardised coefficients.

    Returns:
        Share of the traces among the features, and share of the features in all; both 0 without features.
    """
    features = {name.removeprefix(MISSING): 0.0 for name in importance if name != ENSEMBLE}
    for name, share in importance.items():
        if name != ENSEMBLE:
            features[name.removeprefix(MISSING)] += share
    total = sum(features.values())
    traces = sum(share for name, share in features.items() if name.startswith(TRACES))
    return (traces / total if total else 0.0), total / (sum(importance.values()) or 1.0)
