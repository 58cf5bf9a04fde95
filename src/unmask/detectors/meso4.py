"""Meso4, a small network for mesoscopic traces of face forgery."""

from __future__ import annotations

import itertools

from torch import Tensor, nn

from unmask.detectors.base import UNIT_RANGE, Detector
from unmask.detectors.registry import register
from unmask.errors import ConfigError
from unmask.schemas import Preprocessing

# The Keras reference; torch's own 1e-5 would give other outputs for published weights.
BATCH_NORM_EPS = 1e-3
FILTERS_AND_KERNELS = ((8, 3), (8, 5), (16, 5), (16, 5))
POOLS = (2, 2, 2, 4)
HIDDEN_UNITS = 16
LEAKY_SLOPE = 0.1
DENSE_GAIN = 0.1


def conv_block(in_channels: int, out_channels: int, kernel_px: int, pool: int) -> nn.Sequential:
    """Make a same-padded convolution with ReLU, batch normalisation and max-pooling, in this order.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_px: Odd side of the kernel.
        pool: Side and stride of the pooling.

    Returns:
        Module ``(N, C, H, W) -> (N, C', H/pool, W/pool)``.
    """
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel_px, padding=kernel_px // 2),
        nn.ReLU(),
        nn.BatchNorm2d(out_channels, eps=BATCH_NORM_EPS),
        nn.MaxPool2d(pool),
    )


def initialise(module: nn.Module) -> None:
    """Draw Glorot-uniform kernels as Keras does, with dense kernels ten times smaller, and zero biases.

    At full size the first logits are several units wide, and under the heavy dropout a short training spends most of
    its steps on unlearning them.

    Args:
        module: Its convolutions and linear layers are drawn anew.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(layer.weight, gain=DENSE_GAIN if isinstance(layer, nn.Linear) else 1.0)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class MesoHead(nn.Module):
    """The dense part that Meso4 and MesoInception4 share: dropout, dense 16, leaky ReLU.

    Args:
        n_inputs: Flattened size of the feature maps.
    """

    def __init__(self, n_inputs: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)
        self.dense = nn.Linear(n_inputs, HIDDEN_UNITS)
        self.act = nn.LeakyReLU(LEAKY_SLOPE)

    def forward(self, maps: Tensor) -> Tensor:
        """Map feature maps ``(N, 16, h, w)`` to embeddings ``(N, 16)``."""
        # The reference flattens channels last; kept, so that its published weights can be taken over unchanged.
        flat = maps.permute(0, 2, 3, 1).flatten(1)
        embedding: Tensor = self.act(self.dense(self.drop(flat)))
        return embedding


def meso_map_side_px(input_size_px: int) -> int:
    """Side of the last feature map of the Meso networks.

    Args:
        input_size_px: Side of the input.

    Returns:
        The side; all pools together divide by 32.

    Raises:
        ConfigError: The input size is not a multiple of 32.
    """
    if input_size_px % 32:
        raise ConfigError(
            f"The Meso networks take an input side that is a multiple of 32, not {input_size_px}.",
            "Set input_size_px to 256 (as published), or to 128 for quick work.",
        )
    return input_size_px // 32


@register("meso4", input_size_px=256)
class Meso4(Detector):
    """Meso4 of Afchar et al., "MesoNet: a Compact Facial Video Forgery Detection Network", WIFS 2018.

    Four convolutional blocks and a dense head; 27,977 parameters at 256 px. Input RGB in [0, 1]. The running
    statistics of batch normalisation move faster (0.1 a step) than in the Keras reference (0.01), because short
    trainings have too few steps for the latter; outputs of trained weights are not touched by this.

    Args:
        input_size_px: Side of the input; 256 as published.
        imagenet: Not available.
    """

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        super().__init__(Preprocessing(size_px=input_size_px, mean=UNIT_RANGE[0], std=UNIT_RANGE[1]))
        side_px = meso_map_side_px(input_size_px)
        channels = (3, *(filters for filters, _ in FILTERS_AND_KERNELS))
        self.blocks = nn.Sequential(
            *(
                conv_block(n_in, n_out, kernel_px, pool)
                for (n_in, n_out), (_, kernel_px), pool in zip(
                    itertools.pairwise(channels), FILTERS_AND_KERNELS, POOLS, strict=True
                )
            )
        )
        self.dense = MesoHead(channels[-1] * side_px**2)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(HIDDEN_UNITS, 1))
        initialise(self)

    def embed(self, x: Tensor) -> Tensor:
        """See the base; D = 16."""
        embedding: Tensor = self.dense(self.blocks(x))
        return embedding
