"""How a face crop or a window of sound becomes a detector's input: one function for all who score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from unmask.media.sound import SILENT, Samples, level, window_samples
from unmask.schemas import AnyPreprocessing, SoundPreprocessing

FULL_SCALE = 32768.0
AREA_FROM = 1.5


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


def interpolation_for(side_px: int, size_px: int) -> int:
    """Choose how a crop is resized: area interpolation when shrinking by `AREA_FROM` or more, else bilinear.

    Bilinear interpolation leaves pixels out only when shrinking by more than two. When shrinking a little it costs a
    fifth of area interpolation, which was the largest cost of a loader.

    Args:
        side_px: Longer side of the crop.
        size_px: Side of the result.

    Returns:
        Flag of `cv2.resize`.
    """
    return cv2.INTER_AREA if side_px >= AREA_FROM * size_px else cv2.INTER_LINEAR


def resize_crop(image: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Resize a crop to a square, see `interpolation_for`.

    Args:
        image: RGB image ``(H, W, 3)``, uint8.
        size_px: Side of the result.

    Returns:
        RGB image ``(size_px, size_px, 3)``, uint8.
    """
    if image.shape[:2] == (size_px, size_px):
        return image
    interpolation = interpolation_for(max(image.shape[:2]), size_px)
    return np.asarray(cv2.resize(image, (size_px, size_px), interpolation=interpolation), np.uint8)


def middle_of(image: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """Cut out the middle of an image.

    Args:
        image: RGB image ``(H, W, 3)``, uint8.
        share: Of each side; 1 gives the image itself.

    Returns:
        RGB image ``(H', W', 3)``, uint8; a view.
    """
    if share == 1:
        return image
    height, width = (max(1, round(side * share)) for side in image.shape[:2])
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return image[top : top + height, left : left + width]


def decode_item(data: bytes | memoryview, preprocessing: AnyPreprocessing) -> NDArray[Any]:
    """Decode what a detector takes: a JPEG crop, or the samples of a window."""
    return window_samples(data) if isinstance(preprocessing, SoundPreprocessing) else decode_crop(data)


def to_input(items: Sequence[NDArray[Any]], preprocessing: AnyPreprocessing) -> NDArray[np.float32]:
    """Turn crops or windows into a batch for a detector.

    Args:
        items: N RGB images ``(H, W, 3)``, uint8; or of a detector of sound N windows ``(L,)``, int16.
        preprocessing: The detector's own; travels with its weights.

    Returns:
        Batch ``(N, 3, S, S)`` or ``(N, n_samples)``, float32, normalised, C-contiguous.
    """
    batch = np.empty((len(items), *preprocessing.input_shape), np.float32)
    if isinstance(preprocessing, SoundPreprocessing):
        for row, samples in zip(batch, items, strict=True):
            row[:] = levelled(samples, preprocessing)
        return batch
    size = preprocessing.size_px
    mean = np.asarray(preprocessing.mean, np.float32) * 255
    std = np.asarray(preprocessing.std, np.float32) * 255
    for row, image in zip(batch, items, strict=True):
        # Plane by plane: what is done to a plane finds it in the cache.
        planes = cv2.split(resize_crop(middle_of(image, preprocessing.crop), size))
        for channel, plane in enumerate(planes):
            np.subtract(plane, mean[channel], out=row[channel])
            np.divide(row[channel], std[channel], out=row[channel])
    return batch


def levelled(samples: Samples, preprocessing: SoundPreprocessing) -> NDArray[np.float32]:
    """Repeat or cut a window to the length of the input, and bring it to its level; silence stays silence.

    Args:
        samples: ``(L,)``, int16, at least one.
        preprocessing: Of the detector.

    Returns:
        ``(n_samples,)``, float32.
    """
    filled = np.resize(samples, preprocessing.n_samples)
    loudness = level(filled)
    gain = preprocessing.rms / loudness if loudness > SILENT else 1 / FULL_SCALE
    return (filled * gain).astype(np.float32)
