"""Finding a learning rate: train a few steps with a rate that rises, and look where the loss falls fastest."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from unmask.errors import InputError
from unmask.training.loader import Batch
from unmask.training.trainer import Trainer

SMOOTHING = 0.9
GIVE_UP_AT = 4.0  # times the lowest smoothed loss


@dataclass(frozen=True)
class RangeTest:
    """What a range test saw.

    Attributes:
        learning_rates: One a step, rising.
        losses: Smoothed loss of each step.
        suggestion: Learning rate at which the loss fell fastest.
    """

    learning_rates: list[float]
    losses: list[float]
    suggestion: float


def find_learning_rate(trainer: Trainer, *, lowest: float = 1e-6, highest: float = 1.0, steps: int = 60) -> RangeTest:
    """Run a range test (Smith, WACV 2017), on train only.

    Args:
        trainer: Fresh; its detector is of no use afterwards.
        lowest: Learning rate of the first step.
        highest: Learning rate of the last step; the test stops before if the loss explodes.
        steps: Optimiser steps; epochs are repeated as often as needed.

    Returns:
        The losses and the suggestion.

    Raises:
        InputError: The loss never fell.
    """
    rates, losses = [], []
    running = 0.0
    for step, (batch, n_crops) in enumerate(islice(_endless(trainer), steps)):
        rate = lowest * (highest / lowest) ** (step / (steps - 1))
        try:
            loss = trainer.stepper.step(batch, n_crops, rate, np.random.default_rng((trainer.seed, step)))
        except InputError:  # it diverged, which is how such a test ends
            break
        running = SMOOTHING * running + (1 - SMOOTHING) * loss
        rates.append(rate)
        losses.append(running / (1 - SMOOTHING ** (step + 1)))
        if not math.isfinite(loss) or losses[-1] > GIVE_UP_AT * min(losses):
            break
    falling = np.gradient(np.array(losses), np.log(np.array(rates))) if len(losses) > 2 else np.zeros(1)
    if falling.min() >= 0:
        raise InputError(
            "The loss did not fall at any learning rate.", "Check labels and crops, or give more steps to the test."
        )
    return RangeTest(rates, losses, rates[int(falling.argmin())])


def _endless(trainer: Trainer) -> Iterator[tuple[Batch, int]]:
    trainer.stepper.begin(trainer.phases[0])
    trainer.detector.train()
    epoch = 1
    while True:
        for batch in trainer.train.batches(trainer.batches_of(epoch), trainer.views((trainer.seed, epoch))):
            yield batch, len(batch.rows)
        epoch += 1
