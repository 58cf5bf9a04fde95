"""One optimiser step: precision, accumulation, memory, several processes, and the moving average of the weights."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from unmask.config import TrainConfig
from unmask.detectors import Detector
from unmask.errors import InputError
from unmask.training.device import autocast_type
from unmask.training.loader import Batch
from unmask.training.mixing import mix
from unmask.training.objective import Objective, make_optimizer
from unmask.training.parallel import ALONE, Group
from unmask.training.phases import Phase, freeze, layers_by_stage

logger = logging.getLogger(__name__)
SMALLEST_CHUNK = 2  # batch normalisation cannot do with one crop


def on_device(inputs: Tensor, device: torch.device) -> Tensor:
    """Bring a batch to a device, without waiting for a GPU."""
    if device.type == "cuda":
        inputs = inputs.pin_memory()
    return in_layout(inputs.to(device, non_blocking=True))


def in_layout(inputs: Tensor) -> Tensor:
    """Lay pictures out channels last, which is quicker; sound has no channels."""
    return inputs.contiguous(memory_format=torch.channels_last) if inputs.ndim == 4 else inputs.contiguous()


class Stepper:
    """Takes optimiser steps.

    A batch of ``batch_size * accumulate`` crops is one step. It passes through the detector in chunks of
    ``batch_size``; when memory runs out, chunks are halved from then on and the step is done again, so that only time
    is lost.

    Args:
        detector: On ``device``; trained in place.
        config: Resolved for this detector.
        objective: The loss of each crop.
        device: Where to compute.
        group: The processes that train together.

    Raises:
        ConfigError: The detector has no pretrained part, but the strategy wants one.
    """

    def __init__(
        self, detector: Detector, config: TrainConfig, objective: Objective, device: torch.device, group: Group = ALONE
    ) -> None:
        self.detector = detector
        self.config = config
        self.objective = objective
        self.device = device
        self.group = group
        self.layers = layers_by_stage(detector, config.strategy)
        self.optimizer = make_optimizer(self.layers, config)
        self.chunk = config.batch_size
        self.half = autocast_type(config.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.half == torch.float16)
        self.average: AveragedModel | None = None
        if config.ema_decay:
            self.average = AveragedModel(
                detector,
                multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay),  # type: ignore[no-untyped-call]
                use_buffers=True,
            ).requires_grad_(False)
        self.model: nn.Module = detector
        self.factors: Sequence[float] = (1, 1, 1, 1)
        self.gradient_norm = 0.0  # of the last step, before clipping

    @property
    def judged(self) -> Detector:
        """The detector that validation looks at: the moving average, where there is one."""
        if self.average is None:
            return self.detector
        averaged: Detector = self.average.module  # type: ignore[assignment]
        return averaged

    def begin(self, phase: Phase) -> None:
        """Freeze and unfreeze what the phase says."""
        freeze(self.detector, self.layers, phase)
        self.factors = phase.factors
        self.model = self.detector
        if self.config.compile:
            self.model = torch.compile(self.model)  # type: ignore[assignment]
        if self.group.size > 1:
            gpu = [self.device.index] if self.device.type == "cuda" else None
            self.model = DistributedDataParallel(self.model, device_ids=gpu)

    def step(self, batch: Batch, n_crops: int, learning_rate: float, rng: np.random.Generator) -> float:
        """Take one step.

        Args:
            batch: This process's crops.
            n_crops: Of all processes.
            learning_rate: Of the new layers; stages have theirs as a factor of it.
            rng: Source of MixUp and CutMix.

        Returns:
            Mean loss of the crops of all processes.

        Raises:
            InputError: Training diverges, or not even the smallest chunk fits into memory.
        """
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate * self.factors[parameters["stage"]]
        inputs, labels = on_device(batch.inputs, self.device), batch.labels.to(self.device, non_blocking=True)
        inputs, labels = mix(inputs, labels, self.config.augmentation, rng)
        while True:
            try:
                loss = self._gradients(inputs, labels, n_crops)
                break
            except torch.OutOfMemoryError as error:
                self._make_room(error)
        self._update()
        return self.group.sum(loss)

    def _gradients(self, inputs: Tensor, labels: Tensor, n_crops: int) -> Tensor:
        """Compute gradients chunk by chunk; return this process's share of the mean loss."""
        self.optimizer.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        n_chunks = -(-len(inputs) // self.chunk)
        chunks = list(zip(inputs.tensor_split(n_chunks), labels.tensor_split(n_chunks), strict=True))
        for number, (some, wanted) in enumerate(chunks, start=1):
            # Gradients of several processes are exchanged once, with the last chunk.
            waiting = isinstance(self.model, DistributedDataParallel) and number < len(chunks)
            with self.model.no_sync() if waiting else nullcontext():  # type: ignore[operator]
                with torch.autocast(self.device.type, dtype=self.half, enabled=self.half is not None):
                    logits = self.model(in_layout(some))
                loss = self.objective(logits, wanted).sum() / n_crops
                # Exchanged gradients are averaged over the processes, and the mean over all crops is wanted.
                self.scaler.scale(loss * self.group.size).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _make_room(self, error: torch.OutOfMemoryError) -> None:
        if self.group.size > 1 or self.chunk <= SMALLEST_CHUNK:
            raise InputError(
                f"{self.detector.architecture} needs more memory than {self.device} has, at {self.chunk} crops a pass.",
                "Lower train.batch_size and raise train.accumulate by the same factor, or lower train.input_size_px.",
            ) from error
        self.chunk = max(SMALLEST_CHUNK, self.chunk // 2)
        self.optimizer.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        logger.warning("Memory ran out: from now on %d crops pass at a time, with the same steps.", self.chunk)

    def _update(self) -> None:
        self.scaler.unscale_(self.optimizer)
        norm = float(nn.utils.clip_grad_norm_(self.detector.parameters(), self.config.gradient_norm))
        self.gradient_norm = norm
        # With scaled gradients an overflow now and then is normal: the scaler leaves that step out.
        if not np.isfinite(norm) and not self.scaler.is_enabled():
            raise InputError(
                f"The training of {self.detector.architecture} diverged: the gradient is {norm}.",
                f"Lower train.learning_rate (now {self.config.learning_rate:g}).",
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.detector.project()
        if self.average is not None:
            self.average.update_parameters(self.detector)

    def state(self) -> dict[str, Tensor]:
        """Return what a resume needs besides weights and optimiser."""
        state = {"chunk": torch.tensor(self.chunk)}
        if self.average is not None:
            state |= {f"average.{name}": tensor for name, tensor in self.average.state_dict().items()}
        if self.scaler.is_enabled():
            kept = self.scaler.state_dict()
            state |= {f"scaler.{name}": torch.tensor(kept[name]) for name in ("scale", "_growth_tracker")}
        return state

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what `state` returned."""
        self.chunk = int(state["chunk"])
        if self.average is not None:
            self.average.load_state_dict(
                {name.removeprefix("average."): t for name, t in state.items() if name.startswith("average.")}
            )
        if self.scaler.is_enabled():
            kept = self.scaler.state_dict()
            kept |= {"scale": float(state["scaler.scale"]), "_growth_tracker": int(state["scaler._growth_tracker"])}
            self.scaler.load_state_dict(kept)
