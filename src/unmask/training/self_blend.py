"""Self-blended images: forgeries made of real faces alone (Shiohara and Yamasaki, CVPR 2022).

A real face is blended with a slightly changed copy of itself inside a mask that follows its outline. A detector that
learns from these learns what blending leaves behind, not how one generator looks.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.media.faces import FACE_OVAL, Detection, FaceMesh, RgbPicture
from unmask.training.augment import change_light, compress, shift_colour, shrink_and_enlarge

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
MIN_PRESENCE = 0.5
# Drawn with equal chance: half of all blends are complete.
BLEND_RATIOS = (0.25, 0.5, 0.75, 1.0, 1.0, 1.0)
ELASTIC_STRENGTH_PX, ELASTIC_SIGMA_PX, ELASTIC_SIDE_PX = 50.0, 7.0, 256
SHIFT_X, SHIFT_Y, ZOOM = 0.03, 0.015, 0.95
# Reals and blends alike, so that compression tells nothing about the label.
JPEG_CHANCE, JPEG_QUALITY = 0.5, (40, 100)


@dataclass
class SelfBlender:
    """Turns a real crop into a self-blended fake.

    Attributes:
        crop_scale: How much larger than the face box the crop was cut; the landmark network looks there first.
    """

    crop_scale: float = 1.3
    _own: threading.local = field(default_factory=threading.local, repr=False)

    def __call__(self, image: Image, rng: np.random.Generator) -> Image | None:
        """Blend a face with a changed copy of itself.

        Args:
            image: RGB crop of a real face ``(S, S, 3)``, uint8; not changed.
            rng: Source of all choices.

        Returns:
            RGB crop ``(S, S, 3)``, uint8; None where no landmarks are found, as then no mask can be drawn.
        """
        outline = self._outline(image)
        if outline is None:
            return None
        source = target = image
        if rng.random() < 0.5:
            source = _restyle(image, rng)
        else:
            target = _restyle(image, rng)
        mask = _hull_mask(outline, image.shape[0])
        source, mask = _move(source, mask, rng)
        mask = _soften(_elastic(mask, rng), rng)[..., None] * rng.choice(BLEND_RATIOS)
        blended = source * mask + target * (1 - mask)
        return np.asarray(np.rint(blended), np.uint8)

    def _outline(self, image: Image) -> Floats | None:
        """Find the landmarks; each thread has its own network, because one cannot be used by two at a time."""
        if not hasattr(self._own, "mesh"):
            self._own.mesh = FaceMesh()
        side = image.shape[0]
        half = side / self.crop_scale / 2
        low, high = side / 2 - half, side / 2 + half
        # Only the box and the line of the eyes are used of a detection: here level, in the middle of the crop.
        eyes = np.array([[low, side / 2], [high, side / 2]], np.float32)
        box = np.array([low, low, high, high], np.float32)
        face = self._own.mesh.from_detection(RgbPicture(image), Detection(box, eyes, 1.0))
        return np.asarray(face.landmarks[:, :2], np.float32) if face.presence >= MIN_PRESENCE else None


def compress_alike(image: Image, rng: np.random.Generator) -> Image:
    """Compress some crops, whatever their label, as the authors do after blending.

    Args:
        image: RGB ``(S, S, 3)``, uint8.
        rng: Source of chance and quality.

    Returns:
        RGB ``(S, S, 3)``, uint8.
    """
    if rng.random() >= JPEG_CHANCE:
        return image
    return compress(image, int(rng.integers(JPEG_QUALITY[0], JPEG_QUALITY[1] + 1)))


def _restyle(image: Image, rng: np.random.Generator) -> Image:
    """Change colour and light a little, then resolution or sharpness: what a generator would have done."""
    shifted = image.astype(np.float32) + rng.uniform(-20, 20, 3).astype(np.float32)
    image = np.clip(np.rint(shifted), 0, 255).astype(np.uint8)
    image = shift_colour(image, hue=rng.uniform(-0.3, 0.3) / 6, saturation=1 + rng.uniform(-0.3, 0.3))
    image = change_light(image, brightness=rng.uniform(-0.1, 0.1), contrast=1 + rng.uniform(-0.1, 0.1))
    if rng.random() < 0.5:
        return shrink_and_enlarge(image, 1 / float(rng.choice([2, 4])))
    smooth = cv2.GaussianBlur(image, (0, 0), 1.0)
    amount = rng.uniform(0.2, 0.5)
    return np.asarray(cv2.addWeighted(image, 1 + amount, smooth, -amount, 0), np.uint8)


def _hull_mask(landmarks: Floats, side_px: int) -> Floats:
    """Fill the outline of the face.

    Args:
        landmarks: ``(468, 2)``, pixels of the crop.
        side_px: Side of the mask.

    Returns:
        ``(S, S)``, float32, 0 or 1.
    """
    hull = cv2.convexHull(np.rint(landmarks[list(FACE_OVAL)]).astype(np.int32))
    mask = np.zeros((side_px, side_px), np.float32)
    cv2.fillConvexPoly(mask, hull, 1.0)
    return mask


def _move(source: Image, mask: Floats, rng: np.random.Generator) -> tuple[Image, Floats]:
    """Shift and zoom source and mask together by a few hundredths of their side."""
    side = source.shape[0]
    zoom = rng.uniform(ZOOM, 1 / ZOOM)
    shift = rng.uniform(-1, 1, 2) * (SHIFT_X, SHIFT_Y) * side
    middle = (side - 1) / 2
    matrix = np.array([[zoom, 0, middle * (1 - zoom) + shift[0]], [0, zoom, middle * (1 - zoom) + shift[1]]])
    moved = cv2.warpAffine(source, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    return np.asarray(moved, np.uint8), np.asarray(cv2.warpAffine(mask, matrix, (side, side)), np.float32)


def _elastic(mask: Floats, rng: np.random.Generator) -> Floats:
    """Bend the outline (Simard et al. 2003), so that it does not give the landmarks away."""
    side = mask.shape[0]
    unit = side / ELASTIC_SIDE_PX
    noise = rng.uniform(-1, 1, (2, side, side)).astype(np.float32)
    dx, dy = (
        cv2.GaussianBlur(plane, (0, 0), ELASTIC_SIGMA_PX * unit) * (ELASTIC_STRENGTH_PX * unit) for plane in noise
    )
    y, x = np.mgrid[:side, :side].astype(np.float32)
    return np.asarray(cv2.remap(mask, x + dx, y + dy, cv2.INTER_LINEAR), np.float32)


def _soften(mask: Floats, rng: np.random.Generator) -> Floats:
    """Blur twice; between the two, keep what lies well inside, so that the seam is inside the face."""
    side = mask.shape[0]
    first, second = rng.uniform(0.01, 0.05, 2) * side
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), first), np.float32)
    peak = float(mask.max())
    if peak <= 0:
        return mask
    mask = np.where(mask < peak * 0.9, 0, mask / peak).astype(np.float32)
    return np.asarray(np.clip(cv2.GaussianBlur(mask, (0, 0), second), 0, 1), np.float32)
