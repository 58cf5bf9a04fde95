"""Mixing crops within a batch: MixUp and CutMix; they run where the batch lies, on a GPU if there is one."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from unmask.config import AugmentationConfig

MIXUP_CONCENTRATION = 0.2
CUTMIX_CONCENTRATION = 1.0


def mix(inputs: Tensor, labels: Tensor, config: AugmentationConfig, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mix a batch with itself shuffled, by MixUp or CutMix or, mostly, not at all.

    Args:
        inputs: ``(N, 3, S, S)``, or of sound ``(N, L)``, which has no boxes for CutMix; float32; not changed.
        labels: ``(N,)``, float32, 0 or 1.
        config: The chances of ``mixup`` and ``cutmix``; both are never done to one batch.
        rng: Source of all choices.

    Returns:
        Inputs and labels of the same shapes; labels may lie between 0 and 1.
    """
    coin = rng.random()
    if coin < config.mixup:
        return mixup(inputs, labels, rng)
    if coin < config.mixup + config.cutmix and inputs.ndim == 4:
        return cutmix(inputs, labels, rng)
    return inputs, labels


def mixup(inputs: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Blend each crop with another (Zhang et al., ICLR 2018); arguments and result as of `mix`."""
    share = float(rng.beta(MIXUP_CONCENTRATION, MIXUP_CONCENTRATION))
    order = torch.from_numpy(rng.permutation(len(inputs))).to(inputs.device)
    return share * inputs + (1 - share) * inputs[order], share * labels + (1 - share) * labels[order]


def cutmix(inputs: Tensor, labels: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Put a box of another crop into each (Yun et al., ICCV 2019); labels follow the area that is left.

    Arguments and result as of `mix`.
    """
    height, width = inputs.shape[-2:]
    kept = float(rng.beta(CUTMIX_CONCENTRATION, CUTMIX_CONCENTRATION))
    half_y, half_x = (round(side * math.sqrt(1 - kept) / 2) for side in (height, width))
    y, x = int(rng.integers(height)), int(rng.integers(width))
    rows, columns = slice(max(0, y - half_y), y + half_y), slice(max(0, x - half_x), x + half_x)
    order = torch.from_numpy(rng.permutation(len(inputs))).to(inputs.device)
    mixed = inputs.clone()
    mixed[:, :, rows, columns] = inputs[order][:, :, rows, columns]
    replaced = mixed[0, 0, rows, columns].numel() / (height * width)
    return mixed, (1 - replaced) * labels + replaced * labels[order]
