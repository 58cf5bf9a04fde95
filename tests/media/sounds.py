"""Sound files made by code."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE_HZ = 16_000


def tone(seconds: float, hz: float = 440.0, rate_hz: int = RATE_HZ, peak: float = 0.5) -> np.ndarray:
    """A sine ``(L,)``, int16."""
    return np.int16(peak * 32767 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate_hz)) / rate_hz))


def write_sound(path: Path, samples: np.ndarray, rate_hz: int = RATE_HZ, codec: str = "pcm_s16le") -> Path:
    """Encode samples ``(L,)`` or ``(channels, L)``, int16."""
    with av.open(str(path), "w") as container:
        add_sound(container, samples, rate_hz, codec)
    return path


def add_sound(container: av.container.OutputContainer, samples: np.ndarray, rate_hz: int, codec: str) -> None:
    """Add a track of sound to a file that is being written."""
    planes = np.atleast_2d(samples)
    layout = "mono" if len(planes) == 1 else "stereo"
    stream = container.add_stream(codec, rate=rate_hz, layout=layout)
    packed = np.ascontiguousarray(planes.T.reshape(1, -1))
    frame = av.AudioFrame.from_ndarray(packed, format="s16", layout=layout)
    frame.rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
    fifo = av.AudioFifo()
    resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate_hz)
    for part in resampler.resample(frame):
        fifo.write(part)
    while (part := fifo.read(stream.codec_context.frame_size or 1024, partial=True)) is not None:
        container.mux(stream.encode(part))
    container.mux(stream.encode())
