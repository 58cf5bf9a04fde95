"""F3Net: frequency-aware decomposition and local frequency statistics in two streams that look at each other."""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from unmask.detectors.backbone import create_backbone
from unmask.detectors.base import SYMMETRIC_RANGE, Detector
from unmask.detectors.registry import register
from unmask.errors import ConfigError
from unmask.schemas import Preprocessing

WINDOW_PX = 10
WINDOW_STRIDE_PX = 2
LOCAL_BANDS = 6
# Half of a grey level's rounding error: below it a coefficient is noise, and its logarithm would be noise as well.
LOG_FLOOR = 1e-2
LUMA = (0.299, 0.587, 0.114)


def dct_matrix(size: int) -> NDArray[np.float64]:
    """Orthonormal DCT-II matrix.

    Args:
        size: Number of points.

    Returns:
        ``(size, size)``; row k is the k-th basis function, so that ``D @ x`` transforms columns.
    """
    frequency, position = np.indices((size, size))
    matrix = np.cos(math.pi * frequency * (2 * position + 1) / (2 * size)) * math.sqrt(2 / size)
    matrix[0] /= math.sqrt(2)
    return matrix


def band_mask(size: int, low: float, high: float) -> NDArray[np.float64]:
    """Mask of the coefficients whose indices sum to between ``low`` and ``high``, both included.

    Args:
        size: Side of the coefficient square.
        low: Smallest sum.
        high: Largest sum.

    Returns:
        ``(size, size)``, 0 or 1.
    """
    total = np.add.outer(np.arange(size), np.arange(size))
    return ((total >= low) & (total <= high)).astype(np.float64)


def bounded(weight: Tensor) -> Tensor:
    """Squash learnable mask weights into (-1, 1)."""
    return 2 * torch.sigmoid(weight) - 1


class FrequencyDecomposition(nn.Module):
    """FAD: the image split into low, middle, high and all frequencies by fixed masks plus learnable ones.

    Args:
        size_px: Side of the image.
    """

    dct: Tensor
    base: Tensor

    def __init__(self, size_px: int) -> None:
        super().__init__()
        edges = ((0, size_px / 2.82), (size_px / 2.82, size_px / 2), (size_px / 2, 2 * size_px), (0, 2 * size_px))
        masks = np.stack([band_mask(size_px, low, high) for low, high in edges])
        self.register_buffer("dct", torch.from_numpy(dct_matrix(size_px)).float(), persistent=False)
        self.register_buffer("base", torch.from_numpy(masks).float().unsqueeze(1), persistent=False)
        self.learnable = nn.Parameter(torch.randn(len(edges), 1, size_px, size_px) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, S, S)`` to their bands ``(N, 12, S, S)``, three channels a band."""
        spectrum = (self.dct @ x @ self.dct.T).unsqueeze(1)
        bands = spectrum * (self.base + bounded(self.learnable))
        return (self.dct.T @ bands @ self.dct).flatten(1, 2)


class LocalStatistics(nn.Module):
    """LFS: in each sliding window, the log magnitude of the DCT averaged over frequency bands."""

    basis: Tensor
    base: Tensor
    luma: Tensor

    def __init__(self) -> None:
        super().__init__()
        matrix = dct_matrix(WINDOW_PX)
        basis = np.einsum("ki,lj->klij", matrix, matrix).reshape(-1, 1, WINDOW_PX, WINDOW_PX)
        step = 2 * WINDOW_PX / LOCAL_BANDS
        masks = np.stack([band_mask(WINDOW_PX, step * i, step * (i + 1)) for i in range(LOCAL_BANDS)])
        self.register_buffer("basis", torch.from_numpy(basis).float(), persistent=False)
        self.register_buffer("base", torch.from_numpy(masks).float(), persistent=False)
        self.register_buffer("luma", torch.tensor(LUMA).view(1, 3, 1, 1), persistent=False)
        self.learnable = nn.Parameter(torch.randn(LOCAL_BANDS, WINDOW_PX, WINDOW_PX) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, S, S)`` in [-1, 1] to statistics ``(N, 6, S/2, S/2)``."""
        grey = functional.conv2d((x + 1) * 127.5, self.luma)
        # A 10×10 DCT of every window is a convolution with the 100 basis pictures.
        padding = (WINDOW_PX - WINDOW_STRIDE_PX) // 2
        spectrum = functional.conv2d(grey, self.basis, stride=WINDOW_STRIDE_PX, padding=padding)
        magnitude = torch.log10(spectrum.abs() + LOG_FLOOR)
        mask_size = self.base.sum(dim=(1, 2), keepdim=True)
        weights = (self.base + bounded(self.learnable)) / mask_size
        return functional.conv2d(magnitude, weights.flatten(1)[:, :, None, None])


class MixBlock(nn.Module):
    """Cross-attention between the two streams: each takes from the other what their joint queries and keys find.

    Queries and keys of both streams are laid side by side; the softmax over rows of their product attends to rows of
    the other stream, a learnable gate lets it in, and a depth-wise 1×1 convolution with normalisation adds it.

    Args:
        channels: Of both streams.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.queries = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.keys = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(2))
        self.gates = nn.Parameter(torch.zeros(2))
        self.mixers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, channels, 1, groups=channels), nn.BatchNorm2d(channels)) for _ in range(2)
        )

    def forward(self, fad: Tensor, lfs: Tensor) -> tuple[Tensor, Tensor]:
        """Mix two streams of shape ``(N, C, H, W)``; the shapes stay."""
        query = torch.cat([self.queries[0](fad), self.queries[1](lfs)], dim=3)
        key = torch.cat([self.keys[0](fad), self.keys[1](lfs)], dim=3)
        attention = torch.softmax(query @ key.transpose(2, 3), dim=3)
        gates = bounded(self.gates)
        mixed_fad: Tensor = fad + self.mixers[0](attention @ lfs * gates[0])
        mixed_lfs: Tensor = lfs + self.mixers[1](attention @ fad * gates[1])
        return mixed_fad, mixed_lfs


class XceptionStream(nn.Module):
    """Xception in three pieces: up to block 7, up to block 12, and the rest with average pooling.

    Args:
        in_channels: Of its input.
        imagenet: Start from ImageNet weights, the first layer spread over the channels.
        halve_at_start: Whether the first convolution has stride 2.
    """

    def __init__(self, in_channels: int, *, imagenet: bool, halve_at_start: bool) -> None:
        super().__init__()
        net = create_backbone("legacy_xception", imagenet=imagenet, in_chans=in_channels)
        parts = dict(net.named_children())
        if not halve_at_start:
            first = cast(nn.Conv2d, parts["conv1"])
            first.stride, first.padding = (1, 1), (1, 1)
        start = [parts[name] for name in ("conv1", "bn1", "act1", "conv2", "bn2", "act2")]
        self.entry = nn.Sequential(*start, *(parts[f"block{i}"] for i in range(1, 8)))
        self.middle = nn.Sequential(*(parts[f"block{i}"] for i in range(8, 13)))
        end = [parts[name] for name in ("conv3", "bn3", "act3", "conv4", "bn4", "act4")]
        self.exit = nn.Sequential(*end, nn.AdaptiveAvgPool2d(1), nn.Flatten())


def check_streams_meet(size_px: int) -> None:
    """Refuse an input size at which the maps of the two streams differ when they are to be mixed.

    Args:
        size_px: Side of the input.

    Raises:
        ConfigError: They differ.
    """

    def after_three_halvings(side: int) -> int:
        for _ in range(3):
            side = -(-side // 2)
        return side

    fad, lfs = (size_px - 1) // 2 - 2, size_px // 2 - 2
    if after_three_halvings(fad) != after_three_halvings(lfs):
        raise ConfigError(
            f"At an input side of {size_px} the two streams of F3Net have maps of different size.",
            "Set input_size_px to 299 (as published), or to a multiple of 32.",
        )


@register("f3net", input_size_px=299, imagenet=True)
class F3Net(Detector):
    """F3-Net of Qian et al., "Thinking in Frequency", ECCV 2020.

    Both branches, FAD and LFS, each with an Xception of its own, mixed after blocks 7 and 12.

    Args:
        input_size_px: Side of the input; 299 as published.
        imagenet: Start both streams from ImageNet weights.
    """

    pretrained_parts = ("fad_stream", "lfs_stream")

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        check_streams_meet(input_size_px)
        mean, std = SYMMETRIC_RANGE
        super().__init__(Preprocessing(size_px=input_size_px, mean=mean, std=std))
        self.fad = FrequencyDecomposition(input_size_px)
        self.lfs = LocalStatistics()
        self.fad_stream = XceptionStream(12, imagenet=imagenet, halve_at_start=True)
        self.lfs_stream = XceptionStream(LOCAL_BANDS, imagenet=imagenet, halve_at_start=False)
        self.mix7 = MixBlock(728)
        self.mix12 = MixBlock(1024)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * 2048, 1))

    def embed(self, x: Tensor) -> Tensor:
        """See the base; D = 4096, 2048 of each stream."""
        fad, lfs = self.mix7(self.fad_stream.entry(self.fad(x)), self.lfs_stream.entry(self.lfs(x)))
        fad, lfs = self.mix12(self.fad_stream.middle(fad), self.lfs_stream.middle(lfs))
        return torch.cat([self.fad_stream.exit(fad), self.lfs_stream.exit(lfs)], dim=1)
