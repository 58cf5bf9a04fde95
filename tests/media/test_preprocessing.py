"""How a face crop becomes a detector's input."""

import cv2
import numpy as np
import pytest

from unmask.media.preprocessing import resize_crop, to_input
from unmask.schemas import Preprocessing


def test_the_middle_is_seen_and_nothing_else():
    image = np.zeros((100, 80, 3), np.uint8)
    image[25:75, 20:60] = 200
    plain = Preprocessing(size_px=32, mean=(0, 0, 0), std=(1, 1, 1))
    whole, middle = (to_input([image], plain.model_copy(update={"crop": share})) for share in (1.0, 0.5))
    assert whole.min() == 0
    assert np.allclose(middle, 200 / 255)


def test_channels_are_normalised_each_by_its_own_figures():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (48, 48, 3), dtype=np.uint8) for _ in range(3)]
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    batch = to_input(images, Preprocessing(size_px=48, mean=mean, std=std))
    expected = (np.stack(images).transpose(0, 3, 1, 2) / 255 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    assert batch.shape == (3, 3, 48, 48)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    assert np.allclose(batch, expected, atol=1e-5)


@pytest.mark.parametrize("size_px", [112, 171, 176, 224, 299])
def test_no_pixel_of_a_crop_is_left_out_by_resizing(size_px):
    for column in range(256):
        image = np.zeros((256, 256, 3), np.uint8)
        image[:, column] = 255
        assert resize_crop(image, size_px).max() > 20, column


def test_shrinking_much_is_by_area():
    image = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    quarters = image.reshape(64, 4, 64, 4, 3).mean(axis=(1, 3))
    assert np.abs(resize_crop(image, 64) - quarters).max() <= 0.51
    assert np.array_equal(resize_crop(image, 224), cv2.resize(image, (224, 224)))
