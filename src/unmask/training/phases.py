"""Which layers learn when: from scratch, fine-tuning, transfer, and unfreezing stage by stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from unmask.config import TrainConfig
from unmask.detectors import Detector
from unmask.errors import ConfigError

N_STAGES = 3
HEAD_SHARE = 0.5


@dataclass(frozen=True)
class Phase:
    """A stretch of training with the same layers.

    Attributes:
        name: For the log.
        epochs: Its length; early stopping may end it before.
        factors: Learning rate of the new layers and of the stages of the pretrained part from the top down, as a
            factor; 0 is frozen.
    """

    name: str
    epochs: int
    factors: tuple[float, float, float, float]


def plan_phases(config: TrainConfig) -> list[Phase]:
    """Lay out the phases of a training.

    Args:
        config: ``strategy``, ``epochs`` and ``stage_factors``.

    Returns:
        The phases; their epochs sum to ``config.epochs``.

    Raises:
        ConfigError: There are fewer epochs than phases.
    """
    if config.strategy == "full":
        return [Phase("all layers", config.epochs, (1, 1, 1, 1))]
    if config.strategy == "frozen":
        return [Phase("new layers", config.epochs, (1, 0, 0, 0))]
    n_after = N_STAGES if config.strategy == "staged" else 1
    if config.epochs < n_after + 1:
        raise ConfigError(
            f"train.strategy {config.strategy} has {n_after + 1} phases, but train.epochs is {config.epochs}.",
            f"Set train.epochs to {n_after + 1} or more, or train.strategy to full.",
        )
    first = max(1, min(config.epochs - n_after, round(HEAD_SHARE * config.epochs)))
    head = Phase("new layers", first, (1, 0, 0, 0))
    top, middle, bottom = config.stage_factors
    if config.strategy == "quick":
        return [head, Phase("all layers, slowly", config.epochs - first, (top, top, top, top))]
    left = [(config.epochs - first + i) // N_STAGES for i in range(N_STAGES)]
    return [
        head,
        Phase("and the top third", left[2], (top, top, 0, 0)),
        Phase("and the middle third", left[1], (middle, middle, middle, 0)),
        Phase("all layers", left[0], (bottom, bottom, bottom, bottom)),
    ]


def layers_by_stage(detector: Detector, strategy: str) -> list[list[nn.Parameter]]:
    """Sort the trainable parameters of a detector by when they are unfrozen.

    Args:
        detector: Says in ``pretrained_parts`` which of its modules are pretrained.
        strategy: Of `TrainConfig`.

    Returns:
        New layers first, then thirds of the layers of the pretrained parts from the top (next to the head) down.

    Raises:
        ConfigError: The strategy wants a pretrained part, and the detector has none.
    """
    trainable = {name: p for name, p in detector.named_parameters() if p.requires_grad}
    pretrained = [
        name for name in trainable if name.startswith(tuple(f"{part}." for part in detector.pretrained_parts))
    ]
    stages: list[list[nn.Parameter]] = [[] for _ in range(N_STAGES + 1)]
    if strategy == "full" or not pretrained:
        # A linear probe has frozen its backbone itself; it is as it should be with `frozen`.
        if strategy != "full" and len(trainable) == len(list(detector.parameters())):
            raise ConfigError(
                f"train.strategy is {strategy}, but {detector.architecture} has no pretrained part to freeze.",
                f"Set strategy: full for it under train.models, as `{detector.architecture}: {{strategy: full}}`.",
            )
        stages[0] = list(trainable.values())
        return stages
    stages[0] = [p for name, p in trainable.items() if name not in pretrained]
    for part in detector.pretrained_parts:
        names = [name for name in pretrained if name.startswith(f"{part}.")]
        layers = list(dict.fromkeys(name.rpartition(".")[0] for name in names))
        for name in names:
            depth = layers.index(name.rpartition(".")[0]) * N_STAGES // len(layers)
            stages[N_STAGES - depth].append(trainable[name])
    return stages


def freeze(detector: Detector, layers: Sequence[Sequence[nn.Parameter]], phase: Phase) -> None:
    """Let only the layers of a phase learn.

    Args:
        detector: Changed in place.
        layers: From `layers_by_stage`.
        phase: Says which stages learn.
    """
    for parameters, factor in zip(layers, phase.factors, strict=True):
        for parameter in parameters:
            parameter.requires_grad_(factor > 0)


def train_mode(detector: Detector) -> None:
    """Set training mode; normalisation layers whose weights are frozen keep their running statistics too."""
    detector.train()
    for module in detector.modules():
        own = list(module.parameters(recurse=False))
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and own and not any(p.requires_grad for p in own):
            module.eval()
