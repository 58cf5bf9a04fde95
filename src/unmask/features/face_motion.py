"""The face's shape over time: mouth, blinks, drift of asymmetry."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from unmask.features.observation import Clip, Floats, Moment, Null, Value
from unmask.media.faces import networks

MAX_YAW_DEG = 35.0  # beyond this the landmarks of the far side are invented
MIN_FACE_PX = 48
MIN_RATE_HZ = 10.0  # of examined frames; slower ones miss blinks and syllables
MIN_MOUTH_S = 1.8
MAX_GAP_S = 0.25
MIN_BLINK_S = 4.8
MIN_DRIFT_FRAMES = 20
MIN_FRONTAL_SHARE = 0.5

# Landmark numbers of FaceMesh.
_LIP_TOP, _LIP_BOTTOM, _LIP_RIGHT, _LIP_LEFT = 13, 14, 78, 308
# The person's right and left, then points on the middle line.
# fmt: off
_PAIRS = np.array([
    (33, 263), (133, 362), (61, 291), (78, 308), (234, 454), (70, 300), (105, 334), (107, 336), (50, 280), (172, 397),
    (98, 327), (58, 288), (136, 365), (205, 425), (116, 345), (101, 330), (127, 356), (54, 284), (36, 266),
])
# fmt: on
_MIDDLE = np.array([10, 168, 6, 4, 0, 17, 152])
_SHAPE = np.concatenate([_PAIRS[:, 0], _PAIRS[:, 1], _MIDDLE])
_SHAPE_SWAPPED = np.concatenate([_PAIRS[:, 1], _PAIRS[:, 0], _MIDDLE])
_STILL_RANGE = 0.04  # of the lip ratio within a second; landmark noise stays below
_BLINK_DEPTH = 0.72
_BLINK_S = (0.05, 0.6)


@dataclass(frozen=True)
class ShapeSeries:
    """Shape of one face over the examined frames.

    Attributes:
        time_s: ``(N,)``.
        eye: ``(N,)`` eye aspect ratio of the nearer eye; NaN when a larger face was there.
        mouth: ``(N,)`` inner lip height over width.
        asymmetry: ``(N,)`` distance to the own mirror image over the face's size.
        yaw_deg: ``(N,)``.
        pitch: ``(N,)`` depth of chin against forehead over the face's height.
        width_px: ``(N,)`` width of the face box.
    """

    time_s: Floats
    eye: Floats
    mouth: Floats
    asymmetry: Floats
    yaw_deg: Floats
    pitch: Floats
    width_px: Floats

    def frontal(self) -> ShapeSeries:
        """Keep the frames on which both sides of the face are seen."""
        keep = np.abs(self.yaw_deg) <= MAX_YAW_DEG
        return ShapeSeries(*(np.asarray(column)[keep] for column in self.__dict__.values()))


class FaceMotion:
    """`face.mouth_exag`, `face.mouth_static`, `face.eye_blink`, `face.sym_drift`."""

    def __init__(self) -> None:
        self._rows: dict[int, list[tuple[float, ...]]] = defaultdict(list)

    def see(self, moment: Moment) -> None:
        """Look at the next frame."""
        if not moment.examined:
            return
        largest = max(moment.faces.values(), key=lambda face: face.area_px2, default=None)
        for track, face in moment.faces.items():
            points = face.landmarks.astype(np.float64)
            x0, _, x1, _ = face.box
            # The eye network costs as much as the mesh: only the largest face gets it.
            eye = networks().eyes.aspect_ratio(moment.frame, face) if face is largest else np.nan
            row = (eye, mouth_ratio(points), asymmetry(points), face.yaw_deg, _pitch(points))
            self._rows[track].append((moment.frame.time_s, *row, float(x1 - x0)))

    def series(self, track: int | None) -> ShapeSeries | None:
        """Give the shape of a track over time, or None if it was never seen."""
        rows = self._rows.get(track) if track is not None else None
        return ShapeSeries(*np.array(rows, np.float64).T) if rows else None

    def values(self, clip: Clip) -> dict[str, Value]:
        """Give the values of the family."""
        names = ("face.mouth_exag", "face.mouth_static", "face.eye_blink", "face.sym_drift")
        everything = self.series(clip.main_track)
        if everything is None:
            return dict.fromkeys(names, Null("no_face"))
        series = everything.frontal()
        if len(series.time_s) < MIN_FRONTAL_SHARE * len(everything.time_s):
            values: dict[str, Value] = dict.fromkeys(names, Null("not_frontal"))
        elif np.median(series.width_px) < MIN_FACE_PX:
            values = dict.fromkeys(names, Null("small_face"))
        else:
            rate_hz = 1 / float(np.median(np.diff(series.time_s))) if len(series.time_s) > 1 else 0.0
            values = {
                "face.mouth_exag": float(np.percentile(series.mouth, 95)),
                "face.mouth_static": still_share(series.time_s, series.mouth, rate_hz),
                "face.eye_blink": blinks_per_minute(series.time_s, series.eye, rate_hz),
                "face.sym_drift": _drift(series),
            }
        if clip.modality == "image":
            values |= dict.fromkeys(names[1:], Null("single_image"))
        elif isinstance(values["face.mouth_exag"], float) and not _lasts(series.time_s, MIN_MOUTH_S):
            values["face.mouth_exag"] = Null("too_short")
        return values


def _distance(points: Floats, a: int, b: int) -> float:
    return float(np.linalg.norm(points[a, :2] - points[b, :2]))


def mouth_ratio(points: Floats) -> float:
    """Height over width of the inner lips; ``points`` is ``(468, 3)``."""
    return _distance(points, _LIP_TOP, _LIP_BOTTOM) / (_distance(points, _LIP_RIGHT, _LIP_LEFT) + 1e-6)


def asymmetry(points: Floats) -> float:
    """Procrustes distance of a face to its own mirror image (Klingenberg et al. 2002), free of pose and size.

    Args:
        points: ``(468, 3)``.

    Returns:
        Root mean square distance over the root mean square radius.
    """
    centred = points - points[_SHAPE].mean(axis=0)
    shape, mirrored = centred[_SHAPE], centred[_SHAPE_SWAPPED] * [-1, 1, 1]
    common = mirrored.T @ shape
    stretch = np.linalg.svd(common, compute_uv=False)
    # The best turn leaves this overlap; without the sign it could be a reflection (Kabsch 1976).
    overlap = stretch[0] + stretch[1] + stretch[2] * np.sign(np.linalg.det(common))
    power = float((shape**2).sum())  # of the mirror image as well
    return float(np.sqrt(max(2 * (power - overlap), 0.0) / shape.size)) / (math.sqrt(power / shape.size) + 1e-6)


def _pitch(points: Floats) -> float:
    height = _distance(points, 10, 152) + 1e-6
    return float(points[152, 2] - points[10, 2]) / height


def _lasts(time_s: Floats, needed_s: float) -> bool:
    """Whether the frames cover so much time; gaps without a face do not count."""
    steps = np.diff(time_s)
    return float(steps[steps < MAX_GAP_S].sum()) >= needed_s


def still_share(time_s: Floats, mouth: Floats, rate_hz: float) -> Value:
    """Share of one-second windows in which the mouth does not move.

    Args:
        time_s: ``(N,)``, rising.
        mouth: ``(N,)`` lip ratio.
        rate_hz: Frames a second.

    Returns:
        0 to 1, or why it cannot be said.
    """
    if not _lasts(time_s, MIN_MOUTH_S):
        return Null("too_short")
    if rate_hz < MIN_RATE_HZ:
        return Null("too_slow")
    n = max(2, round(rate_hz))
    windows = np.lib.stride_tricks.sliding_window_view(mouth, n)
    spans = time_s[n - 1 :] - time_s[: len(time_s) - n + 1]
    windows = windows[spans < 1.5]  # none across a gap
    if not len(windows):
        return Null("too_short")
    low, high = np.percentile(windows, [10, 90], axis=1)
    return float(((high - low) < _STILL_RANGE).mean())


def blinks_per_minute(time_s: Floats, eye: Floats, rate_hz: float) -> Value:
    """Count blinks: short dips of the eye aspect ratio below a share of its local median.

    Args:
        time_s: ``(N,)``, rising.
        eye: ``(N,)`` eye aspect ratio.
        rate_hz: Frames a second.

    Returns:
        Blinks a minute, or why it cannot be said.
    """
    if rate_hz < MIN_RATE_HZ:
        return Null("too_slow")
    time_s, eye = time_s[np.isfinite(eye)], eye[np.isfinite(eye)]
    if not _lasts(time_s, MIN_BLINK_S):
        return Null("too_short")
    closed = eye < _BLINK_DEPTH * _open_level(eye, round(3 * rate_hz))
    edges = np.diff(np.concatenate([[0], closed.astype(int), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    count = 0
    for start, end in zip(starts, ends, strict=True):
        if start == 0 or end == len(eye):  # cut off: its length is unknown
            continue
        length_s = float(time_s[end] - time_s[start])
        count += _BLINK_S[0] <= length_s <= _BLINK_S[1]
    steps = np.diff(time_s)
    return 60 * count / float(steps[steps < MAX_GAP_S].sum() + 1 / rate_hz)


def _open_level(eye: Floats, n: int) -> Floats:
    """70th percentile of the eye aspect ratio in a window of n frames around each frame."""
    half = max(1, n // 2)
    padded = np.pad(eye, half, mode="reflect" if len(eye) > half else "edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    return np.asarray(np.percentile(windows, 70, axis=1))


def _drift(series: ShapeSeries) -> Value:
    if len(series.time_s) < MIN_DRIFT_FRAMES or not _lasts(series.time_s, MIN_MOUTH_S):
        return Null("too_short")
    yaw = series.yaw_deg / MAX_YAW_DEG
    pose = np.stack([np.ones_like(yaw), yaw, yaw**2, np.abs(yaw), series.pitch, series.pitch * yaw], axis=1)
    fitted, *_ = np.linalg.lstsq(pose, series.asymmetry, rcond=1e-6)
    return 100 * float(np.std(series.asymmetry - pose @ fitted))
