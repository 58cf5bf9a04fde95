"""A plain convolutional network, as a start for one's own."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from unmask.detectors.base import IMAGENET_MEAN, IMAGENET_STD, Detector
from unmask.detectors.registry import register
from unmask.schemas import Preprocessing

WIDTHS = (32, 64, 128, 256)
HIDDEN_UNITS = 128


@register("custom_cnn", input_size_px=224)
class CustomCnn(Detector):
    """Four convolutional blocks with batch normalisation, average pooling, two fully connected layers.

    Args:
        input_size_px: Side of the input.
        imagenet: Not available.
    """

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        super().__init__(Preprocessing(size_px=input_size_px, mean=IMAGENET_MEAN, std=IMAGENET_STD))
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise((3, *WIDTHS)):
            layers += [nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()]
            layers += [nn.MaxPool2d(2)]
        self.blocks = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dense = nn.Sequential(nn.Dropout(0.5), nn.Linear(WIDTHS[-1], HIDDEN_UNITS), nn.ReLU())
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(HIDDEN_UNITS, 1))

    def embed(self, x: Tensor) -> Tensor:
        """See the base; D = 128."""
        embedding: Tensor = self.dense(self.blocks(x))
        return embedding
