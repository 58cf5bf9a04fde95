"""Every detector of the registry says the same in ONNX Runtime as in torch."""

import numpy as np
import pytest
import torch
from torch import nn

from unmask import detectors
from unmask.deployment.onnx_export import export_onnx, parity, probe_images

SMALL_PX = 64
QUICK = ("meso4", "mesoinception4")
LARGEST_DIFFERENCE = 1e-3


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in detectors.names()]
)
def test_probabilities_are_equal_after_export(name):
    torch.manual_seed(0)
    detector = detectors.build(name, input_size_px=SMALL_PX).train()
    with torch.no_grad():
        for parameter in detector.parameters():  # away from the zeros that gates and residual branches start with
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        for _ in range(5):  # running statistics of their own, so that normalisation is exported as it is used
            detector(torch.randn(8, 3, SMALL_PX, SMALL_PX))
    detector.project()
    detector.eval()
    images = probe_images(np.random.default_rng(0))
    last = [module for module in detector.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():  # logits spread over a unit, so that a difference would show
        scale = 1 / detectors.score_images(detector, images).std()
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    assert detectors.score_images(detector, images).std() == pytest.approx(1, rel=1e-3)
    content = export_onnx(detector, detector.preprocessing)
    assert parity(detector, content, images, detector.preprocessing) < LARGEST_DIFFERENCE
