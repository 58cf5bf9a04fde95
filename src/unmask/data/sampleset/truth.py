"""What is true of the clips of a sample set: written beside them as ``truth.json``, for tests and for the curious."""

from __future__ import annotations

from typing import Literal

from unmask.schemas import Document

TRUTH_FILE = "truth.json"


class ClipTruth(Document):
    """What is true of one clip.

    Attributes:
        path: Of the file, below the sample set.
        sha256: Hash of its bytes.
        label: 0 real, 1 fake.
        group: Index of the reciprocal pair: two reals and the two fakes made of them.
        identity: Number of the person whose clip it is (the target).
        face_identity: Number of the person whose inner face is shown.
        camera: Number of the camera; its fixed pattern lies outside the forged face.
        manipulation: How it was forged; null for reals.
        compression: c23 or c40.
        background: Kind of place.
        voice: natural, or resynthesised by a vocoder.
        pulse_bpm: Heart rate that the inner face shows; null without a pulse.
        blink_times_s: When each visible blink begins.
        mouth_moves: Whether the mouth follows the voice.
    """

    path: str
    sha256: str
    label: Literal[0, 1]
    group: int
    identity: int
    face_identity: int
    camera: int
    manipulation: str | None
    compression: str
    background: str
    voice: Literal["natural", "resynthesised"]
    pulse_bpm: float | None
    blink_times_s: tuple[float, ...]
    mouth_moves: bool


class SampleSetTruth(Document):
    """What is true of a whole sample set.

    Attributes:
        generator_version: Changes whenever the same parameters give other bytes.
        seed: Of the set.
        size_px: Width and height of the clips.
        fps: Frames per second.
        duration_s: Length of a clip.
        clips: One entry a file, in order of group.
    """

    generator_version: int
    seed: int
    size_px: int
    fps: int
    duration_s: float
    clips: tuple[ClipTruth, ...]
