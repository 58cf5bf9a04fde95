"""The sound of a file as windows: mono, 16 kHz, 16 bits, evenly spaced over the clip."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

Samples = NDArray[np.int16]
SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 64_600  # about four seconds: what AASIST was published for
# An hour is 115 MB in memory; what comes after it is not listened to.
MAX_SECONDS = 3600
SHORTEST_S = 0.1
SPECTRUM_POINTS = 512
# Root mean square below which a window is called silent: -70 dB of full scale.
SILENT = 32768 * 10 ** (-70 / 20)


@dataclass(frozen=True)
class Window:
    """A stretch of sound: the columns of the table ``windows`` that do not depend on the data set.

    Attributes:
        window_index: In order of time, 0-based.
        time_s: When it begins.
        pcm: Mono samples at 16 kHz, 16-bit signed little-endian; fewer than 64,600 only if the clip is shorter.
    """

    window_index: int
    time_s: float
    pcm: bytes


@dataclass(frozen=True)
class Sound:
    """What can be heard in a file.

    Attributes:
        windows: In order of time; without those that are silent.
        reason: ``code: sentence`` why there are none; None if there are.
    """

    windows: tuple[Window, ...]
    reason: str | None = None

    @property
    def undecodable(self) -> bool:
        """Whether the file has no sound that could be decoded at all."""
        return (self.reason or "").partition(":")[0] in ("no_sound", "sound_unsupported", "sound_unreadable")


def read_sound(path: Path, n_windows: int) -> Sound:
    """Cut the sound of a file into windows.

    Args:
        path: An audio file, or a video.
        n_windows: At most so many; fewer where they would overlap by more than the clip makes necessary.

    Returns:
        The windows, or why there are none. A damaged place is left out; a file that cannot be opened has no sound.
    """
    if n_windows == 0:
        return Sound((), "not_wanted: extract.sound_windows is 0")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                return Sound((), "no_sound: the file has no sound track")
            stream: Any = container.streams.audio[0]
            if stream.codec_context is None:
                return Sound((), "sound_unsupported: the sound is coded in a way that cannot be decoded")
            samples = _decode(container, stream)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        return Sound((), f"sound_unreadable: {getattr(error, 'strerror', None) or error}")
    if len(samples) < SHORTEST_S * SAMPLE_RATE_HZ:
        return Sound((), f"sound_too_short: {len(samples) / SAMPLE_RATE_HZ:.2f} s of sound can be decoded")
    windows = tuple(window for window in cut_windows(samples, n_windows) if level(window_samples(window.pcm)) > SILENT)
    return Sound(windows) if windows else Sound((), "silent: nothing can be heard in it")


def _decode(container: Any, stream: Any) -> Samples:
    """Decode to mono at 16 kHz, packet by packet, leaving out what is damaged ``(L,)``."""
    resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
    parts: list[Samples] = []
    missing = MAX_SECONDS * SAMPLE_RATE_HZ
    packets = container.demux(stream)
    while missing > 0:
        try:
            packet = next(packets, None)
            if packet is None:
                break
            for frame in packet.decode():
                frame.pts = None  # gaps in the time stamps are no reason to invent silence
                for out in resampler.resample(frame):
                    parts.append(np.asarray(out.to_ndarray().ravel(), np.int16))
                    missing -= parts[-1].size
        except av.error.InvalidDataError as error:
            logger.debug("a packet of sound was left out: %s", error)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            logger.debug("reading of sound stopped: %s", error)
            break
    rest = resampler.resample(None) if parts else []
    parts += [np.asarray(out.to_ndarray().ravel(), np.int16) for out in rest]
    joined = np.concatenate(parts) if parts else np.zeros(0, np.int16)
    return joined[: MAX_SECONDS * SAMPLE_RATE_HZ]


def cut_windows(samples: Samples, n_windows: int) -> list[Window]:
    """Cut evenly spaced windows: the first at the beginning, the last at the end.

    Args:
        samples: ``(L,)``, int16, 16 kHz.
        n_windows: At most so many, and no more than cover the clip once.

    Returns:
        The windows; one that is shorter if the clip is.
    """
    n = max(1, min(n_windows, -(-len(samples) // WINDOW_SAMPLES)))
    last = max(0, len(samples) - WINDOW_SAMPLES)
    starts = np.linspace(0, last, n).astype(int) if n > 1 else [last // 2]
    return [
        Window(index, start / SAMPLE_RATE_HZ, samples[start : start + WINDOW_SAMPLES].astype("<i2").tobytes())
        for index, start in enumerate(map(int, starts))
    ]


def window_samples(pcm: bytes | memoryview) -> Samples:
    """Read the samples of a window.

    Args:
        pcm: 16-bit signed little-endian.

    Returns:
        ``(L,)``, int16.
    """
    return np.frombuffer(pcm, "<i2").astype(np.int16, copy=False)


def spectrogram(samples: Samples, *, height_px: int = 128, width_px: int = 256) -> NDArray[np.uint8]:
    """Draw the spectrum over time: low frequencies below, 70 dB from black to bright.

    Args:
        samples: ``(L,)``, int16.
        height_px: Of the picture.
        width_px: Of the picture.

    Returns:
        RGB ``(height_px, width_px, 3)``, uint8.
    """
    padded = np.pad(samples.astype(np.float32), (0, max(0, SPECTRUM_POINTS - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, SPECTRUM_POINTS)
    starts = np.linspace(0, len(frames) - 1, width_px).astype(int)
    power = np.abs(np.fft.rfft(frames[starts] * np.hanning(SPECTRUM_POINTS), axis=1)) ** 2
    bands = np.stack([part.mean(axis=1) for part in np.array_split(power, height_px, axis=1)])
    decibels = 10 * np.log10(bands + 1e-9)
    grey = np.clip(255 * (1 + (decibels - decibels.max()) / 70), 0, 255).astype(np.uint8)
    coloured = cv2.applyColorMap(np.ascontiguousarray(grey[::-1]), cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(coloured[:, :, ::-1], np.uint8)


def level(samples: Samples) -> float:
    """Root mean square of samples, in steps of 16 bits."""
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
