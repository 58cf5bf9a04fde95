"""Every detector of the registry says the same in ONNX Runtime as in torch."""

import numpy as np
import pytest
import torch
from torch import nn

from unmask import detectors
from unmask.deployment.onnx_export import export_onnx, parity, probe_images, probe_sounds

SMALL_PX = 64
SMALL_SAMPLES = 8000
QUICK = ("meso4", "mesoinception4", "aasist_l", "lcnn")
LARGEST_DIFFERENCE = 1e-3


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in detectors.names()]
)
def test_probabilities_are_equal_after_export(name):
    torch.manual_seed(0)
    detector = detectors.build(name, input_size_px=SMALL_PX, n_samples=SMALL_SAMPLES).train()
    with torch.no_grad():
        for parameter in detector.parameters():  # away from the zeros that gates and residual branches start with
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
        for _ in range(5):  # running statistics of their own, so that normalisation is exported as it is used
            detector(torch.randn(8, *detector.preprocessing.input_shape))
    detector.project()
    detector.eval()
    rng = np.random.default_rng(0)
    images = probe_sounds(rng, n_samples=SMALL_SAMPLES) if detector.modality == "audio" else probe_images(rng)
    last = [module for module in detector.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():  # logits spread over a unit, so that a difference would show
        scale = 1 / detectors.score_images(detector, images).std()
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    assert detectors.score_images(detector, images).std() == pytest.approx(1, rel=1e-3)
    content = export_onnx(detector, detector.preprocessing)
    assert parity(detector, content, images, detector.preprocessing) < LARGEST_DIFFERENCE
