"""One look at a file for all that ingest wants to know: facts, marks to know it again by, and the peak of its sound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from unmask.media.fingerprint import SOUND_RATE_HZ, PictureMark, picture_mark, sound_words
from unmask.media.probe import MediaFacts, read_facts

KEY_FRAME_PLACES = (0.25, 0.5, 0.75)  # of the duration, besides the first frame
THUMB_INPUT_PX = 96  # frames are shrunk to this by the video library, which is quick, before marks are made
LISTEN_S = 60.0  # of an audio file
LISTEN_VIDEO_S = 8.0  # of the sound of a video
QUIETEST_DBFS = -120.0


@dataclass(frozen=True)
class Examination:
    """What was found in a file.

    Attributes:
        facts: From its headers.
        pictures: Mark of the picture, or of up to four key frames of a video; frames that are flat have none.
        words: Of an audio file, see `sound_words`.
        peak_dbfs: Highest level of the sound in dB of full scale; None without sound.
    """

    facts: MediaFacts
    pictures: tuple[PictureMark, ...]
    words: NDArray[np.uint32]
    peak_dbfs: float | None


class _Look:
    """Collects marks while the probe has the file open."""

    def __init__(self) -> None:
        self.pictures: dict[PictureMark, None] = {}  # in order, each once
        self.words = np.zeros(0, np.uint32)
        self.peak: float | None = None

    def __call__(self, container: Any, stream: Any, frame: Any, facts: MediaFacts) -> None:
        if facts.modality == "audio":
            samples = self._listen(container, stream, LISTEN_S)
            self.words = sound_words(samples)
            return
        self._see(frame)
        if facts.modality == "video":
            for place in KEY_FRAME_PLACES:
                self._see(_key_frame(container, stream, place * (facts.duration_s or 0)))
            if container.streams.audio:
                self._listen(container, container.streams.audio[0], LISTEN_VIDEO_S)

    def _see(self, frame: Any) -> None:
        if frame is None:
            return
        side = min(THUMB_INPUT_PX, max(frame.width, frame.height))
        small = frame.reformat(width=side, height=side, format="rgb24", interpolation="AREA")
        mark = picture_mark(small.to_ndarray())
        if mark is not None:
            self.pictures.setdefault(mark)

    def _listen(self, container: Any, stream: Any, limit_s: float) -> NDArray[np.float32]:
        """Read the beginning of the sound: notes its peak, returns it at 8 kHz as mono ``(N,)``."""
        resampler = av.AudioResampler(format="flt", layout="mono", rate=SOUND_RATE_HZ)
        parts: list[NDArray[np.float32]] = []
        heard_s = 0.0
        try:
            container.seek(0)
            for frame in container.decode(stream):
                values = frame.to_ndarray()
                scale = float(np.iinfo(values.dtype).max) if values.dtype.kind in "iu" else 1.0
                middle = scale / 2 if values.dtype.kind == "u" else 0.0
                level = float(np.abs(values.astype(np.float32) - middle).max(initial=0)) / (scale - middle)
                self.peak = max(level, self.peak or 0.0)
                parts += [out.to_ndarray().ravel().astype(np.float32) for out in resampler.resample(frame)]
                heard_s += frame.samples / frame.sample_rate
                if heard_s >= limit_s:
                    break
        except (av.error.FFmpegError, ValueError):
            pass  # a damaged place; what was heard before it stands
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def _key_frame(container: Any, stream: Any, time_s: float) -> Any:
    """Decode the key frame before a time; None where that fails."""
    try:
        container.seek(int(time_s / stream.time_base), stream=stream)
        return next(container.decode(stream), None)
    except (av.error.FFmpegError, OverflowError):
        return None


def examine(path: Path) -> Examination:
    """Look into a file.

    Args:
        path: The file.

    Returns:
        What was found.

    Raises:
        MediaError: As `read_facts`.
    """
    look = _Look()
    facts = read_facts(path, look)
    peak = None if look.peak is None else max(QUIETEST_DBFS, 20 * math.log10(max(look.peak, 1e-6)))
    return Examination(facts, tuple(look.pictures), look.words, peak)
