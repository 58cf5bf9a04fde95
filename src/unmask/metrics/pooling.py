"""From the logits of frames to the logit of a video."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unmask.errors import ContractError

FloatArray = npt.NDArray[np.float64]
MEAN = "mean_logit"


def top_k(share: float) -> str:
    """Name the mean of the highest logits: forgeries may show in a few frames only."""
    return f"top_k:{share:g}"


def attention(sharpness: float) -> str:
    """Name attention over frames: weights are a softmax of the logits times ``sharpness``.

    0 is the mean, infinity the maximum (auto-pooling, McFee, Salamon and Bello, 2018).
    """
    return f"attention:{sharpness:g}"


def pool_logits(logits: npt.ArrayLike, aggregation: str) -> float:
    """Pool the logits of one video.

    Args:
        logits: ``(F,)``, at least one.
        aggregation: ``mean_logit``, ``top_k:<share>`` or ``attention:<sharpness>``.

    Returns:
        The logit of the video.

    Raises:
        ContractError: There is no such aggregation.
    """
    values = np.asarray(logits, dtype=np.float64)
    kind, _, number = aggregation.partition(":")
    if aggregation == MEAN:
        return float(values.mean())
    if kind == "top_k":
        count = max(1, round(float(number) * len(values)))
        return float(np.sort(values)[-count:].mean())
    if kind == "attention":
        scaled = float(number) * values
        weights = np.exp(scaled - scaled.max())
        return float(np.sum(weights * values) / weights.sum())
    raise ContractError("detector.json", "aggregation", f"{aggregation!r} is unknown")
