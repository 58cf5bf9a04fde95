"""Mean colours of face and skin on every frame: what flicker and pulse are measured from."""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.features.observation import Floats, Moment
from unmask.media.faces import Face, Image
from unmask.media.video import Frame

# Convex outlines on FaceMesh: right cheek, left cheek, forehead (the person's sides).
SKIN_REGIONS = tuple(
    np.array(outline)
    for outline in ((117, 118, 101, 36, 205, 187, 123), (346, 347, 330, 266, 425, 411, 352), (67, 10, 297, 336, 9, 107))
)
SURROUND_SHORT_SIDE_PX = 96
MIN_REGION_PIXELS = 12  # of the patch
ROW_LENGTH = 4 + 1 + 3 * len(SKIN_REGIONS)
PATCH_PX = 64  # faces are measured at this size or up to twice of it


@dataclass(frozen=True)
class SkinSeries:
    """The signals of one face track.

    Attributes:
        frame_index: ``(N,)`` frames on which the face was there.
        time_s: ``(N,)``.
        face_luma: ``(N,)`` mean luma of cheeks and forehead, which neither blink nor speak, grey levels.
        surround_luma: ``(N,)`` mean luma of what is no face, grey levels.
        skin_rgb: ``(N, 3, 3)`` mean RGB of right cheek, left cheek and forehead.
        width_px: Median width of the face.
    """

    frame_index: NDArray[np.int64]
    time_s: Floats
    face_luma: Floats
    surround_luma: Floats
    skin_rgb: Floats
    width_px: float


class SkinSignals:
    """Collects `SkinSeries` of all tracks."""

    def __init__(self) -> None:
        # Packed, because there is a row for every frame, and clips may last for hours.
        self._rows: dict[int, array[float]] = defaultdict(lambda: array("d"))

    def see(self, moment: Moment) -> None:
        """Look at the next frame."""
        if not moment.faces:
            return
        surround = _surround_luma(moment)
        for track, face in moment.faces.items():
            means = _face_means(moment.frame, face)
            if means is not None:
                x0, _, x1, _ = face.box
                frame = moment.frame
                self._rows[track].extend((frame.index, frame.time_s, surround, float(x1 - x0), *means))

    def series(self, track: int | None) -> SkinSeries | None:
        """Give the signals of a track, or None if it was never seen."""
        rows = self._rows.get(track) if track is not None else None
        if not rows:
            return None
        table = np.array(rows, np.float64).reshape(-1, ROW_LENGTH)
        return SkinSeries(
            frame_index=table[:, 0].astype(np.int64),
            time_s=table[:, 1],
            face_luma=table[:, 4],
            surround_luma=table[:, 2],
            skin_rgb=table[:, 5:].reshape(-1, 3, 3),
            width_px=float(np.median(table[:, 3])),
        )


def _surround_luma(moment: Moment) -> float:
    small = moment.frame.level_from(SURROUND_SHORT_SIDE_PX)
    scale = small.shape[1] / moment.frame.width_px
    outside = np.full(small.shape, 255, np.uint8)
    for face in moment.faces.values():
        # With neck, ears and hair line: a forged face's flicker reaches them, and must not be taken for that of light.
        x0, y0, x1, y1 = (float(edge) * scale for edge in face.box)
        aside, above, below = 0.15 * (x1 - x0), 0.2 * (y1 - y0), 0.5 * (y1 - y0)
        left, top, right, bottom = (max(round(v), 0) for v in (x0 - aside, y0 - above, x1 + aside, y1 + below))
        outside[top:bottom, left:right] = 0
    return float(cv2.mean(small, outside)[0]) if cv2.countNonZero(outside) else float(cv2.mean(small)[0])


def _face_means(frame: Frame, face: Face) -> tuple[float, ...] | None:
    """Mean luma of the skin, then mean RGB of each region; None if a region is outside or too small."""
    planes = _half_planes(frame)
    height, width = planes[0].shape
    left, top, right, bottom = (float(edge) / 2 for edge in face.box)
    x0, y0 = math.floor(max(left, 0)), math.floor(max(top, 0))
    x1, y1 = math.ceil(min(right, width)), math.ceil(min(bottom, height))
    if x1 - x0 < 4 or y1 - y0 < 4:
        return None
    shrink = _shrink_for(min(x1 - x0, y1 - y0))
    size = ((x1 - x0) // shrink, (y1 - y0) // shrink)
    patches = [_patch(plane[y0 : y0 + size[1] * shrink, x0 : x0 + size[0] * shrink], size) for plane in planes]
    corner = np.array([x0, y0], np.float32)
    picture = cv2.merge(patches)
    means = np.full((len(SKIN_REGIONS), 3), 128.0)
    for row, region in zip(means, SKIN_REGIONS, strict=True):
        outline = np.round((face.landmarks[region, :2] / 2 - corner) / shrink).astype(np.int32)
        left, top, across, down = cv2.boundingRect(outline)
        around = picture[max(top, 0) : max(top + down, 0), max(left, 0) : max(left + across, 0)]
        if not around.size:
            return None
        mask = np.zeros(around.shape[:2], np.uint8)
        cv2.fillConvexPoly(mask, outline - np.array([max(left, 0), max(top, 0)], np.int32), 255)
        if cv2.countNonZero(mask) < MIN_REGION_PIXELS:
            return None
        row[: len(patches)] = cv2.mean(around, mask)[: len(patches)]
    return (float(means[:, 0].mean()), *frame.colour(means).ravel())


def _shrink_for(extent_px: int) -> int:
    """How much a large face is shrunk before its means are taken: area averages lose nothing."""
    shrink = 1
    while extent_px // (2 * shrink) >= PATCH_PX:
        shrink *= 2
    return shrink


def _patch(plane: Image, size: tuple[int, int]) -> Image:
    if plane.shape[::-1] == size:
        return np.ascontiguousarray(plane)
    return np.asarray(cv2.resize(plane, size, interpolation=cv2.INTER_AREA), np.uint8)


def _half_planes(frame: Frame) -> list[Image]:
    """Luma and chroma at half the size of luma, all of one shape."""
    planes = [frame.level(1)]
    for plane in frame.chroma or ():
        across = 2 if plane.shape[1] > frame.width_px * 0.75 else 1
        down = 2 if plane.shape[0] > frame.height_px * 0.75 else 1
        planes.append(plane[::down, ::across])
    height, width = (min(plane.shape[axis] for plane in planes) for axis in (0, 1))
    return [plane[:height, :width] for plane in planes]
