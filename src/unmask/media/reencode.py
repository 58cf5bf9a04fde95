"""Bringing media into one format: the same size, rate, length, codec and level for every file."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from unmask.errors import MediaError
from unmask.media.probe import open_media

Picture = NDArray[np.uint8]

JPEG_QUALITY = 90
PEAK = 10 ** (-3 / 20)  # of full scale: -3 dBFS
KEY_FRAME_EVERY = 50
SOUND_OF_VIDEO_HZ = 16_000
SOUND_BIT_RATE = 64_000


def _fitted(picture: Picture, width_px: int, height_px: int) -> Picture:
    """Crop the middle to the wanted shape, then scale: ``(H, W, 3)`` to ``(height_px, width_px, 3)``."""
    height, width = picture.shape[:2]
    kept_width = min(width, round(height * width_px / height_px))
    kept_height = min(height, round(width * height_px / width_px))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    middle = picture[top : top + kept_height, left : left + kept_width]
    shrinks = kept_width > width_px
    interpolation = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(middle, (width_px, height_px), interpolation=interpolation), np.uint8)


def _upright(frame: Any) -> Picture:
    picture: Picture = frame.to_ndarray(format="rgb24")
    return np.rot90(picture, round(frame.rotation / 90) % 4)


def reencode_image(path: Path, out: Path, width_px: int, height_px: int) -> None:
    """Write a picture as JPEG of quality 90 in a given size.

    Args:
        path: The picture.
        out: File to write.
        width_px: Of the result; what does not fit its shape is cut off at the sides.
        height_px: Of the result.

    Raises:
        MediaError: ``not_normalised``: it does not decode.
    """
    try:
        with open_media(path) as container:
            frame = next(container.decode(video=0))
            picture = _fitted(_upright(frame), width_px, height_px)
    except (av.error.FFmpegError, StopIteration) as error:
        raise MediaError("not_normalised", f"the picture does not decode ({error})") from error
    out.write_bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(picture), JPEG_QUALITY, "RGB", "420"))


def reencode_video(
    path: Path, out: Path, width_px: int, height_px: int, fps: float, duration_s: float, bit_rate_bps: int, sound: bool
) -> None:
    """Write the beginning of a video as H.264 in MP4 of given size, rate, length and bit rate.

    Args:
        path: The video.
        out: File to write.
        width_px: Even.
        height_px: Even.
        fps: Frames are repeated or left out to reach it.
        duration_s: Of the result; shorter videos stay shorter.
        bit_rate_bps: Of the picture, held over every second.
        sound: Whether to keep the sound, as mono AAC.

    Raises:
        MediaError: ``not_normalised``: it does not decode or encode.
    """
    rate = Fraction(fps).limit_denominator(1001)
    try:
        with open_media(path) as source, av.open(str(out), "w", format="mp4") as target:
            stream = target.add_stream("libx264", rate=rate)
            stream.width, stream.height, stream.pix_fmt = width_px, height_px, "yuv420p"
            stream.bit_rate, stream.gop_size, stream.thread_count = bit_rate_bps, KEY_FRAME_EVERY, 1
            held = {"maxrate": str(bit_rate_bps), "minrate": str(bit_rate_bps), "bufsize": str(bit_rate_bps)}
            stream.options = {"preset": "veryfast", "nal-hrd": "cbr", **held}
            voice = target.add_stream("aac", rate=SOUND_OF_VIDEO_HZ, layout="mono") if sound else None
            for picture in _at_rate(source, float(rate), duration_s):
                frame = av.VideoFrame.from_ndarray(_fitted(picture, width_px, height_px), format="rgb24")
                target.mux(stream.encode(frame))
            target.mux(stream.encode())
            if voice is not None:
                voice.bit_rate = SOUND_BIT_RATE
                _copy_sound(source, target, voice, duration_s)
    except av.error.FFmpegError as error:
        raise MediaError("not_normalised", f"the video does not encode anew ({error})") from error


def _at_rate(source: Any, fps: float, duration_s: float) -> Iterator[Picture]:
    """Decode pictures at times 0, 1/fps, 2/fps, …: each time the last frame that had begun."""
    stream = source.streams.video[0]
    stream.codec_context.thread_count = 1
    wanted, start = 0, None
    last: Picture | None = None
    for frame in source.decode(stream):
        time = float(frame.time or 0)
        start = time if start is None else start
        if (time - start) >= duration_s:
            break
        while last is not None and wanted / fps < time - start:
            yield last
            wanted += 1
        last = _upright(frame)
    if last is not None and wanted / fps < duration_s:
        yield last


def _copy_sound(source: Any, target: Any, voice: Any, duration_s: float) -> None:
    resampler = av.AudioResampler(format="fltp", layout="mono", rate=SOUND_OF_VIDEO_HZ)
    source.seek(0)
    for frame in source.decode(source.streams.audio[0]):
        if float(frame.time or 0) >= duration_s:
            break
        for part in resampler.resample(frame):
            target.mux(voice.encode(part))
    target.mux(voice.encode())


def reencode_audio(path: Path, out: Path, sample_rate_hz: int, duration_s: float) -> None:
    """Write the beginning of a recording as mono 16-bit WAV at a given rate, its peak at -3 dBFS.

    Args:
        path: The recording.
        out: File to write.
        sample_rate_hz: Of the result.
        duration_s: Of the result; shorter recordings stay shorter.

    Raises:
        MediaError: ``not_normalised``: it does not decode or encode.
    """
    wanted = round(duration_s * sample_rate_hz)
    parts: list[NDArray[np.float32]] = []
    try:
        with open_media(path) as source:
            resampler = av.AudioResampler(format="flt", layout="mono", rate=sample_rate_hz)
            for frame in source.decode(audio=0):
                parts += [part.to_ndarray().ravel().astype(np.float32) for part in resampler.resample(frame)]
                if sum(map(len, parts)) >= wanted:
                    break
            parts += [part.to_ndarray().ravel().astype(np.float32) for part in resampler.resample(None)]
        samples = np.concatenate(parts)[:wanted]
        samples = samples * (PEAK / max(float(np.abs(samples).max(initial=0)), 1e-6))
        with av.open(str(out), "w", format="wav") as target:
            stream = target.add_stream("pcm_s16le", rate=sample_rate_hz, layout="mono")
            whole = np.round(samples * 32767).astype(np.int16).reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(whole, format="s16", layout="mono")
            frame.sample_rate = sample_rate_hz
            target.mux(stream.encode(frame))
            target.mux(stream.encode())
    except (av.error.FFmpegError, ValueError) as error:
        raise MediaError("not_normalised", f"the recording does not encode anew ({error})") from error
