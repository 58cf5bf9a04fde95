"""Each augmentation does what it says, and nothing without its coin."""

import dataclasses

import numpy as np
import pytest

from unmask.training.augment import Augmentation, change_light, compress, shrink_and_enlarge

NEVER = Augmentation(flip=0, light=0, downscale=0, blur=0, jpeg=0)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def test_probability_zero_changes_nothing(image):
    assert np.array_equal(NEVER(image, np.random.default_rng(1)), image)


def test_flip_is_exact(image):
    flipped = dataclasses.replace(NEVER, flip=1)(image, np.random.default_rng(1))
    assert np.array_equal(flipped, image[:, ::-1])


@pytest.mark.parametrize("name", ["light", "downscale", "blur", "jpeg"])
def test_each_damage_changes_the_crop_and_keeps_shape_type_and_input(image, name):
    before = image.copy()
    damaged = dataclasses.replace(NEVER, **{name: 1})(image, np.random.default_rng(1))
    assert damaged.shape == image.shape
    assert damaged.dtype == np.uint8
    assert not np.array_equal(damaged, image)
    assert np.array_equal(image, before)


def test_same_generator_same_crop(image):
    augmentation = Augmentation()
    crops = [augmentation(image, np.random.default_rng(5)) for _ in range(2)]
    assert np.array_equal(*crops)


def test_light_against_arithmetic(image):
    changed = change_light(image, brightness=0.1, contrast=1.2)
    expected = np.clip(np.rint((image - 127.5) * 1.2 + 127.5 + 25.5), 0, 255)
    assert np.array_equal(changed, expected)


def test_shrinking_loses_the_finest_detail():
    rows, columns = np.indices((32, 32))
    board = np.repeat(((rows + columns) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    assert shrink_and_enlarge(board, 0.5).std() < 1
    assert shrink_and_enlarge(board, 1).std() > 100


def test_lower_quality_is_farther_from_the_original(image):
    def error(quality: int) -> float:
        return float(np.abs(compress(image, quality).astype(int) - image).mean())

    assert error(95) < error(30)
