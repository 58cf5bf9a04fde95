"""The Meso networks, layer by layer."""

import torch
from torch import nn

from unmask import detectors


def test_meso4_layers_are_those_of_the_paper():
    detector = detectors.build("meso4")
    convolutions = [m for m in detector.modules() if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convolutions] == [
        (3, 8, 3),
        (8, 8, 5),
        (8, 16, 5),
        (16, 16, 5),
    ]
    assert [m.kernel_size for m in detector.modules() if isinstance(m, nn.MaxPool2d)] == [2, 2, 2, 4]
    norms = [m for m in detector.modules() if isinstance(m, nn.BatchNorm2d)]
    assert len({id(norm) for norm in norms}) == 4, "each convolution has a normalisation of its own"
    assert {norm.eps for norm in norms} == {1e-3}
    assert (detector.preprocessing.size_px, detector.preprocessing.mean, detector.preprocessing.std) == (
        256,
        (0, 0, 0),
        (1, 1, 1),
    )


def test_meso4_flattens_channels_last():
    """As the reference does: input 16 of the dense layer is channel 0 of the second position."""
    detector = detectors.build("meso4", input_size_px=64).eval()
    maps = torch.zeros(1, 16, 2, 2)
    maps[0, 0, 0, 1] = 1
    with torch.no_grad():
        detector.dense.dense.bias.zero_()
        embedding = detector.dense(maps)[0]
    expected = nn.functional.leaky_relu(detector.dense.dense.weight[:, 16], 0.1)
    assert torch.equal(embedding, expected.detach())
