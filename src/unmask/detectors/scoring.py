"""Scoring crops or windows of sound with a detector."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from unmask.detectors.base import Detector
from unmask.media.preprocessing import to_input


@torch.inference_mode()
def score_images(
    detector: Detector, images: Sequence[NDArray[Any]], *, batch_size: int = 32, device: str = "cpu"
) -> NDArray[np.float64]:
    """Score crops; the score of a crop does not depend on the others.

    Args:
        detector: Put into evaluation mode for the time of scoring, and onto ``device``.
        images: N RGB crops ``(H, W, 3)``, uint8, of any size; or windows of sound ``(L,)``, int16.
        batch_size: Crops at a time.
        device: For example ``cpu`` or ``cuda``.

    Returns:
        Logits ``(N,)``, float64; larger means more fake.
    """
    was_training = detector.training
    detector.eval().to(device)
    logits = np.empty(len(images), np.float64)
    try:
        for start in range(0, len(images), batch_size):
            batch = torch.from_numpy(to_input(images[start : start + batch_size], detector.preprocessing))
            logits[start : start + batch_size] = detector(batch.to(device)).double().cpu().numpy()
    finally:
        detector.train(was_training)
    return logits
