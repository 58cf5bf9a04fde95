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
from unmask.schemas import DetectorModality, TrainingCurvePoint, rows_for_choice
from unmask.training.augment import Augmentation
from unmask.training.augment_sound import SoundAugmentation
from unmask.training.checkpoint import Checkpoints, Progress
from unmask.training.events import Listener, StepPoint
from unmask.training.loader import Batch, CropLoader, Rows, TrainingView, evenly_spaced_rows, split_batches
from unmask.training.objective import Objective, class_weights, resolve_balance
from unmask.training.parallel import ALONE, Group
from unmask.training.phases import plan_phases, train_mode
from unmask.training.schedule import learning_rate_at, plateau_reductions
from unmask.training.selection import ValFigures, val_figures
from unmask.training.self_blend import SelfBlender
from unmask.training.step import Stepper, on_device

logger = logging.getLogger(__name__)
CHECKPOINT_EVERY_S = 60.0
LONG_EPOCH_S = 20.0
# A log of more points than this is slower to look at, and shows nothing more.
MOST_STEPS_TOLD = 2000


@dataclass(frozen=True)
class Fitted:
    """What a training came to; the detector itself holds the best weights.

    Attributes:
        curve: One point an epoch.
        best_epoch: Chosen on val.
        best_value: The figure that chose it, larger is better; minus the loss where the figure is undefined.
        seconds: Wall time, with the time before a resume.
        crops: That it learnt from, counted each time.
    """

    curve: list[TrainingCurvePoint]
    best_epoch: int
    best_value: float
    seconds: float
    crops: int


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
            logits.append(detector(on_device(batch.inputs, device)).double().cpu().numpy())
    detector.train(was_training)
    return np.concatenate(logits) if logits else np.empty(0, np.float64)


class TrainingViews:
    """Makes what each epoch does to its crops.

    Args:
        config: ``augment`` and ``augmentation``.
        labels: One a training sample ``(N,)``; the rarer class may be augmented more.
        modality: What the detector takes; sound is not blended.
    """

    def __init__(self, config: TrainConfig, labels: NDArray[np.float32], modality: DetectorModality = "face") -> None:
        chances = config.augmentation
        heard = modality == "audio"
        damages = SoundAugmentation(chances) if heard else Augmentation(chances)
        self.augmentation = damages if config.augment else None
        self.blend_chance = chances.self_blend if config.augment and not heard else 0.0
        self.blender = SelfBlender() if self.blend_chance else None
        n_fake, n_real = int((labels == 1).sum()), int((labels == 0).sum())
        self.rarer_label = None if n_fake == n_real else int(n_fake < n_real)

    def __call__(self, seed: tuple[int, int]) -> TrainingView:
        """Make the view of an epoch.

        Args:
            seed: Of the run, and the epoch.
        """
        return TrainingView(self.augmentation, self.blender, self.blend_chance, self.rarer_label, seed)


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
        group: The processes that train together.
        listener: Told of steps and epochs.
        checkpoint_every_s: Time between checkpoints within an epoch.

    Raises:
        LeakError: A loader holds rows of another split.
        ConfigError: The strategy does not fit the detector or the number of epochs.
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
        group: Group = ALONE,
        listener: Listener | None = None,
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
        self.group = group
        self.listener = listener or Listener()
        self.checkpoint_every_s = checkpoint_every_s
        self.phases = plan_phases(config)
        labels = train.index.frame.drop_duplicates("sample_id")["label"].to_numpy(np.float32)
        self.balance = resolve_balance(labels, config.class_balance)
        self.views = TrainingViews(config, labels, detector.modality)
        self.val_rows = evenly_spaced_rows(val.index.frame, config.eval_frames_per_video)
        first_epoch = self.batches_of(1)
        self.steps_per_epoch = len(first_epoch)
        self.told_every = -(-self.steps_per_epoch * config.epochs // MOST_STEPS_TOLD)
        drawn = train.index.frame["label"].to_numpy(np.float32)[np.concatenate(first_epoch) % len(train.index.frame)]
        objective = Objective(config, class_weights(drawn, self.balance, self.views.blend_chance))
        self.stepper = Stepper(self.detector, config, objective, device, group)
        self.best_weights: dict[str, Tensor] = {}

    def fit(self) -> Fitted:
        """Train until the last epoch, or until val has not become better for a while.

        Returns:
            Curve and choice; the detector holds the weights of the best epoch.

        Raises:
            InputError: The loss is no longer a number, or memory does not suffice.
        """
        state = self.checkpoints.restore(self.stepper)
        if state.epoch > 1 or state.batch or state.finished:
            logger.info("resume: %d epochs and %d batches are done", len(state.curve), state.batch)
        self.stepper.begin(self.phases[state.phase])
        while not state.finished:
            self._run_epoch(state)
            self._finish_epoch(state)
            self._checkpoint(state)
        self._take_best(state)
        best = state.best
        assert best is not None  # a finished training has at least one epoch
        value = -best.loss if best.chosen_by is None else best.chosen_by
        crops = sum(map(len, self.batches_of(1))) * len(state.curve)
        return Fitted(state.curve, state.best_epoch, value, state.total_s, crops)

    def _take_best(self, state: Progress) -> None:
        self.group.wait()  # the leader may still be writing them
        self.detector.load_state_dict(self.best_weights or self.checkpoints.load_best(state.best_epoch))

    def _checkpoint(self, state: Progress) -> None:
        if self.group.leads:
            self.checkpoints.save(state, self.stepper)

    def batches_of(self, epoch: int) -> list[Rows]:
        """Rows of each optimiser step of an epoch, over all processes."""
        order = self.train.epoch_order(
            self.config.train_frames_per_video, self.seed, epoch, even=self.balance == "sampler"
        )
        return split_batches(order, self.config.batch_size * self.config.accumulate * self.group.size)

    def _run_epoch(self, state: Progress) -> None:
        """Train on the batches of an epoch that are not done yet; checkpoint now and then."""
        train_mode(self.detector)
        todo = self.batches_of(state.epoch)[state.batch :]
        mine = [self.group.share(rows) for rows in todo]
        batches: Iterable[Batch] = self.train.batches(mine, self.views((self.seed, state.epoch)))
        if state.curve and state.curve[-1].seconds > LONG_EPOCH_S and self.group.leads:
            what = f"train {self.detector.architecture}, epoch {state.epoch}"
            batches = progress_room.track(batches, len(todo), what, "batch")
        clock = saved = time.monotonic()
        for rows, batch in zip(todo, batches, strict=True):
            rng = np.random.default_rng((self.seed, state.epoch, state.batch, self.group.rank))
            loss = self.stepper.step(batch, len(rows), self._learning_rate(state), rng)
            state.batch += 1
            state.loss_sum += loss * len(rows)
            state.n_crops += len(rows)
            self._tell_step(state, loss)
            now = time.monotonic()
            state.elapsed_s, clock = state.elapsed_s + now - clock, now
            if now - saved >= self.checkpoint_every_s:
                self._checkpoint(state)
                saved = now

    def _tell_step(self, state: Progress, loss: float) -> None:
        step = (state.epoch - 1) * self.steps_per_epoch + state.batch
        if self.group.leads and step % self.told_every == 0:
            rate = self.stepper.optimizer.param_groups[0]["lr"]
            self.listener.step(StepPoint(step, loss, rate, self.stepper.gradient_norm))

    def _learning_rate(self, state: Progress) -> float:
        step = (state.epoch - 1 - state.phase_start) * self.steps_per_epoch + state.batch
        total = self.phases[state.phase].epochs * self.steps_per_epoch
        reductions = plateau_reductions(state.gains, self.config.plateau_patience)
        return learning_rate_at(step, total, self.config, reductions)

    def _finish_epoch(self, state: Progress) -> None:
        """Validate, keep the weights if they are the best, and move on to the next epoch."""
        clock = time.monotonic()
        mine = self.group.share(self.val_rows)
        logits = self.group.gather(score_rows(self.stepper.judged, self.val, mine, self.config.batch_size, self.device))
        figures = val_figures(self.val.index.frame.iloc[self.val_rows], logits, self.config.checkpoint_metric)
        if figures.tops(state.peak) or state.peak is None:
            state.peak = figures
        better = figures.better_than(state.best, state.peak)
        state.gains.append(better)
        if better:
            state.best, state.best_epoch = figures, state.epoch
            weights = self.stepper.judged.state_dict()
            self.best_weights = {k: v.detach().cpu().clone() for k, v in weights.items()}
            if self.group.leads:
                self.checkpoints.save_best(state.epoch, self.best_weights)
        seconds = state.elapsed_s + time.monotonic() - clock
        point = TrainingCurvePoint(
            epoch=state.epoch,
            train_loss=state.loss_sum / state.n_crops,
            val_loss=figures.loss,
            val_auc=figures.auc,
            learning_rate=self.stepper.optimizer.param_groups[0]["lr"],
            seconds=seconds,
        )
        self._report(point, figures, best=better)
        state.curve.append(point)
        state.total_s += seconds
        self._move_on(state)

    def _move_on(self, state: Progress) -> None:
        """Begin the next epoch, and with it the next phase if this one is over."""
        phase_over = (
            state.epoch - state.phase_start >= self.phases[state.phase].epochs
            or state.stale >= self.config.early_stopping_patience
        )
        if phase_over and state.phase + 1 == len(self.phases):
            state.finished = True
        elif phase_over:
            state.phase, state.phase_start, state.gains = state.phase + 1, state.epoch, []
            self._take_best(state)
            self.stepper.begin(self.phases[state.phase])
            if self.group.leads:
                logger.info("%s: now learns %s", self.detector.architecture, self.phases[state.phase].name)
        state.epoch += 1
        state.batch, state.n_crops, state.loss_sum, state.elapsed_s = 0, 0, 0.0, 0.0

    def _report(self, point: TrainingCurvePoint, figures: ValFigures, *, best: bool) -> None:
        if not self.group.leads:
            return
        self.listener.epoch(point, self.detector)
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
