"""ResNet-50."""

from __future__ import annotations

from unmask.detectors.backbone import TimmDetector
from unmask.detectors.registry import register


@register("resnet50", input_size_px=224, imagenet=True)
class ResNet50(TimmDetector):
    """ResNet-50 of He et al., CVPR 2016: 2048 pooled features, a new binary head.

    Args:
        input_size_px: Side of the input.
        imagenet: Start from ImageNet weights.
    """

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        super().__init__("resnet50", input_size_px=input_size_px, imagenet=imagenet)
