"""From frame logits to one calibrated probability a video; numpy and pandas only, so that serving can use it."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import pandas as pd

from unmask.metrics import MEAN, pool_logits
from unmask.schemas import DetectorCalibration, EnsembleInfo

FloatArray = npt.NDArray[np.float64]
# What a detector that is not certain at all still counts where certainty decides the weight.
LEAST_CERTAINTY = 0.05


def sigmoid(logits: npt.ArrayLike) -> FloatArray:
    """Turn logits into probabilities without overflow.

    Args:
        logits: Any shape; NaN stays NaN.

    Returns:
        The same shape, in [0, 1].
    """
    z = np.asarray(logits, dtype=np.float64)
    small = np.exp(-np.abs(z))
    probability: FloatArray = np.where(z >= 0, 1.0, small) / (1.0 + small)
    return probability


def video_logits(frame_scores: pd.DataFrame, aggregation: str = MEAN) -> pd.DataFrame:
    """Pool the frame logits of each sample, over all of its faces.

    Args:
        frame_scores: Rows of the table FRAME_SCORES of one detector.
        aggregation: How, see `unmask.metrics.pool_logits`; the detector's own, which was chosen on val.

    Returns:
        One row a sample, sorted by ``sample_id``: ``sample_id``, ``label``, ``group_id``, ``split``, ``logit``.
    """
    pooled = "mean" if aggregation == MEAN else lambda values: pool_logits(values, aggregation)
    by_sample = frame_scores.groupby("sample_id", sort=True)
    return by_sample.agg(
        label=("label", "first"), group_id=("group_id", "first"), split=("split", "first"), logit=("logit", pooled)
    ).reset_index()


def apply_calibration(calibration: DetectorCalibration, logits: npt.ArrayLike) -> FloatArray:
    """Turn the logits of one detector into calibrated logits.

    Args:
        calibration: Fitted on calib.
        logits: Any shape; NaN stays NaN.

    Returns:
        The same shape. All kinds keep the order of the logits.
    """
    z = np.asarray(logits, dtype=np.float64)
    if calibration.kind != "isotonic":
        return calibration.slope * z + calibration.offset
    x, y = np.array(calibration.knots, dtype=np.float64).T
    steps = np.diff(y) / np.diff(x)
    inside = np.interp(z, x, y)
    below = y[0] + steps[0] * (z - x[0])
    above = y[-1] + steps[-1] * (z - x[-1])
    moved: FloatArray = np.where(z < x[0], below, np.where(z > x[-1], above, inside))
    return moved


def calibrated_logits(info: EnsembleInfo, logits: npt.ArrayLike) -> FloatArray:
    """Calibrate the logits of each detector.

    Args:
        info: The fitted ensemble.
        logits: ``(N, D)`` raw video logits in the order of ``info.detectors``; NaN where a detector has no score.

    Returns:
        ``(N, D)``.

    Raises:
        ValueError: The number of columns is not the number of detectors.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] != len(info.detectors):
        raise ValueError(f"logits {z.shape}, but the ensemble has {len(info.detectors)} detectors: (N, D) is needed")
    if not info.calibrations:
        divided: FloatArray = z / np.asarray(info.temperatures)
        return divided
    columns = [apply_calibration(calibration, z[:, k]) for k, calibration in enumerate(info.calibrations)]
    return np.stack(columns, axis=1)


def combine(
    calibrated: FloatArray, weights: npt.ArrayLike, certainty: float = 0.0, deviation: float = 0.0
) -> FloatArray:
    """Average calibrated logits by weight, over the detectors that scored the sample.

    The weight of a detector in a sample is weight · (0.05 + |2p - 1|)^certainty · exp(-deviation · distance), with p
    its own calibrated probability and the distance that of p to the mean of the other detectors.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.
        weights: ``(D,)`` on the simplex, each above 0.
        certainty: How fast a weight grows with certainty; 0 is not at all.
        deviation: How fast a weight falls with the distance to the others; 0 is not at all.

    Returns:
        ``(N,)``; NaN where no detector has a score.
    """
    there = ~np.isnan(calibrated)
    known = np.where(there, calibrated, 0.0)
    w = np.asarray(weights, dtype=np.float64)
    if certainty == 0 and deviation == 0:
        mass, total = there @ w, known @ w
    else:
        of_sample = w * there * _sample_factors(known, there, certainty, deviation)
        mass, total = of_sample.sum(axis=1), (of_sample * known).sum(axis=1)
    out: FloatArray = np.full(len(calibrated), np.nan)
    np.divide(total, mass, out=out, where=mass > 0)
    return out


def _sample_factors(known: FloatArray, there: npt.NDArray[np.bool_], certainty: float, deviation: float) -> FloatArray:
    p = sigmoid(known)
    others = there.sum(axis=1, keepdims=True) - 1
    mean = np.divide((p * there).sum(axis=1, keepdims=True) - p, others, out=p.copy(), where=(others > 0) & there)
    factors: FloatArray = (LEAST_CERTAINTY + np.abs(2 * p - 1)) ** certainty * np.exp(-deviation * np.abs(p - mean))
    return factors


def stack(calibrated: FloatArray, coefficients: npt.ArrayLike) -> FloatArray:
    """Add calibrated logits by coefficient; a detector without a score counts as undecided.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.
        coefficients: ``(D + 1,)``, the intercept last.

    Returns:
        ``(N,)``; NaN where no detector has a score.
    """
    c = np.asarray(coefficients, dtype=np.float64)
    total: FloatArray = np.nan_to_num(calibrated) @ c[:-1] + c[-1]
    return np.where(np.isnan(calibrated).all(axis=1), np.nan, total)


def agreement(calibrated: FloatArray, weights: npt.ArrayLike, combined: FloatArray) -> FloatArray:
    """Compute how far the detectors agree with what they say together.

    Each detector has a voice of weight · |2p - 1|, with p its calibrated probability: one that is sure counts fully,
    one near 0.5 hardly contradicts anybody. Agreement is the share of all voices on the side of the combined logit.
    Counting heads instead would call every difference between two detectors a tie, however unsure one of them is.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.
        weights: ``(D,)``; a negative one (of stacking) speaks for the other side.
        combined: ``(N,)`` combined logits.

    Returns:
        ``(N,)`` in [0, 1], over the detectors that scored the sample; 1 where none of them takes a side, or only one
        has a score; NaN where none has one.
    """
    there = ~np.isnan(calibrated)
    voices = np.where(there, 2 * sigmoid(np.nan_to_num(calibrated)) - 1, 0.0) * np.asarray(weights, dtype=np.float64)
    side = np.where(combined >= 0, 1.0, -1.0)[:, None]
    loud, total = np.maximum(voices * side, 0.0).sum(axis=1), np.abs(voices).sum(axis=1)
    share = np.divide(loud, total, out=np.ones(len(calibrated)), where=total > 0)
    scored = there.sum(axis=1)
    out: FloatArray = np.where(scored == 0, np.nan, np.where(scored == 1, 1.0, share))
    return out


def part_of(info: EnsembleInfo, detectors: Collection[str]) -> EnsembleInfo:
    """Keep some of the detectors, as if the others had no score.

    Args:
        info: The fitted ensemble.
        detectors: Names of those to keep.

    Returns:
        The ensemble of these; its weights no longer sum to 1, which `combine` does not need.
    """
    kept = [k for k, name in enumerate(info.detectors) if name in detectors]
    changes: dict[str, object] = {
        name: [getattr(info, name)[k] for k in kept] for name in ("detectors", "temperatures", "weights")
    }
    if info.calibrations:
        changes["calibrations"] = [info.calibrations[k] for k in kept]
    if info.stacking:
        changes["stacking"] = [*(info.stacking[k] for k in kept), info.stacking[-1]]
    return info.model_copy(update=changes)


def apply_ensemble(info: EnsembleInfo, logits: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Combine detector logits to one calibrated probability.

    A detector without a score is left out and the other weights grow in proportion.

    Args:
        info: The fitted ensemble.
        logits: ``(N, D)`` raw video logits in the order of ``info.detectors``; NaN where a detector has no score.

    Returns:
        Combined logit ``(N,)`` before the last calibration, calibrated P(fake) ``(N,)``, and how far the detectors
        agree ``(N,)``, see `agreement`. NaN where no detector has a score.

    Raises:
        ValueError: The number of columns is not the number of detectors.
    """
    calibrated = calibrated_logits(info, logits)
    if info.stacking:
        combined = stack(calibrated, info.stacking)
    else:
        combined = combine(calibrated, info.weights, info.certainty, info.deviation)
    voices = info.stacking[:-1] if info.stacking else info.weights
    return combined, sigmoid(combined / info.temperature), agreement(calibrated, voices, combined)
