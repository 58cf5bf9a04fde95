"""Strokes that everything is painted with: soft steps, bumps, noise, outlines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
AnyFloats = NDArray[np.floating[Any]]

SPAN = 1.5  # the plane reaches from -SPAN to SPAN in face units, both ways
CHEEK_Y = -0.05
SKULL_TOP_Y = -1.16


@dataclass(frozen=True)
class Plane:
    """The square plane that a head is painted on.

    Attributes:
        side_px: Side of the picture.
    """

    side_px: int

    @property
    def px_per_unit(self) -> float:
        """Resolution."""
        return self.side_px / (2 * SPAN)

    def grid(self) -> tuple[Floats, Floats]:
        """Return x and y of each pixel's centre in face units, each ``(side, side)``, float32."""
        axis = ((np.arange(self.side_px, dtype=np.float32) + 0.5) / self.px_per_unit - SPAN).astype(np.float32)
        x, y = np.meshgrid(axis, axis)
        return x, y

    def to_px(self, units: float) -> float:
        """Return the pixel coordinate (centre convention) of a coordinate in face units."""
        return (units + SPAN) * self.px_per_unit - 0.5


def blurred(image: AnyFloats, sigma_px: float) -> Floats:
    """Smooth a picture with a Gaussian."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), sigma_px), np.float32)


def resized(image: AnyFloats, side_px: int, interpolation: int = cv2.INTER_LINEAR) -> Floats:
    """Resize a picture to a square."""
    return np.asarray(cv2.resize(image, (side_px, side_px), interpolation=interpolation), np.float32)


def look_up(image: Floats, where: Floats) -> Floats:
    """Read a picture at the pixel coordinates ``where`` ``(H, W, 2)``; 0 outside."""
    # No second map: the stubs do not know that None is right, and an empty array makes OpenCV 5 read foreign memory.
    return np.asarray(cv2.remap(image, where, None, cv2.INTER_LINEAR), np.float32)  # type: ignore[call-overload]


def smooth_step(value: AnyFloats, low: float, high: float) -> Floats:
    """Rise smoothly from 0 at ``low`` to 1 at ``high`` (or fall, when ``high`` is lower)."""
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t), np.float32)


def bump(x: Floats, y: Floats, at: tuple[float, float], size: tuple[float, float]) -> Floats:
    """Gaussian bump of height 1."""
    return np.asarray(np.exp(-0.5 * (((x - at[0]) / size[0]) ** 2 + ((y - at[1]) / size[1]) ** 2)), np.float32)


def twin_bumps(x: Floats, y: Floats, at: tuple[float, float], size: tuple[float, float]) -> Floats:
    """The same bump left and right."""
    return bump(np.abs(x), y, at, size)


def noise(rng: np.random.Generator, side: int, cell_px: float) -> Floats:
    """Smooth noise with unit deviation and features of about ``cell_px``."""
    coarse = max(4, round(side / cell_px))
    field = rng.standard_normal((coarse, coarse), dtype=np.float32)
    field = resized(field, side, cv2.INTER_CUBIC)
    return np.asarray(field / (field.std() + 1e-6), np.float32)


def coverage(value: Floats, px_per_unit: float) -> Floats:
    """Antialiased inside of ``value < 1``: 1 inside, 0 outside, a ramp about one pixel wide."""
    along_y, along_x = np.gradient(value)
    slope = np.hypot(along_x, along_y) + 1e-4
    return np.asarray(np.clip((1 - value) / slope + 0.5, 0, 1), np.float32)


def outline(x: Floats, y: Floats, half_width: float, top: float, bottom: float, jaw: float) -> Floats:
    """Egg shape: less than 1 inside, 1 on the outline."""
    across = np.abs(x) / half_width
    down = np.clip((y - CHEEK_Y) / (bottom - CHEEK_Y), 0, None)
    up = np.clip((CHEEK_Y - y) / (CHEEK_Y - top), 0, None)
    exponent = 2 - 0.16 * smooth_step(down, 0, 0.5)
    return np.asarray(across**exponent + down**jaw + up**2.2, np.float32)


def strands(rng: np.random.Generator, along: AnyFloats, across: AnyFloats, fineness: float) -> Floats:
    """Noise that is fine across the strands and slow along them, about unit deviation."""
    table = rng.standard_normal((64, 512), dtype=np.float32)
    table = blurred(table, 0.8)
    table = table / table.std()
    u = ((across * fineness) % 511).astype(np.float32)
    v = ((along * 6) % 63).astype(np.float32)
    return np.asarray(cv2.remap(table, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP), np.float32)
