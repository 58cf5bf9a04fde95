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
from unmask.ensemble.apply import apply_ensemble, video_logits
from unmask.errors import InputError
from unmask.evaluation.figures import bootstrap, rates_at
from unmask.evaluation.inputs import Inputs, TrainedDetector, groups_of, read_test_faces
from unmask.evaluation.perturbations import Image, perturb_clip
from unmask.media.preprocessing import decode_crop
from unmask.progress import track
from unmask.schemas import ROBUSTNESS

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
        each detector of faces and the ensemble of these, undamaged (severity 0) and damaged; empty without any.
    """
    inputs = inputs.seen_by("face")
    if not inputs.detectors:
        return Robustness(as_robustness([]), 0, 0, {})
    available = pd.concat([detector.frames for detector in inputs.detectors]).drop_duplicates(KEY)
    chosen = draw_samples(available, config.max_robustness_samples, np.random.default_rng([seed, 1]))
    frames = available.loc[available["sample_id"].isin(set(chosen))].sort_values(KEY, ignore_index=True)
    conditions = [(CLEAN, 0), *((name, severity) for name in config.perturbations for severity in config.severities)]
    logits = _score_all(inputs, frames, conditions, seed)
    clean = systems_of(inputs, frames, logits[CLEAN, 0])
    rows: list[dict[str, object]] = []
    for name, severity in conditions:
        damaged = systems_of(inputs, frames, logits[name, severity])
        measured = measure_change(clean, damaged, inputs.operating_point.threshold, seed, config.resamples)
        rows += [{**row, "perturbation": name, "severity": severity} for row in measured]
    table = as_robustness(rows)
    return Robustness(table, len(chosen), available["sample_id"].nunique(), _parity(inputs, frames, logits[CLEAN, 0]))


def as_robustness(rows: Sequence[dict[str, object]]) -> pd.DataFrame:
    """Put rows into the form of the table ROBUSTNESS; what a row lacks is null."""
    return pd.DataFrame(rows, columns=[column.name for column in ROBUSTNESS.columns])


def draw_samples(frames: pd.DataFrame, limit: int, rng: np.random.Generator) -> list[str]:
    """Draw samples of which there are frames, see `choose_samples`."""
    per_sample = frames.drop_duplicates("sample_id")[["sample_id", "label"]].sort_values("sample_id")
    return choose_samples(per_sample, limit, rng)


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
        images = read_crops(inputs, frames.iloc[rows])
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


def read_crops(inputs: Inputs, frames: pd.DataFrame) -> list[Image]:
    """Read and decode the crops of some test frames.

    Args:
        inputs: Says where they lie.
        frames: With the columns of `KEY`.

    Returns:
        RGB crops ``(H, W, 3)``, uint8, in the order of ``frames``.

    Raises:
        InputError: A crop is missing.
    """
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
    """Damage crops face by face in the order of time, each with a generator of its own.

    So the noise of a crop depends on nothing else in the run.
    """
    name, severity = condition
    keys = list(frames[KEY].itertuples(index=False, name=None))
    damaged: list[Image] = list(images)
    for _, places in frames.reset_index(drop=True).groupby(["sample_id", "face_index"], sort=False).indices.items():
        ordered = sorted((int(place) for place in places), key=lambda place: int(keys[place][2]))
        seeds = [[seed, severity, crc32(f"{name}/{keys[place]}".encode())] for place in ordered]
        clip = [images[place] for place in ordered]
        generators = [np.random.default_rng(one) for one in seeds]
        for place, image in zip(ordered, perturb_clip(clip, name, severity, generators), strict=True):
            damaged[place] = image
    return damaged


def systems_of(inputs: Inputs, frames: pd.DataFrame, logits: NDArray[np.float64]) -> dict[str, pd.DataFrame]:
    """Aggregate frames to samples.

    Args:
        inputs: With the detectors and the fitted ensemble.
        frames: Rows of FRAME_SCORES ``(F,)``; their own logits are not looked at.
        logits: ``(F, D)``, NaN where a detector did not score a frame.

    Returns:
        Each detector and ``ensemble`` to rows with sample_id, label, group_id, split and probability.
    """
    systems: dict[str, pd.DataFrame] = {}
    per_detector: list[pd.Series[float]] = []
    for column, detector in enumerate(inputs.detectors):
        scored = frames.assign(logit=logits[:, column]).dropna(subset=["logit"])
        rows = video_logits(scored, detector.info.aggregation)
        per_detector.append(rows.set_index("sample_id")["logit"])
        systems[detector.info.name] = rows.assign(probability=detector.probabilities(rows["logit"]))
    samples = frames.drop_duplicates("sample_id")
    table = np.stack([one.reindex(samples["sample_id"]).to_numpy(np.float64) for one in per_detector], axis=1)
    _, probability, _ = apply_ensemble(inputs.ensemble, table)
    systems["ensemble"] = samples.assign(probability=probability).dropna(subset=["probability"])
    return systems


def measure_change(
    clean: dict[str, pd.DataFrame], damaged: dict[str, pd.DataFrame], threshold: float, seed: int, resamples: int
) -> list[dict[str, object]]:
    """Measure what a damage or an attack leaves of every system.

    Args:
        clean: System to the rows that `systems_of` makes of undamaged crops.
        damaged: The same of damaged ones.
        threshold: Fake if the probability is at least this.
        seed: Of the resamples; every condition meets the same, so that intervals move only with the scores.
        resamples: How many.

    Returns:
        Rows of ROBUSTNESS without perturbation and severity: ``roc_auc`` with its interval by group, ``fpr`` and
        ``tpr`` with exact ones, and ``roc_auc_change`` against clean, paired by sample.
    """
    rows: list[dict[str, object]] = []
    for system, scored in damaged.items():
        labels = scored["label"].to_numpy(np.int64)
        probabilities = scored["probability"].to_numpy(np.float64)
        before = clean[system].set_index("sample_id")["probability"].loc[scored["sample_id"]].to_numpy(np.float64)
        groups = groups_of(scored)
        rng = np.random.default_rng([seed, 2])
        auc = bootstrap({"roc_auc": metrics.roc_auc}, labels, probabilities, groups, rng, resamples)["roc_auc"]
        change = metrics.paired_difference(
            metrics.roc_auc,
            labels,
            before,
            probabilities,
            groups,
            rng=np.random.default_rng([seed, 2]),
            resamples=resamples,
        )
        fpr, tpr = rates_at(labels, probabilities, threshold)
        for metric, one in (("roc_auc", auc), ("fpr", fpr), ("tpr", tpr), ("roc_auc_change", change)):
            figures = {"value": one.value, "low": one.low, "high": one.high, "n": one.n}
            rows.append({"system": system, "metric": metric, **figures})
    return rows


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
