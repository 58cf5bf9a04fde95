"""A linear probe on frozen features: the baseline that every table needs."""

from __future__ import annotations

import logging
from typing import Self

from torch import nn

from unmask.detectors.backbone import TimmDetector
from unmask.detectors.base import Detector
from unmask.detectors.registry import register, register_family

logger = logging.getLogger(__name__)


class FrozenProbe(TimmDetector):
    """A timm backbone that is never trained, and one linear unit on its standardised features.

    Args:
        model: Its name in timm.
        input_size_px: Side of the input; None is the size that the model was made for.
        imagenet: Start from ImageNet weights; without them, or a weight file, the features are those of chance.
    """

    def __init__(self, model: str, *, input_size_px: int | None = None, imagenet: bool = False) -> None:
        super().__init__(model, input_size_px=input_size_px, imagenet=imagenet, dropout=0.0)
        self.backbone.requires_grad_(False)
        linear = self.head[-1]  # type: ignore[index]
        self.head = nn.Sequential(nn.BatchNorm1d(linear.in_features, affine=False), linear)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode; the backbone stays in evaluation mode, so that its running statistics stay what they are."""
        super().train(mode)
        self.backbone.eval()
        return self


@register("linear_probe", input_size_px=224, imagenet=True)
class LinearProbe(FrozenProbe):
    """A linear probe on frozen ResNet-50 features; 2,049 trainable parameters.

    Args:
        input_size_px: Side of the input.
        imagenet: Start from ImageNet weights.
    """

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        super().__init__("resnet50", input_size_px=input_size_px, imagenet=imagenet)


@register_family("linear_probe")
def probe_of(model: str, *, input_size_px: int | None, imagenet: bool) -> Detector:
    """Build ``linear_probe:<model>``: a linear probe on the frozen features of any timm backbone."""
    return FrozenProbe(model, input_size_px=input_size_px, imagenet=imagenet)
