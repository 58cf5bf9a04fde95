"""Attacks: crops changed a little, by somebody who knows the detector, so that it errs.

An attack changes no level of a crop by more than epsilon of 255 (L∞) and works through everything that the detector
does to a crop: the gradient goes through resizing, rounding (straight through) and normalisation. What comes out is
rounded to whole levels, so it is a crop that a file can hold, and the detector scores it as it scores any other.

Attacked are the crops, not the video before face detection and compression: an attacker of a whole system has to
survive those too, so the figures are those of a stronger attacker than most.

The attacks are those of the Adversarial Robustness Toolbox: FGSM (Goodfellow et al., 2015), PGD from a random start
(Madry et al., 2018), APGD on cross-entropy (Croce & Hein, 2020), Square (Andriushchenko et al., 2020; asks for scores
only).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from unmask.config import AttackName
from unmask.detectors.base import Detector
from unmask.errors import InputError, MissingExtraError
from unmask.evaluation.perturbations import Image
from unmask.media.preprocessing import interpolation_for
from unmask.schemas import Preprocessing

LEVELS = 255.0
BATCH_CROPS = 16
# A step of PGD; so many of them can reach any corner of the cube twice over (Madry et al., 2018).
STEP_SHARE = 2.5
QUERIES_PER_STEP = 20


@dataclass(frozen=True)
class Attack:
    """One kind of attack.

    Attributes:
        name: As in the configuration and the robustness table.
        title: As in the report.
        knows: What the attacker needs of the detector.
        meaning: What it does, in plain words.
    """

    name: AttackName
    title: str
    knows: str
    meaning: str


_ALL = (
    Attack("fgsm", "FGSM", "its weights", "one step against the detector, of the whole size that is allowed"),
    Attack("pgd", "PGD", "its weights", "many small steps against the detector, from a random start"),
    Attack("apgd", "APGD-CE", "its weights", "many steps with momentum, smaller where they no longer help"),
    Attack("square", "Square", "its scores only", "random squares, kept where they mislead the detector further"),
)
ATTACKS: Mapping[str, Attack] = MappingProxyType({one.name: one for one in _ALL})


class CropClassifier(nn.Module):
    """A detector from the levels of a crop on, with its preprocessing as differentiable operations.

    Args:
        detector: In evaluation mode.
        height_px: Of the crops.
        width_px: Of the crops.
    """

    rows: Tensor
    columns: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, detector: Detector, height_px: int, width_px: int) -> None:
        super().__init__()
        self.detector = detector.eval().requires_grad_(False)
        settings = detector.preprocessing
        if not isinstance(settings, Preprocessing):
            raise InputError(f"{detector.architecture} takes sound.", "Attacks change pictures; leave it out.")
        rows, columns = resize_operators(height_px, width_px, settings.size_px)
        self.register_buffer("rows", torch.from_numpy(rows))
        self.register_buffer("columns", torch.from_numpy(columns))
        self.register_buffer("mean", torch.tensor(settings.mean).reshape(3, 1, 1) * LEVELS)
        self.register_buffer("std", torch.tensor(settings.std).reshape(3, 1, 1) * LEVELS)

    def inputs(self, levels: Tensor) -> Tensor:
        """Preprocess.

        Args:
            levels: ``(N, 3, H, W)``, float32, 0 to 255.

        Returns:
            ``(N, 3, S, S)``, as `unmask.media.preprocessing.to_input` gives it for whole levels.
        """
        resized = self.rows @ levels @ self.columns.T
        # A crop has whole levels after resizing too; the gradient passes as if it had not been rounded.
        rounded = resized + (resized.round() - resized).detach()
        normalised: Tensor = (rounded - self.mean) / self.std
        return normalised

    def forward(self, levels: Tensor) -> Tensor:
        """Score.

        Args:
            levels: ``(N, 3, H, W)``, float32, 0 to 255.

        Returns:
            ``(N, 2)`` for real and fake, of which the softmax is the sigmoid of the detector's logit. Both columns
            depend on it, so that float32 still has a gradient where the detector is very sure.
        """
        logits = self.detector(self.inputs(levels))
        return torch.stack([-logits / 2, logits / 2], dim=1)


def resize_operators(height_px: int, width_px: int, size_px: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Write the resizing of a crop as two matrices, by resizing the identity as crops are resized.

    Args:
        height_px: Of the crops.
        width_px: Of the crops.
        size_px: Of the result.

    Returns:
        ``(S, H)`` and ``(S, W)``; the resized crop is ``rows @ crop @ columns.T``.
    """
    interpolation = interpolation_for(max(height_px, width_px), size_px)

    def operator(length: int) -> NDArray[np.float32]:
        if length == size_px:
            return np.eye(length, dtype=np.float32)
        resized: Any = cv2.resize(np.eye(length, dtype=np.float32), (length, size_px), interpolation=interpolation)
        return np.asarray(resized, np.float32)

    return operator(height_px), operator(width_px)


class Attacker:
    """Attacks one detector.

    Args:
        detector: Loaded for this alone: its parameters get no gradient any more.
        device: ``cpu`` or ``cuda``.
        steps: Of PGD and APGD; Square asks for scores 20 times as often.

    Raises:
        MissingExtraError: The library of attacks is not installed.
    """

    def __init__(self, detector: Detector, device: str = "cpu", steps: int = 10) -> None:
        _library()
        self.detector = detector.to(device)
        self.device = device
        self.steps = steps
        self._classifiers: dict[tuple[int, int], Any] = {}

    def craft(
        self, images: Sequence[Image], labels: Sequence[int], name: AttackName, epsilon: int, seed: int
    ) -> list[Image]:
        """Change crops so that the detector takes reals for fakes and fakes for reals.

        Args:
            images: N RGB crops ``(H, W, 3)``, uint8.
            labels: ``(N,)``, 0 real and 1 fake: the truth.
            name: Of the attack.
            epsilon: Most that a level may change; 0 gives the crops back.
            seed: Of random starts and squares.

        Returns:
            N crops of the same shapes, uint8, each level within ``epsilon`` of what it was and within 0 to 255.
        """
        if epsilon == 0:
            return list(images)
        out: list[Image] = list(images)
        for shape in sorted({image.shape[:2] for image in images}):
            places = [place for place, image in enumerate(images) if image.shape[:2] == shape]
            for start in range(0, len(places), BATCH_CROPS):
                batch = places[start : start + BATCH_CROPS]
                stacked = np.stack([images[place] for place in batch])
                truth = np.array([labels[place] for place in batch])
                crafted = self._craft_batch(stacked, truth, name, epsilon, seed + start)
                for place, image in zip(batch, crafted, strict=True):
                    out[place] = image
        return out

    def _craft_batch(
        self, images: NDArray[np.uint8], labels: NDArray[np.int64], name: AttackName, epsilon: int, seed: int
    ) -> NDArray[np.uint8]:
        levels = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).astype(np.float32)
        truth = np.eye(2, dtype=np.float32)[labels]
        with _seeded(seed):
            crafted = _CRAFTERS[name](self._classifier(images.shape[1:3]), levels, truth, epsilon, self.steps)
        # Whole levels, so that the crop can be stored; epsilon is whole, so the bound is kept.
        whole = np.clip(np.rint(crafted), np.maximum(levels - epsilon, 0), np.minimum(levels + epsilon, LEVELS))
        return np.ascontiguousarray(whole.astype(np.uint8).transpose(0, 2, 3, 1))

    def _classifier(self, shape: tuple[int, ...]) -> Any:
        height_px, width_px = shape
        if (height_px, width_px) not in self._classifiers:
            from art.estimators.classification import PyTorchClassifier

            self._classifiers[height_px, width_px] = PyTorchClassifier(
                model=CropClassifier(self.detector, height_px, width_px).to(self.device),
                loss=nn.CrossEntropyLoss(),
                input_shape=(3, height_px, width_px),
                nb_classes=2,
                clip_values=(0.0, LEVELS),
                device_type="gpu" if self.device.startswith("cuda") else "cpu",
            )
        return self._classifiers[height_px, width_px]


Levels = NDArray[np.float32]


def _library() -> None:
    try:
        import art.attacks.evasion
        import art.estimators.classification  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("Attacking detectors (evaluate.attacks)", "analysis") from error


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed numpy's global generator, the only one that the library draws from, and put it back afterwards."""
    state = np.random.get_state()  # noqa: NPY002 - the library takes no generator
    np.random.seed(seed % 2**32)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002


def _fgsm(classifier: Any, levels: Levels, truth: Levels, epsilon: int, steps: int) -> Levels:
    from art.attacks.evasion import FastGradientMethod

    attack = FastGradientMethod(classifier, norm=np.inf, eps=epsilon, batch_size=len(levels))
    return np.asarray(attack.generate(levels, truth), np.float32)


def _pgd(classifier: Any, levels: Levels, truth: Levels, epsilon: int, steps: int) -> Levels:
    from art.attacks.evasion import ProjectedGradientDescentPyTorch

    attack = ProjectedGradientDescentPyTorch(
        classifier,
        norm=np.inf,
        eps=epsilon,
        eps_step=STEP_SHARE * epsilon / steps,
        max_iter=steps,
        num_random_init=1,
        batch_size=len(levels),
        verbose=False,
    )
    return np.asarray(attack.generate(levels, truth), np.float32)


def _apgd(classifier: Any, levels: Levels, truth: Levels, epsilon: int, steps: int) -> Levels:
    from art.attacks.evasion import AutoProjectedGradientDescent

    attack = AutoProjectedGradientDescent(
        classifier,
        norm=np.inf,
        eps=epsilon,
        eps_step=2.0 * epsilon,
        max_iter=steps,
        batch_size=len(levels),
        verbose=False,
    )
    with _never_misled(classifier, truth):
        attack.generate(levels, truth)
    # The library gives back only what was misled; a ranking suffers from every point that was moved, so take the best.
    return np.asarray(attack.x_max, np.float32)


@contextmanager
def _never_misled(classifier: Any, truth: Levels) -> Iterator[None]:
    """Let every crop be attacked to the end: also those on which the detector errs from the start."""
    classifier.predict = lambda x, **_: truth
    try:
        yield
    finally:
        del classifier.predict


def _square(classifier: Any, levels: Levels, truth: Levels, epsilon: int, steps: int) -> Levels:
    from art.attacks.evasion import SquareAttack

    attack = SquareAttack(
        classifier,
        norm=np.inf,
        eps=epsilon,
        max_iter=QUERIES_PER_STEP * steps,
        adv_criterion=lambda scores, _: np.zeros(len(scores), bool),  # never done before the last query
        batch_size=len(levels),
        verbose=False,
    )
    return np.asarray(attack.generate(levels.copy(), truth), np.float32)


_CRAFTERS: Mapping[AttackName, Callable[[Any, Levels, Levels, int, int], Levels]] = MappingProxyType(
    {"fgsm": _fgsm, "pgd": _pgd, "apgd": _apgd, "square": _square}
)
