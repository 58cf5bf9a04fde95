"""Where a clip is set: light, background, clothes, and the camera with its noise."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.data.sampleset.identity import Colour, Identity
from unmask.data.sampleset.painting import AnyFloats, Floats, blurred, smooth_step

BACKGROUNDS = ("studio", "wall", "shelves", "window", "lights")
NOISE_POOL_PX = 192  # the noise field is larger than the frame by this, and cut at a random place for each frame


@dataclass(frozen=True)
class Light:
    """One lamp and the light from all around.

    Attributes:
        direction: Unit vector towards the lamp (right, down, towards the camera).
        key: Colour of the lamp, factors around 1.
        ambient: Colour of the light from all around, factors around 0.5.
    """

    direction: tuple[float, float, float]
    key: Colour
    ambient: Colour


def draw_light(rng: np.random.Generator) -> Light:
    """Draw a light: from a side, from above, warm or cold."""
    azimuth, elevation = rng.uniform(-1.0, 1.0), rng.uniform(0.15, 0.9)
    direction = (
        float(np.sin(azimuth) * np.cos(elevation)),
        float(-np.sin(elevation)),
        float(np.cos(azimuth) * np.cos(elevation)),
    )
    warmth = rng.uniform(-0.07, 0.07)
    level, fill = rng.uniform(0.92, 1.06), rng.uniform(0.42, 0.62)
    key, ambient = level * (1.12 - fill), level * fill
    return Light(
        direction,
        (key * (1 + warmth), key, key * (1 - warmth)),
        (ambient * (1 - 0.5 * warmth), ambient, ambient * (1 + 0.5 * warmth)),
    )


def _hsv(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    pixel = np.asarray([[[hue * 360, saturation, value]]], np.float32)
    return np.asarray(cv2.cvtColor(pixel, cv2.COLOR_HSV2RGB)[0, 0] * 255, np.float32)


def paint_background(rng: np.random.Generator, side_px: int) -> tuple[Floats, str]:
    """Paint what is behind the person, out of focus.

    Args:
        rng: Draws the place.
        side_px: Side of the picture.

    Returns:
        RGB ``(S, S, 3)``, float32, 0 to 255, and the kind of place.
    """
    kind = str(rng.choice(BACKGROUNDS))
    hue = rng.random()
    axis = np.linspace(0, 1, side_px, dtype=np.float32)
    x, y = np.meshgrid(axis, axis)
    base = _hsv(hue, rng.uniform(0.05, 0.4), rng.uniform(0.35, 0.75))
    slope = rng.uniform(-0.25, 0.25) * (x - 0.5) + rng.uniform(-0.2, 0.3) * (0.5 - y)
    image = (base * (1 + slope)[..., None]).astype(np.float32)
    if kind == "wall":
        for _ in range(int(rng.integers(1, 4))):
            left, top = rng.uniform(-0.1, 0.9), rng.uniform(0, 0.5)
            _box(
                image,
                (left, top, left + rng.uniform(0.1, 0.3), top + rng.uniform(0.1, 0.35)),
                _hsv(rng.random(), 0.3, rng.uniform(0.2, 0.9)),
            )
    elif kind == "shelves":
        _shelves(image, rng)
    elif kind == "window":
        left = rng.choice((rng.uniform(-0.1, 0.1), rng.uniform(0.6, 0.8)))
        _box(image, (left, 0.02, left + 0.32, 0.7), _hsv(0.57, 0.12, 0.97))
        _box(image, (left + 0.15, 0.02, left + 0.17, 0.7), base * 0.6)
        _box(image, (left, 0.34, left + 0.32, 0.36), base * 0.6)
    elif kind == "lights":
        image *= 0.45
        for _ in range(int(rng.integers(12, 26))):
            at = (int(rng.uniform(0, side_px)), int(rng.uniform(0, 0.8 * side_px)))
            glow = _hsv(rng.uniform(0.02, 0.16), rng.uniform(0.2, 0.7), rng.uniform(0.5, 1))
            cv2.circle(image, at, int(side_px * rng.uniform(0.015, 0.05)), glow.tolist(), -1, cv2.LINE_AA)
    image = blurred(image, side_px * rng.uniform(0.004, 0.014))
    grain = cv2.resize(rng.standard_normal((side_px // 3, side_px // 3), dtype=np.float32), (side_px, side_px))
    return np.clip(image * (1 + 0.015 * grain)[..., None], 0, 255).astype(np.float32), kind


def _box(image: Floats, box: tuple[float, float, float, float], colour: NDArray[np.float32]) -> None:
    """Fill a box given in shares of the picture."""
    left, top, right, bottom = (round(value * image.shape[0]) for value in box)
    cv2.rectangle(image, (left, top), (right, bottom), colour.tolist(), -1)


def _shelves(image: Floats, rng: np.random.Generator) -> None:
    for level in np.arange(rng.uniform(-0.1, 0.1), 1, 0.27):
        left = -0.02
        while left < 1:
            width = rng.uniform(0.015, 0.05)
            top = level + rng.uniform(0.02, 0.1)
            _box(
                image,
                (left, top, left + width, level + 0.25),
                _hsv(rng.random(), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.8)),
            )
            left += width + 0.003
        _box(image, (0, level + 0.25, 1, level + 0.27), np.asarray((96, 70, 48), np.float32))


def paint_torso(
    identity: Identity,
    light: Light,
    rng: np.random.Generator,
    side_px: int,
    centre: tuple[float, float],
    px_per_unit: float,
) -> Floats:
    """Paint neck, shoulders and clothes.

    Args:
        identity: The person.
        light: The light of the scene.
        rng: Draws the clothes.
        side_px: Side of the picture.
        centre: Where the head's origin lies, pixels.
        px_per_unit: Pixels per face unit.

    Returns:
        Premultiplied RGBA ``(S, S, 4)``, float32: colour 0 to 255, alpha 0 to 1.
    """
    axis = np.arange(side_px, dtype=np.float32) + 0.5
    x, y = np.meshgrid((axis - centre[0]) / px_per_unit, (axis - centre[1]) / px_per_unit)
    lamp = light.direction
    gain = np.asarray(light.ambient, np.float32) + np.asarray(light.key, np.float32) * 0.55 * max(0.3, lamp[2])
    neck_half = 0.56 * identity.half_width * (1 + 0.25 * smooth_step(y, 0.95, 1.35))
    neck = smooth_step(np.abs(x) - neck_half, 0.012, -0.012) * (y > 0.3)
    round_neck = np.sqrt(np.clip(1 - (x / (neck_half + 0.02)) ** 2, 0, 1))
    shade = 0.42 + 0.45 * round_neck + 0.35 * lamp[0] * x / 0.5
    # The chin keeps the lamp off the upper neck.
    shade = shade * (0.55 + 0.45 * smooth_step(y, identity.chin + 0.0, identity.chin + 0.38))
    colour = np.asarray(identity.skin, np.float32) * np.asarray((1.0, 0.95, 0.93), np.float32) * gain * shade[..., None]
    shoulder = 1.22 + 0.24 * (np.abs(x) / 1.2) ** 2.2 + 0.5 * np.clip(np.abs(x) - 1.25, 0, None) ** 1.5
    collar = 1.3 + rng.uniform(-0.1, 0.25) * (1 - (x / 0.45) ** 2) * (np.abs(x) < 0.45)
    edge = np.where(np.abs(x) < 0.45, np.maximum(shoulder, collar), shoulder).astype(np.float32)
    cloth = smooth_step(y - edge, -0.01, 0.014)
    body = smooth_step(y - shoulder, -0.01, 0.014)
    fabric = _hsv(rng.random(), rng.uniform(0.05, 0.6), rng.uniform(0.15, 0.85))
    folds = blurred(rng.standard_normal((side_px, side_px), dtype=np.float32), 0.09 * px_per_unit)
    weave = blurred(rng.standard_normal((side_px, side_px), dtype=np.float32), 0.8)
    pattern = 0.12 * (np.sin(x * rng.uniform(20, 45)) > 0) * (rng.random() < 0.3)
    light_on = 0.8 + 0.2 * lamp[0] * x - 0.25 * smooth_step(edge - y, -0.12, 0.0)
    cloth_shade = light_on + 0.06 * folds / (folds.std() + 1e-6) + 0.05 * weave / weave.std() + pattern
    colour = colour + (fabric * gain * cloth_shade[..., None] - colour) * cloth[..., None]
    alpha = np.maximum(neck, np.maximum(cloth, body)).astype(np.float32)
    colour = np.clip(colour, 0, 255).astype(np.float32) * alpha[..., None]
    return np.dstack([colour, alpha]).astype(np.float32)


class Camera:
    """A camera: its lens, the fixed pattern of its sensor, and the noise of each exposure.

    The fixed pattern is multiplicative (photo-response non-uniformity, Lukáš et al. 2006); the noise grows with the
    square root of the light, and both are smoothed as demosaicing does.

    Args:
        rng: Draws the camera.
        side_px: Side of the picture.
    """

    def __init__(self, rng: np.random.Generator, side_px: int) -> None:
        self._side_px = side_px
        self.lens_px = rng.uniform(0.45, 0.85) * side_px / 320
        self.noise = rng.uniform(1.6, 3.2)
        pattern = rng.standard_normal((side_px, side_px), dtype=np.float32)
        self.pattern: Floats = (1 + 0.015 * blurred(pattern, 0.4)).astype(np.float32)
        size = side_px + NOISE_POOL_PX
        grain = blurred(rng.standard_normal((size, size, 3), dtype=np.float32), 0.45)
        grain += 0.6 * grain.mean(axis=2, keepdims=True)
        self._grain: Floats = (grain / grain.std()).astype(np.float32)

    def grain(self, rng: np.random.Generator) -> Floats:
        """Draw the noise of one exposure, unit deviation, ``(S, S, 3)``, float32."""
        top, left = rng.integers(0, NOISE_POOL_PX, 2)
        cut = self._grain[top : top + self._side_px, left : left + self._side_px]
        flips = rng.integers(0, 4)
        cut = cut[:: -1 if flips & 1 else 1, :: -1 if flips & 2 else 1]
        return cut

    def noise_level(self, image: AnyFloats) -> Floats:
        """Return the deviation of the noise at each brightness, same shape as the image."""
        return np.asarray(cv2.sqrt(np.clip(image, 0, None)) * (self.noise / 16) + 0.25 * self.noise, np.float32)

    def expose(self, scene: Floats, rng: np.random.Generator) -> Floats:
        """Take a picture.

        Args:
            scene: RGB ``(S, S, 3)``, float32, 0 to 255.
            rng: Draws the noise.

        Returns:
            RGB ``(S, S, 3)``, float32, not yet rounded.
        """
        seen = blurred(scene, self.lens_px)
        seen *= self.pattern[..., None]
        seen += self.grain(rng) * self.noise_level(seen)
        return np.asarray(seen, np.float32)
