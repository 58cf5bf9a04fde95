"""How a face crop becomes a detector's input: one function for training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from unmask.schemas import Preprocessing


def decode_crop(jpeg: bytes | memoryview) -> NDArray[np.uint8]:
    """Decode a JPEG crop.

    Args:
        jpeg: The bytes of a JPEG file.

    Returns:
        RGB image ``(H, W, 3)``, uint8.

    Raises:
        ValueError: The bytes are not a JPEG.
    """
    image: NDArray[np.uint8] = simplejpeg.decode_jpeg(np.frombuffer(jpeg, np.uint8), colorspace="RGB")
    return image


def resize_crop(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Resize a crop to a square: area interpolation when shrinking, bilinear when enlarging.

    Args:
        image: RGB image ``(H, W, 3)``, uint8.
        size_px: Side of the result.

    Returns:
        RGB image ``(size_px, size_px, 3)``, uint8.
    """
    if image.shape[:2] == (size_px, size_px):
        return image
    shrink = max(image.shape[:2]) > size_px
    interpolation = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=interpolation), np.uint8)


def to_input(images: Sequence[NDArray[np.uint8]], preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Turn crops into a batch for a detector.

    Args:
        images: N RGB images ``(H, W, 3)``, uint8.
        preprocessing: The detector's own; travels with its weights.

    Returns:
        Batch ``(N, 3, S, S)``, float32, normalised, C-contiguous.
    """
    size = preprocessing.size_px
    batch = np.empty((len(images), 3, size, size), np.float32)
    mean = np.asarray(preprocessing.mean, np.float32)[:, None, None] * 255
    std = np.asarray(preprocessing.std, np.float32)[:, None, None] * 255
    for row, image in zip(batch, images, strict=True):
        row[:] = resize_crop(image, size).transpose(2, 0, 1)
    batch -= mean
    batch /= std
    return batch
