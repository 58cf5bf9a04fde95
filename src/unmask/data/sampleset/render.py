"""Frames: a painted head, lit and turned, in front of its scene."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import cv2
import numpy as np

from unmask.data.sampleset.expression import JAW_SHARE, Expression, FacePainter
from unmask.data.sampleset.head import Head, paint_head
from unmask.data.sampleset.identity import Identity
from unmask.data.sampleset.painting import Floats, look_up, resized
from unmask.data.sampleset.performance import PULSE_RGB, Pose
from unmask.data.sampleset.scene import Light

MAP_STEP = 2  # warps are computed on every second pixel and interpolated
SHINE = 42  # brightness of the highlight, of 255
WRAP = 0.25  # how far light creeps around the edge of shade


@dataclass(frozen=True)
class Framing:
    """How a head lies in the picture.

    Attributes:
        side_px: Side of the picture.
        centre: Where the head's origin lies at rest, pixels.
        px_per_unit: Pixels per face unit.
    """

    side_px: int
    centre: tuple[float, float]
    px_per_unit: float

    def head_at(self, pose: Pose) -> tuple[float, float]:
        """Return where the head's origin lies in a frame, pixels."""
        return (
            self.centre[0] + pose.shift[0] * self.px_per_unit + pose.camera[0],
            self.centre[1] + pose.shift[1] * self.px_per_unit + pose.camera[1],
        )


class Actor:
    """A person who can be rendered: head, painter and normals at half resolution.

    Args:
        identity: The person.
        framing: Sets the resolution of the head.
    """

    def __init__(self, identity: Identity, framing: Framing) -> None:
        self.identity = identity
        side = 4 * round(framing.px_per_unit * 1.1 * 3 / 4)
        self.head: Head = paint_head(identity, side)
        self.painter = FacePainter(identity, self.head)
        half = partial(resized, side_px=side // 2, interpolation=cv2.INTER_AREA)
        self._normals = half(self.head.normals)
        self._gloss = SHINE * half(self.head.gloss)
        self._skin = half(self.head.skin)
        self._relief = half(np.dstack([self.head.depth, self.head.jaw]))

    def light_up(self, expression: Expression, pose: Pose, light: Light, pulse: float) -> Floats:
        """Paint and light the head on its plane.

        Args:
            expression: Eyes and mouth.
            pose: Turns the light against the head.
            light: The light.
            pulse: Relative brightness of the skin's green.

        Returns:
            Premultiplied RGBA ``(S, S, 4)``, float32: colour 0 to 255, alpha 0 to 1.
        """
        gains, shine = self._shading(pose, light, pulse)
        catchlight = (light.direction[0] * 0.9, light.direction[1] * 0.9)
        colour = cv2.multiply(self.painter.paint(expression, catchlight), gains)
        colour = cv2.add(colour, cv2.merge([shine, shine, shine]))
        alpha = self.head.alpha
        colour = cv2.multiply(colour, cv2.merge([alpha, alpha, alpha]))
        return np.asarray(cv2.merge([colour, alpha]), np.float32)

    def _shading(self, pose: Pose, light: Light, pulse: float) -> tuple[Floats, Floats]:
        """Light on the plane: factors of the colours ``(S, S, 3)``, and the highlight ``(S, S)`` (Blinn 1977)."""
        cos_yaw, sin_yaw, sin_pitch = np.cos(pose.yaw), np.sin(pose.yaw), np.sin(pose.pitch)
        lx, ly, lz = light.direction
        towards = np.asarray(
            (lx * cos_yaw - lz * sin_yaw, ly - lz * sin_pitch, lz * cos_yaw + lx * sin_yaw + ly * sin_pitch), np.float32
        )
        towards /= np.linalg.norm(towards)
        halfway = towards + np.asarray((-sin_yaw, -sin_pitch, 1), np.float32)
        halfway /= np.linalg.norm(halfway)
        cosines = cv2.transform(self._normals, np.stack([towards, halfway]).astype(np.float32))
        lit = np.clip((cosines[..., 0] + WRAP) / (1 + WRAP), 0, 1)
        shine = np.asarray(cv2.pow(np.clip(cosines[..., 1], 0, 1), 22), np.float32) * self._gloss
        mixing = np.asarray([light.key, PULSE_RGB, light.ambient], np.float32).T
        gains = np.asarray(cv2.transform(np.dstack([lit, self._skin * np.float32(pulse)]), mixing), np.float32)
        side = self.head.plane.side_px
        return resized(gains, side), resized(shine, side)

    def warp_map(self, pose: Pose, framing: Framing, mouth_open: float) -> Floats:
        """Compute where each pixel of the picture lies on the head's plane.

        Args:
            pose: Of the head.
            framing: Of the picture.
            mouth_open: Lets the jaw fall.

        Returns:
            Pixel coordinates on the plane ``(side, side, 2)``, float32, for ``cv2.remap``.
        """
        side, scale = framing.side_px, framing.px_per_unit
        axis = np.arange(side // MAP_STEP, dtype=np.float32) * MAP_STEP + (MAP_STEP - 1) / 2
        at_x, at_y = framing.head_at(pose)
        qx, qy = np.meshgrid((axis - at_x) / scale, (axis - at_y) / scale)
        cos, sin = float(np.cos(pose.roll)), float(np.sin(pose.roll))
        qx, qy = qx * cos + qy * sin, qy * cos - qx * sin
        cos_yaw, sin_yaw = float(np.cos(pose.yaw)), float(np.sin(pose.yaw))
        cos_pitch, sin_pitch = float(np.cos(pose.pitch)), float(np.sin(pose.pitch))
        plane = self.head.plane
        x, y = qx / cos_yaw, qy / cos_pitch
        fall = float(mouth_open * JAW_SHARE)
        half = plane.px_per_unit / 2
        offset = plane.side_px / 4 - 0.5
        for _ in range(3):
            relief = look_up(self._relief, np.dstack([x * half + offset, y * half + offset]))
            x = (qx - sin_yaw * relief[..., 0]) / cos_yaw
            y = (qy - sin_pitch * relief[..., 0]) / cos_pitch - fall * relief[..., 1]
        coordinates = cv2.merge([x, y]) * plane.px_per_unit + (plane.side_px / 2 - 0.5)
        return resized(coordinates, side)


def lay_over(background: Floats, layer: Floats) -> Floats:
    """Lay a premultiplied layer over a picture.

    Args:
        background: RGB ``(S, S, 3)``, float32.
        layer: Premultiplied RGBA ``(S, S, 4)``, float32.

    Returns:
        RGB ``(S, S, 3)``, float32.
    """
    red, green, blue, alpha = cv2.split(layer)
    clear = 1 - alpha
    return np.asarray(
        cv2.add(cv2.multiply(background, cv2.merge([clear, clear, clear])), cv2.merge([red, green, blue]))
    )


def shifted(image: Floats, move: tuple[float, float], side_px: int | None = None) -> Floats:
    """Move a picture by parts of a pixel; the border is repeated, or stays clear in a layer.

    Args:
        image: ``(S, S, C)``, float32.
        move: Right and down, pixels.
        side_px: Side of the result, cut from the upper left; None keeps that of the picture.

    Returns:
        The moved picture.
    """
    size = (side_px, side_px) if side_px else (image.shape[1], image.shape[0])
    matrix = np.asarray([[1, 0, move[0]], [0, 1, move[1]]], np.float32)
    return np.asarray(cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
