"""The learning rate of each step: a function of the step and of the curve so far, so that a resume needs no state."""

from __future__ import annotations

import math
from collections.abc import Sequence

from unmask.config import TrainConfig

STEP_FACTOR = 0.1
STEP_PARTS = 3
PLATEAU_FACTOR = 0.5
# Start, end and share of the rising part of one-cycle (Smith and Topin, 2018), as PyTorch's scheduler has them.
ONE_CYCLE_START = 1 / 25
ONE_CYCLE_END = 1 / 25e4
ONE_CYCLE_RISE = 0.3


def learning_rate_at(step: int, total_steps: int, config: TrainConfig, reductions: int = 0) -> float:
    """Give the learning rate of a step.

    Args:
        step: 0-based, within the phase of training.
        total_steps: Of the phase.
        config: Peak, schedule and share of warm-up.
        reductions: How often the scheduler ``plateau`` has come down, see `plateau_reductions`.

    Returns:
        The learning rate.
    """
    if config.scheduler == "one_cycle":
        return config.learning_rate * _one_cycle(step, total_steps)
    warmup_steps = round(config.warmup_share * total_steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    done = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    factor = {
        "constant": 1.0,
        "cosine": 0.5 * (1 + math.cos(math.pi * done)),
        "step": STEP_FACTOR ** int(done * STEP_PARTS),
        "plateau": PLATEAU_FACTOR**reductions,
    }[config.scheduler]
    return config.learning_rate * factor


def _one_cycle(step: int, total_steps: int) -> float:
    """Rise from a twenty-fifth to the peak, then fall to next to nothing, both as half a cosine."""
    peak = ONE_CYCLE_RISE * total_steps - 1
    last = total_steps - 1
    if step <= peak:
        low, high, done = ONE_CYCLE_START, 1.0, step / peak
    else:
        low, high, done = 1.0, ONE_CYCLE_END, (step - peak) / max(1e-9, last - peak)
    return high + (low - high) * 0.5 * (1 + math.cos(math.pi * done))


def plateau_reductions(better: Sequence[bool], patience: int) -> int:
    """Count how often a learning rate that waits for progress has come down.

    Args:
        better: One a finished epoch: whether it was the best so far.
        patience: Epochs without a gain before each reduction.

    Returns:
        The number of reductions.
    """
    reductions = waited = 0
    for gain in better:
        waited = 0 if gain else waited + 1
        if waited > patience:
            reductions, waited = reductions + 1, 0
    return reductions
