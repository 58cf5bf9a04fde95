"""Who is told what happens in a training while it runs; TensorBoard logs are one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from unmask.detectors import Detector
from unmask.errors import MissingExtraError
from unmask.media.preprocessing import decode_crop
from unmask.schemas import DetectorInfo, TrainingCurvePoint


@dataclass(frozen=True)
class StepPoint:
    """One optimiser step.

    Attributes:
        step: 1-based, over all epochs.
        loss: Mean over the crops of the step.
        learning_rate: Of the new layers.
        gradient_norm: Before clipping.
    """

    step: int
    loss: float
    learning_rate: float
    gradient_norm: float


@dataclass(frozen=True)
class TrainingStart:
    """What is known of a training before its first step.

    Attributes:
        name: Of the detector.
        key: Names everything that the weights depend on: the same training has the same key.
        settings: The resolved settings, and the seed.
        dataset_version: Version of the data set.
        resumed: Whether it goes on from a checkpoint.
    """

    name: str
    key: str
    settings: Mapping[str, Any]
    dataset_version: str
    resumed: bool


class Listener:
    """Is told what happens in a training; a subclass overrides what it wants to know."""

    def step(self, point: StepPoint) -> None:
        """An optimiser step was taken; in long trainings not each of them is told."""

    def epoch(self, point: TrainingCurvePoint, detector: Detector) -> None:
        """An epoch is finished; the detector still has the gradients of its last step."""


class TrainingLog(Listener):
    """Keeps a training where people look at it while it runs. Nothing that goes wrong in a log may stop a training."""

    @property
    def run_id(self) -> str | None:
        """Name of the run in a tracking server; None where there is none (yet)."""
        return None

    def begin(self, start: TrainingStart) -> None:
        """The training begins."""

    def system(self, figures: Mapping[str, float]) -> None:
        """Say how busy the machine is; see `unmask.training.system.measure`."""

    def end(self, info: DetectorInfo, pictures: Mapping[str, bytes]) -> None:
        """Take the result: the document, and pictures as JPEG by the name of their file."""

    def close(self, *, failed: bool) -> None:
        """Write what is left; nothing follows."""


class Told(TrainingLog):
    """Several logs, told one after the other.

    Args:
        logs: Of this training.
    """

    def __init__(self, logs: Sequence[TrainingLog]) -> None:
        self._logs = logs

    @property
    def run_id(self) -> str | None:
        """See the base: the first one there is."""
        return next((log.run_id for log in self._logs if log.run_id), None)

    def step(self, point: StepPoint) -> None:
        """See the base."""
        for log in self._logs:
            log.step(point)

    def epoch(self, point: TrainingCurvePoint, detector: Detector) -> None:
        """See the base."""
        for log in self._logs:
            log.epoch(point, detector)

    def begin(self, start: TrainingStart) -> None:
        """See the base."""
        for log in self._logs:
            log.begin(start)

    def system(self, figures: Mapping[str, float]) -> None:
        """See the base."""
        for log in self._logs:
            log.system(figures)

    def end(self, info: DetectorInfo, pictures: Mapping[str, bytes]) -> None:
        """See the base."""
        for log in self._logs:
            log.end(info, pictures)

    def close(self, *, failed: bool) -> None:
        """See the base."""
        for log in self._logs:
            log.close(failed=failed)


def step_figures(point: StepPoint) -> dict[str, float]:
    """Name the figures of a step as all logs do."""
    return {
        "step/loss": point.loss,
        "step/learning_rate": point.learning_rate,
        "step/gradient_norm": point.gradient_norm,
    }


class TensorBoardLog(TrainingLog):
    """Writes TensorBoard events: steps, epochs, weights and gradients, use of the machine, examples.

    Args:
        folder: Of all logs; ``tensorboard --logdir`` takes it.
        run: Name of this training; a resumed one goes on in its own folder.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, run: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("train.tensorboard", "training") from error
        self._writer = SummaryWriter(str(folder / run))
        self._samples = 0

    def begin(self, start: TrainingStart) -> None:
        """Write the settings as text."""
        settings = yaml.safe_dump(dict(start.settings), sort_keys=False)
        self._writer.add_text("settings", "".join(f"    {line}\n" for line in settings.splitlines()))

    def step(self, point: StepPoint) -> None:
        """Write a step; it is seen with the next epoch at the latest."""
        self._scalars(step_figures(point), point.step)

    def epoch(self, point: TrainingCurvePoint, detector: Detector) -> None:
        """Write an epoch with histograms of weights and gradients, and make sure that it can be seen at once."""
        self._scalars(point.figures(), point.epoch)
        for name, parameter in detector.named_parameters():
            self._writer.add_histogram(f"weights/{name}", parameter.detach().float(), point.epoch)
            if parameter.grad is not None and torch.isfinite(parameter.grad).all():
                self._writer.add_histogram(f"gradients/{name}", parameter.grad.float(), point.epoch)
        self._writer.flush()

    def system(self, figures: Mapping[str, float]) -> None:
        """Write how busy the machine is."""
        self._samples += 1
        self._scalars(figures, self._samples)

    def end(self, info: DetectorInfo, pictures: Mapping[str, bytes]) -> None:
        """Write the pictures: examples with predictions, and the confusion matrix of val."""
        for name, picture in pictures.items():
            self._writer.add_image(Path(name).stem, decode_crop(picture), info.best_epoch, dataformats="HWC")

    def close(self, *, failed: bool) -> None:
        """Write what is left."""
        self._writer.close()

    def _scalars(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)
