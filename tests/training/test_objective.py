"""Loss, weights, schedule and optimiser against independent references."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from torch import nn

from unmask import detectors
from unmask.config import TrainConfig
from unmask.training.objective import (
    class_weights,
    clip_gradients,
    learning_rate_at,
    make_optimizer,
    plain_loss,
    smoothed_loss,
)


def test_loss_against_arithmetic():
    logits, labels = torch.tensor([0.3, -2.0, 1.5]), torch.tensor([1.0, 0.0, 0.0])
    p = 1 / (1 + np.exp(-logits.numpy().astype(float)))
    target = np.array([0.95, 0.05, 0.05])
    weight = np.array([3.0, 0.5, 0.5])
    expected = np.mean(-weight * (target * np.log(p) + (1 - target) * np.log(1 - p)))
    assert smoothed_loss(logits, labels, (0.5, 3.0), 0.1).item() == pytest.approx(expected, rel=1e-6)


def test_plain_loss_against_scikit_learn():
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(0, 3, 50), rng.integers(0, 2, 50).astype(float)
    assert plain_loss(labels, logits) == pytest.approx(sklearn.metrics.log_loss(labels, 1 / (1 + np.exp(-logits))))


def test_weighted_classes_pull_equally():
    labels = np.array([1, 1, 1, 0], np.float32)
    real, fake = class_weights(labels, "weights")
    assert real * 1 == pytest.approx(fake * 3)
    assert real + 3 * fake == pytest.approx(4)
    assert class_weights(labels, "none") == (1.0, 1.0)
    assert class_weights(np.ones(3, np.float32), "weights") == (1.0, 1.0)


def test_schedule_rises_then_falls_to_nothing():
    config = TrainConfig(learning_rate=0.01, warmup_share=0.1)
    rates = [learning_rate_at(step, 100, config) for step in range(100)]
    assert rates[0] == pytest.approx(0.001)
    assert rates[9] == rates[10] == pytest.approx(0.01)
    assert rates[55] == pytest.approx(0.005)
    assert np.all(np.diff(rates[10:]) < 0)
    assert 0 < rates[-1] < 1e-5
    constant = TrainConfig(learning_rate=0.01, scheduler="constant", warmup_share=0)
    assert {learning_rate_at(step, 100, constant) for step in range(100)} == {0.01}


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_optimizer_holds_every_parameter_once_and_decays_only_kernels(kind):
    detector = detectors.build("meso4", input_size_px=64)
    optimizer = make_optimizer(detector, TrainConfig(optimizer=kind, weight_decay=0.1))
    assert type(optimizer).__name__.lower() == kind
    held = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p): 0.1 if p.ndim > 1 else 0.0 for p in detector.parameters()}


def test_gradients_are_clipped_to_the_norm():
    layer = nn.Linear(4, 1)
    layer(torch.full((1, 4), 100.0)).sum().backward()
    assert clip_gradients(layer, 1.0) > 100
    assert sum(float((p.grad**2).sum()) for p in layer.parameters()) ** 0.5 == pytest.approx(1, rel=1e-4)
