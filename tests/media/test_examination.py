"""What ingest sees of a file in one look: where it came from, how loud it is, by what it is known again."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from unmask.media.examination import examine
from unmask.media.probe import jpeg_quality


@pytest.mark.parametrize("quality", [30, 75, 90, 100])
def test_the_quality_of_a_jpeg_is_read_from_its_tables(tmp_path: Path, quality: int) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    cv2.imwrite(str(tmp_path / "a.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    facts = examine(tmp_path / "a.jpg").facts
    assert facts.encoder == f"jpeg quality {quality}"
    assert (facts.container, facts.codec, facts.pixel_format) == ("jpeg_pipe", "mjpeg", "yuvj420p")


def test_other_tables_are_told_apart_by_a_hash(tmp_path: Path) -> None:
    picture = np.zeros((16, 16, 3), np.uint8)
    content = bytearray(cv2.imencode(".jpg", picture)[1].tobytes())
    content[content.find(b"\xff\xdb") + 5] ^= 1
    assert jpeg_quality(bytes(content)).startswith("jpeg tables ")
    assert jpeg_quality(b"no picture") is None


def write_film(path: Path, scenes: int, level: float) -> None:
    """One key frame a second, a new picture in each; a tone of the given level."""
    rng = np.random.default_rng(1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"g": "10", "sc_threshold": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        sound = container.add_stream("pcm_s16le" if path.suffix == ".mkv" else "aac", rate=16000, layout="mono")
        for _ in range(scenes):
            picture = cv2.resize(rng.integers(0, 255, (6, 6, 3), dtype=np.uint8), (64, 64))
            for _ in range(10):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        tone = np.round(level * 32767 * np.sin(np.arange(16000 * scenes) / 5)).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(tone.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = 16000
        for packet in [*sound.encode(frame), *sound.encode()]:
            container.mux(packet)


def test_key_frames_peak_and_program_of_a_film(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mkv", 8, 0.5)
    found = examine(tmp_path / "a.mkv")
    assert len(found.pictures) == 4  # the first, and key frames near a quarter, a half and three quarters
    assert found.peak_dbfs == pytest.approx(-6.02, abs=0.05)
    assert (found.facts.channels, found.facts.has_audio) == (1, True)
    assert found.facts.container.startswith("matroska")
    assert "Lavf" in (found.facts.encoder or "")


def test_a_still_film_has_one_mark(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", 1, 0.1)
    assert len(examine(tmp_path / "a.mp4").pictures) == 1
