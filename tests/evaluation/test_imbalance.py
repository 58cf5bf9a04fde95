"""Mild, moderate and severe imbalance, played through with the loss, the draw and the thresholds of unmask.

A small network learns eight measurements of drawn files of which few are fake, once as it is and once with what is
advised for so unequal classes; both are judged on fresh files in the same ratio.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from unmask.config import TrainConfig
from unmask.fusion.thresholds import choose_operating_points
from unmask.metrics import accuracy, f1, pr_auc, precision, recall, roc_auc
from unmask.training.loader import draw_training_rows
from unmask.training.objective import Objective

# Reals for each fake, and what is advised then, beside a threshold chosen on calib (synthetic rows only above 10 to 1).
SCENARIOS = {"mild": (1.5, ("focal",)), "moderate": (3.5, ("focal", "even")), "severe": (8.0, ("focal", "even"))}
SIMULATIONS = 4
FIGURES = {"accuracy": accuracy, "precision": precision, "recall": recall, "F1": f1}


def files(n: int, ratio: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Reals around 0, fakes of two kinds around two other places that overlap with them."""
    labels = (rng.permutation(n) < n / (1 + ratio)).astype(np.int64)
    kind = rng.integers(0, 2, n)
    places = np.zeros((2, 8))
    places[0, :4], places[1, 4:] = 0.9, -0.9
    return rng.standard_normal((n, 8)) + labels[:, None] * places[kind], labels


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Matrices this small gain nothing from a second thread, and lose much on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(x: np.ndarray, labels: np.ndarray, means: tuple[str, ...], seed: int) -> torch.nn.Module:
    rng = np.random.default_rng(seed)
    torch.manual_seed(seed)
    frame = pd.DataFrame({"sample_id": np.arange(len(x)), "face_index": 0, "label": labels})
    drawn = draw_training_rows(frame, 1, rng, even="even" in means) % len(x)
    objective = Objective(TrainConfig(loss="focal" if "focal" in means else "bce"))
    inputs, targets = torch.from_numpy(x[drawn]).float(), torch.from_numpy(labels[drawn]).float()
    model = torch.nn.Sequential(torch.nn.Linear(8, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05, weight_decay=1e-3)
    for _ in range(60):
        optimizer.zero_grad()
        objective(model(inputs)[:, 0], targets).mean().backward()
        optimizer.step()
    return model


def probabilities(model: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.sigmoid(model(torch.from_numpy(x).float())[:, 0]).numpy().astype(np.float64)


def simulate(ratio: float, means: tuple[str, ...], seed: int) -> dict[str, list[float]]:
    """Figures on 4,000 fresh files: as it is, with a threshold chosen on calib alone, with all that is advised."""
    rng = np.random.default_rng(seed)
    training, calib, test = files(800, ratio, rng), files(400, ratio, rng), files(4000, ratio, rng)
    found = {}
    for name, used, tuned in (("as it is", (), False), ("threshold", (), True), ("advised", means, True)):
        model = train(*training, used, seed)
        threshold = 0.5
        if tuned:
            rows = pd.DataFrame({"label": calib[1], "probability": probabilities(model, calib[0]), "split": "calib"})
            threshold = choose_operating_points(rows, 0.05)["max_f1"].threshold
        p = probabilities(model, test[0])
        decided = [partial(metric, threshold=threshold)(test[1], p) or 0.0 for metric in FIGURES.values()]
        found[name] = [*decided, roc_auc(test[1], p), pr_auc(test[1], p)]
    return found


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_what_imbalance_hides_and_what_the_remedies_give(scenario: str, capsys: pytest.CaptureFixture[str]) -> None:
    ratio, means = SCENARIOS[scenario]
    runs = [simulate(ratio, means, seed) for seed in range(SIMULATIONS)]
    names = [*FIGURES, "ROC AUC", "PR AUC"]
    mean = {way: dict(zip(names, np.mean([run[way] for run in runs], axis=0), strict=True)) for way in runs[0]}
    with capsys.disabled():
        sys.stdout.write(f"\n{scenario}, {ratio:g} reals a fake, advised: {', '.join(means)}, threshold\n")
        for way, figures in mean.items():
            listed = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
            sys.stdout.write(f"  {way:9s} {listed}\n")
        sys.stdout.write(f"  always real: accuracy {ratio / (1 + ratio):.3f}, F1 0\n")
    before, tuned, after = mean["as it is"], mean["threshold"], mean["advised"]
    # The remedies find more fakes, and F1 does not suffer.
    assert after["recall"] > before["recall"] + (0.1 if scenario == "severe" else 0.0)
    assert after["F1"] > before["F1"] - 0.005
    # A threshold changes no ranking, and loss and draw hardly do: most of what is gained comes from the threshold.
    assert tuned["ROC AUC"] == before["ROC AUC"]
    assert abs(after["ROC AUC"] - before["ROC AUC"]) < 0.03
    assert tuned["F1"] > after["F1"] - 0.02
    if scenario == "severe":
        # Accuracy hardly tells a detector that misses most fakes from calling everything real.
        assert before["accuracy"] - ratio / (1 + ratio) < 0.05
        assert before["recall"] < 0.4
        assert after["F1"] > before["F1"] + 0.02
