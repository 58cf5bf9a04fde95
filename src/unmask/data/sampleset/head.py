"""The still part of a head: skin, hair, brows and shape, painted once for each person.

A head is a picture on a plane (see `Plane`) with a depth for each point, so that a frame is one warp of it: points
that stand out move further when the head turns. Eyes and mouth are painted anew in each frame by `expression`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from unmask.data.sampleset.hair import paint_hair
from unmask.data.sampleset.identity import Identity
from unmask.data.sampleset.painting import (
    SKULL_TOP_Y,
    Floats,
    Plane,
    blurred,
    bump,
    coverage,
    noise,
    outline,
    smooth_step,
    strands,
    twin_bumps,
)

DEPTH = 0.6  # of the skull's front half


@dataclass(frozen=True)
class Head:
    """A painted head.

    Attributes:
        plane: What it is painted on.
        albedo: Colour without light, RGB 0 to 255, ``(S, S, 3)``, float32.
        alpha: Coverage, 0 to 1, ``(S, S)``, float32.
        depth: How far points stand out, face units, ``(S, S)``, float32.
        normals: Unit normals (x right, y down, z towards the camera), ``(S, S, 3)``, float32.
        gloss: Strength of the highlight, ``(S, S)``, float32.
        jaw: Share of the jaw's movement that a point follows, ``(S, S)``, float32.
        skin: 1 on skin, 0 on hair and brows, ``(S, S)``, float32: where the pulse shows.
    """

    plane: Plane
    albedo: Floats
    alpha: Floats
    depth: Floats
    normals: Floats
    gloss: Floats
    jaw: Floats
    skin: Floats


def _depth(identity: Identity, x: Floats, y: Floats) -> Floats:
    """Relief of the face: an egg, and what stands out of it."""
    inside = outline(x, y, identity.half_width, SKULL_TOP_Y, identity.chin, identity.jaw)
    z = DEPTH * np.sqrt(np.clip(1 - np.clip(inside, 0, 1) ** 1.5, 0, 1))
    tip, width, height = identity.nose_tip, identity.nose_width, identity.nose_height
    along = np.clip((y + 0.16) / (tip + 0.16), 0, None)
    ridge = smooth_step(along, 0, 1.0) * smooth_step(y, tip + 0.09, tip + 0.0)
    z += height * ridge * np.exp(-0.5 * (x / (0.055 + 0.045 * np.clip(along, 0, 1))) ** 2)
    z += 0.35 * height * bump(x, y, (0, tip), (0.075, 0.06))
    z += 0.055 * twin_bumps(x, y, (width - 0.035, tip + 0.01), (0.038, 0.042))
    z -= 0.085 * twin_bumps(x, y, (identity.eye_x, identity.eye_y - 0.01), (0.16, 0.085))
    z += 0.05 * twin_bumps(x, y, (identity.eye_x, identity.eye_y), (0.10, 0.055))
    z += 0.045 * twin_bumps(x, y, (identity.eye_x * 0.95, identity.eye_y - identity.brow_lift - 0.02), (0.2, 0.05))
    z += identity.cheekbones * twin_bumps(x, y, (0.46, 0.12), (0.14, 0.1))
    z -= (
        0.02
        * identity.age
        * twin_bumps(x - 0.12 * (y - tip) * np.sign(x), y, (width + 0.07, tip + 0.14), (0.018, 0.12))
    )
    mouth = identity.mouth_y
    z += 0.045 * bump(x, y, (0, mouth), (identity.mouth_half_width * 0.8, 0.09))
    z -= 0.03 * bump(x, y, (0, mouth + identity.lower_lip + 0.055), (0.14, 0.028))
    z -= 0.012 * bump(x, y, (0, mouth - identity.upper_lip - 0.05), (0.022, 0.035))
    z += 0.05 * bump(x, y, (0, identity.chin - 0.13), (0.13, 0.085))
    return np.asarray(z, np.float32)


def _skin(identity: Identity, rng: np.random.Generator, plane: Plane, x: Floats, y: Floats, z: Floats) -> Floats:
    """Skin colour with blush, shade in the hollows, pores, freckles and wrinkles."""
    side, scale = plane.side_px, plane.px_per_unit
    tone = np.asarray(identity.skin, np.float32)
    blush = 0.9 * twin_bumps(x, y, (0.42, 0.2), (0.17, 0.13)) + 0.7 * bump(x, y, (0, identity.nose_tip), (0.12, 0.08))
    blush += 0.3 * twin_bumps(x, y, (0.75, 0.02), (0.1, 0.2)) + 0.06 * noise(rng, side, 0.2 * scale)
    dark = 0.10 * twin_bumps(x, y, (identity.eye_x, identity.eye_y + 0.1), (0.13, 0.035)) * (0.5 + identity.age)
    dark += 0.06 * twin_bumps(x, y, (identity.eye_x * 0.7, identity.eye_y - 0.03), (0.09, 0.06))
    hollow = z - blurred(z, 0.05 * scale)
    dark -= np.clip(hollow * 2.2, -0.3, 0.06)
    beard = twin_bumps(x, y, (0.3, identity.chin - 0.2), (0.28, 0.2)) + bump(
        x, y, (0, identity.chin - 0.1), (0.3, 0.13)
    )
    beard += 0.8 * bump(x, y, (0, identity.mouth_y - identity.upper_lip - 0.05), (0.2, 0.04))
    beard = np.clip(beard, 0, 1) * identity.stubble
    dark += 0.16 * beard
    fine = noise(rng, side, 1.6) - blurred(noise(rng, side, 2.2), 2.0)
    pores = 0.018 * fine + 0.012 * noise(rng, side, 3.5) + 0.015 * noise(rng, side, 0.09 * scale)
    pores *= 1 + 0.8 * bump(x, y, (0, 0.25), (0.35, 0.2)) + 2.4 * beard
    pores += _freckles(identity, rng, plane, x, y) + _wrinkles(identity, rng, x, y)
    shade = (1 - dark + pores)[..., None]
    tint = 1 + blush[..., None] * np.asarray((0.03, -0.065, -0.05), np.float32)
    tint = tint + beard[..., None] * np.asarray((-0.06, -0.01, 0.03), np.float32)
    return np.asarray(tone * shade * tint, np.float32)


def _freckles(identity: Identity, rng: np.random.Generator, plane: Plane, x: Floats, y: Floats) -> Floats:
    spots = np.zeros((plane.side_px, plane.side_px), np.float32)
    count = int(3 + 90 * identity.freckles)
    for centre_x, centre_y, strength in zip(
        rng.normal(0, 0.3, count), rng.normal(0.12, 0.16, count), rng.uniform(0.1, 0.4, count), strict=True
    ):
        at = (round(plane.to_px(centre_x) * 8), round(plane.to_px(centre_y) * 8))
        radius = round(8 * plane.px_per_unit * rng.uniform(0.006, 0.013))
        cv2.circle(spots, at, radius, float(strength) * (0.5 if identity.freckles else 0.9), -1, cv2.LINE_AA, 3)
    return -blurred(spots, 0.7)


def _wrinkles(identity: Identity, rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Lines of forehead, eye corners and cheeks, each a dark valley beside a light ridge."""
    lines = np.zeros_like(x)
    for level in range(3):
        at = -0.44 - 0.1 * level + rng.uniform(-0.015, 0.015)
        valley = y - at - 0.03 * np.cos(3 * x + rng.uniform(-0.5, 0.5))
        lines -= 0.06 * np.exp(-0.5 * (valley / 0.009) ** 2) * np.exp(-((x / 0.42) ** 4))
    for level in range(3):
        away = np.abs(x) - identity.eye_x - identity.eye_half_width - 0.015
        valley = y - identity.eye_y + 0.03 - 0.04 * level - away * (0.5 * level - 0.4)
        lines -= (
            0.05 * np.exp(-0.5 * (valley / 0.008) ** 2) * smooth_step(away, 0, 0.03) * smooth_step(away, 0.14, 0.05)
        )
    fold = np.abs(x) - identity.nose_width - 0.03 - 0.42 * (y - identity.nose_tip)
    reach = smooth_step(y, identity.nose_tip - 0.02, identity.nose_tip + 0.06)
    reach = reach * smooth_step(y, identity.mouth_y + 0.08, identity.mouth_y - 0.06)
    folds = (0.05 + 0.12 * identity.age) * np.exp(-0.5 * (fold / 0.014) ** 2) * reach
    return np.asarray(lines * identity.age - folds, np.float32)


def _brows(identity: Identity, rng: np.random.Generator, x: Floats, y: Floats) -> Floats:
    """Opacity of the brows, hair by hair, ``(S, S)``."""
    across = (np.abs(x) - identity.eye_x) / 0.2  # -1 at the nose, 1 at the temple
    middle = identity.eye_y - identity.brow_lift - identity.brow_arch * (1 - (across - 0.25) ** 2) + 0.02 * across
    thickness = identity.brow_thickness * np.clip(1.15 - 0.22 * np.clip(across + 1, 0, None) ** 1.3, 0.1, None)
    body = np.exp(-(np.abs((y - middle) / thickness) ** 3))
    ends = smooth_step(across, -1.08, -0.8) * smooth_step(across, 1.2, 0.8)
    hairs = strands(rng, y + 0.5 * np.abs(x), np.sign(x) * 3 + np.abs(x) - 0.7 * (y - middle), 90)
    return np.asarray(np.clip(body * ends * identity.brow_density * (0.85 + 0.3 * hairs), 0, 1), np.float32)


def _ears(identity: Identity, plane: Plane, x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Opacity and shade of the ears."""
    dx, dy = np.abs(x) - identity.half_width - 0.025, y - 0.04
    lean = dx - 0.12 * dy
    value = ((lean / 0.085) ** 2 + (dy / (0.2 - 0.25 * dx)) ** 2).astype(np.float32)
    shade = 0.86 - 0.3 * np.exp(-0.5 * ((lean / 0.022) ** 2 + ((dy + 0.02) / 0.08) ** 2))
    shade += 0.12 * np.exp(-0.5 * ((value - 0.8) / 0.15) ** 2)
    return coverage(value, plane.px_per_unit), np.asarray(shade, np.float32)


def _nostrils(identity: Identity, x: Floats, y: Floats) -> Floats:
    at = (identity.nose_width * 0.48, identity.nose_tip + 0.065)
    holes = twin_bumps(x - 0.25 * (y - at[1]) * np.sign(x), y, at, (0.03, 0.013)) * 0.75
    wing = np.hypot((np.abs(x) - identity.nose_width + 0.02) / 0.045, (y - identity.nose_tip - 0.015) / 0.06)
    outer = np.exp(-0.5 * ((wing - 1) / 0.2) ** 2) * smooth_step(
        np.abs(x), identity.nose_width - 0.03, identity.nose_width
    )
    under = 0.3 * bump(x, y, (0, identity.nose_tip + 0.085), (identity.nose_width * 0.7, 0.014))
    return np.asarray(np.clip(holes + 0.28 * outer + under, 0, 0.85), np.float32)


def _normals(depth: Floats, px_per_unit: float) -> Floats:
    """Unit normals of the relief, slightly smoothed so that edges do not sparkle."""
    smooth = blurred(depth, 0.012 * px_per_unit)
    dx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=3) * (px_per_unit / 8)
    dy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=3) * (px_per_unit / 8)
    normals = np.dstack([-dx, -dy, np.ones_like(dx)])
    return np.asarray(normals / np.linalg.norm(normals, axis=2, keepdims=True), np.float32)


def paint_head(identity: Identity, side_px: int) -> Head:
    """Paint a person's head without eyes and mouth.

    Args:
        identity: The person; equal persons give equal pictures.
        side_px: Side of the plane.

    Returns:
        The head.
    """
    rng = np.random.default_rng(identity.texture_seed)
    plane = Plane(side_px)
    x, y = plane.grid()
    depth = _depth(identity, x, y)
    face = coverage(outline(x, y, identity.half_width, SKULL_TOP_Y, identity.chin, identity.jaw), plane.px_per_unit)
    ears, ear_shade = _ears(identity, plane, x, y)
    albedo = _skin(identity, rng, plane, x, y, depth)
    albedo *= (1 - _nostrils(identity, x, y))[..., None] ** np.asarray((0.85, 1.1, 1.1), np.float32)
    tone = np.asarray(identity.skin, np.float32) * np.asarray((1.0, 0.93, 0.92), np.float32)
    albedo = albedo * face[..., None] + tone * ear_shade[..., None] * (1 - face[..., None])
    brows = _brows(identity, rng, x, y)
    hair, hair_shade = paint_hair(identity, rng, plane, x, y)
    hair_colour = np.asarray(identity.hair, np.float32)
    albedo += (hair_colour * 0.8 - albedo) * brows[..., None]
    # Hair casts a soft shadow on the skin below it.
    albedo *= 1 - 0.35 * (blurred(hair, 0.05 * plane.px_per_unit) * (1 - hair))[..., None]
    albedo += (hair_colour * hair_shade[..., None] - albedo) * hair[..., None]
    alpha = np.maximum(np.maximum(face, ears), hair)
    gloss = 0.35 + 0.8 * bump(x, y, (0, 0.1), (0.12, 0.25)) + 0.5 * bump(x, y, (0, -0.55), (0.4, 0.15))
    gloss = np.clip(gloss, 0, 1.2) * (1 - hair) * (1 - 0.6 * brows)
    hair_depth = np.where(face > 0.5, depth, 0) + 0.05
    relief = depth * (1 - hair) + blurred(hair_depth.astype(np.float32), 0.05 * plane.px_per_unit) * hair
    jaw = smooth_step(y, identity.mouth_y + 0.02, identity.mouth_y + 0.26) * smooth_step(np.abs(x), 1.0, 0.3)
    jaw = jaw * (1 - hair)
    return Head(
        plane=plane,
        albedo=np.clip(albedo, 0, 255).astype(np.float32),
        alpha=alpha.astype(np.float32),
        depth=blurred(relief.astype(np.float32), 0.02 * plane.px_per_unit),
        normals=_normals(relief.astype(np.float32), plane.px_per_unit),
        gloss=gloss.astype(np.float32),
        jaw=blurred(jaw.astype(np.float32), 0.03 * plane.px_per_unit),
        skin=(face * (1 - hair) * (1 - brows)).astype(np.float32),
    )
