"""EfficientNet-B4."""

from __future__ import annotations

from unmask.detectors.backbone import TimmDetector
from unmask.detectors.registry import register


@register("efficientnet_b4", input_size_px=224, imagenet=True)
class EfficientNetB4(TimmDetector):
    """EfficientNet-B4 of Tan and Le, ICML 2019: 1792 pooled features, ImageNet mean and deviation.

    Args:
        input_size_px: Side of the input; its own training size was 380 (320 in timm).
        imagenet: Start from ImageNet weights.
    """

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        super().__init__("efficientnet_b4", input_size_px=input_size_px, imagenet=imagenet)
