"""What the single pass shows to the feature families, and what they give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from unmask.media.faces import Face
from unmask.media.video import Frame

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Null:
    """A feature that could not be measured.

    Attributes:
        code: Why; a key of `unmask.features.catalogue.NULL_REASONS`.
    """

    code: str


Value = float | Null


@dataclass(frozen=True)
class Moment:
    """One frame of the pass.

    Attributes:
        frame: The decoded frame; its planes may be gone when the next one is decoded.
        faces: Track number to face. On frames that were not examined the landmarks are carried on at the speed that
            they had.
        examined: Whether the landmarks were found on this very frame.
        sampled: Whether this is one of the evenly spaced frames on which costly things are measured.
    """

    frame: Frame
    faces: Mapping[int, Face]
    examined: bool
    sampled: bool


@dataclass(frozen=True)
class Clip:
    """What is known when the pass is over.

    Attributes:
        modality: video or image.
        n_frames: Frames decoded.
        duration_s: From the first frame to the end of the last.
        fps: Frames per second, from the time stamps.
        width_px: Displayed width.
        height_px: Displayed height.
        coded_bytes: Bytes of the video stream, or of the image file.
        main_track: Number of the largest face track; None without a face.
    """

    modality: str
    n_frames: int
    duration_s: float
    fps: float
    width_px: int
    height_px: int
    coded_bytes: int
    main_track: int | None


class Family(Protocol):
    """A family of features that watches the pass."""

    def see(self, moment: Moment) -> None:
        """Look at the next frame."""

    def values(self, clip: Clip) -> dict[str, Value]:
        """Give the value of every feature of the family, or why there is none."""
