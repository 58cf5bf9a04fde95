"""A drawn talking face with known truth, good enough for the face networks; and clips made of pictures."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

FPS = 30


def draw_face(
    size: int = 256,
    *,
    mouth: float = 0.1,
    eyes: float = 1.0,
    centre: tuple[float, float] = (0.5, 0.5),
    scale: float = 0.3,
    skin: tuple[float, float, float] = (205, 160, 135),
    backdrop: np.ndarray | tuple[int, int, int] = (70, 90, 110),
    mirrored_half: float = 0.0,
) -> np.ndarray:
    """Draw a frontal face, RGB uint8 (size, size, 3).

    `mouth` is the height over the width of the open mouth, `eyes` 1 open to 0 shut, `scale` half the face's height over
    the size, `mirrored_half` moves one mouth corner up (asymmetry).
    """
    s = 4  # drawn larger, then averaged: smooth edges
    n = size * s
    image = np.empty((n, n, 3), np.float32)
    if isinstance(backdrop, np.ndarray):
        image[:] = cv2.resize(backdrop.astype(np.float32), (n, n), interpolation=cv2.INTER_LINEAR)
    else:
        image[:] = backdrop
    cx, cy, r = centre[0] * n, centre[1] * n, scale * n

    def ellipse(
        x: float, y: float, w: float, h: float, colour: Any, angle: float = 0, start: float = 0, end: float = 360
    ) -> None:
        middle, axes = (round(cx + x * r), round(cy + y * r)), (max(1, round(w * r)), max(1, round(h * r)))
        cv2.ellipse(image, middle, axes, angle, start, end, colour, -1, cv2.LINE_AA)

    def shade(x: float, y: float, w: float, h: float, amount: float) -> None:
        across, down = (
            np.exp(-(((np.arange(n, dtype=np.float32) - at) / size) ** 2))
            for at, size in (
                (cx + x * r, w * r),
                (cy + y * r, h * r),
            )
        )
        np.multiply(image, 1 + amount * np.outer(down, across)[..., None], out=image)

    tone = np.array(skin, np.float32)
    ellipse(0, 1.25, 0.32, 0.6, (tone * 0.75).tolist())  # neck
    ellipse(0, 1.95, 1.2, 0.6, (60, 60, 120))  # clothes
    ellipse(0, -0.12, 0.84, 1.03, (50, 35, 28))  # hair
    ellipse(0, 0.05, 0.72, 0.95, tone.tolist())  # face
    ellipse(-0.76, 0.02, 0.09, 0.2, (tone * 0.85).tolist())
    ellipse(0.76, 0.02, 0.09, 0.2, (tone * 0.85).tolist())
    shade(-0.45, 0.35, 0.2, 0.3, -0.1)
    shade(0.45, 0.35, 0.2, 0.3, -0.1)
    shade(0, -0.55, 0.45, 0.25, 0.08)
    shade(0, 0.1, 0.09, 0.32, 0.14)  # ridge of the nose
    for side in (-1, 1):
        shade(side * 0.3, -0.12, 0.2, 0.12, -0.22)  # orbit
        ellipse(side * 0.31, -0.29, 0.19, 0.04, (55, 40, 32), side * 6)  # brow
        ellipse(side * 0.3, -0.1, 0.155, 0.02 + 0.075 * eyes, (70, 45, 40))  # lashes
        if eyes > 0.15:
            ellipse(side * 0.3, -0.095, 0.14, 0.07 * eyes, (235, 232, 228))
            ellipse(side * 0.3, -0.1, 0.06, min(0.06, 0.068 * eyes), (60, 40, 25))
            ellipse(side * 0.3, -0.1, 0.028, min(0.028, 0.05 * eyes), (12, 10, 10))
        else:
            ellipse(side * 0.3, -0.11, 0.15, 0.05, (tone * 0.88).tolist())
            ellipse(side * 0.3, -0.055, 0.14, 0.012, (70, 45, 40))
        shade(side * 0.09, 0.31, 0.05, 0.03, -0.5)  # nostril
    shade(0, 0.3, 0.14, 0.05, -0.12)
    opening = 0.27 * mouth
    ellipse(0, 0.55, 0.29, 0.075 + opening, (172, 82, 82))  # lips
    if mirrored_half:
        ellipse(0.26, 0.55 - mirrored_half, 0.09, 0.05, (172, 82, 82), -35)
    ellipse(0, 0.55, 0.25, max(opening, 0.006), (60, 20, 22))  # inside of the mouth
    shade(0, 0.78, 0.25, 0.06, -0.08)
    small = cv2.resize(cv2.GaussianBlur(image, (0, 0), s * size / 400), (size, size), interpolation=cv2.INTER_AREA)
    return np.clip(small, 0, 255).astype(np.uint8)


@lru_cache(maxsize=256)
def drawn(mouth: float = 0.1, eyes: float = 1.0, size: int = 256, seed: int = 0, skin: float = 1.0) -> np.ndarray:
    """A face before a wall, kept for the next time; do not write into it."""
    tone = tuple(channel * factor for channel, factor in zip((205, 160, 135), (1.0, skin, 1.0), strict=True))
    return draw_face(size, mouth=mouth, eyes=eyes, skin=tone, backdrop=backdrop(seed, size))


def backdrop(seed: int = 0, size: int = 256) -> np.ndarray:
    """A wall with soft structure."""
    rng = np.random.default_rng(seed)
    wall = sum(cv2.resize(rng.uniform(10, 60, (n, n, 3)).astype(np.float32), (size, size)) for n in (3, 8, 20, 50))
    return np.clip(wall, 0, 255).astype(np.uint8)


def noisy(image: np.ndarray, rng: np.random.Generator, deviation: float = 2.0) -> np.ndarray:
    """Add camera noise."""
    return np.clip(image + rng.normal(0, deviation, image.shape), 0, 255).astype(np.uint8)


def write_clip(
    path: Path,
    frames: Iterable[np.ndarray],
    *,
    fps: float = FPS,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    options: dict[str, str] | None = None,
    times_s: list[float] | None = None,
) -> Path:
    """Encode RGB frames."""
    with av.open(str(path), "w") as container:
        stream = None
        for index, frame in enumerate(frames):
            if stream is None:
                stream = container.add_stream(codec, rate=round(fps))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.options = options if options is not None else {"crf": "20", "preset": "veryfast"}
                stream.codec_context.thread_count = 1
                if rotation:
                    stream.set_display_rotation(rotation)
                if times_s is not None:
                    stream.codec_context.time_base = Fraction(1, 1000)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            if times_s is not None:
                picture.pts, picture.time_base = round(times_s[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(picture))
        assert stream is not None
        container.mux(stream.encode())
    return path


def remux(source: Path, target: Path) -> Path:
    """Copy the packets of a clip into another container."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for packet in reader.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                writer.mux(packet)
    return target
