"""AASIST and AASIST-L: graph attention over the spectrum and the course of a piece of raw sound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.detectors.base import Detector
from unmask.detectors.registry import register_audio
from unmask.media.sound import SAMPLE_RATE_HZ
from unmask.schemas import SoundPreprocessing

SINC_FILTERS = 70
SINC_TAPS = 129  # the published 128, made odd so that a filter has a middle
MEL_POINTS_HZ = 700.0
GRAPH_WIDTH = 32
# Of two layers over a kind of node, of the first and the second graph; the last two make attention nearly even.
TEMPERATURE, MIXED_TEMPERATURE = 2.0, 100.0
INPUT_DROPOUT, POOL_DROPOUT, WAY_DROPOUT, HEAD_DROPOUT = 0.2, 0.3, 0.2, 0.5


def sinc_filters(n_filters: int, n_taps: int, rate_hz: int) -> Tensor:
    """Make band-pass filters side by side on the mel scale: windowed differences of sinc functions.

    As in RawNet2 (Tak et al., ICASSP 2021) they are fixed.

    Args:
        n_filters: How many.
        n_taps: Length of each, odd.
        rate_hz: Of the sound.

    Returns:
        ``(n_filters, 1, n_taps)``, float32.
    """
    highest_mel = 2595 * math.log10(1 + rate_hz / 2 / MEL_POINTS_HZ)
    edges_hz = MEL_POINTS_HZ * (10 ** (np.linspace(0, highest_mel, n_filters + 1) / 2595) - 1)
    taps = np.arange(n_taps) - (n_taps - 1) / 2
    shares = 2 * edges_hz[:, None] / rate_hz
    low_pass = shares * np.sinc(shares * taps)
    bands = np.diff(low_pass, axis=0) * np.hamming(n_taps)
    return torch.from_numpy(bands).float().unsqueeze(1)


class ResidualBlock(nn.Module):
    """Pre-activated residual block over maps of spectrum and time; the time axis is a third as long afterwards.

    Args:
        n_in: Channels in.
        n_out: Channels out.
        first: Whether it comes first, so that its input is activated already.
    """

    def __init__(self, n_in: int, n_out: int, *, first: bool = False) -> None:
        super().__init__()
        self.before = nn.Identity() if first else nn.Sequential(nn.BatchNorm2d(n_in), nn.SELU())
        self.convolve = nn.Sequential(
            nn.Conv2d(n_in, n_out, (2, 3), padding=1),
            nn.BatchNorm2d(n_out),
            nn.SELU(),
            nn.Conv2d(n_out, n_out, (2, 3), padding=(0, 1)),
        )
        self.widen = nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, F, T)`` to ``(N, C', F, T // 3)``."""
        return functional.max_pool2d(self.convolve(self.before(x)) + self.widen(x), (1, 3))


def pairwise(nodes: Tensor) -> Tensor:
    """Multiply every node with every other: ``(N, K, D)`` to ``(N, K, K, D)``."""
    return nodes.unsqueeze(2) * nodes.unsqueeze(1)


def attention_weight(width: int) -> nn.Parameter:
    """Draw the vector that turns a compared pair of nodes into a score ``(width,)``."""
    return nn.Parameter(nn.init.xavier_normal_(torch.empty(width, 1)).squeeze(1))


class NormedNodes(nn.Module):
    """Batch normalisation and SELU over the nodes of a graph.

    Args:
        width: Of a node.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, nodes: Tensor) -> Tensor:
        """Map ``(N, K, D)`` to the same shape."""
        return functional.selu(self.norm(nodes.transpose(1, 2)).transpose(1, 2))


class GraphAttention(nn.Module):
    """Attention among nodes of one kind.

    Args:
        n_in: Width of a node.
        n_out: Width afterwards.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.drop = nn.Dropout(INPUT_DROPOUT)
        self.compare = nn.Linear(n_in, n_out)
        self.weight = attention_weight(n_out)
        self.attended, self.own = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)
        self.finish = NormedNodes(n_out)

    def forward(self, nodes: Tensor) -> Tensor:
        """Map ``(N, K, D)`` to ``(N, K, D')``."""
        nodes = self.drop(nodes)
        scores = torch.tanh(self.compare(pairwise(nodes))) @ self.weight
        attention = torch.softmax(scores / TEMPERATURE, dim=1)
        finished: Tensor = self.finish(self.attended(attention @ nodes) + self.own(nodes))
        return finished


class MixedGraphAttention(nn.Module):
    """Attention among temporal and spectral nodes, with weights of their own for each kind of pair.

    A further node, the stack node, listens to all of them, and none to it.

    Args:
        n_in: Width of a node.
        n_out: Width afterwards.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.of_time, self.of_spectrum = nn.Linear(n_in, n_in), nn.Linear(n_in, n_in)
        self.drop = nn.Dropout(INPUT_DROPOUT)
        self.compare, self.compare_stack = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)
        self.within_time, self.within_spectrum = attention_weight(n_out), attention_weight(n_out)
        self.across, self.to_stack = attention_weight(n_out), attention_weight(n_out)
        self.attended, self.own = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)
        self.stack_attended, self.stack_own = nn.Linear(n_in, n_out), nn.Linear(n_in, n_out)
        self.finish = NormedNodes(n_out)

    def forward(self, time: Tensor, spectrum: Tensor, stack: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Exchange.

        Args:
            time: Temporal nodes ``(N, T, D)``.
            spectrum: Spectral nodes ``(N, F, D)``.
            stack: ``(N, 1, D)``.

        Returns:
            The same with width D'.
        """
        n_time, n_spectrum = time.shape[1], spectrum.shape[1]
        nodes = self.drop(torch.cat([self.of_time(time), self.of_spectrum(spectrum)], dim=1))
        compared = torch.tanh(self.compare(pairwise(nodes)))
        scores = (compared * self._weights(n_time, n_spectrum)).sum(dim=3)
        attention = torch.softmax(scores / MIXED_TEMPERATURE, dim=1)
        heard = torch.tanh(self.compare_stack(nodes * stack)) @ self.to_stack
        share = torch.softmax(heard / MIXED_TEMPERATURE, dim=1).unsqueeze(1)
        stack = self.stack_attended(share @ nodes) + self.stack_own(stack)
        nodes = self.finish(self.attended(attention @ nodes) + self.own(nodes))
        return nodes[:, :n_time], nodes[:, n_time:], stack

    def _weights(self, n_time: int, n_spectrum: int) -> Tensor:
        """Lay the weights of the kinds of pairs out over all pairs ``(T + F, T + F, D')``."""
        above = [self.within_time.expand(n_time, n_time, -1), self.across.expand(n_time, n_spectrum, -1)]
        below = [self.across.expand(n_spectrum, n_time, -1), self.within_spectrum.expand(n_spectrum, n_spectrum, -1)]
        return torch.cat([torch.cat(above, dim=1), torch.cat(below, dim=1)])


class GraphPool(nn.Module):
    """Keeps the share of the nodes with the highest learnt scores, each times its score.

    Args:
        share: Of the nodes.
        width: Of a node.
    """

    def __init__(self, share: float, width: int) -> None:
        super().__init__()
        self.share = share
        self.drop = nn.Dropout(POOL_DROPOUT)
        self.score = nn.Linear(width, 1)

    def forward(self, nodes: Tensor) -> Tensor:
        """Map ``(N, K, D)`` to ``(N, max(1, ⌊share · K⌋), D)``."""
        scores = torch.sigmoid(self.score(self.drop(nodes)))
        kept = torch.topk(scores, max(int(nodes.shape[1] * self.share), 1), dim=1).indices
        return torch.gather(nodes * scores, 1, kept.expand(-1, -1, nodes.shape[2]))


class Branch(nn.Module):
    """Two mixed attentions with a pooling between them, the second added to the first.

    Args:
        n_in: Width of a node.
        n_out: Width afterwards.
        share: Of the nodes that pooling keeps.
    """

    def __init__(self, n_in: int, n_out: int, share: float) -> None:
        super().__init__()
        self.stack = nn.Parameter(torch.randn(1, 1, n_in))
        self.first, self.second = MixedGraphAttention(n_in, n_out), MixedGraphAttention(n_out, n_out)
        self.pool_time, self.pool_spectrum = GraphPool(share, n_out), GraphPool(share, n_out)
        self.drop = nn.Dropout(WAY_DROPOUT)

    def forward(self, time: Tensor, spectrum: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Map temporal ``(N, T, D)`` and spectral nodes ``(N, F, D)`` to pooled ones and the stack node."""
        time, spectrum, stack = self.first(time, spectrum, self.stack.expand(time.shape[0], -1, -1))
        time, spectrum = self.pool_time(time), self.pool_spectrum(spectrum)
        more = self.second(time, spectrum, stack)
        return self.drop(time + more[0]), self.drop(spectrum + more[1]), self.drop(stack + more[2])


class FakeAgainstReal(nn.Module):
    """The published two-class layer, read as one logit: the score of fake minus that of real.

    Args:
        width: Of an embedding.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.classes = nn.Linear(width, 2)

    def forward(self, embedding: Tensor) -> Tensor:
        """Map ``(N, D)`` to ``(N, 1)``."""
        scores: Tensor = self.classes(embedding)
        return scores[:, 1:] - scores[:, :1]


@dataclass(frozen=True)
class Sizes:
    """What tells the two published networks apart.

    Attributes:
        channels: Of the first two blocks of the encoder, and of the other four.
        node: Width of the nodes of the first graphs.
        shares: Kept by pooling of spectral nodes, of temporal nodes, and in the branches.
    """

    channels: tuple[int, int]
    node: int
    shares: tuple[float, float, float]


class GraphOfSound(Detector):
    """AASIST of Jung et al. (ICASSP 2022), after the paper and its published configurations.

    Fixed sinc filters, six residual blocks, a graph of spectral and one of temporal nodes, two branches of attention
    over both, of which the element-wise maximum is read out. Larger means more fake; the authors' own score is the
    opposite, 1 = bona fide.

    Each block is pre-activated as the paper says. The authors' code computes that activation and does not use it, so
    files of their weights do not fit.

    Args:
        n_samples: Length of a window, 64,600 as published.
        sizes: Which network.
    """

    filters: Tensor

    def __init__(self, n_samples: int, sizes: Sizes) -> None:
        super().__init__(SoundPreprocessing(n_samples=n_samples))
        narrow, wide = sizes.channels
        self.register_buffer("filters", sinc_filters(SINC_FILTERS, SINC_TAPS, SAMPLE_RATE_HZ), persistent=False)
        self.norm = nn.BatchNorm2d(1)
        widths = (narrow, narrow, wide, wide, wide, wide)
        channels = zip((1, *widths[:-1]), widths, strict=True)
        self.encoder = nn.Sequential(*(ResidualBlock(a, b, first=i == 0) for i, (a, b) in enumerate(channels)))
        self.places = nn.Parameter(torch.randn(1, SINC_FILTERS // 3, wide))
        self.graph_spectrum, self.graph_time = GraphAttention(wide, sizes.node), GraphAttention(wide, sizes.node)
        self.pool_spectrum = GraphPool(sizes.shares[0], sizes.node)
        self.pool_time = GraphPool(sizes.shares[1], sizes.node)
        self.branches = nn.ModuleList(Branch(sizes.node, GRAPH_WIDTH, sizes.shares[2]) for _ in range(2))
        self.head = nn.Sequential(nn.Dropout(HEAD_DROPOUT), FakeAgainstReal(5 * GRAPH_WIDTH))

    def embed(self, x: Tensor) -> Tensor:
        """Embed windows ``(N, n_samples)``; D = 160."""
        bands = functional.conv1d(x.unsqueeze(1), self.filters)
        maps = functional.selu(self.norm(functional.max_pool2d(bands.abs().unsqueeze(1), 3)))
        maps = self.encoder(maps).abs()
        spectrum = self.pool_spectrum(self.graph_spectrum(maps.amax(dim=3).transpose(1, 2) + self.places))
        time = self.pool_time(self.graph_time(maps.amax(dim=2).transpose(1, 2)))
        one, other = (branch(time, spectrum) for branch in self.branches)
        time, spectrum, stack = (torch.maximum(a, b) for a, b in zip(one, other, strict=True))
        read = [time.abs().amax(dim=1), time.mean(dim=1), spectrum.abs().amax(dim=1), spectrum.mean(dim=1)]
        return torch.cat([*read, stack.squeeze(1)], dim=1)


@register_audio("aasist")
class Aasist(GraphOfSound):
    """AASIST: 297,866 parameters.

    Args:
        n_samples: Length of a window.
    """

    def __init__(self, n_samples: int) -> None:
        super().__init__(n_samples, Sizes(channels=(32, 64), node=64, shares=(0.5, 0.7, 0.5)))


@register_audio("aasist_l")
class AasistLight(GraphOfSound):
    """AASIST-L: 85,306 parameters.

    Args:
        n_samples: Length of a window.
    """

    def __init__(self, n_samples: int) -> None:
        super().__init__(n_samples, Sizes(channels=(32, 24), node=24, shares=(0.4, 0.5, 0.7)))
