"""Each augmentation does what it says, and nothing without its coin."""

import numpy as np
import pytest
from scipy.fft import dctn

from unmask.config import AugmentationConfig
from unmask.training.augment import (
    DAMAGES,
    Augmentation,
    blank_grid,
    change_light,
    compress,
    disturb_coefficients,
    shift_colour,
    shrink_and_enlarge,
    turn_and_shift,
)

NOTHING = dict.fromkeys(DAMAGES, 0.0)


def only(**chances: float) -> Augmentation:
    return Augmentation(AugmentationConfig(**{**NOTHING, **chances}))


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def test_probability_zero_changes_nothing(image):
    assert np.array_equal(only()(image, np.random.default_rng(1)), image)


def test_flip_is_exact(image):
    flipped = only(flip=1)(image, np.random.default_rng(1))
    assert np.array_equal(flipped, image[:, ::-1])


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "flip"])
def test_each_damage_changes_the_crop_and_keeps_shape_type_and_input(image, name):
    before = image.copy()
    damaged = only(**{name: 1})(image, np.random.default_rng(1))
    assert damaged.shape == image.shape
    assert damaged.dtype == np.uint8
    assert not np.array_equal(damaged, image)
    assert np.array_equal(image, before)


def test_a_crop_shows_a_part_larger():
    row = np.arange(100, dtype=np.uint8)
    ramp = np.repeat(np.broadcast_to(row, (100, 100))[..., None], 3, axis=2)
    for seed in range(20):
        cropped = only(crop=1)(np.ascontiguousarray(ramp), np.random.default_rng(seed)).astype(int)
        assert 0 <= cropped.min() <= cropped.max() <= 99
        assert 76 <= cropped.max() - cropped.min() <= 99
        assert (np.diff(cropped[50, :, 0]) >= 0).all()


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


def test_the_rarer_class_is_damaged_more_often_but_not_flipped_more_often(image):
    augmentation = Augmentation(AugmentationConfig(**{**NOTHING, "jpeg": 0.3, "minority_factor": 2}))
    changed = [
        sum(not np.array_equal(augmentation(image, np.random.default_rng(i), rarer=rarer), image) for i in range(400))
        for rarer in (False, True)
    ]
    assert changed[0] == pytest.approx(120, abs=35)
    assert changed[1] == pytest.approx(240, abs=35)


def test_noise_lies_on_half_of_the_coefficients_and_never_on_the_mean():
    grey = np.full((64, 64, 3), 128, np.uint8)
    noisy = disturb_coefficients(grey, 6.0, np.random.default_rng(0)).astype(float) - 128
    blocks = noisy[..., 0].reshape(8, 8, 8, 8).swapaxes(1, 2).reshape(-1, 8, 8)
    deviations = dctn(blocks, axes=(1, 2), norm="ortho").std(axis=0)
    assert deviations[0, 0] < 0.5
    touched = deviations > 3
    assert 20 <= touched.sum() <= 44
    assert deviations[touched].mean() == pytest.approx(6, rel=0.1)
    assert deviations[~touched].max() < 1, "only what rounding adds"


def test_grid_hides_the_share_that_it_says():
    white = np.full((120, 120, 3), 255, np.uint8)
    hidden = blank_grid(white, 30, 0.6, (0, 0))[..., 0] == 127
    assert hidden.mean() == pytest.approx(0.4**2)
    assert hidden[0, 0]
    assert not hidden[12, 12]
    assert np.array_equal(
        blank_grid(white, 30, 0.6, (7, 3))[:, :, 0],
        np.roll(blank_grid(white, 30, 0.6, (0, 0))[:, :, 0], (-7, -3), (0, 1)),
    )


def test_turn_and_shift_move_what_they_should():
    dot = np.zeros((41, 41, 3), np.uint8)
    dot[20, 30] = 255
    assert np.unravel_index(turn_and_shift(dot, 90, 1, (0, 0))[..., 0].argmax(), (41, 41)) == (10, 20)
    assert np.unravel_index(turn_and_shift(dot, 0, 1, (5 / 41, 0))[..., 0].argmax(), (41, 41)) == (20, 35)


def test_saturation_and_hue():
    red = np.full((4, 4, 3), (200, 100, 100), np.uint8)
    assert np.ptp(shift_colour(red, hue=0, saturation=0)[0, 0]) <= 1
    assert np.array_equal(np.argmax(shift_colour(red, hue=1 / 3, saturation=1)[0, 0]), 1), "a third further is green"
    assert np.abs(shift_colour(red, hue=0, saturation=1).astype(int) - red).max() <= 2
