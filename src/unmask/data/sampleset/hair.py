"""Hair: where it grows, and its strands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from unmask.data.sampleset.identity import Identity
from unmask.data.sampleset.painting import (
    SKULL_TOP_Y,
    AnyFloats,
    Floats,
    Plane,
    coverage,
    noise,
    outline,
    smooth_step,
    strands,
)

CROWN_Y = -1.3  # where the strands start


@dataclass(frozen=True)
class _Cut:
    """A hair style.

    Attributes:
        volume: How far the hair stands out.
        line: y of the hair line in the middle.
        sides_end: y to which the hair reaches at the sides.
        softness: Of the hair line.
    """

    volume: float
    line: float
    sides_end: float
    softness: float = 0.05


_CUTS = {
    "short": _Cut(0.06, -0.72, 0.02),
    "fringe": _Cut(0.10, -0.50, 0.10),
    "long": _Cut(0.14, -0.76, 9.0),
    "swept": _Cut(0.12, -0.74, 0.06),
    "buzz": _Cut(0.015, -0.74, -0.15, 0.1),
}


def paint_hair(
    identity: Identity, rng: np.random.Generator, plane: Plane, x: Floats, y: Floats
) -> tuple[Floats, Floats]:
    """Paint the hair of a person.

    Args:
        identity: The person.
        rng: Draws the strands.
        plane: What it is painted on.
        x: Of each pixel, face units, ``(S, S)``.
        y: Of each pixel, face units, ``(S, S)``.

    Returns:
        Opacity, and shade as a factor around 1, each ``(S, S)``, float32.
    """
    parting = rng.uniform(-0.35, 0.35)
    opacity = _growth(identity, rng, plane, parting, x, y)
    radius = np.hypot(x - parting, y - CROWN_Y)
    if identity.hair_style == "buzz":
        grain: AnyFloats = noise(rng, plane.side_px, 2) * 0.7
    else:
        angle = np.arctan2(x - parting, y - CROWN_Y + 0.25)
        grain = strands(rng, radius, angle, 70) * 0.6 + strands(rng, radius, angle, 200) * 0.5
    if identity.hair_style == "long":
        down = strands(rng, y * 0.4, x + 0.04 * np.sin(4 * y), 60) * 0.7 + strands(rng, y * 0.4, x, 170) * 0.5
        share = smooth_step(y, -0.55, -0.15)
        grain = grain * (1 - share) + down * share
    shine = np.exp(-0.5 * ((radius - 0.42) / 0.12) ** 2) * (y < 0)
    shade = 0.9 + 0.24 * grain + 0.45 * shine * (1 + 0.5 * grain)
    return opacity, np.asarray(np.clip(shade, 0.25, 2.2), np.float32)


def _growth(identity: Identity, rng: np.random.Generator, plane: Plane, parting: float, x: Floats, y: Floats) -> Floats:
    """Where hair grows: a shell around the skull, above a jagged hair line, and down the sides when it is long."""
    cut = _CUTS[identity.hair_style]
    half_width = identity.half_width + 0.75 * cut.volume
    shell = outline(x, y, half_width, SKULL_TOP_Y - cut.volume, identity.chin, identity.jaw)
    cap = coverage(shell + 0.015 * noise(rng, plane.side_px, 0.07 * plane.px_per_unit), plane.px_per_unit)
    line = cut.line + (np.abs(x) / (identity.half_width * 0.93)) ** 3.2 * 0.75
    if identity.hair_style == "swept":
        line = line + 0.12 * smooth_step((x - parting) * np.sign(parting), -0.3, 0.5)
    jagged = 0.035 * strands(rng, y * 0.2, x, 45) + 0.01 * noise(rng, plane.side_px, 5)
    above = smooth_step(y - line - jagged, cut.softness, -cut.softness)
    opacity = cap * above * smooth_step(y + 0.02 * jagged, cut.sides_end + 0.1, cut.sides_end - 0.08)
    if identity.hair_style == "long":
        inner = identity.half_width * (0.88 - 0.1 * smooth_step(y, -0.4, 0.6)) + 0.02 * np.sin(5 * y + parting)
        outer = identity.half_width + 0.17 + 0.06 * np.sin(2.2 * y + 3 * parting) + 0.03 * jagged
        fall = smooth_step(np.abs(x) - inner, -0.01, 0.04) * smooth_step(np.abs(x) - outer, 0.012, -0.012)
        fall = fall * smooth_step(y, -0.5, -0.25) * smooth_step(y + 3 * jagged, 1.45, 1.15)
        opacity = np.maximum(opacity, fall)
    return np.asarray(np.clip(opacity, 0, 1), np.float32)
