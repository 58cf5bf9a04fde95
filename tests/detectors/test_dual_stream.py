"""The forensic filters of the dual-stream network, and their constraint."""

import pytest
import torch

from unmask import detectors
from unmask.detectors.dual_stream import BayarConv, ForensicStream, fixed_filters


def assert_constrained(conv: BayarConv) -> None:
    weight = conv.weight.detach()
    assert (weight[:, :, 2, 2] == -1).all()
    torch.testing.assert_close(weight.sum(dim=(2, 3)), torch.zeros(weight.shape[:2]), atol=1e-5, rtol=0)


def test_fixed_filters_are_blind_to_flat_pictures_and_sum_to_nothing():
    filters = fixed_filters()
    assert filters.shape == (5, 1, 5, 5)
    torch.testing.assert_close(filters.sum(dim=(2, 3)), torch.zeros(5, 1), atol=1e-6, rtol=0)
    assert filters[0, 0, 2, 2] == -1
    assert filters[0, 0, 0, 0] == pytest.approx(-1 / 12)


def test_filters_are_laid_over_each_colour_alone():
    bank = ForensicStream().bank
    assert bank.shape == (15, 1, 5, 5)
    torch.testing.assert_close(bank[:5], bank[5:10])


def test_constraint_holds_at_the_start_and_after_each_projection():
    torch.manual_seed(0)
    conv = BayarConv(3, 3)
    assert_constrained(conv)
    with torch.no_grad():
        conv.weight.add_(torch.randn_like(conv.weight))
    conv.project()
    assert_constrained(conv)


def test_plane_that_sums_to_nothing_starts_anew_instead_of_dividing_by_nothing():
    conv = BayarConv(1, 1)
    with torch.no_grad():
        conv.weight.zero_()
    conv.project()
    assert_constrained(conv)
    assert conv.weight[0, 0, 0, 0].item() == pytest.approx(1 / 24)


def test_projection_of_the_detector_reaches_the_filters():
    detector = detectors.build("dual_stream", input_size_px=64)
    with torch.no_grad():
        detector.forensic.bayar.weight.mul_(3)
    detector.project()
    assert_constrained(detector.forensic.bayar)


def test_forensic_stream_sees_noise_and_not_brightness():
    torch.manual_seed(0)
    stream = ForensicStream().eval()
    noise = torch.randn(1, 3, 64, 64) * 0.02
    inner = (slice(None), slice(None), slice(8, -8), slice(8, -8))
    with torch.no_grad():
        residual = torch.nn.functional.conv2d(noise * 127.5, stream.bank, padding=2, groups=3)
        brighter = torch.nn.functional.conv2d((noise + 0.3) * 127.5, stream.bank, padding=2, groups=3)
    torch.testing.assert_close(residual[inner], brighter[inner], atol=1e-3, rtol=0)
    assert residual[inner].std() > 1
