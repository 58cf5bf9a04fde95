"""The training loop: one detector, one device, exact resume."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from unmask import progress as progress_room
from unmask.config import TrainConfig
from unmask.detectors import Detector
from unmask.errors import InputError
from unmask.schemas import TrainingCurvePoint, rows_for_choice
from unmask.training.augment import Augmentation
from unmask.training.checkpoint import Checkpoints, Progress
from unmask.training.device import uses_bf16
from unmask.training.loader import Batch, CropLoader, Rows, evenly_spaced_rows, split_batches
from unmask.training.objective import (
    class_weights,
    clip_gradients,
    learning_rate_at,
    make_optimizer,
    smoothed_loss,
)
from unmask.training.selection import ValFigures, val_figures

logger = logging.getLogger(__name__)
GRADIENT_NORM = 1.0
CHECKPOINT_EVERY_S = 60.0
LONG_EPOCH_S = 20.0


@dataclass(frozen=True)
class Fitted:
    """What a training came to; the detector itself holds the best weights.

    Attributes:
        curve: One point an epoch.
        best_epoch: Chosen on val.
        seconds: Wall time, with the time before a resume.
    """

    curve: list[TrainingCurvePoint]
    best_epoch: int
    seconds: float


def score_rows(
    detector: Detector, loader: CropLoader, rows: Rows, batch_size: int, device: torch.device
) -> NDArray[np.float64]:
    """Score crops in float32, without augmentation.

    Args:
        detector: On ``device``; put into evaluation mode for the time of scoring.
        loader: Holds the crops.
        rows: Positions in the loader's index ``(N,)``.
        batch_size: Crops at a time.
        device: Where the detector lies.

    Returns:
        Logits ``(N,)``.
    """
    was_training = detector.training
    detector.eval()
    logits = []
    with torch.inference_mode():
        for batch in loader.batches(split_batches(rows, batch_size)):
            logits.append(detector(_on_device(batch.inputs, device)).double().cpu().numpy())
    detector.train(was_training)
    return np.concatenate(logits) if logits else np.empty(0, np.float64)


def _on_device(inputs: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda":
        inputs = inputs.pin_memory()
    return inputs.to(device, non_blocking=True, memory_format=torch.channels_last)


class Trainer:
    """Trains a detector on train and chooses its checkpoint on val.

    Args:
        detector: Trained in place.
        train: Loader of the train crops.
        val: Loader of the val crops.
        config: Resolved for this detector.
        seed: Of draws, order and augmentation.
        device: Where to compute.
        checkpoints: Where to keep what a resume needs.
        checkpoint_every_s: Time between checkpoints within an epoch.

    Raises:
        LeakError: A loader holds rows of another split.
    """

    def __init__(
        self,
        detector: Detector,
        train: CropLoader,
        val: CropLoader,
        config: TrainConfig,
        seed: int,
        device: torch.device,
        checkpoints: Checkpoints,
        *,
        checkpoint_every_s: float = CHECKPOINT_EVERY_S,
    ) -> None:
        rows_for_choice(train.index.frame, {"train"}, "training")
        rows_for_choice(val.index.frame, {"val"}, "choice of the checkpoint")
        self.detector = detector.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train = train
        self.val = val
        self.config = config
        self.seed = seed
        self.device = device
        self.checkpoints = checkpoints
        self.checkpoint_every_s = checkpoint_every_s
        self.optimizer = make_optimizer(detector, config)
        self.augmentation = Augmentation() if config.augment else None
        self.val_rows = evenly_spaced_rows(val.index.frame, config.eval_frames_per_video)
        first_epoch = self._batches_of(1)
        self.steps_per_epoch = len(first_epoch)
        labels = train.index.frame["label"].to_numpy(np.float32)
        self.weights = class_weights(labels[np.concatenate(first_epoch)], config.class_balance)
        self.best_weights: dict[str, Tensor] = {}

    def fit(self) -> Fitted:
        """Train until the last epoch, or until val has not become better for a while.

        Returns:
            Curve and choice; the detector holds the weights of the best epoch.

        Raises:
            InputError: The loss is no longer a number.
        """
        state = self.checkpoints.restore(self.detector, self.optimizer)
        if state.epoch > 1 or state.batch or state.finished:
            logger.info("resume: %d epochs and %d batches are done", len(state.curve), state.batch)
        while not state.finished:
            self._run_epoch(state)
            self._finish_epoch(state)
            self.checkpoints.save(state, self.detector, self.optimizer)
        weights = self.best_weights or self.checkpoints.load_best(state.best_epoch)
        self.detector.load_state_dict(weights)
        return Fitted(state.curve, state.best_epoch, state.total_s)

    def _batches_of(self, epoch: int) -> list[Rows]:
        order = self.train.epoch_order(self.config.train_frames_per_video, self.seed, epoch)
        return split_batches(order, self.config.batch_size)

    def _run_epoch(self, state: Progress) -> None:
        """Train on the batches of an epoch that are not done yet; checkpoint now and then."""
        self.detector.train()
        todo = self._batches_of(state.epoch)[state.batch :]
        batches: Iterable[Batch] = self.train.batches(todo, self.augmentation, (self.seed, state.epoch))
        if state.curve and state.curve[-1].seconds > LONG_EPOCH_S:
            what = f"train {self.detector.architecture}, epoch {state.epoch}"
            batches = progress_room.track(batches, len(todo), what, "batch")
        clock = saved = time.monotonic()
        for batch in batches:
            step = (state.epoch - 1) * self.steps_per_epoch + state.batch
            loss = self._step(batch, learning_rate_at(step, self.config.epochs * self.steps_per_epoch, self.config))
            state.batch += 1
            state.loss_sum += loss * len(batch.rows)
            state.n_crops += len(batch.rows)
            now = time.monotonic()
            state.elapsed_s, clock = state.elapsed_s + now - clock, now
            if now - saved >= self.checkpoint_every_s:
                self.checkpoints.save(state, self.detector, self.optimizer)
                saved = now

    def _step(self, batch: Batch, learning_rate: float) -> float:
        """Take one optimiser step and return the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        half = uses_bf16(self.config.precision, self.device)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half):
            logits = self.detector(_on_device(batch.inputs, self.device))
        labels = batch.labels.to(self.device, non_blocking=True)
        loss = smoothed_loss(logits, labels, self.weights, self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = clip_gradients(self.detector, GRADIENT_NORM)
        if not np.isfinite(norm):
            raise InputError(
                f"The training of {self.detector.architecture} diverged: the gradient is {norm}.",
                f"Lower train.learning_rate (now {self.config.learning_rate:g}).",
            )
        self.optimizer.step()
        self.detector.project()
        return float(loss.detach())

    def _finish_epoch(self, state: Progress) -> None:
        """Validate, keep the weights if they are the best, and move on to the next epoch."""
        clock = time.monotonic()
        logits = score_rows(self.detector, self.val, self.val_rows, self.config.batch_size, self.device)
        figures = val_figures(self.val.index.frame.iloc[self.val_rows], logits)
        if figures.better_than(state.best):
            state.best, state.best_epoch, state.stale = figures, state.epoch, 0
            self.best_weights = {k: v.detach().cpu().clone() for k, v in self.detector.state_dict().items()}
            self.checkpoints.save_best(state.epoch, self.best_weights)
        else:
            state.stale += 1
        seconds = state.elapsed_s + time.monotonic() - clock
        point = TrainingCurvePoint(
            epoch=state.epoch,
            train_loss=state.loss_sum / state.n_crops,
            val_loss=figures.loss,
            val_auc=figures.auc,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            seconds=seconds,
        )
        self._report(point, figures, best=state.best_epoch == state.epoch)
        state.curve.append(point)
        state.total_s += seconds
        state.finished = state.epoch >= self.config.epochs or state.stale >= self.config.early_stopping_patience
        state.epoch += 1
        state.batch, state.n_crops, state.loss_sum, state.elapsed_s = 0, 0, 0.0, 0.0

    def _report(self, point: TrainingCurvePoint, figures: ValFigures, *, best: bool) -> None:
        auc = "undefined" if figures.auc is None else f"{figures.auc:.3f}"
        logger.info(
            "%s: epoch %d of %d, loss %.3f, val loss %.3f, val AUC %s, %.1f s%s",
            self.detector.architecture,
            point.epoch,
            self.config.epochs,
            point.train_loss,
            figures.loss,
            auc,
            point.seconds,
            ", best so far" if best else "",
        )
