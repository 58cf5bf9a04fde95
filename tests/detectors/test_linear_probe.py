"""The linear probe trains its head and nothing else."""

import torch
from torch.nn import functional

from unmask import detectors


def test_backbone_and_its_statistics_stay_untouched_by_training():
    torch.manual_seed(0)
    detector = detectors.build("linear_probe:test_resnet", input_size_px=64).train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], lr=0.1)
    logits = detector(torch.rand(4, 3, 64, 64))
    functional.binary_cross_entropy_with_logits(logits, torch.tensor([0.0, 1.0, 0.0, 1.0])).backward()
    optimizer.step()
    changed = {name for name, tensor in detector.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed
    assert all(name.startswith("head.") for name in changed)
    assert {name for name, p in detector.named_parameters() if p.requires_grad} == {"head.1.weight", "head.1.bias"}
