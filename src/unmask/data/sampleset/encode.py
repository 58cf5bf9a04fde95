"""Writing a clip: H.264 and AAC in MP4, the same way for every clip, the same bytes each time."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from unmask.data.sampleset.voice import SAMPLE_RATE_HZ

AUDIO_BITRATE_BPS = 32_000  # so little that every voice needs all of it, and sizes tell nothing
AAC_FRAME = 1024
KEYFRAME_EVERY = 50


class ClipWriter:
    """Encodes one clip.

    Args:
        path: The MP4 file.
        side_px: Width and height.
        fps: Frames per second.
        crf: Constant rate factor of x264.
    """

    def __init__(self, path: Path, side_px: int, fps: int, crf: int) -> None:
        # Without +bitexact the container carries the versions of the libraries.
        self._container = av.open(
            str(path), "w", format="mp4", options={"movflags": "+faststart", "fflags": "+bitexact"}
        )
        video = self._container.add_stream("libx264", rate=fps)
        video.width = video.height = side_px
        video.pix_fmt = "yuv420p"
        # One thread, because the result of several depends on their number; and no macroblock tree, because with it
        # x264 gives other bytes from one time to the next.
        video.options = {
            "crf": str(crf),
            "preset": "veryfast",
            "g": str(KEYFRAME_EVERY),
            "threads": "1",
            "x264-params": "mbtree=0",
        }
        self._frame_time = Fraction(1, fps)
        self._video = video
        audio = self._container.add_stream("aac", rate=SAMPLE_RATE_HZ, layout="mono")
        audio.bit_rate = AUDIO_BITRATE_BPS
        self._audio = audio
        self._n_frames = 0

    def add_picture(self, rgb: NDArray[np.float32]) -> None:
        """Encode the next frame.

        Args:
            rgb: ``(S, S, 3)``, float32, 0 to 255; rounded here.
        """
        rounded = np.clip(rgb + 0.5, 0, 255).astype(np.uint8)
        frame = av.VideoFrame.from_ndarray(cv2.cvtColor(rounded, cv2.COLOR_RGB2YUV_I420), format="yuv420p")
        frame.pts = self._n_frames
        frame.time_base = self._frame_time
        self._n_frames += 1
        self._container.mux(self._video.encode(frame))

    def add_sound(self, samples: NDArray[np.float64]) -> None:
        """Encode the whole sound track.

        Args:
            samples: Mono at `SAMPLE_RATE_HZ`, -1 to 1.
        """
        for start in range(0, len(samples), AAC_FRAME):
            part = np.ascontiguousarray(samples[None, start : start + AAC_FRAME], np.float32)
            frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
            frame.sample_rate = SAMPLE_RATE_HZ
            frame.pts = start
            frame.time_base = Fraction(1, SAMPLE_RATE_HZ)
            self._container.mux(self._audio.encode(frame))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._container.mux(self._video.encode(None))
            self._container.mux(self._audio.encode(None))
        self._container.close()
