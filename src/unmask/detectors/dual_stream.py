"""A gated network of two streams: what is seen, and the noise residual under it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from unmask.detectors.backbone import create_backbone
from unmask.detectors.base import SYMMETRIC_RANGE, Detector
from unmask.detectors.registry import register
from unmask.schemas import Preprocessing

FILTER_PX = 5
CENTRE = FILTER_PX // 2
RESIDUAL_LIMIT = 3.0
BAYAR_MAPS = 3
FORENSIC_WIDTHS = (32, 64, 128)
VISUAL_WIDTH = 1280
SQUEEZE_RATIO = 16
SMALLEST_SUM = 1e-3


def fixed_filters() -> Tensor:
    """The five fixed high-pass filters, each centred in 5×5 and summing to zero.

    Second-order residual KV and edge residual of the spatial rich model (Fridrich and Kodovský, 2012), a
    centre-surround contrast, the uniform filter of the Bayar constraint, and the Laplacian.

    Returns:
        ``(5, 1, 5, 5)``, float32.
    """
    second_order = torch.tensor(
        [
            [-1.0, 2, -2, 2, -1],
            [2, -6, 8, -6, 2],
            [-2, 8, -12, 8, -2],
            [2, -6, 8, -6, 2],
            [-1, 2, -2, 2, -1],
        ]
    )
    edge = torch.tensor([[-1.0, 2, -1], [2, -4, 2], [0, 0, 0]])
    surround = torch.full((3, 3), -1.0)
    surround[1, 1] = 8
    constrained = torch.full((FILTER_PX, FILTER_PX), 1 / 24)
    constrained[CENTRE, CENTRE] = -1
    laplacian = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])
    small = [functional.pad(kernel, (1, 1, 1, 1)) for kernel in (edge / 4, surround / 8, laplacian / 4)]
    return torch.stack([second_order / 12, small[0], small[1], constrained, small[2]]).unsqueeze(1)


class BayarConv(nn.Module):
    """Constrained convolution of Bayar and Stamm (IH&MMSec 2016): it can only learn to predict the centre pixel.

    In every 5×5 plane the centre is -1 and the other 24 weights sum to 1; `project` restores this after each step.

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # Positive weights have a sum far from zero, so that the first division is harmless.
        self.weight = nn.Parameter(torch.rand(out_channels, in_channels, FILTER_PX, FILTER_PX))
        self.project()

    @torch.no_grad()
    def project(self) -> None:
        """Bring the weights back to the constraint; planes whose sum is near zero start anew as an average."""
        self.weight[:, :, CENTRE, CENTRE] = 0
        total = self.weight.sum(dim=(2, 3), keepdim=True)
        lost = total.abs() < SMALLEST_SUM
        scaled = self.weight / torch.where(lost, torch.ones_like(total), total)
        self.weight.copy_(torch.where(lost, torch.full_like(scaled, 1 / (FILTER_PX**2 - 1)), scaled))
        self.weight[:, :, CENTRE, CENTRE] = -1

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C', H, W)``."""
        return functional.conv2d(x, self.weight, padding=CENTRE)


class ForensicStream(nn.Module):
    """Residuals by fixed and learnable high-pass filters, truncated, and a small network over them."""

    bank: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("bank", fixed_filters().repeat(3, 1, 1, 1), persistent=False)
        self.bayar = BayarConv(3, BAYAR_MAPS)
        layers: list[nn.Module] = []
        n_in = len(self.bank) + BAYAR_MAPS
        for width in FORENSIC_WIDTHS:
            layers += [nn.Conv2d(n_in, width, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            n_in = width
        self.net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        """Map images ``(N, 3, S, S)`` in [-1, 1] to forensic vectors ``(N, 128)``."""
        levels = x * 127.5
        fixed = functional.conv2d(levels, self.bank, padding=CENTRE, groups=3)
        residuals = torch.cat([fixed, self.bayar(levels)], dim=1)
        vector: Tensor = self.net(torch.clamp(residuals, -RESIDUAL_LIMIT, RESIDUAL_LIMIT) / RESIDUAL_LIMIT)
        return vector


class ChannelAttention(nn.Module):
    """Squeeze and excitation (Hu et al., CVPR 2018).

    Args:
        channels: Of its input.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.excite = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels // SQUEEZE_RATIO, 1),
            nn.ReLU(),
            nn.Conv2d(channels // SQUEEZE_RATIO, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Weigh the channels of ``(N, C, H, W)``."""
        weighed: Tensor = maps * self.excite(maps)
        return weighed


@register("dual_stream", input_size_px=224, imagenet=True)
class DualStream(Detector):
    """MobileNetV2 with channel attention, gated by a stream over SRM and Bayar residuals.

    The forensic vector opens or closes each visual feature; gated and plain features go to the head together.

    Args:
        input_size_px: Side of the input.
        imagenet: Start the visual stream from ImageNet weights.
    """

    pretrained_parts = ("visual",)

    def __init__(self, input_size_px: int, imagenet: bool = False) -> None:
        mean, std = SYMMETRIC_RANGE
        super().__init__(Preprocessing(size_px=input_size_px, mean=mean, std=std))
        self.visual = create_backbone("mobilenetv2_100", imagenet=imagenet, global_pool="")
        self.attention = nn.Sequential(ChannelAttention(VISUAL_WIDTH), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.forensic = ForensicStream()
        self.gate = nn.Sequential(nn.Linear(FORENSIC_WIDTHS[-1], VISUAL_WIDTH), nn.Sigmoid())
        layers: list[nn.Module] = []
        for n_in, n_out in ((2 * VISUAL_WIDTH, 512), (512, 256)):
            layers += [nn.Linear(n_in, n_out), nn.ReLU(), nn.BatchNorm1d(n_out), nn.Dropout(0.3)]
        self.dense = nn.Sequential(*layers)
        self.head = nn.Linear(256, 1)

    def embed(self, x: Tensor) -> Tensor:
        """See the base; D = 256."""
        visual = self.attention(self.visual(x))
        gated = visual * self.gate(self.forensic(x))
        embedding: Tensor = self.dense(torch.cat([gated, visual], dim=1))
        return embedding

    def project(self) -> None:
        """Bring the Bayar filters back to their constraint."""
        self.forensic.bayar.project()
