"""What training minimises, and what moves the weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unmask.config import TrainConfig
from unmask.data.balance import ADVICE, level_of


def resolve_balance(labels: NDArray[np.float32], balance: str) -> str:
    """Decide what ``auto`` means: what the report on the data advises for this ratio of the classes.

    Args:
        labels: ``(N,)``, 0 real, 1 fake, one a training sample.
        balance: ``auto``, ``weights``, ``sampler`` or ``none``.

    Returns:
        ``weights``, ``sampler`` or ``none``.
    """
    if balance != "auto":
        return balance
    counts = np.bincount(labels.astype(np.int64), minlength=2)
    return ADVICE[level_of(counts.max() / max(1, counts.min()))][0]


def class_weights(labels: NDArray[np.float32], balance: str, blended: float = 0.0) -> tuple[float, float]:
    """Weigh the classes so that both pull equally hard, whatever their counts.

    This shifts the prior that the logits express; calibration on calib puts it right.

    Args:
        labels: ``(N,)``, 0 real, 1 fake, of the training crops.
        balance: ``weights``; anything else weighs nothing.
        blended: Share of the reals that become self-blended fakes.

    Returns:
        Weight of real and of fake; their mean over the crops is 1.
    """
    n_fake = float((labels == 1).sum()) + blended * float((labels == 0).sum())
    n_real = len(labels) - n_fake
    if balance != "weights" or not n_real or not n_fake:
        return 1.0, 1.0
    return len(labels) / (2 * n_real), len(labels) / (2 * n_fake)


class Objective:
    """The loss of a crop: binary cross-entropy or focal loss, with class weights and label smoothing.

    Args:
        config: Kind and its settings.
        weights: Of real and of fake.
    """

    def __init__(self, config: TrainConfig, weights: tuple[float, float] = (1.0, 1.0)) -> None:
        self.kind = config.loss
        self.smoothing = config.label_smoothing
        self.gamma = config.focal_gamma
        fake = config.focal_fake_weight
        self.weights = weights if config.loss == "bce" or fake is None else (1 - fake, fake)

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Compute the loss of each crop.

        Args:
            logits: ``(N,)``.
            labels: ``(N,)`` in 0 to 1; between them for mixed crops.

        Returns:
            Losses ``(N,)``, float32, class weights applied. Smoothing turns labels into ``smoothing / 2`` and
            ``1 - smoothing / 2`` (Szegedy et al., CVPR 2016); focal loss is that of Lin et al., ICCV 2017.
        """
        logits = logits.float()
        targets = labels * (1 - self.smoothing) + self.smoothing / 2
        of_fake = -functional.logsigmoid(logits)
        of_real = -functional.logsigmoid(-logits)
        if self.kind == "focal":
            p = torch.sigmoid(logits)
            of_fake = of_fake * (1 - p) ** self.gamma
            of_real = of_real * p**self.gamma
        real, fake = self.weights
        if self.kind == "bce":
            # One weight a crop, as smoothing changes what is wanted of it and not whose it is.
            weight = real + (fake - real) * labels
            return weight * (targets * of_fake + (1 - targets) * of_real)
        return fake * targets * of_fake + real * (1 - targets) * of_real


def plain_loss(labels: NDArray[np.float64], logits: NDArray[np.float64]) -> float:
    """Binary cross-entropy of labels and logits, without weights or smoothing.

    Args:
        labels: ``(N,)``, 0 or 1.
        logits: ``(N,)``.

    Returns:
        Mean loss.
    """
    return float(np.mean(np.logaddexp(0, np.where(labels > 0.5, -logits, logits))))


def make_optimizer(layers: Sequence[Sequence[nn.Parameter]], config: TrainConfig) -> torch.optim.Optimizer:
    """Make the optimiser; biases and normalisation weights are not decayed.

    Args:
        layers: Parameters by stage of unfreezing, see `unmask.training.phases.layers_by_stage`.
        config: Kind, learning rate and weight decay.

    Returns:
        The optimiser; each of its groups has the number of its stage under ``stage``.
    """
    groups = [
        {"params": [p for p in parameters if (p.ndim > 1) == decayed], "weight_decay": decay, "stage": stage}
        for stage, parameters in enumerate(layers)
        for decayed, decay in ((True, config.weight_decay), (False, 0.0))
    ]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=config.learning_rate, momentum=0.9, nesterov=True)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, lr=config.learning_rate)
