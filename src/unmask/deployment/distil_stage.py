"""`unmask distill`: a small detector learns what the whole ensemble says (Hinton et al., 2015, arXiv:1503.02531).

What comes out is a detector like any other: `unmask ensemble`, `fuse`, `evaluate` and `bundle` calibrate, judge and
ship it, and the gate compares it with the champion as it does everything else.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask import detectors, metrics
from unmask.config import DistillConfig, TrainConfig
from unmask.deployment.bundle import STUDENT
from unmask.ensemble.apply import video_logits
from unmask.errors import InputError
from unmask.schemas import (
    FRAME_SCORES,
    VIDEO_SCORES,
    DetectorInfo,
    DetectorModality,
    Document,
    Estimate,
    StageOutcome,
    new_directory,
    read_table,
    rows_for_choice,
    write_table,
)
from unmask.training.device import reproducible
from unmask.training.loader import TrainingView
from unmask.training.train_stage import describe, prepare, score_splits
from unmask.training.trainer import Trainer, TrainingViews

DISTILLATION = "distillation.json"
RESAMPLES = 2000


class DistillationInfo(Document):
    """``distillation.json``: how well the student has learnt, on val.

    Attributes:
        student: Its name.
        teacher_share: Of the ensemble's probability in what was taught.
        n_parameters: Of the student.
        teacher_auc: AUC of the ensemble.
        student_auc: AUC of the student; optimistic, because its checkpoint was chosen on val.
        loss: Teacher minus student, on the same samples.
        max_auc_loss: The bound.
        good_enough: Whether the loss is inside the bound.
    """

    student: str
    teacher_share: float
    n_parameters: int
    teacher_auc: Estimate
    student_auc: Estimate
    loss: Estimate
    max_auc_loss: float
    good_enough: bool


@dataclass(frozen=True)
class TaughtView(TrainingView):
    """Training crops with the word of a teacher beside their label.

    Attributes:
        targets: Row of the training index to what is taught, in [0, 1].
    """

    targets: NDArray[np.float64] | None = None

    def __call__(self, image: NDArray[Any], label: float, row: int) -> tuple[NDArray[Any], float]:
        """Prepare a crop; a fake that was blended here and now is no sample that the teacher has judged."""
        seen, own = super().__call__(image, label, row)
        if own != label or self.targets is None:
            return seen, own
        return seen, float(self.targets[row % len(self.targets)])


class TaughtViews(TrainingViews):
    """Makes such views for each epoch.

    Args:
        config: As for `TrainingViews`.
        labels: As for `TrainingViews`.
        targets: Row of the training index to what is taught ``(N,)``.
        modality: As for `TrainingViews`.
    """

    def __init__(
        self,
        config: TrainConfig,
        labels: NDArray[np.float32],
        targets: NDArray[np.float64],
        modality: DetectorModality,
    ) -> None:
        super().__init__(config, labels, modality)
        self.targets = targets

    def __call__(self, seed: tuple[int, int]) -> TrainingView:
        """Make the view of an epoch."""
        plain = super().__call__(seed)
        return TaughtView(
            plain.augmentation, plain.blender, plain.blend_chance, plain.rarer_label, plain.seed, self.targets
        )


def run_distill(
    dataset: Path,
    faces: Path,
    features: Path,
    ensemble: Path,
    out: Path,
    config: DistillConfig,
    training: TrainConfig,
    seed: int,
) -> StageOutcome:
    """Train a student on what the ensemble says about the crops of train; its checkpoint is chosen on val.

    Args:
        dataset: Folder of `unmask ingest`.
        faces: Face crops of `unmask extract`.
        features: Features of `unmask extract`, for the version of the extractor.
        ensemble: Folder of `unmask ensemble`: the teacher's word for every sample.
        out: Folder to make, like one of `unmask train`, and ``distillation.json``.
        config: Student, share of the teacher, bound.
        training: How to train.
        seed: Of every random choice.

    Returns:
        How much AUC is lost on val.

    Raises:
        InputError: The teacher has no word for samples of train, or the parts do not belong together.
        ConfigError: The student cannot be built like this.
    """
    settings = training.resolved_for(config.student)
    taught = read_table(ensemble / "scores.parquet", VIDEO_SCORES).to_pandas()
    name = STUDENT + config.student
    with reproducible(settings, seed) as threads:
        prepared = prepare(config.student, dataset, faces, features, settings, seed, threads=threads)
        trainer = prepared.trainer(settings)
        _teach(trainer, settings, taught, config.teacher_share)
        fitted = trainer.fit()
        loaders = prepared.loaders(trainer.detector)
        scores = score_splits(trainer.detector, loaders, settings, trainer.device)
        info = describe(trainer.detector, name, settings, seed, fitted, scores, prepared.origin, trainer.device)
    judged = _judge(info, scores, taught, config, seed)
    with new_directory(out) as folder:
        write_table(folder / "scores.parquet", scores, FRAME_SCORES)
        info = detectors.save_detector(folder, trainer.detector, info)
        judged.save(folder / DISTILLATION)
    return _outcome(judged)


def _teach(trainer: Trainer, settings: TrainConfig, taught: pd.DataFrame, share: float) -> None:
    """Replace the labels of train by a mixture with the teacher's probability."""
    frame = rows_for_choice(trainer.train.index.frame, {"train"}, "distillation")
    word = frame["sample_id"].map(taught.set_index("sample_id")["probability"]).to_numpy(np.float64)
    silent = np.isnan(word)
    if silent.all():
        raise InputError("The ensemble has no probability for any sample of train.", "Give the ensemble of this run.")
    label = frame["label"].to_numpy(np.float64)
    # Where the teacher is silent, the label speaks alone.
    targets = np.where(silent, label, share * np.where(silent, 0.0, word) + (1 - share) * label)
    trainer.views = TaughtViews(settings, label.astype(np.float32), targets, trainer.detector.modality)


def _judge(
    info: DetectorInfo, scores: pd.DataFrame, taught: pd.DataFrame, config: DistillConfig, seed: int
) -> DistillationInfo:
    val = rows_for_choice(scores.loc[scores["split"] == "val"], {"val"}, "distillation")
    student = video_logits(val, info.aggregation)
    both = student.merge(taught[["sample_id", "probability"]], on="sample_id").dropna(subset=["probability", "label"])
    labels = both["label"].to_numpy(np.int64)
    groups = both["group_id"].fillna("sample:" + both["sample_id"]).to_numpy(object)
    columns = both["probability"].to_numpy(np.float64), both["logit"].to_numpy(np.float64)
    aucs = [
        metrics.bootstrap_estimate(
            metrics.roc_auc, labels, column, groups, rng=np.random.default_rng(seed), resamples=RESAMPLES
        )
        for column in columns
    ]
    loss = metrics.paired_difference(
        metrics.roc_auc,
        labels,
        columns[1],
        columns[0],
        groups,
        rng=np.random.default_rng(seed),
        resamples=RESAMPLES,
    )
    return DistillationInfo(
        student=info.name,
        teacher_share=config.teacher_share,
        n_parameters=info.n_parameters,
        teacher_auc=aucs[0],
        student_auc=aucs[1],
        loss=loss,
        max_auc_loss=config.max_auc_loss,
        good_enough=loss.value is not None and loss.value <= config.max_auc_loss,
    )


def _outcome(judged: DistillationInfo) -> StageOutcome:
    verdict = "inside" if judged.good_enough else "OUTSIDE"
    numbers = {
        "teacher_auc": judged.teacher_auc.value,
        "student_auc": judged.student_auc.value,
        "auc_loss": judged.loss.value,
        "good_enough": float(judged.good_enough),
    }
    return StageOutcome(
        metrics={name: value for name, value in numbers.items() if value is not None},
        messages=(
            f"{judged.student} ({judged.n_parameters:,} parameters): AUC on val {judged.student_auc}, "
            f"the ensemble {judged.teacher_auc}; lost {judged.loss}, {verdict} the bound of {judged.max_auc_loss:g}.",
            "Give its folder alone to `ensemble`, `fuse`, `evaluate` and `bundle` to calibrate, judge and ship it.",
        ),
    )
