"""What is left of detection when the media have been damaged: every detector and the ensemble, on perturbed crops.

The same frames that a detector scored on test are damaged and scored again through the detector's own preprocessing.
Only what looks at crops is judged: forensic features are measured on the whole file and are not measured again, so
there is no fusion here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from zlib import crc32

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from unmask import metrics
from unmask.config import EvaluateConfig
from unmask.detectors import load_detector, score_images
from unmask.detectors.base import Detector
from unmask.ensemble.apply import apply_ensemble, sigmoid, video_logits
from unmask.errors import InputError
from unmask.evaluation.figures import bootstrap, rates_at
from unmask.evaluation.inputs import Inputs, TrainedDetector, groups_of, read_test_faces
from unmask.evaluation.perturbations import Image, perturb
from unmask.media.preprocessing import decode_crop
from unmask.progress import track
from unmask.schemas import Estimate

logger = logging.getLogger(__name__)
CLEAN = "clean"
KEY = ["sample_id", "face_index", "frame_index"]
# Decoded crops held at once: 256 crops of 256 px are 50 MB.
CHUNK_CROPS = 256
# Scores of undamaged crops must be those of training; a GPU and a CPU differ by far less than this.
PARITY_TOLERANCE = 0.05


@dataclass(frozen=True)
class Robustness:
    """The outcome of the damages.

    Attributes:
        table: Rows of ROBUSTNESS.
        n_samples: Test samples that were used.
        n_available: Test samples that could have been used.
        parity: Detector to the largest difference between its stored logits and the logits of the undamaged crops.
    """

    table: pd.DataFrame
    n_samples: int
    n_available: int
    parity: dict[str, float]

    @property
    def out_of_parity(self) -> dict[str, float]:
        """The detectors whose stored scores cannot be reproduced."""
        return {name: gap for name, gap in self.parity.items() if gap > PARITY_TOLERANCE}


def measure_robustness(inputs: Inputs, config: EvaluateConfig, seed: int) -> Robustness:
    """Damage test crops, score them again, and measure what is left.

    Args:
        inputs: Everything that the earlier stages wrote.
        config: Which damages and severities, and how many samples.
        seed: Of the choice of samples, of noise, and of the resamples.

    Returns:
        AUC with a cluster-bootstrap interval, FPR and TPR at the default operating point with exact intervals, for
        each detector and the ensemble, undamaged (severity 0) and damaged.
    """
    available = pd.concat([detector.frames for detector in inputs.detectors]).drop_duplicates(KEY)
    per_sample = available.drop_duplicates("sample_id")[["sample_id", "label"]].sort_values("sample_id")
    chosen = choose_samples(per_sample, config.max_robustness_samples, np.random.default_rng([seed, 1]))
    frames = available.loc[available["sample_id"].isin(set(chosen))].sort_values(KEY, ignore_index=True)
    conditions = [(CLEAN, 0), *((name, severity) for name in config.perturbations for severity in config.severities)]
    logits = _score_all(inputs, frames, conditions, seed)
    rows: list[dict[str, object]] = []
    for condition in conditions:
        # The same resamples for every condition, so that a curve's intervals move only with its scores.
        rng = np.random.default_rng([seed, 2])
        for system, scored in _systems(inputs, frames, logits[condition]).items():
            estimates = _measure(scored, inputs.operating_point.threshold, rng, config.resamples)
            rows += [_row(system, condition, metric, estimate) for metric, estimate in estimates.items()]
    columns = ["system", "perturbation", "severity", "metric", "value", "low", "high", "n"]
    table = pd.DataFrame(rows, columns=columns)
    return Robustness(table, len(chosen), len(per_sample), _parity(inputs, frames, logits[CLEAN, 0]))


def choose_samples(samples: pd.DataFrame, limit: int, rng: np.random.Generator) -> list[str]:
    """Draw samples up to a limit, as evenly over the classes as there are samples.

    Args:
        samples: With ``sample_id`` and ``label``, one row a sample, sorted.
        limit: How many at most.
        rng: Source of the draw.

    Returns:
        Sorted identifiers.
    """
    reals, fakes = (samples.loc[samples["label"] == label, "sample_id"].to_numpy(object) for label in (0, 1))
    n_fakes = min(len(fakes), max(limit // 2, limit - len(reals)))
    n_reals = min(len(reals), limit - n_fakes)
    drawn = [*rng.choice(reals, n_reals, replace=False), *rng.choice(fakes, n_fakes, replace=False)]
    return sorted(map(str, drawn))


def _score_all(
    inputs: Inputs, frames: pd.DataFrame, conditions: Sequence[tuple[str, int]], seed: int
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """Score every frame under every condition by every detector that scored it.

    Returns:
        Condition to logits ``(F, D)``, NaN where the detector did not score the frame.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    models = [load_detector(detector.folder)[0] for detector in inputs.detectors]
    wanted = [_is_in(frames, detector.frames) for detector in inputs.detectors]
    logits = {condition: np.full((len(frames), len(models)), np.nan) for condition in conditions}
    chunks = list(_chunks(frames))
    for rows in track(chunks, len(chunks), "robustness", "chunk"):
        images = _crops(inputs, frames.iloc[rows])
        for condition in conditions:
            damaged = _damage(images, frames.iloc[rows], condition, seed)
            for column, model in enumerate(models):
                mask = wanted[column][rows]
                logits[condition][rows[mask], column] = _scores(model, damaged, mask, device)
    return logits


def _scores(model: Detector, images: Sequence[Image], mask: NDArray[np.bool_], device: str) -> NDArray[np.float64]:
    kept = [image for image, keep in zip(images, mask, strict=True) if keep]
    return score_images(model, kept, device=device) if kept else np.empty(0)


def _is_in(frames: pd.DataFrame, scored: pd.DataFrame) -> NDArray[np.bool_]:
    index = pd.MultiIndex.from_frame(scored[KEY])
    return np.asarray(pd.MultiIndex.from_frame(frames[KEY]).isin(index), bool)


def _chunks(frames: pd.DataFrame) -> Iterator[NDArray[np.int64]]:
    """Cut the frames into positions of whole samples, so that each part of faces is read for few samples at a time."""
    positions: list[int] = []
    for _, rows in frames.groupby("sample_id", sort=True).indices.items():
        if positions and len(positions) + len(rows) > CHUNK_CROPS:
            yield np.array(positions, np.int64)
            positions = []
        positions.extend(int(row) for row in rows)
    if positions:
        yield np.array(positions, np.int64)


def _crops(inputs: Inputs, frames: pd.DataFrame) -> list[Image]:
    table = read_test_faces(inputs.faces, sorted(set(frames["sample_id"])))
    keys = zip(*(table.column(name).to_pylist() for name in KEY), strict=True)
    jpegs = dict(zip(keys, table.column("jpeg"), strict=True))
    wanted = list(frames[KEY].itertuples(index=False, name=None))
    missing = [key for key in wanted if key not in jpegs]
    if missing:
        raise InputError(
            f"{inputs.faces} lacks {len(missing)} crops that the detectors scored, first frame {missing[0][2]} of "
            f"sample {missing[0][0]}.",
            "Give the faces that the detectors were trained on.",
        )
    return [decode_crop(jpegs[key].as_buffer()) for key in wanted]


def _damage(images: Sequence[Image], frames: pd.DataFrame, condition: tuple[str, int], seed: int) -> list[Image]:
    """Damage each crop with a generator of its own, so that its noise depends on nothing else in the run."""
    name, severity = condition
    keys = frames[KEY].itertuples(index=False, name=None)
    return [
        perturb(image, name, severity, np.random.default_rng([seed, severity, crc32(f"{name}/{key}".encode())]))
        for image, key in zip(images, keys, strict=True)
    ]


def _systems(inputs: Inputs, frames: pd.DataFrame, logits: NDArray[np.float64]) -> dict[str, pd.DataFrame]:
    """Aggregate frames to samples: each system to rows with sample_id, label, group_id, split, probability."""
    systems: dict[str, pd.DataFrame] = {}
    per_detector: list[pd.Series[float]] = []
    for column, detector in enumerate(inputs.detectors):
        scored = frames.assign(logit=logits[:, column]).dropna(subset=["logit"])
        rows = video_logits(scored)
        per_detector.append(rows.set_index("sample_id")["logit"])
        probability = sigmoid(rows["logit"].to_numpy(np.float64) / detector.temperature)
        systems[detector.info.name] = rows.assign(probability=probability)
    samples = frames.drop_duplicates("sample_id")
    table = np.stack([one.reindex(samples["sample_id"]).to_numpy(np.float64) for one in per_detector], axis=1)
    _, probability, _ = apply_ensemble(inputs.ensemble, table)
    systems["ensemble"] = samples.assign(probability=probability).dropna(subset=["probability"])
    return systems


def _measure(scored: pd.DataFrame, threshold: float, rng: np.random.Generator, resamples: int) -> dict[str, Estimate]:
    labels = scored["label"].to_numpy(np.int64)
    probabilities = scored["probability"].to_numpy(np.float64)
    auc = bootstrap({"roc_auc": metrics.roc_auc}, labels, probabilities, groups_of(scored), rng, resamples)
    fpr, tpr = rates_at(labels, probabilities, threshold)
    return {**auc, "fpr": fpr, "tpr": tpr}


def _row(system: str, condition: tuple[str, int], metric: str, estimate: Estimate) -> dict[str, object]:
    name, severity = condition
    return {
        "system": system,
        "perturbation": name,
        "severity": severity,
        "metric": metric,
        "value": estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "n": estimate.n,
    }


def _parity(inputs: Inputs, frames: pd.DataFrame, clean: NDArray[np.float64]) -> dict[str, float]:
    """Compare the logits of undamaged crops with those that training stored."""
    gaps = {}
    for column, detector in enumerate(inputs.detectors):
        gaps[detector.info.name] = _largest_gap(frames.assign(again=clean[:, column]), detector)
    for name, gap in gaps.items():
        if gap > PARITY_TOLERANCE:
            logger.warning("%s: stored scores differ from scores of the same crops now by %.3g", name, gap)
    return gaps


def _largest_gap(frames: pd.DataFrame, detector: TrainedDetector) -> float:
    both = frames[[*KEY, "again"]].merge(detector.frames[[*KEY, "logit"]], on=KEY)
    return float((both["again"] - both["logit"]).abs().max()) if len(both) else 0.0
