"""Pictures of discs that cover one another: their statistics are like those of photographs (Lee et al. 2001, IJCV)."""

from __future__ import annotations

import cv2
import numpy as np


def dead_leaves(seed: int, height: int = 384, width: int = 512, discs: int = 3000) -> np.ndarray:
    """Luma, uint8, slightly blurred as by a lens, with a little noise."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width), 128, np.float32)
    for radius in np.clip(3 / np.sqrt(1 - rng.random(discs)), 3, 150):
        middle = int(rng.integers(0, width)), int(rng.integers(0, height))
        cv2.circle(image, middle, int(radius), float(rng.uniform(20, 235)), -1)
    soft = cv2.GaussianBlur(image, (0, 0), 0.7) + rng.normal(0, 1, image.shape)
    return np.clip(soft, 0, 255).round().astype(np.uint8)
