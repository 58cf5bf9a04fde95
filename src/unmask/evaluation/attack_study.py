"""What is left of detection under attack: every detector attacked, every detector and the ensemble asked.

A crop that was made to mislead one detector is shown to all of them: the figures of the others, and of the ensemble,
say how far an attack carries over to what the attacker did not know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unmask.config import AttackName, EvaluateConfig
from unmask.detectors import load_detector, score_images
from unmask.evaluation.attacks import Attacker
from unmask.evaluation.inputs import Inputs
from unmask.evaluation.perturbations import Image
from unmask.evaluation.robustness import KEY, as_robustness, draw_samples, measure_change, read_crops, systems_of
from unmask.progress import track
from unmask.training.loader import evenly_spaced_rows


@dataclass(frozen=True)
class AttackStudy:
    """The outcome of the attacks.

    Attributes:
        table: Rows of ROBUSTNESS with ``crafted_on`` and ``epsilon``. Each attack on each detector has its own rows
            of severity 0 (epsilon 0), which are those of the same frames before the attack.
        n_samples: Test samples that were attacked.
        n_available: Test samples that could have been.
        n_frames: Frames that were attacked.
        steps: Of PGD and APGD.
    """

    table: pd.DataFrame
    n_samples: int
    n_available: int
    n_frames: int
    steps: int


def study_attacks(inputs: Inputs, config: EvaluateConfig, seed: int) -> AttackStudy:
    """Attack every detector of faces, and measure what is left of each and of the ensemble.

    Args:
        inputs: Everything that the earlier stages wrote.
        config: Which attacks, how strong, and how many samples.
        seed: Of the choice of samples, of random starts, and of the resamples.

    Returns:
        AUC with a cluster-bootstrap interval, its change, FPR and TPR at the default operating point.

    Raises:
        MissingExtraError: The library of attacks is not installed.
    """
    inputs = inputs.seen_by("face")
    if not inputs.detectors:
        return AttackStudy(as_robustness([]), 0, 0, 0, config.attack_steps)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    limit = config.max_attack_samples if device == "cuda" else config.max_attack_samples_cpu
    available = _frames_of_all(inputs)
    chosen = draw_samples(available, limit, np.random.default_rng([seed, 5]))
    frames = _spread(available.loc[available["sample_id"].isin(set(chosen))], config.attack_frames_per_video)
    n_available = available["sample_id"].nunique()
    if not config.attacks or frames["label"].nunique() < 2:
        return AttackStudy(as_robustness([]), 0, n_available, 0, config.attack_steps)
    images = read_crops(inputs, frames)
    clean = systems_of(inputs, frames, _logits(inputs, images, device))
    rows: list[dict[str, object]] = []
    for name, epsilon, on, logits in _attacked(inputs, frames, images, config, seed, device):
        attacked = systems_of(inputs, frames, logits) if epsilon else clean
        measured = measure_change(clean, attacked, inputs.operating_point.threshold, seed, config.resamples)
        severity = config.epsilons.index(epsilon) + 1 if epsilon else 0
        about = {"perturbation": name, "severity": severity, "crafted_on": on, "epsilon": float(epsilon)}
        rows += [{**row, **about} for row in measured]
    return AttackStudy(as_robustness(rows), len(chosen), n_available, len(frames), config.attack_steps)


def _attacked(
    inputs: Inputs, frames: pd.DataFrame, images: list[Image], config: EvaluateConfig, seed: int, device: str
) -> Iterator[tuple[AttackName, int, str, NDArray[np.float64]]]:
    """Attack, and yield what all detectors say: attack, epsilon (0 first), detector attacked, logits ``(F, D)``."""
    labels = frames["label"].astype(int).tolist()
    conditions = [(name, epsilon) for name in config.attacks for epsilon in (0, *config.epsilons)]
    work = [(detector, *condition) for detector in inputs.detectors for condition in conditions]
    attackers: dict[str, Attacker] = {}
    for detector, name, epsilon in track(work, len(work), "attacks", "attack"):
        on = detector.info.name
        if not epsilon:
            yield name, 0, on, np.empty((0, 0))
            continue
        if on not in attackers:
            attackers = {on: Attacker(load_detector(detector.folder)[0], device, config.attack_steps)}
        crafted = attackers[on].craft(images, labels, name, epsilon, seed)
        yield name, epsilon, on, _logits(inputs, crafted, device)


def _logits(inputs: Inputs, images: list[Image], device: str) -> NDArray[np.float64]:
    models = [load_detector(detector.folder)[0] for detector in inputs.detectors]
    return np.stack([score_images(model, images, device=device) for model in models], axis=1)


def _frames_of_all(inputs: Inputs) -> pd.DataFrame:
    """List the frames that every detector scored."""
    first, *others = [detector.frames for detector in inputs.detectors]
    for other in others:
        first = first.merge(other[KEY], on=KEY)
    return first.sort_values(KEY, ignore_index=True)


def _spread(frames: pd.DataFrame, per_video: int) -> pd.DataFrame:
    """Keep evenly spaced frames of the largest face of each sample."""
    largest = frames.loc[frames["face_index"] == frames.groupby("sample_id")["face_index"].transform("min")]
    largest = largest.reset_index(drop=True)
    return largest.iloc[evenly_spaced_rows(largest, per_video)].reset_index(drop=True)
