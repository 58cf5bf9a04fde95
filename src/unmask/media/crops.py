"""Face crops: a square around a face, enlarged, of one size, as JPEG; evenly spaced over a clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import simplejpeg

from unmask.media.faces import Face, Image
from unmask.media.video import Frame


@dataclass(frozen=True)
class Crop:
    """One face crop: the columns of the table ``faces`` that do not depend on the data set.

    Attributes:
        face_index: 0 is the largest track of the sample.
        frame_index: In presentation order, 0-based.
        time_s: Presentation time.
        x0_px: Left edge of the face box, before enlarging, in pixels of the displayed frame.
        y0_px: Top edge.
        x1_px: Right edge.
        y1_px: Bottom edge.
        confidence: Presence according to the landmark network, 0 to 1.
        yaw_deg: Head yaw; 0 is frontal.
        jpeg: The crop.
    """

    face_index: int
    frame_index: int
    time_s: float
    x0_px: float
    y0_px: float
    x1_px: float
    y1_px: float
    confidence: float
    yaw_deg: float
    jpeg: bytes


class EvenSampler:
    """Picks evenly spaced frames of a clip in one pass.

    A target that cannot be met (no face there) is met by the next frame that can, so that the number is kept.

    Args:
        n_frames: Length of the clip.
        n_wanted: How many frames are wanted.
    """

    def __init__(self, n_frames: int, n_wanted: int) -> None:
        n = min(n_wanted, n_frames)
        # The middles of n equal stretches: the first and last frames of a clip are often fades.
        self._targets = np.floor((np.arange(n) + 0.5) * n_frames / max(n, 1)).astype(int)
        self._next = 0

    def due(self, frame_index: int) -> bool:
        """Whether a frame should be taken now."""
        return self._next < len(self._targets) and frame_index >= self._targets[self._next]

    def take(self, frame_index: int) -> None:
        """Note that a frame was taken; targets that it has passed are gone."""
        self._next = int(np.searchsorted(self._targets, frame_index, side="right"))


def crop_square(face: Face, scale: float, size_px: int, width_px: int, height_px: int) -> tuple[int, int, int]:
    """Place the square of a crop: around the face box, enlarged, moved into the picture where it fits.

    Edges lie on even pixels, on which chroma is sampled, and for squares much larger than the result on multiples of
    four or eight, so that a halved picture can be cut.

    Args:
        face: The face.
        scale: The longer side of its box is enlarged by this.
        size_px: Side of the result.
        width_px: Of the picture.
        height_px: Of the picture.

    Returns:
        Left edge, top edge and side in whole pixels.
    """
    x0, y0, x1, y1 = face.box.astype(float)
    wanted = max(x1 - x0, y1 - y0) * scale
    grid = 8 if wanted >= 4 * size_px else 4 if wanted >= 2 * size_px else 2
    side = max(grid, round(wanted / grid) * grid)
    return _place((x0 + x1) / 2, side, grid, width_px), _place((y0 + y1) / 2, side, grid, height_px), side


def _place(centre: float, side: int, grid: int, extent: int) -> int:
    """Edge of a square around a centre, on a grid, and inside the picture if it fits."""
    edge = round((centre - side / 2) / grid) * grid
    return min(max(edge, 0), (extent - side) // grid * grid) if side <= extent else edge


def cut_crop(frame: Frame, face: Face, scale: float, size_px: int) -> Image:
    """Cut a face out of a frame.

    Args:
        frame: The frame.
        face: The face in it.
        scale: The longer side of the face box is enlarged by this.
        size_px: Side of the result.

    Returns:
        RGB ``(size_px, size_px, 3)``, uint8; black where the square reaches out of the picture.
    """
    left, top, side = crop_square(face, scale, size_px, frame.width_px, frame.height_px)
    return frame.rgb(left, top, left + side, top + side, (size_px, size_px))


def encode_crop(image: Image, quality: int) -> bytes:
    """Encode an RGB image ``(H, W, 3)`` as JPEG with chroma at half resolution."""
    return bytes(
        simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=quality, colorspace="RGB", colorsubsampling="420")
    )
