"""Fusion as plain arithmetic on stored coefficients; numpy only, so that serving can use it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from unmask.ensemble.apply import FloatArray, sigmoid
from unmask.schemas import FusionInfo

ENSEMBLE = "ensemble"
MISSING = "missing:"
# A feature counts as at most this many standard deviations from its mean on calib, so that one measurement far
# outside of everything seen cannot decide alone. The ensemble's logit is not limited.
LARGEST_DEVIATION = 4.0


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
    matrix = input_matrix(info.inputs, info.impute, ensemble_logit, features)
    logit: FloatArray = info.intercept + standardised(info, matrix) @ np.asarray(info.coefficients, dtype=np.float64)
    return logit


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
    return sigmoid(info.calibration_slope * fusion_logit(info, ensemble_logit, features) + info.calibration_offset)


def contributions(
    info: FusionInfo, ensemble_logit: float, features: Mapping[str, float | None]
) -> list[tuple[str, float]]:
    """Say how far each input moves the logit of one sample away from that of an average calib sample.

    The calibrated logit is the sum of all contributions and of `base_logit`.

    Args:
        info: The fitted fusion.
        ensemble_logit: Combined logit of the ensemble.
        features: Feature name to value, None where not measured.

    Returns:
        Input name and signed contribution in logit units (positive: towards fake), in the order of ``info.inputs``.

    Raises:
        ValueError: A feature that fusion uses is not among the features.
    """
    row = {name: np.array([np.nan if value is None else value]) for name, value in features.items()}
    matrix = input_matrix(info.inputs, info.impute, np.array([ensemble_logit]), row)
    moves = info.calibration_slope * standardised(info, matrix)[0] * np.asarray(info.coefficients, dtype=np.float64)
    return [(name, float(move)) for name, move in zip(info.inputs, moves, strict=True)]


def base_logit(info: FusionInfo) -> float:
    """Compute the calibrated logit of a sample whose inputs are all average.

    Args:
        info: The fitted fusion.

    Returns:
        In logit units.
    """
    return info.calibration_slope * info.intercept + info.calibration_offset
