"""Three ways to forge a clip: the inner face of the partner takes the place of the target's.

Each forgery works on finished frames, as a forger does: outside the face the camera's noise and fixed pattern stay,
inside they are gone. Noise of the same strength is laid over the forged face, so that files of both classes carry as
much detail and need as many bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import cv2
import numpy as np

from unmask.data.sampleset.expression import Expression
from unmask.data.sampleset.identity import Identity
from unmask.data.sampleset.painting import Floats, blurred, look_up, resized
from unmask.data.sampleset.performance import Pose
from unmask.data.sampleset.render import Actor, Framing
from unmask.data.sampleset.scene import NOISE_POOL_PX, Camera, Light

MASK_CENTRE_Y, MASK_HALF = 0.17, (0.54, 0.64)  # brows to chin, face units
REACH = 0.84  # half the side of the square that is forged, face units
TREMBLE = 0.008  # how badly a still follows the head from frame to frame, face units
STILL_EXPRESSION = Expression(mouth_open=0.012, smile=0.015)


@dataclass(frozen=True)
class Shot:
    """What a forger knows of one frame of the target's clip.

    Attributes:
        pose: Of the target's head.
        expression: Of the target's face.
        warp: Where each pixel lies on the target's plane, ``(S, S, 2)``, float32.
    """

    pose: Pose
    expression: Expression
    warp: Floats


class Forger:
    """Forges the frames of one clip, in order.

    Args:
        target: Who is in the clip.
        source: Whose face is put there, coloured by `tanned`.
        framing: Of the clip.
        light: Of the clip; the source is lit alike.
        camera: Of the clip, for the strength of its noise.
        rng: Draws how well the forger works.
    """

    def __init__(
        self, target: Actor, source: Actor, framing: Framing, light: Light, camera: Camera, rng: np.random.Generator
    ) -> None:
        self._source = source
        self._framing = framing
        self._light = light
        self._camera = camera
        self._rng = rng
        self._mask = _inner_face(target, rng.uniform(0.05, 0.1))
        self._gain: Floats | None = None
        self._mismatch = (1 + rng.uniform(-0.04, 0.04, 3)).astype(np.float32)
        size = 2 * round(REACH * framing.px_per_unit)
        self._size = size - size % 8
        self._still: Floats | None = None
        self._grid = _uneven_overlap(rng, self._size)
        pool = self._size + NOISE_POOL_PX
        self._grain = rng.standard_normal((pool, pool, 3), dtype=np.float32)

    def forge(self, frame: Floats, shot: Shot, manipulation: Manipulation) -> Floats:
        """Forge one frame.

        Args:
            frame: The target's frame as the camera took it, RGB ``(S, S, 3)``, float32; not changed.
            shot: What is known of it.
            manipulation: One of `MANIPULATIONS`.

        Returns:
            The forged frame, RGB ``(S, S, 3)``, float32.
        """
        left, top = self._corner(shot.pose)
        region = (slice(top, top + self._size), slice(left, left + self._size))
        mask = look_up(self._mask, shot.warp[region])
        old = frame[region]
        new = manipulation.face(self, shot, (left, top))
        new = self._colour_matched(new, old, mask)
        new *= np.float32(1 + manipulation.flicker * self._rng.standard_normal())
        new += self._noise() * (manipulation.grain * self._camera.noise_level(new))
        forged = frame.copy()
        forged[region] = old + (new - old) * mask[..., None]
        return forged

    def _colour_matched(self, new: Floats, old: Floats, mask: Floats) -> Floats:
        """Give the new face the mean colour of the old one, as far as the forger manages."""
        if self._gain is None:
            weight = mask[..., None] / max(float(mask.sum()), 1.0)
            before, after = ((picture * weight).sum((0, 1)) + 1 for picture in (new, old))
            self._gain = (self._mismatch * np.clip(after / before, 0.85, 1.15)).astype(np.float32)
        return np.asarray(new * self._gain, np.float32)

    def _corner(self, pose: Pose) -> tuple[int, int]:
        """Corner of the square that is forged: right and down, whole pixels."""
        at_x, at_y = self._framing.head_at(pose)
        highest = self._framing.side_px - self._size
        left = round(at_x) - self._size // 2
        top = round(at_y + MASK_CENTRE_Y * self._framing.px_per_unit) - self._size // 2
        return min(max(left, 0), highest), min(max(top, 0), highest)

    def _noise(self) -> Floats:
        top, left = self._rng.integers(0, NOISE_POOL_PX, 2)
        return self._grain[top : top + self._size, left : left + self._size]

    def _rendered(self, shot: Shot, corner: tuple[int, int]) -> Floats:
        """Render the source's face as the target moves and speaks."""
        texture = self._source.light_up(shot.expression, shot.pose, self._light, 0.0)
        warp = self._source.warp_map(shot.pose, self._framing, shot.expression.mouth_open)
        left, top = corner
        part = warp[top : top + self._size, left : left + self._size]
        return look_up(texture, part)[..., :3]

    def blend(self, shot: Shot, corner: tuple[int, int]) -> Floats:
        """``FaceBlend``: the partner's face at the low resolution of a generator, enlarged and blended in."""
        small = round(self._size * 0.42)
        face = resized(self._rendered(shot, corner), small, cv2.INTER_AREA)
        return resized(face, self._size)

    def upsample(self, shot: Shot, corner: tuple[int, int]) -> Floats:
        """``GridUpsample``: enlarged by strided transposed convolutions whose taps overlap unevenly.

        They leave a chequerboard of the generator's strides in the picture (Odena et al. 2016).
        """
        small = self._size // 2
        face = resized(self._rendered(shot, corner), small, cv2.INTER_AREA)
        face = resized(face, self._size, cv2.INTER_NEAREST)
        face = blurred(face, 0.7)
        return np.asarray(face + (0.5 * face + 60) * self._grid)

    def freeze(self, shot: Shot, corner: tuple[int, int]) -> Floats:
        """``FrozenFace``: one still of the partner, moved and turned with the head; eyes and mouth never move."""
        if self._still is None:
            self._still = self._photograph(shot)
        pose, scale = shot.pose, self._framing.px_per_unit
        at_x, at_y = self._framing.head_at(pose)
        tremble_x, tremble_y = self._rng.normal(0, TREMBLE, 2).tolist()
        at_x += (float(np.sin(pose.yaw)) * 0.5 + tremble_x) * scale - corner[0]
        at_y += (float(np.sin(pose.pitch)) * 0.5 + tremble_y) * scale - corner[1]
        plane = self._source.head.plane
        zoom = plane.px_per_unit / scale
        cos, sin = zoom * float(np.cos(pose.roll)), zoom * float(np.sin(pose.roll))
        middle = plane.side_px / 2 - 0.5
        matrix = np.asarray(
            [[cos, sin, middle - cos * at_x - sin * at_y], [-sin, cos, middle + sin * at_x - cos * at_y]], np.float32
        )
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return np.asarray(cv2.warpAffine(self._still, matrix, (self._size, self._size), flags=flags))

    def _photograph(self, shot: Shot) -> Floats:
        """Take the still: the partner's face on its plane, as a small photograph keeps it."""
        texture = self._source.light_up(STILL_EXPRESSION, shot.pose, self._light, 0.0)[..., :3]
        side = texture.shape[0]
        small = round(side * 0.45)
        return resized(resized(texture, small, cv2.INTER_AREA), side)


def _uneven_overlap(rng: np.random.Generator, size: int) -> Floats:
    """Relative error of a stack of three enlargements by two: patterns that repeat every 2, 4 and 8 pixels.

    Returns:
        ``(size, size, 3)``, float32, around 0.
    """
    error = np.zeros((size, size, 3), np.float32)
    for step, strength in ((1, 0.010), (2, 0.022), (4, 0.028)):
        taps = rng.standard_normal((2, 2, 3)) * (0.4, 0.3, 0.6) + np.asarray([[1, -1], [-1, 1]])[..., None]
        taps = (taps - taps.mean((0, 1))) / taps.std((0, 1)) * strength
        cells = np.kron(taps, np.ones((step, step, 1)))
        error += np.tile(cells, (-(-size // (2 * step)),) * 2 + (1,))[:size, :size].astype(np.float32)
    return error


def tanned(source: Identity, target: Identity) -> Identity:
    """Give the source the skin colour of the target, as the colour transfer of a face swap does.

    Args:
        source: Whose face it is.
        target: Whose colour it takes.

    Returns:
        The source with the colour of the target; eyes, brows and shape stay.
    """
    red, green, blue = (
        min(lip * ours / theirs, 255.0) for lip, ours, theirs in zip(source.lips, target.skin, source.skin, strict=True)
    )
    return replace(source, skin=target.skin, lips=(red, green, blue))


def _inner_face(target: Actor, feather: float) -> Floats:
    """Mask on the target's plane: 1 on the inner face, soft at its edge, 0 outside and on the hair."""
    x, y = target.head.plane.grid()
    distance = np.sqrt((x / MASK_HALF[0]) ** 2 + ((y - MASK_CENTRE_Y) / MASK_HALF[1]) ** 2) - 1
    mask = np.clip(0.5 - distance / (2 * feather), 0, 1)
    mask = mask * mask * (3 - 2 * mask)
    return np.asarray(mask, np.float32)


@dataclass(frozen=True)
class Manipulation:
    """A way to forge.

    Attributes:
        face: Makes the new face of a frame.
        grain: Strength of the noise laid over it, relative to the camera's.
        flicker: Deviation of its brightness from frame to frame. With the noise it is chosen so that forged clips
            need about as many bits as real ones: a still needs more of both, a grid brings detail of its own.
    """

    face: Callable[[Forger, Shot, tuple[int, int]], Floats]
    grain: float
    flicker: float


MANIPULATIONS = {
    "FaceBlend": Manipulation(Forger.blend, 1.1, 0.004),
    "FrozenFace": Manipulation(Forger.freeze, 1.4, 0.008),
    "GridUpsample": Manipulation(Forger.upsample, 0.4, 0.0),
}
