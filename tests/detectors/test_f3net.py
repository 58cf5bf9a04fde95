"""The parts of F3Net against scipy's transforms and plain arithmetic."""

import numpy as np
import pytest
import scipy.fft
import torch

from unmask import detectors
from unmask.detectors.f3net import (
    LOG_FLOOR,
    FrequencyDecomposition,
    LocalStatistics,
    MixBlock,
    band_mask,
    bounded,
    check_streams_meet,
    dct_matrix,
)
from unmask.errors import ConfigError


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_dct_is_orthonormal_and_that_of_scipy():
    matrix = dct_matrix(12)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(12), atol=1e-12)
    signal = np.random.default_rng(0).normal(size=(12, 12))
    np.testing.assert_allclose(matrix @ signal @ matrix.T, scipy.fft.dctn(signal, norm="ortho"), atol=1e-12)


def test_bands_are_those_of_the_paper_and_the_last_lets_all_pass(images):
    fad = FrequencyDecomposition(32)
    with torch.no_grad():
        fad.learnable.zero_()
        bands = fad(images).reshape(2, 4, 3, 32, 32)
    spectrum = scipy.fft.dctn(images.numpy(), axes=(2, 3), norm="ortho")
    total = np.add.outer(np.arange(32), np.arange(32))
    expected = [
        spectrum * (total <= 32 / 2.82),
        spectrum * ((total >= 32 / 2.82) & (total <= 16)),
        spectrum * (total >= 16),
    ]
    for band, coefficients in zip(range(3), expected, strict=True):
        inverse = scipy.fft.idctn(coefficients, axes=(2, 3), norm="ortho")
        np.testing.assert_allclose(bands[:, band].numpy(), inverse, atol=1e-5)
    np.testing.assert_allclose(bands[:, 3].numpy(), images.numpy(), atol=1e-5)


def test_learnable_masks_start_small_and_stay_within_one():
    torch.manual_seed(0)
    weight = FrequencyDecomposition(64).learnable.detach()
    assert weight.std().item() == pytest.approx(0.1, rel=0.05)
    assert bounded(torch.tensor([-50.0, 0.0, 50.0])).tolist() == pytest.approx([-1, 0, 1])


def test_local_statistics_against_a_transform_of_each_window(images):
    lfs = LocalStatistics()
    with torch.no_grad():
        statistics = lfs(images).numpy()
    assert statistics.shape == (2, 6, 16, 16)
    grey = ((images.numpy() + 1) * 127.5 * np.array([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(axis=1)
    padded = np.pad(grey, ((0, 0), (4, 4), (4, 4)))
    extra = 2 / (1 + np.exp(-lfs.learnable.detach().numpy())) - 1
    for band in range(6):
        mask = band_mask(10, 20 / 6 * band, 20 / 6 * (band + 1))
        for row, column in ((0, 0), (7, 9), (15, 15)):
            window = padded[1, 2 * row : 2 * row + 10, 2 * column : 2 * column + 10]
            logs = np.log10(np.abs(scipy.fft.dctn(window, norm="ortho")) + LOG_FLOOR)
            expected = (logs * (mask + extra[band])).sum() / mask.sum()
            assert statistics[1, band, row, column] == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_mix_block_passes_both_streams_through_while_its_gates_are_shut():
    torch.manual_seed(0)
    block = MixBlock(8).eval()
    fad, lfs = torch.rand(2, 8, 5, 4), torch.rand(2, 8, 5, 4)
    with torch.no_grad():
        for mixer in block.mixers:
            mixer[0].bias.zero_()
        shut = block(fad, lfs)
        block.gates.fill_(1.0)
        open_fad, _ = block(fad, lfs)
        _, other_lfs = block(fad, lfs + 1)
        changed_fad, _ = block(fad, lfs + 1)
    torch.testing.assert_close(shut, (fad, lfs))
    assert not torch.allclose(open_fad, fad)
    assert not torch.allclose(open_fad, changed_fad), "what one stream sees changes the other"
    assert other_lfs.shape == lfs.shape


@pytest.mark.parametrize("size", [299, 224, 64, 256])
def test_usual_sizes_fit(size):
    check_streams_meet(size)


def test_sizes_at_which_the_streams_do_not_meet_are_refused():
    refused = []
    for size in range(64, 128):
        try:
            check_streams_meet(size)
        except ConfigError:
            refused.append(size)
    assert refused
    assert all(size % 32 for size in refused)
    with pytest.raises(ConfigError, match="maps of different size"):
        detectors.build("f3net", input_size_px=refused[0])
