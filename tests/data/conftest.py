from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

VideoWriter = Callable[..., Path]


def write_video(path: Path, *, seed: int = 0, n_frames: int = 32, fps: int = 16, bit_rate: int = 200_000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=fps, bit_rate=bit_rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(n_frames):
            picture = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def write_picture(path: Path, seed: int, *, quality: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    assert cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return path


@pytest.fixture
def faceforensics(tmp_path: Path) -> Path:
    """Five reciprocal pairs named as in FaceForensics++, forged in two ways under the same names."""
    root = tmp_path / "ffpp_c23"
    seed = 0
    for first in range(0, 10, 2):
        a, b = f"{first:03d}", f"{first + 1:03d}"
        for name in (f"real/youtube/{a}", f"real/youtube/{b}"):
            write_video(root / f"{name}.mp4", seed=(seed := seed + 1))
        for manipulation in ("Deepfakes", "Face2Face"):
            for name in (f"{a}_{b}", f"{b}_{a}"):
                write_video(root / "fake" / manipulation / f"{name}.mp4", seed=(seed := seed + 1))
    return root


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Sixty reals and sixty fakes, each a group of its own, alike in format."""
    root = tmp_path / "pictures"
    for i in range(60):
        write_picture(root / "real" / f"portrait_{i}.jpg", seed=i)
        write_picture(root / "fake" / "GAN" / f"sample_{1000 + i}.jpg", seed=1000 + i)
    return root
