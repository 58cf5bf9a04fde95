"""MixUp, CutMix and self-blended images: what is mixed, and what the label says then."""

import numpy as np
import pytest
import torch
from drawn_face import draw_face, noisy

from unmask.config import AugmentationConfig
from unmask.training.loader import TrainingView
from unmask.training.mixing import cutmix, mix, mixup
from unmask.training.self_blend import SelfBlender


def batch(n: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    """Each crop is flat and has its own value, so that a mixed pixel tells where it comes from."""
    values = torch.arange(n, dtype=torch.float32)
    return values[:, None, None, None].expand(n, 3, 16, 16).clone(), (values % 2)


def test_mixup_blends_inputs_and_labels_by_the_same_share():
    inputs, labels = batch()
    mixed, soft = mixup(inputs, labels, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    share = rng.beta(0.2, 0.2)
    order = rng.permutation(8)
    np.testing.assert_allclose(mixed[:, 0, 0, 0].numpy(), share * np.arange(8) + (1 - share) * order, rtol=1e-5)
    np.testing.assert_allclose(soft.numpy(), share * labels.numpy() + (1 - share) * (order % 2), rtol=1e-5, atol=1e-7)


def test_cutmix_labels_follow_the_area():
    inputs, labels = batch()
    for seed in range(30):
        mixed, soft = cutmix(inputs, labels, np.random.default_rng(seed))
        for i in range(8):
            own = (mixed[i, 0] == i).float().mean().item()
            others = mixed[i, 0][mixed[i, 0] != i].unique()
            assert len(others) <= 1, "one box of one other crop"
            label = own * labels[i] + (1 - own) * (others[0] % 2 if len(others) else 0)
            assert soft[i].item() == pytest.approx(label.item(), abs=1e-6)


def test_mixing_is_drawn_with_its_chances_and_leaves_the_batch_alone():
    inputs, labels = batch()
    before = inputs.clone()
    config = AugmentationConfig(mixup=0.25, cutmix=0.25)
    untouched = sum(
        torch.equal(mix(inputs, labels, config, np.random.default_rng(seed))[0], before) for seed in range(200)
    )
    assert 70 <= untouched <= 130
    assert torch.equal(inputs, before)
    assert torch.equal(mix(inputs, labels, AugmentationConfig(), np.random.default_rng(0))[0], before)


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """A crop of a drawn face, 256 px, with the margin that `extract` leaves."""
    rng = np.random.default_rng(0)
    face = draw_face(256, scale=0.38, backdrop=rng.uniform(40, 200, (6, 6, 3)))
    return noisy(face, rng)


def test_a_self_blend_changes_the_face_and_leaves_the_rim_as_it_was(face):
    blender = SelfBlender()
    changes = []
    for seed in range(12):
        blended = blender(face, np.random.default_rng(seed))
        assert blended is not None, "the drawn face has landmarks"
        assert blended.shape == face.shape
        assert blended.dtype == np.uint8
        assert np.array_equal(blended, blender(face, np.random.default_rng(seed)))
        changes.append(np.abs(blended.astype(float) - face).mean(axis=2))
    change = np.mean(changes, axis=0)
    inside, corners = change[96:160, 96:160].mean(), change[:24, :24].mean()
    assert inside > 1.5
    # Half of the time the target is restyled, and with it everything outside the mask.
    kept = [c[:24, :24].max() == 0 for c in changes]
    assert 3 <= sum(kept) <= 9
    assert all(c[96:160, 96:160].mean() > 0.5 for c in changes)
    assert corners < inside * 3


def test_the_seam_bends_and_is_soft(face):
    blended = next(
        b
        for seed in range(30)
        if (b := SelfBlender()(face, np.random.default_rng(seed))) is not None
        and np.array_equal(b[:24], face[:24])
        and np.abs(b.astype(int) - face).mean() > 2
    )
    step = np.abs(np.diff(blended.astype(float) - face, axis=1)).mean(axis=2)
    assert np.percentile(step, 99) < 40, "no hard edge of a mask"


def test_without_a_face_nothing_is_blended():
    flat = np.full((128, 128, 3), 120, np.uint8)
    assert SelfBlender()(flat, np.random.default_rng(0)) is None


def test_view_labels_what_it_blends_and_never_touches_fakes(face):
    view = TrainingView(blender=SelfBlender(), blend_chance=1.0, seed=(1, 2))
    image, label = view(face, 0.0, 5)
    assert label == 1.0
    assert not np.array_equal(image, face)
    image, label = view(face, 1.0, 5)
    assert label == 1.0
    assert np.abs(image.astype(int) - face).mean() < 4, "compressed at most"
    image, label = view(np.full((64, 64, 3), 90, np.uint8), 0.0, 5)
    assert label == 0.0, "no landmarks, no blend, and the crop stays real"
    seldom = TrainingView(blender=SelfBlender(), blend_chance=0.3, seed=(1, 2))
    assert 12 <= sum(seldom(face, 0.0, row)[1] == 1.0 for row in range(60)) <= 26


def test_reals_blends_and_fakes_are_compressed_alike(face):
    view = TrainingView(blender=SelfBlender(), blend_chance=0.0, seed=(1, 2))
    compressed = [
        np.mean([not np.array_equal(view(face, label, row)[0], face) for row in range(200)]) for label in (0.0, 1.0)
    ]
    assert compressed == pytest.approx([0.5, 0.5], abs=0.12)
    assert np.array_equal(TrainingView(seed=(1, 2))(face, 0.0, 5)[0], face)
