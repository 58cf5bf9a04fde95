"""The learning rate of each step, against PyTorch's own schedulers and by hand."""

import numpy as np
import pytest
import torch

from unmask.config import TrainConfig
from unmask.training.schedule import learning_rate_at, plateau_reductions


def rates(total: int, **settings) -> np.ndarray:
    config = TrainConfig(learning_rate=0.01, **settings)
    return np.array([learning_rate_at(step, total, config) for step in range(total)])


def test_cosine_rises_then_falls_to_nothing():
    found = rates(100, warmup_share=0.1)
    assert found[0] == pytest.approx(0.001)
    assert found[9] == found[10] == pytest.approx(0.01)
    assert found[55] == pytest.approx(0.005)
    assert np.all(np.diff(found[10:]) < 0)
    assert 0 < found[-1] < 1e-5


def test_constant_stays():
    assert set(rates(100, scheduler="constant", warmup_share=0)) == {0.01}


def test_steps_are_tenths_after_each_third():
    np.testing.assert_allclose(rates(9, scheduler="step", warmup_share=0), [1e-2] * 3 + [1e-3] * 3 + [1e-4] * 3)


def test_one_cycle_is_that_of_pytorch():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1)
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=50)
    expected = []
    for _ in range(50):
        expected.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    np.testing.assert_allclose(rates(50, scheduler="one_cycle"), expected, rtol=1e-9)


def test_plateau_comes_down_when_pytorch_does():
    losses = [1.0, 0.9, 0.95, 0.95, 0.95, 0.8, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0)
    best, gains = np.inf, []
    for loss in losses:
        gains.append(loss < best)
        best = min(best, loss)
        theirs.step(loss)
        assert 0.5 ** plateau_reductions(gains, 2) == optimizer.param_groups[0]["lr"]
    assert plateau_reductions(gains, 2) == 3
    config = TrainConfig(learning_rate=0.01, scheduler="plateau", warmup_share=0)
    assert learning_rate_at(5, 10, config, reductions=2) == pytest.approx(0.0025)
