"""Loss, weights, schedule and optimiser against independent references."""

import numpy as np
import pytest
import sklearn.metrics
import torch
from torchvision.ops import sigmoid_focal_loss

from unmask import detectors
from unmask.config import TrainConfig
from unmask.training.objective import Objective, class_weights, make_optimizer, plain_loss, resolve_balance
from unmask.training.phases import layers_by_stage


def test_loss_against_arithmetic():
    logits, labels = torch.tensor([0.3, -2.0, 1.5]), torch.tensor([1.0, 0.0, 0.0])
    p = 1 / (1 + np.exp(-logits.numpy().astype(float)))
    target = np.array([0.95, 0.05, 0.05])
    weight = np.array([3.0, 0.5, 0.5])
    expected = -weight * (target * np.log(p) + (1 - target) * np.log(1 - p))
    loss = Objective(TrainConfig(label_smoothing=0.1), (0.5, 3.0))(logits, labels)
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("fake_weight", [None, 0.25])
def test_focal_loss_against_torchvision(fake_weight):
    rng = np.random.default_rng(0)
    logits = torch.from_numpy(rng.normal(0, 3, 40))
    labels = torch.from_numpy(rng.integers(0, 2, 40).astype(float))
    config = TrainConfig(loss="focal", focal_gamma=2.0, focal_fake_weight=fake_weight, label_smoothing=0)
    theirs = sigmoid_focal_loss(logits, labels, alpha=-1 if fake_weight is None else fake_weight, gamma=2.0)
    np.testing.assert_allclose(Objective(config)(logits, labels).numpy(), theirs.numpy(), rtol=1e-4, atol=1e-7)
    if fake_weight is None:
        weighted = Objective(config, (0.5, 2.0))(logits, labels)
        np.testing.assert_allclose(weighted.numpy(), (theirs * torch.where(labels > 0, 2.0, 0.5)).numpy(), rtol=1e-4)


def test_mixed_labels_are_pulled_by_both_classes():
    loss = Objective(TrainConfig(label_smoothing=0), (0.5, 1.5))(torch.tensor([0.0]), torch.tensor([0.25]))
    assert loss.item() == pytest.approx((0.75 * 0.5 + 0.25 * 1.5) * np.log(2))


@pytest.mark.parametrize(("n_fake", "meant"), [(10, "none"), (19, "weights"), (50, "weights"), (60, "sampler")])
def test_auto_balance_follows_the_imbalance(n_fake, meant):
    labels = np.repeat([0, 1], [10, n_fake]).astype(np.float32)
    assert resolve_balance(labels, "auto") == resolve_balance(1 - labels, "auto") == meant
    assert resolve_balance(labels, "none") == "none"


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
    real, fake = class_weights(np.array([0, 0, 0, 0], np.float32), "weights", blended=0.25)
    assert (real, fake) == pytest.approx((4 / 6, 2)), "three reals stay, one becomes a self-blended fake"


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_optimizer_holds_every_parameter_once_and_decays_only_kernels(kind):
    detector = detectors.build("meso4", input_size_px=64)
    config = TrainConfig(optimizer=kind, weight_decay=0.1)
    optimizer = make_optimizer(layers_by_stage(detector, "full"), config)
    assert type(optimizer).__name__.lower() == kind
    held = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p): 0.1 if p.ndim > 1 else 0.0 for p in detector.parameters()}
