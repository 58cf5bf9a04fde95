"""Xception, the strongest plain baseline of FaceForensics++."""

from __future__ import annotations

from unmask.detectors.backbone import TimmDetector
from unmask.detectors.base import SYMMETRIC_RANGE
from unmask.detectors.registry import register


@register("xception", input_size_px=299, imagenet=True)
class Xception(TimmDetector):
    """Xception as Rössler et al. use it in "FaceForensics++", ICCV 2019: 2048 pooled features, input in [-1, 1].

    Args:
        input_size_px: Side of the input; 299 as published.
        imagenet: Start from ImageNet weights.
    """

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        mean, std = SYMMETRIC_RANGE
        super().__init__("legacy_xception", input_size_px=input_size_px, imagenet=imagenet, mean=mean, std=std)
