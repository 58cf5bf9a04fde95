from __future__ import annotations

from pathlib import Path

import pytest
from media_writers import write_picture, write_video


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
