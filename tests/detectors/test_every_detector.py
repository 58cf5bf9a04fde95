"""What every detector of the registry must do, whatever its architecture."""

import copy
import functools

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from unmask import detectors
from unmask.errors import ContractError
from unmask.schemas import DetectorInfo, Estimate

# Trainable parameters at the detector's own input size, from the papers and reference implementations.
# Published counts of the ImageNet networks hold a classifier of 1000 classes, which a head of one unit replaces.
PARAMETERS = {
    "meso4": 27_977,
    "mesoinception4": 28_615,
    "xception": 22_855_952 - 1000 * 2049 + 2049,
    "efficientnet_b4": 19_341_616 - 1000 * 1793 + 1793,
    "resnet50": 25_557_032 - 1000 * 2049 + 2049,
    "linear_probe": 2049,
    "aasist": 297_866,
    "aasist_l": 85_306,
}
SMALL_PX = 64  # keeps the tests quick; every architecture of the registry can take it
SMALL_SAMPLES = 8000
NAMES = [*detectors.names(), "timm:test_resnet"]


@functools.cache
def built(name: str) -> detectors.Detector:
    torch.manual_seed(0)
    return detectors.build(name, input_size_px=SMALL_PX, n_samples=SMALL_SAMPLES)


def small(name: str) -> detectors.Detector:
    torch.manual_seed(0)
    return copy.deepcopy(built(name))  # quicker than drawing millions of weights for each test


def inputs(detector: detectors.Detector, n: int) -> torch.Tensor:
    return torch.randn(n, *detector.preprocessing.input_shape, generator=torch.Generator().manual_seed(1))


def items(detector: detectors.Detector, n: int) -> list[np.ndarray]:
    """Crops or sounds of unlike sizes."""
    rng = np.random.default_rng(0)
    if detector.modality == "audio":
        return [rng.integers(-9000, 9000, 5000 + 700 * i, dtype=np.int16) for i in range(n)]
    return [rng.integers(0, 256, (70 + i, 80, 3), dtype=np.uint8) for i in range(n)]


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", NAMES)
def test_forward_gives_one_finite_logit_a_crop(name):
    detector = small(name).eval()
    logits = detector(inputs(detector, 3))
    assert logits.shape == (3,)
    assert logits.dtype == torch.float32
    assert torch.isfinite(logits).all()
    assert detector.architecture == name


@pytest.mark.parametrize("name", NAMES)
def test_backward_reaches_every_trainable_parameter(name):
    detector = small(name).train()
    with torch.no_grad():
        for parameter in detector.parameters():  # away from the zeros that residual branches start with
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    labels = torch.tensor([0.0, 1.0, 1.0, 0.0])
    functional.binary_cross_entropy_with_logits(detector(inputs(detector, 4)), labels).backward()
    unreached = [
        name for name, p in detector.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]
    assert not unreached


@pytest.mark.parametrize("name", NAMES)
def test_one_batch_can_be_learnt_by_heart(name):
    detector = small(name).train()
    for module in detector.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    batch, labels = inputs(detector, 4), torch.tensor([0.0, 1.0, 1.0, 0.0])
    optimizer = torch.optim.Adam([p for p in detector.parameters() if p.requires_grad], lr=2e-3)
    for _ in range(150):
        loss = functional.binary_cross_entropy_with_logits(detector(batch), labels)
        if loss.item() < 0.05:
            return
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        detector.project()
    pytest.fail(f"loss is still {loss.item():.3f} after 150 steps")


def info_of(name: str, detector: detectors.Detector) -> DetectorInfo:
    return DetectorInfo(
        name=name,
        architecture=name,
        n_parameters=detector.n_parameters,
        preprocessing=detector.preprocessing,
        aggregation="mean_logit",
        config={},
        curve=[],
        best_epoch=1,
        val_auc=Estimate(value=None, n=0),
        dataset_version="",
        extractor_version="",
        weights_sha256="",
        versions={},
        device="cpu",
        train_seconds=0,
    )


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_equal_after_saving_and_loading(name, tmp_path):
    detector = small(name).train()
    with torch.no_grad():
        detector(inputs(detector, 4))  # moves the running statistics, which must be saved as well
    images = items(detector, 2)
    detectors.save_detector(tmp_path, detector, info_of(name, detector))
    loaded, info = detectors.load_detector(tmp_path)
    assert not loaded.training
    assert info.preprocessing == loaded.preprocessing == detector.preprocessing
    np.testing.assert_array_equal(detectors.score_images(detector, images), detectors.score_images(loaded, images))


@pytest.mark.parametrize("name", NAMES)
def test_score_of_a_crop_does_not_depend_on_the_batch(name):
    detector = small(name).train()
    images = items(detector, 8)
    together = detectors.score_images(detector, images, batch_size=8)
    apart = detectors.score_images(detector, images, batch_size=1)
    np.testing.assert_allclose(together, apart, rtol=1e-4, atol=1e-5)
    assert together.dtype == np.float64
    assert detector.training, "the mode is put back"


@pytest.mark.parametrize("name", sorted(PARAMETERS))
def test_parameter_count_is_the_published_one(name):
    assert detectors.build(name).n_parameters == PARAMETERS[name]


def test_changed_missing_or_foreign_weights_are_refused(tmp_path):
    detector = small("meso4")
    detectors.save_detector(tmp_path, detector, info_of("meso4", detector))
    weights = tmp_path / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"?")
    with pytest.raises(ContractError, match=r"is not the file that detector\.json names"):
        detectors.load_detector(tmp_path)
    weights.unlink()
    with pytest.raises(ContractError, match="does not exist"):
        detectors.load_detector(tmp_path)
    other = small("timm:test_resnet")
    detectors.save_detector(tmp_path, other, info_of("meso4", detector))
    with pytest.raises(ContractError, match="does not fit meso4"):
        detectors.load_detector(tmp_path)


def test_no_images_no_scores():
    assert detectors.score_images(small("meso4"), []).shape == (0,)
