"""The moving part of a face: eyes and mouth, painted anew in each frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unmask.data.sampleset.head import Head
from unmask.data.sampleset.identity import Identity
from unmask.data.sampleset.painting import Floats, Plane, blurred, smooth_step

JAW_SHARE = 0.5  # how far the chin falls when the mouth opens, as a share of the opening


@dataclass(frozen=True)
class Expression:
    """What a face does in one frame.

    Attributes:
        eyes_closed: 0 open, 1 shut.
        gaze: Where the eyes look, right and down, face units.
        mouth_open: Gap between the lips, face units.
        mouth_round: 1 for a pursed mouth, -1 for a wide one.
        smile: Rise of the corners of the mouth, face units.
    """

    eyes_closed: float = 0.0
    gaze: tuple[float, float] = (0.0, 0.0)
    mouth_open: float = 0.0
    mouth_round: float = 0.0
    smile: float = 0.0


@dataclass(frozen=True)
class _Patch:
    """A rectangle of the plane with its own coordinates."""

    rows: slice
    columns: slice
    x: Floats
    y: Floats


def _patch(plane: Plane, centre: tuple[float, float], half: tuple[float, float], angle: float) -> _Patch:
    """Cut a rectangle around ``centre``; its coordinates start there and are turned by ``angle``."""
    left, right = (round(plane.to_px(centre[0] + side * half[0])) for side in (-1, 1))
    top, bottom = (round(plane.to_px(centre[1] + side * half[1])) for side in (-1, 1))
    rows, columns = slice(top, bottom + 1), slice(left, right + 1)
    x, y = (part[rows, columns] for part in plane.grid())
    dx, dy = x - centre[0], y - centre[1]
    cos, sin = np.cos(angle), np.sin(angle)
    return _Patch(rows, columns, (dx * cos + dy * sin).astype(np.float32), (dy * cos - dx * sin).astype(np.float32))


def _mix(image: Floats, colour: NDArray[np.float32] | Floats, opacity: Floats) -> None:
    """Lay a colour over an image in place."""
    image += (colour - image) * opacity[..., None]


class FacePainter:
    """Paints a person's eyes and mouth into the albedo of a head.

    Args:
        identity: The person.
        head: The person's painted head.
    """

    def __init__(self, identity: Identity, head: Head) -> None:
        self._identity = identity
        self._head = head
        self._pixel = 1 / head.plane.px_per_unit
        self._canvas = head.albedo.copy()
        rng = np.random.default_rng(identity.texture_seed + 1)
        half = (identity.eye_half_width + 0.07, 0.14)
        self._eyes = [
            _patch(head.plane, (side * identity.eye_x, identity.eye_y), half, -side * identity.eye_tilt)
            for side in (-1, 1)
        ]
        self._mouth = _patch(head.plane, (0, identity.mouth_y), (0.37, 0.27), 0)
        self._fibres = rng.standard_normal(96).astype(np.float32)
        creases = blurred(rng.standard_normal((1, 256), dtype=np.float32), 1.2)
        self._creases = (creases / creases.std()).ravel()
        self._lid = np.asarray(identity.skin, np.float32) * np.asarray((0.95, 0.91, 0.90), np.float32)
        self._lash = np.asarray(identity.hair, np.float32) * 0.35

    def paint(self, expression: Expression, catchlight: tuple[float, float] = (-0.3, -0.3)) -> Floats:
        """Paint one frame.

        Args:
            expression: What the face does.
            catchlight: Direction of the lamp's reflection in the eyes, right and down.

        Returns:
            The albedo ``(S, S, 3)``, float32. It is overwritten by the next call.
        """
        for patch in (*self._eyes, self._mouth):
            self._canvas[patch.rows, patch.columns] = self._head.albedo[patch.rows, patch.columns]
        for patch in self._eyes:
            self._paint_eye(self._canvas[patch.rows, patch.columns], patch, expression, catchlight)
        self._paint_mouth(self._canvas[self._mouth.rows, self._mouth.columns], self._mouth, expression)
        return self._canvas

    def _paint_eye(self, image: Floats, patch: _Patch, expression: Expression, catchlight: tuple[float, float]) -> None:
        identity, x, y, pixel = self._identity, patch.x, patch.y, self._pixel
        across = np.clip(x / identity.eye_half_width, -1, 1)
        profile = (1 - across * across) ** 0.8
        lower = 0.6 * identity.eye_opening * profile
        raised = -identity.eye_opening * profile * (1 - 0.45 * max(0.0, expression.gaze[1]) / 0.05)
        upper = raised + (lower * 0.8 - raised) * expression.eyes_closed
        within = smooth_step(np.abs(x), identity.eye_half_width + pixel, identity.eye_half_width - 3 * pixel)
        # The lid: skin that follows the upper edge down, its fold fading as it stretches.
        fold = raised - 0.028 * profile - 0.008
        lid = smooth_step(y - fold, -0.012, 0.012) * smooth_step(y - lower, 0.012, -0.004) * within
        _mix(image, self._lid, lid * 0.6)
        line = np.exp(-0.5 * ((y - fold) / 0.009) ** 2) * within * (1 - 0.9 * expression.eyes_closed)
        image *= 1 - 0.33 * line[..., None]
        opening = np.clip((y - upper) / pixel + 0.5, 0, 1) * np.clip((lower - y) / pixel + 0.5, 0, 1) * within
        if float(opening.max()) > 0.02:
            _mix(image, self._eyeball(x, y, upper, expression.gaze, catchlight), opening)
        lashes = np.exp(-0.5 * ((y - upper + 0.3 * identity.lashes) / (0.62 * identity.lashes)) ** 2)
        outer = np.clip(within + 0.0, 0, 1)
        _mix(image, self._lash, np.clip(lashes * outer * 0.92, 0, 1))
        rim = np.exp(-0.5 * ((y - lower - 0.004) / 0.007) ** 2) * within * (1 - expression.eyes_closed)
        image *= 1 - 0.25 * rim[..., None]

    def _eyeball(
        self, x: Floats, y: Floats, upper: Floats, gaze: tuple[float, float], catchlight: tuple[float, float]
    ) -> Floats:
        identity = self._identity
        ball = np.empty((*x.shape, 3), np.float32)
        ball[:] = (226, 216, 210)
        ball *= (1 - 0.38 * (np.abs(x) / identity.eye_half_width) ** 2.5)[..., None]
        dx, dy = x - gaze[0], y - gaze[1] + 0.004
        radius, size = np.hypot(dx, dy), 0.066
        angle = ((np.arctan2(dy, dx) / (2 * np.pi) + 0.5) * 95).astype(np.int32)
        fibre = 1 + 0.16 * self._fibres[angle] * (radius / size)
        glow = 0.8 + 0.55 * np.clip((dy * 0.9 + 0.01) / size, -0.4, 1)
        limbus = 1 - 0.65 * smooth_step(radius, 0.75 * size, size)
        iris = np.asarray(identity.iris, np.float32) * (fibre * glow * limbus)[..., None]
        pixel = self._pixel
        _mix(ball, iris.astype(np.float32), np.clip((size - radius) / (1.5 * pixel) + 0.5, 0, 1))
        _mix(ball, np.asarray((12, 9, 9), np.float32), np.clip((0.42 * size - radius) / (1.5 * pixel) + 0.5, 0, 1))
        shadow = 0.5 + 0.5 * smooth_step(y - upper, -0.01, 0.05)
        ball *= shadow[..., None]
        spot = np.hypot(dx - 0.45 * size * catchlight[0] * 2, dy - 0.4 * size * catchlight[1] * 2)
        _mix(ball, np.asarray((255, 255, 255), np.float32), 0.9 * np.exp(-0.5 * (spot / 0.0125) ** 4))
        return ball

    def _paint_mouth(self, image: Floats, patch: _Patch, expression: Expression) -> None:
        identity, x, pixel = self._identity, patch.x, self._pixel
        gap = expression.mouth_open
        half = identity.mouth_half_width * (1 - 0.2 * expression.mouth_round) + 0.4 * expression.smile
        across = np.clip(x / half, -1, 1)
        corner = across * across
        profile = 1 - corner
        y = patch.y + expression.smile * (corner - 0.35)
        middle = 0.010 * np.cos(2.6 * np.pi * across) * profile - 0.006
        inner_top = middle - 0.25 * gap * profile**0.7
        inner_bottom = middle + 0.75 * gap * profile**0.45 + 0.003
        bow = (
            profile**0.8
            * (1 - 0.28 * np.exp(-0.5 * (across / 0.11) ** 2))
            * (1 + 0.12 * np.exp(-((np.abs(across) - 0.25) ** 2) / 0.03))
        )
        pout = 1 + 0.25 * expression.mouth_round
        outer_top = inner_top - identity.upper_lip * bow * pout
        outer_bottom = inner_bottom + identity.lower_lip * profile**0.62 * pout
        soft = 0.012
        upper = smooth_step(y - outer_top, -soft, soft) * np.clip((inner_top - y) / pixel + 0.5, 0, 1)
        lower = np.clip((y - inner_bottom) / pixel + 0.5, 0, 1) * smooth_step(y - outer_bottom, soft, -soft)
        wide = smooth_step(np.abs(x), half + 0.012, half - 0.02)
        colour = np.asarray(identity.lips, np.float32)
        index = np.clip((across * 0.5 + 0.5) * 255, 0, 255).astype(np.int32)
        crease = 1 + 0.055 * self._creases[index]
        high = np.exp(-0.5 * ((y - inner_bottom - 0.42 * identity.lower_lip) / (0.2 * identity.lower_lip)) ** 2)
        under = smooth_step(y - outer_bottom, -0.2 * identity.lower_lip, 0.05 * identity.lower_lip)
        _mix(image, colour * (0.84 * crease)[..., None], upper * wide * 0.92)
        shade = (1.02 + 0.16 * high * np.exp(-((across / 0.55) ** 2)) - 0.16 * under) * crease
        _mix(image, colour * shade[..., None], lower * wide * 0.92)
        shadow = 0.22 * np.exp(-0.5 * ((y - outer_bottom - 0.03) / 0.02) ** 2) * profile
        image *= 1 - shadow[..., None]
        self._paint_cavity(image, x, y, inner_top, inner_bottom, half, wide)

    def _paint_cavity(
        self, image: Floats, x: Floats, y: Floats, top: Floats, bottom: Floats, half: float, wide: Floats
    ) -> None:
        """Teeth, tongue and dark between the lips; a dark line when they are shut."""
        pixel = self._pixel
        inside = np.clip((y - top) / pixel + 0.5, 0, 1) * np.clip((bottom - y) / pixel + 0.5, 0, 1) * wide
        depth = np.clip((y - top) / 0.05, 0, 1)
        cavity = np.empty((*x.shape, 3), np.float32)
        cavity[:] = (38, 14, 14)
        tongue = smooth_step(y - bottom, -0.055, -0.01) * smooth_step(np.abs(x), 0.8 * half, 0.3 * half)
        _mix(cavity, np.asarray((112, 50, 50), np.float32), 0.7 * tongue)
        arch = 0.036 * (1 - 0.5 * (x / half) ** 2)
        teeth = smooth_step(y - top - arch, 0.006, -0.006) * smooth_step(np.abs(x), 0.85 * half, 0.6 * half)
        gaps = 1 - 0.14 * np.exp(-0.5 * (((np.abs(x) / 0.052) % 1 - 0.5) / 0.07) ** 2)
        enamel = (
            np.asarray((206, 196, 182), np.float32)
            * ((0.5 + 0.4 * depth) * gaps * (1 - 0.5 * np.abs(x) / half))[..., None]
        )
        _mix(cavity, enamel.astype(np.float32), teeth * smooth_step(bottom - top, 0.012, 0.045))
        _mix(image, cavity, np.clip(inside, 0, 1))
        seam = np.exp(-0.5 * ((y - 0.5 * (top + bottom)) / 0.008) ** 2) * wide
        image *= 1 - (0.55 * seam * smooth_step(bottom - top, 0.03, 0.004))[..., None]
