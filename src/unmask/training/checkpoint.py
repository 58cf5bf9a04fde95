"""Checkpoints for exact resume: tensors in safetensors, everything else in its JSON header; in a folder or a bucket."""

from __future__ import annotations

import dataclasses
import json
import logging
from dataclasses import dataclass, field
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from unmask.objects import ObjectStore
from unmask.schemas import TrainingCurvePoint
from unmask.training.selection import ValFigures
from unmask.training.step import Stepper

logger = logging.getLogger(__name__)
FILE = "last.safetensors"


@dataclass
class Progress:
    """Where a training stands; everything that is not a tensor.

    Attributes:
        epoch: The epoch that is under way or comes next, 1-based.
        batch: Batches of that epoch that are done.
        loss_sum: Sum of the losses of its crops.
        n_crops: Number of its crops.
        elapsed_s: Wall time of this epoch so far.
        total_s: Wall time of the whole training so far.
        phase: Number of the phase of training, from 0.
        phase_start: Epochs that were done when it began.
        gains: One a finished epoch of the phase: whether it was the best so far.
        best_epoch: The chosen one; 0 before the first validation.
        best: Its figures.
        peak: Those with the highest figure so far.
        curve: One point a finished epoch.
        finished: Nothing is left to do.
    """

    epoch: int = 1
    batch: int = 0
    loss_sum: float = 0.0
    n_crops: int = 0
    elapsed_s: float = 0.0
    total_s: float = 0.0
    phase: int = 0
    phase_start: int = 0
    gains: list[bool] = field(default_factory=list)
    best_epoch: int = 0
    best: ValFigures | None = None
    peak: ValFigures | None = None
    curve: list[TrainingCurvePoint] = field(default_factory=list)
    finished: bool = False

    @property
    def stale(self) -> int:
        """Epochs of this phase since the best one."""
        return len(self.gains) - max((i + 1 for i, gain in enumerate(self.gains) if gain), default=0)

    def to_json(self) -> str:
        """Return the state as JSON; floats keep every bit."""
        values = dataclasses.asdict(self)
        values["curve"] = [point.model_dump() for point in self.curve]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> Progress:
        """Read what `to_json` wrote."""
        values = json.loads(text)
        values["curve"] = [TrainingCurvePoint.model_validate(point) for point in values["curve"]]
        for name in ("best", "peak"):
            values[name] = ValFigures(**values[name]) if values.get(name) else None
        return cls(**values)


class Checkpoints:
    """The checkpoints of one training.

    The best weights are an object of their own, written before the checkpoint that names it, so that a kill between
    the two leaves a checkpoint whose best weights exist.

    Args:
        store: A folder or a bucket; None keeps nothing.
        prefix: Start of the keys, of this training alone.
    """

    def __init__(self, store: ObjectStore | None, prefix: str = "") -> None:
        self.store = store
        self.prefix = prefix

    def exist(self) -> bool:
        """Whether there is a checkpoint to go on from.

        Raises:
            StorageError: The store cannot be reached.
        """
        return self.store is not None and self.store.stat(self._key(FILE)) is not None

    def save_best(self, epoch: int, weights: dict[str, Tensor]) -> None:
        """Write the weights of the best epoch so far."""
        self._save(self._best(epoch), weights, {})

    def load_best(self, epoch: int) -> dict[str, Tensor]:
        """Read the weights of the best epoch.

        Raises:
            StorageError: They are gone, or the store cannot be reached.
        """
        if self.store is None:
            raise ValueError("there are no checkpoints")
        return safetensors.torch.load(self.store.read(self._key(self._best(epoch))))

    def save(self, progress: Progress, stepper: Stepper) -> None:
        """Write a checkpoint, and remove best weights that it no longer names.

        Args:
            progress: Where the training stands.
            stepper: Holds detector and optimiser; left out when the training is finished, as only the best weights
                count then.
        """
        if self.store is None:
            return
        tensors: dict[str, Tensor] = {}
        if not progress.finished:
            tensors |= {f"model.{name}": tensor for name, tensor in stepper.detector.state_dict().items()}
            tensors |= {f"step.{name}": tensor for name, tensor in stepper.state().items()}
            for number, state in stepper.optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items() if value is not None}
            tensors |= _generator_states()
        self._save(FILE, tensors, {"progress": progress.to_json()})
        kept = self._key(self._best(progress.best_epoch))
        for stale in list(self.store.objects(self._key("best-"))):
            if stale.key != kept:
                self.store.delete(stale.key)

    def restore(self, stepper: Stepper) -> Progress:
        """Put detector, optimiser and random generators back to the last checkpoint.

        Args:
            stepper: Changed in place.

        Returns:
            Where the training stood; the beginning when there is no checkpoint.

        Raises:
            StorageError: The store cannot be reached.
        """
        key = self._key(FILE)
        if self.store is None or not self.exist():
            return Progress()
        content = self.store.read(key)
        try:
            progress = Progress.from_json(_metadata(content)["progress"])
            tensors = safetensors.torch.load(content)
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            logger.warning("%s is not a checkpoint (%s); training starts anew", self.store.address(key), error)
            return Progress()
        if not progress.finished:
            stepper.detector.load_state_dict(_below("model.", tensors))
            stepper.restore(_below("step.", tensors))
            _restore_optimizer(stepper.optimizer, _below("optimizer.", tensors))
            _restore_generators(_below("rng.", tensors))
        return progress

    def _best(self, epoch: int) -> str:
        return f"best-{epoch}.safetensors"

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}" if self.prefix else name

    def _save(self, name: str, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
        if self.store is not None:
            plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
            self.store.write(self._key(name), safetensors.torch.save(plain, metadata))


def _metadata(content: bytes) -> dict[str, str]:
    """Read the header of a safetensors file: its length in eight bytes, then JSON."""
    length = int.from_bytes(content[:8], "little")
    return dict(json.loads(content[8 : 8 + length])["__metadata__"])


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        number, _, key = name.partition(".")
        parameter = parameters[int(number)]
        if tensor.shape == parameter.shape and key != "step":
            # The memory layout of the parameter, as the optimiser itself would have made it.
            tensor = torch.empty_like(parameter).copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _generator_states() -> dict[str, Tensor]:
    states = {"rng.cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"rng.cuda.{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_generators(states: dict[str, Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda.") and int(name[5:]) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, int(name[5:]))
