"""A light convolutional network with max-feature-map activations over cepstral coefficients of sound."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dct
from torch import Tensor, nn
from torch.nn import functional

from unmask.detectors.base import Detector
from unmask.detectors.registry import register_audio
from unmask.media.sound import SAMPLE_RATE_HZ
from unmask.schemas import SoundPreprocessing

FRAME, HOP, FFT_POINTS = 320, 160, 512  # 20 ms every 10 ms
FILTERS = 20
PRE_EMPHASIS = 0.97
# Power of the rounding error of 16 bits in a frame; below it a coefficient would be noise.
POWER_FLOOR = 1e-6
EMBEDDING = 80


def triangles(n_filters: int, n_bins: int) -> NDArray[np.float64]:
    """Make overlapping triangular filters, evenly spaced over the spectrum.

    Args:
        n_filters: How many.
        n_bins: Of the spectrum, from 0 to half of the sample rate.

    Returns:
        ``(n_filters, n_bins)``, peaks at 1.
    """
    spacing = (n_bins - 1) / (n_filters + 1)
    middles = spacing * np.arange(1, n_filters + 1)
    return np.maximum(0, 1 - np.abs(np.arange(n_bins) - middles[:, None]) / spacing)


class LinearCepstrum(nn.Module):
    """Linear-frequency cepstral coefficients with two differences, the front end of the ASVspoof baselines.

    20 ms Hamming windows every 10 ms, 512-point spectrum, 20 linear triangular filters, logarithm, cosine transform.
    All of it is convolution and multiplication, so it is exported with the network.
    """

    fourier: Tensor
    bands: Tensor
    cosines: Tensor

    def __init__(self) -> None:
        super().__init__()
        n_bins = FFT_POINTS // 2 + 1
        angles = 2 * np.pi * np.outer(np.arange(n_bins), np.arange(FRAME)) / FFT_POINTS
        fourier = np.concatenate([np.cos(angles), np.sin(angles)]) * np.hamming(FRAME)
        cosines = dct(np.eye(FILTERS), axis=0, norm="ortho")
        matrices = {"fourier": fourier[:, None], "bands": triangles(FILTERS, n_bins), "cosines": cosines}
        for name, matrix in matrices.items():
            self.register_buffer(name, torch.from_numpy(matrix).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map sound ``(N, L)`` to coefficients ``(N, 60, frames)``."""
        emphasised = functional.pad(x[:, 1:] - PRE_EMPHASIS * x[:, :-1], (1, 0))
        real, imaginary = functional.conv1d(emphasised.unsqueeze(1), self.fourier, stride=HOP).chunk(2, dim=1)
        energy = self.bands @ (real.square() + imaginary.square())
        static = self.cosines @ torch.log10(energy + POWER_FLOOR)
        first = differences(static)
        return torch.cat([static, first, differences(first)], dim=1)


def differences(series: Tensor) -> Tensor:
    """Subtract the frame before from the frame behind ``(N, C, T)``; the ends are repeated."""
    longer = torch.cat([series[:, :, :1], series, series[:, :, -1:]], dim=2)
    return longer[:, :, 2:] - longer[:, :, :-2]


class MaxFeatureMap(nn.Module):
    """The larger of two halves of the channels (Wu et al., "A light CNN for deep face representation", 2018)."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, 2C, …)`` to ``(N, C, …)``."""
        one, other = x.chunk(2, dim=1)
        return torch.maximum(one, other)


def convolution(n_in: int, n_out: int, side: int) -> list[nn.Module]:
    """Convolution and max-feature-map: ``n_in`` to ``n_out`` channels of the same size."""
    return [nn.Conv2d(n_in, 2 * n_out, side, padding=side // 2), MaxFeatureMap()]


@register_audio("lcnn")
class Lcnn(Detector):
    """LFCC-LCNN, with the layers of Lavrentyeva et al. (Interspeech 2019, the STC systems for ASVspoof 2019).

    The front end and the fixed length are those of Wang and Yamagishi (Interspeech 2021, LCNN-trim-pad). One unit
    takes the place of the margin softmax, which needs two.

    Args:
        n_samples: Length of a window.
    """

    def __init__(self, n_samples: int) -> None:
        super().__init__(SoundPreprocessing(n_samples=n_samples, sample_rate_hz=SAMPLE_RATE_HZ))
        self.cepstrum = LinearCepstrum()
        self.layers = nn.Sequential(
            *convolution(1, 32, 5),
            nn.MaxPool2d(2),
            *convolution(32, 32, 1),
            nn.BatchNorm2d(32, affine=False),
            *convolution(32, 48, 3),
            nn.MaxPool2d(2),
            nn.BatchNorm2d(48, affine=False),
            *convolution(48, 48, 1),
            nn.BatchNorm2d(48, affine=False),
            *convolution(48, 64, 3),
            nn.MaxPool2d(2),
            *convolution(64, 64, 1),
            nn.BatchNorm2d(64, affine=False),
            *convolution(64, 32, 3),
            nn.BatchNorm2d(32, affine=False),
            *convolution(32, 32, 1),
            nn.BatchNorm2d(32, affine=False),
            *convolution(32, 32, 3),
            nn.MaxPool2d(2),
        )
        frames = 1 + (n_samples - FRAME) // HOP
        n_flat = 32 * (3 * FILTERS // 16) * (frames // 16)
        self.dense = nn.Sequential(
            nn.Flatten(), nn.Linear(n_flat, 2 * EMBEDDING), MaxFeatureMap(), nn.BatchNorm1d(EMBEDDING)
        )
        self.head = nn.Sequential(nn.Dropout(0.75), nn.Linear(EMBEDDING, 1))

    def embed(self, x: Tensor) -> Tensor:
        """Embed windows ``(N, n_samples)``; D = 80."""
        coefficients = self.cepstrum(x).transpose(1, 2).unsqueeze(1)
        embedding: Tensor = self.dense(self.layers(coefficients))
        return embedding
