"""What training minimises, and the learning rate of each step."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unmask.config import TrainConfig
from unmask.detectors import Detector


def class_weights(labels: NDArray[np.float32], balance: str) -> tuple[float, float]:
    """Weigh the classes so that both pull equally hard, whatever their counts.

    This shifts the prior that the logits express; calibration on calib puts it right.

    Args:
        labels: ``(N,)``, 0 real, 1 fake, of the training crops.
        balance: ``weights`` or ``none``.

    Returns:
        Weight of real and of fake; their mean over the crops is 1.
    """
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    if balance == "none" or 0 in counts:
        return 1.0, 1.0
    real, fake = len(labels) / (2 * counts)
    return float(real), float(fake)


def smoothed_loss(logits: Tensor, labels: Tensor, weights: tuple[float, float], smoothing: float) -> Tensor:
    """Binary cross-entropy with class weights and label smoothing.

    Args:
        logits: ``(N,)``.
        labels: ``(N,)``, 0 or 1.
        weights: Of real and fake.
        smoothing: Labels become ``smoothing / 2`` and ``1 - smoothing / 2`` (Szegedy et al., CVPR 2016).

    Returns:
        Mean loss, a scalar.
    """
    targets = labels * (1 - smoothing) + smoothing / 2
    weight = torch.where(labels > 0.5, weights[1], weights[0])
    return functional.binary_cross_entropy_with_logits(logits.float(), targets, weight=weight)


def plain_loss(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> float:
    """Binary cross-entropy of labels and logits, without weights or smoothing.

    Args:
        labels: ``(N,)``, 0 or 1.
        logits: ``(N,)``.

    Returns:
        Mean loss.
    """
    return float(np.mean(np.logaddexp(0, np.where(labels > 0.5, -logits, logits))))


def learning_rate_at(step: int, total_steps: int, config: TrainConfig) -> float:
    """Learning rate of a step: linear warm-up, then cosine to zero or constant.

    A function of the step alone, so that a resumed run needs no scheduler state.

    Args:
        step: 0-based, over the whole run.
        total_steps: Of the whole run.
        config: Peak, schedule and share of warm-up.

    Returns:
        The learning rate.
    """
    warmup_steps = round(config.warmup_share * total_steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    if config.scheduler == "constant":
        return config.learning_rate
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def make_optimizer(detector: Detector, config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimiser; biases and normalisation weights are not decayed.

    Args:
        detector: Its trainable parameters are optimised.
        config: Kind, learning rate and weight decay.

    Returns:
        The optimiser.
    """
    trainable = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.learning_rate)


def clip_gradients(detector: nn.Module, norm: float) -> float:
    """Scale the gradients down when their joint norm is larger than ``norm``.

    Args:
        detector: Its gradients are changed in place.
        norm: Largest norm.

    Returns:
        The norm before clipping; not finite when the training has diverged.
    """
    return float(nn.utils.clip_grad_norm_(detector.parameters(), norm))
