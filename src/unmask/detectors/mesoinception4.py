"""MesoInception4: Meso4 with two inception modules in front."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from unmask.detectors.base import UNIT_RANGE, Detector
from unmask.detectors.meso4 import (
    BATCH_NORM_EPS,
    HIDDEN_UNITS,
    MesoHead,
    conv_block,
    initialise,
    meso_map_side_px,
)
from unmask.detectors.registry import register
from unmask.schemas import Preprocessing


class DilatedInception(nn.Module):
    """Four parallel branches: 1×1, and 1×1 followed by 3×3 with dilation 1, 2 and 3; ReLU after every convolution.

    Args:
        in_channels: Channels in.
        widths: Channels of each branch.
    """

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList([nn.Sequential(nn.Conv2d(in_channels, widths[0], 1), nn.ReLU())])
        for dilation, width in enumerate(widths[1:], 1):
            self.branches.append(
                nn.Sequential(
                    nn.Conv2d(in_channels, width, 1),
                    nn.ReLU(),
                    nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation),
                    nn.ReLU(),
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, sum of widths, H, W)``."""
        return torch.cat([branch(x) for branch in self.branches], dim=1)


@register("mesoinception4", input_size_px=256)
class MesoInception4(Detector):
    """MesoInception4 of Afchar et al., "MesoNet: a Compact Facial Video Forgery Detection Network", WIFS 2018.

    28,615 parameters at 256 px. Input RGB in [0, 1]. On the running statistics see `Meso4`.

    Args:
        input_size_px: Side of the input; 256 as published.
        imagenet: Not available.
    """

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        super().__init__(Preprocessing(size_px=input_size_px, mean=UNIT_RANGE[0], std=UNIT_RANGE[1]))
        side_px = meso_map_side_px(input_size_px)
        self.blocks = nn.Sequential(
            DilatedInception(3, (1, 4, 4, 2)),
            nn.BatchNorm2d(11, eps=BATCH_NORM_EPS),
            nn.MaxPool2d(2),
            DilatedInception(11, (2, 4, 4, 2)),
            nn.BatchNorm2d(12, eps=BATCH_NORM_EPS),
            nn.MaxPool2d(2),
            conv_block(12, 16, 5, 2),
            conv_block(16, 16, 5, 4),
        )
        self.dense = MesoHead(16 * side_px**2)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(HIDDEN_UNITS, 1))
        initialise(self)

    def embed(self, x: Tensor) -> Tensor:
        """See the base; D = 16."""
        embedding: Tensor = self.dense(self.blocks(x))
        return embedding
