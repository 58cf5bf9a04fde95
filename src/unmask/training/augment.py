"""Augmentations of training crops; never used on val, calib or test."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from scipy.fft import dct

from unmask.config import AugmentationConfig
from unmask.media.preprocessing import decode_crop, resize_crop

Image = NDArray[np.uint8]


BLOCK_PX = 8
# In this order; each is a method of `Augmentation` and a chance in `AugmentationConfig`.
DAMAGES = ("flip", "affine", "crop", "light", "colour", "downscale", "blur", "dct_noise", "jpeg", "gridmask")


@dataclass(frozen=True)
class Augmentation:
    """Which damages a training crop may take, each drawn on its own, in the order in which media meet them.

    Attributes:
        chances: Of each damage.
        rotation_deg: Largest turn.
        zoom: Largest relative change of size; also the largest shift, as a share of the side.
        crop_low: Smallest side of the square that is cut out, as a share of the side.
        brightness: Largest shift, as a share of full scale.
        contrast: Largest relative change of contrast.
        saturation: Largest relative change of saturation.
        hue: Largest turn of the colour circle, as a share of it.
        downscale_low: Smallest factor.
        blur_sigma_px: Smallest and largest sigma.
        dct_sigma: Smallest and largest deviation of the noise on cosine coefficients, in grey levels.
        jpeg_quality: Smallest and largest quality.
        grid_unit: Smallest and largest period of the grid of GridMask, as a share of the side.
        grid_kept: Share of the period that stays visible.
    """

    chances: AugmentationConfig = field(default_factory=AugmentationConfig)
    rotation_deg: float = 10.0
    zoom: float = 0.08
    crop_low: float = 0.8
    brightness: float = 0.12
    contrast: float = 0.2
    saturation: float = 0.3
    hue: float = 0.02
    downscale_low: float = 0.5
    blur_sigma_px: tuple[float, float] = (0.3, 1.2)
    dct_sigma: tuple[float, float] = (1.0, 6.0)
    jpeg_quality: tuple[int, int] = (50, 95)
    grid_unit: tuple[float, float] = (0.2, 0.5)
    grid_kept: float = 0.6

    def __call__(self, image: Image, rng: np.random.Generator, *, rarer: bool = False) -> Image:
        """Augment a crop.

        Args:
            image: RGB crop ``(S, S, 3)``, uint8, square; not changed.
            rng: Source of all choices; the same state gives the same crop.
            rarer: Whether it is of the rarer class, whose chances are ``minority_factor`` times as high.

        Returns:
            RGB crop ``(S, S, 3)``, uint8.
        """
        # All coins are tossed first, so that one chance can change without changing what the others do.
        coins = dict(zip(DAMAGES, rng.random(len(DAMAGES)), strict=True))
        factor = self.chances.minority_factor if rarer else 1.0
        for name in DAMAGES:
            # A flip is no damage: more than half of them would only turn the picture round.
            chance = getattr(self.chances, name) * (1.0 if name == "flip" else factor)
            if coins[name] < chance:
                image = getattr(self, f"_{name}")(image, rng)
        return image

    def _flip(self, image: Image, rng: np.random.Generator) -> Image:
        return np.ascontiguousarray(image[:, ::-1])

    def _affine(self, image: Image, rng: np.random.Generator) -> Image:
        turn, zoom, *shift = rng.uniform(-1, 1, 4) * (self.rotation_deg, self.zoom, self.zoom, self.zoom)
        return turn_and_shift(image, turn, 1 + zoom, (shift[0], shift[1]))

    def _crop(self, image: Image, rng: np.random.Generator) -> Image:
        side_px = image.shape[0]
        kept_px = round(side_px * rng.uniform(self.crop_low, 1))
        top, left = rng.integers(side_px - kept_px + 1, size=2)
        return resize_crop(np.ascontiguousarray(image[top : top + kept_px, left : left + kept_px]), side_px)

    def _light(self, image: Image, rng: np.random.Generator) -> Image:
        shift, stretch = rng.uniform(-1, 1, 2) * (self.brightness, self.contrast)
        return change_light(image, brightness=shift, contrast=1 + stretch)

    def _colour(self, image: Image, rng: np.random.Generator) -> Image:
        hue, saturation = rng.uniform(-1, 1, 2) * (self.hue, self.saturation)
        return shift_colour(image, hue=hue, saturation=1 + saturation)

    def _downscale(self, image: Image, rng: np.random.Generator) -> Image:
        return shrink_and_enlarge(image, rng.uniform(self.downscale_low, 1))

    def _blur(self, image: Image, rng: np.random.Generator) -> Image:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(*self.blur_sigma_px)), np.uint8)

    def _dct_noise(self, image: Image, rng: np.random.Generator) -> Image:
        return disturb_coefficients(image, rng.uniform(*self.dct_sigma), rng)

    def _jpeg(self, image: Image, rng: np.random.Generator) -> Image:
        return compress(image, int(rng.integers(self.jpeg_quality[0], self.jpeg_quality[1] + 1)))

    def _gridmask(self, image: Image, rng: np.random.Generator) -> Image:
        unit_px = max(2, round(rng.uniform(*self.grid_unit) * image.shape[0]))
        return blank_grid(image, unit_px, self.grid_kept, (int(rng.integers(unit_px)), int(rng.integers(unit_px))))


def turn_and_shift(image: Image, turn_deg: float, zoom: float, shift: tuple[float, float]) -> Image:
    """Turn about the middle, zoom and shift; what comes in from outside mirrors the edge.

    Args:
        image: RGB ``(S, S, 3)``, uint8, square.
        turn_deg: Counter-clockwise.
        zoom: Factor.
        shift: To the right and down, as shares of the side.

    Returns:
        RGB ``(S, S, 3)``, uint8.
    """
    side = image.shape[0]
    matrix = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), turn_deg, zoom)
    matrix[:, 2] += np.asarray(shift) * side
    turned = cv2.warpAffine(image, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(turned, np.uint8)


def shift_colour(image: Image, *, hue: float, saturation: float) -> Image:
    """Turn the colour circle and change saturation.

    Args:
        image: RGB ``(H, W, 3)``, uint8.
        hue: Turn, as a share of the circle.
        saturation: Factor.

    Returns:
        RGB ``(H, W, 3)``, uint8.
    """
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    turned = (np.arange(256) + round(hue * 256)) % 256
    scaled = np.clip(np.rint(np.arange(256) * saturation), 0, 255)
    tables = np.stack([turned, scaled, np.arange(256)], axis=1).astype(np.uint8)[None]
    return np.asarray(cv2.cvtColor(cv2.LUT(hsv, tables), cv2.COLOR_HSV2RGB_FULL), np.uint8)


def disturb_coefficients(image: Image, sigma: float, rng: np.random.Generator) -> Image:
    """Add noise to the cosine coefficients of 8×8 blocks, half of them, the mean of a block excepted.

    Detectors that lean on single frequencies lose their hold.

    Args:
        image: RGB ``(H, W, 3)``, uint8.
        sigma: Deviation of the noise, in grey levels (the transform is orthonormal).
        rng: Source of the noise.

    Returns:
        RGB ``(H, W, 3)``, uint8. A rim that fills no block stays as it is.
    """
    rows, columns = (side // BLOCK_PX for side in image.shape[:2])
    noise = rng.normal(0, sigma, (rows, columns, 3, BLOCK_PX, BLOCK_PX)).astype(np.float32)
    noise *= rng.random((BLOCK_PX, BLOCK_PX)) < 0.5
    noise[..., 0, 0] = 0
    # The transform is linear, so the noise can be brought back to pixels alone.
    base = dct(np.eye(BLOCK_PX, dtype=np.float32), axis=0, norm="ortho")
    pixels = np.einsum("ki,rcpkl,lj->ricjp", base, noise, base, optimize=True)
    disturbed = image.astype(np.float32)
    disturbed[: rows * BLOCK_PX, : columns * BLOCK_PX] += pixels.reshape(rows * BLOCK_PX, columns * BLOCK_PX, 3)
    return np.clip(np.rint(disturbed), 0, 255).astype(np.uint8)


def blank_grid(image: Image, unit_px: int, kept: float, start: tuple[int, int]) -> Image:
    """Blank squares on a grid (GridMask, Chen et al. 2020).

    Args:
        image: RGB ``(H, W, 3)``, uint8.
        unit_px: Period of the grid.
        kept: Share of the period that stays visible in each direction.
        start: Where the grid begins, down and to the right.

    Returns:
        RGB ``(H, W, 3)``, uint8; blanked pixels are mid-grey.
    """
    hidden_px = unit_px - round(unit_px * kept)
    rows, columns = (
        (np.arange(side) + first) % unit_px < hidden_px for side, first in zip(image.shape, start, strict=False)
    )
    masked = image.copy()
    masked[rows[:, None] & columns[None, :]] = 127
    return masked


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
