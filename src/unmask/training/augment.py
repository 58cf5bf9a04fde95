"""Augmentations of training crops; never used on val, calib or test."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from unmask.media.preprocessing import decode_crop, resize_crop

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Augmentation:
    """Which damages a training crop may take, each drawn on its own, in the order in which media meet them.

    Attributes:
        flip: Probability of a horizontal flip.
        light: Probability of another brightness and contrast.
        brightness: Largest shift, as a share of full scale.
        contrast: Largest relative change of contrast.
        downscale: Probability of shrinking and enlarging again.
        downscale_low: Smallest factor.
        blur: Probability of a Gaussian blur.
        blur_sigma_px: Smallest and largest sigma.
        jpeg: Probability of a second JPEG compression.
        jpeg_quality: Smallest and largest quality.
    """

    flip: float = 0.5
    light: float = 0.5
    brightness: float = 0.12
    contrast: float = 0.2
    downscale: float = 0.1
    downscale_low: float = 0.5
    blur: float = 0.1
    blur_sigma_px: tuple[float, float] = (0.3, 1.2)
    jpeg: float = 0.2
    jpeg_quality: tuple[int, int] = (50, 95)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image:
        """Augment a crop.

        Args:
            image: RGB crop ``(H, W, 3)``, uint8; not changed.
            rng: Source of all choices; the same state gives the same crop.

        Returns:
            RGB crop ``(H, W, 3)``, uint8.
        """
        # All coins are tossed first, so that one probability can change without changing what the others do.
        flip, light, downscale, blur, jpeg = rng.random(5) < (
            self.flip,
            self.light,
            self.downscale,
            self.blur,
            self.jpeg,
        )
        if flip:
            image = np.ascontiguousarray(image[:, ::-1])
        if light:
            shift, stretch = rng.uniform(-1, 1, 2) * (self.brightness, self.contrast)
            image = change_light(image, brightness=shift, contrast=1 + stretch)
        if downscale:
            image = shrink_and_enlarge(image, rng.uniform(self.downscale_low, 1))
        if blur:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(*self.blur_sigma_px)), np.uint8)
        if jpeg:
            image = compress(image, int(rng.integers(self.jpeg_quality[0], self.jpeg_quality[1] + 1)))
        return image


def change_light(image: Image, *, brightness: float, contrast: float) -> Image:
    """Change brightness and contrast about mid-grey.

    Args:
        image: RGB ``(H, W, 3)``, uint8.
        brightness: Added, as a share of full scale.
        contrast: Factor; 1 changes nothing.

    Returns:
        RGB ``(H, W, 3)``, uint8, clipped.
    """
    levels = (np.arange(256) - 127.5) * contrast + 127.5 + 255 * brightness
    return np.asarray(cv2.LUT(image, np.clip(np.rint(levels), 0, 255).astype(np.uint8)), np.uint8)


def shrink_and_enlarge(image: Image, factor: float) -> Image:
    """Lose detail by shrinking and enlarging back to the same size.

    Args:
        image: RGB ``(S, S, 3)``, uint8, square.
        factor: Of the side, in (0, 1].

    Returns:
        RGB ``(S, S, 3)``, uint8.
    """
    side_px = image.shape[0]
    return resize_crop(resize_crop(image, max(8, round(side_px * factor))), side_px)


def compress(image: Image, quality: int) -> Image:
    """Compress with JPEG (4:2:0) and decode again.

    Args:
        image: RGB ``(H, W, 3)``, uint8.
        quality: 1 to 100.

    Returns:
        RGB ``(H, W, 3)``, uint8.
    """
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorsubsampling="420")
    return decode_crop(encoded)
