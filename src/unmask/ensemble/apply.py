"""From frame logits to one calibrated probability a video; numpy and pandas only, so that serving can use it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from unmask.schemas import EnsembleInfo

FloatArray = npt.NDArray[np.float64]


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


def video_logits(frame_scores: pd.DataFrame) -> pd.DataFrame:
    """Average the frame logits of each sample, over all of its faces.

    Args:
        frame_scores: Rows of the table FRAME_SCORES of one detector.

    Returns:
        One row a sample, sorted by ``sample_id``: ``sample_id``, ``label``, ``group_id``, ``split``, ``logit``.
    """
    by_sample = frame_scores.groupby("sample_id", sort=True)
    return by_sample.agg(
        label=("label", "first"), group_id=("group_id", "first"), split=("split", "first"), logit=("logit", "mean")
    ).reset_index()


def combine(calibrated: FloatArray, weights: npt.ArrayLike) -> FloatArray:
    """Average calibrated logits by weight, over the detectors that scored the sample.

    Args:
        calibrated: ``(N, D)`` logits divided by their detector's temperature; NaN where a detector has no score.
        weights: ``(D,)`` on the simplex, each above 0.

    Returns:
        ``(N,)``; NaN where no detector has a score.
    """
    w = np.asarray(weights, dtype=np.float64)
    there = ~np.isnan(calibrated)
    mass = there @ w
    total = np.where(there, calibrated, 0.0) @ w
    out: FloatArray = np.full(len(calibrated), np.nan)
    np.divide(total, mass, out=out, where=mass > 0)
    return out


def agreement(calibrated: FloatArray) -> FloatArray:
    """Compute the share of detectors on the majority's side.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.

    Returns:
        ``(N,)`` in [0.5, 1], over the detectors that scored the sample; NaN where none did.
    """
    scored = (~np.isnan(calibrated)).sum(axis=1)
    fake = (calibrated >= 0).sum(axis=1)
    out: FloatArray = np.full(len(calibrated), np.nan)
    np.divide(np.maximum(fake, scored - fake), scored, out=out, where=scored > 0)
    return out


def apply_ensemble(info: EnsembleInfo, logits: npt.ArrayLike) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Combine detector logits to one calibrated probability.

    A detector without a score is left out and the other weights grow in proportion.

    Args:
        info: The fitted ensemble.
        logits: ``(N, D)`` raw video logits in the order of ``info.detectors``; NaN where a detector has no score.

    Returns:
        Combined logit ``(N,)`` before the last calibration, calibrated P(fake) ``(N,)``, and the share of detectors
        on the majority's side ``(N,)``. NaN where no detector has a score.

    Raises:
        ValueError: The number of columns is not the number of detectors.
    """
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim != 2 or z.shape[1] != len(info.detectors):
        raise ValueError(f"logits {z.shape}, but the ensemble has {len(info.detectors)} detectors: (N, D) is needed")
    calibrated = z / np.asarray(info.temperatures)
    combined = combine(calibrated, info.weights)
    return combined, sigmoid(combined / info.temperature), agreement(calibrated)
