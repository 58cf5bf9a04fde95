"""The zoo of damaged and odd files: each becomes a row with the right status; none crashes, hangs or ends silently."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn_face import drawn, noisy, remux, write_clip
from hand_made import dataset
from talking import talk

from unmask.config import ExtractConfig, IngestConfig
from unmask.errors import MediaError
from unmask.features import CATALOGUE
from unmask.features.extract_stage import run_extract
from unmask.media.probe import probe, read_facts
from unmask.schemas import FEATURES, SAMPLES, read_table

CONFIG = ExtractConfig(crops_per_video=4, crop_size_px=64, workers=2, timeout_s=60, max_failed_share=1.0)
RICH = {"crf": "10", "preset": "ultrafast", "g": "10"}
N = 60

# File to the start of its reason ("" is ok) and the decoded frames that its row must tell of.
EXPECTED: dict[str, tuple[str, range]] = {
    "whole.mp4": ("", range(N, N + 1)),
    "truncated_end_index.mp4": ("corrupt: ", range(0)),
    "truncated_first_index.mp4": ("truncated: ", range(0)),
    "truncated.mkv": ("truncated: ", range(0)),
    "small_hole.mp4": ("", range(54, N)),
    "large_hole.mp4": ("truncated: ", range(0)),
    "flipped_bits.mp4": ("truncated: ", range(0)),
    "one_flipped_byte.mp4": ("", range(54, N + 1)),
    "picture.mp4": ("wrong_type: ", range(0)),
    "sound.mp4": ("no_video_stream: ", range(0)),
    "empty.mp4": ("empty_file: ", range(0)),
    "one_frame.mp4": ("", range(1, 2)),
    "one_pixel.nut": ("no_face: ", range(0)),
    "8k.mp4": ("", range(3, 4)),
    "no_rate.avi": ("", range(N, N + 1)),
    "no_timescale.mp4": ("truncated: ", range(0)),  # all but one of its frames have no place in time
    "wrong_duration.mp4": ("", range(N, N + 1)),
    "wrong_duration.mkv": ("truncated: ", range(0)),
    "portrait.mp4": ("", range(N, N + 1)),
    "yuv444.mp4": ("", range(N, N + 1)),
    "ten_bit.mp4": ("", range(N, N + 1)),
    "variable_rate.mkv": ("", range(N, N + 1)),
    "no_key_frame_first.mp4": ("truncated: ", range(0)),
    "no_key_frame_briefly.mp4": ("", range(54, N)),
}


def media_bytes(data: bytes) -> tuple[int, int]:
    """Where the coded frames of an MP4 begin and end."""
    start = data.find(b"mdat") + 4
    return start, start - 8 + int.from_bytes(data[start - 8 : start - 4], "big")


def patched(source: Path, target: Path, *changes: tuple[bytes, int, bytes]) -> Path:
    """Copy a file with bytes replaced at offsets from the first place of a mark."""
    data = bytearray(source.read_bytes())
    for mark, offset, new in changes:
        at = data.find(mark)
        assert at >= 0, mark
        data[at + offset : at + offset + len(new)] = new
    target.write_bytes(data)
    return target


def with_index_first(source: Path, target: Path) -> Path:
    with av.open(str(source)) as reader, av.open(str(target), "w", options={"movflags": "faststart"}) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)
    return target


def without_first(source: Path, target: Path, n: int) -> Path:
    """Copy a clip without its first n packets, so that it begins in the middle of a group of pictures."""
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for index, packet in enumerate(reader.demux(video=0)):
            if packet.dts is not None and index >= n:
                packet.stream = stream
                writer.mux(packet)
    return target


def broken(whole: Path, folder: Path) -> None:
    """Damage a whole clip in the ways in which files get damaged."""
    data = whole.read_bytes()
    start, end = media_bytes(data)
    size = end - start
    (folder / "truncated_end_index.mp4").write_bytes(data[: len(data) * 6 // 10])
    first = with_index_first(whole, folder / "first.tmp.mp4")
    (folder / "truncated_first_index.mp4").write_bytes(first.read_bytes()[: len(data) * 6 // 10])
    first.unlink()
    matroska = remux(whole, folder / "truncated.mkv")
    patched(matroska, folder / "wrong_duration.mkv", (b"\x44\x89\x88", 3, struct.pack(">d", 20_000.0)))
    matroska.write_bytes(matroska.read_bytes()[: len(data) // 2])
    for name, share in (("small_hole", 60), ("large_hole", 3)):
        hole = bytearray(data)
        middle = start + size // 2
        hole[middle : middle + size // share] = bytes(size // share)
        (folder / f"{name}.mp4").write_bytes(hole)
    rng = np.random.default_rng(5)
    for name, n in (("flipped_bits", 400), ("one_flipped_byte", 1)):
        flipped = bytearray(data)
        for at in rng.integers(start, end, n):
            flipped[at] ^= 1 << int(rng.integers(8))
        (folder / f"{name}.mp4").write_bytes(flipped)
    patched(
        whole,
        folder / "wrong_duration.mp4",
        (b"mvhd", 20, (90_000).to_bytes(4, "big")),
        (b"tkhd", 24, (90_000).to_bytes(4, "big")),
    )
    patched(whole, folder / "no_timescale.mp4", (b"mdhd", 16, bytes(4)))
    without_first(whole, folder / "no_key_frame_first.mp4", 2)


def odd(frames: list[np.ndarray], folder: Path) -> None:
    """Write clips that are whole but unusual."""
    rng = np.random.default_rng(0)
    write_clip(folder / "one_frame.mp4", frames[:1])
    one = [np.full((1, 1, 3), 90, np.uint8)] * 40
    write_clip(folder / "one_pixel.nut", one, codec="rawvideo", pix_fmt="yuv444p", options={})
    large = np.full((4320, 7680, 3), 90, np.uint8)
    large[:, 1680:6000] = cv2.resize(drawn(), (4320, 4320))
    write_clip(folder / "8k.mp4", [large] * 3, options={"crf": "30", "preset": "ultrafast"})
    steady = write_clip(folder / "steady.tmp.avi", frames, codec="mpeg4", options={"g": "12"})
    patched(steady, folder / "no_rate.avi", (b"vids", 20, bytes(8)), (b"avih", 8, bytes(4)))
    steady.unlink()
    turned = [np.ascontiguousarray(np.rot90(frame[:, 40:216], -1)) for frame in frames]
    write_clip(folder / "portrait.mp4", turned, rotation=90)
    write_clip(folder / "yuv444.mp4", frames, pix_fmt="yuv444p")
    write_clip(folder / "ten_bit.mp4", frames, pix_fmt="yuv420p10le")
    times = np.cumsum(np.random.default_rng(1).choice([0.02, 0.033, 0.05, 0.1], N)).tolist()
    write_clip(folder / "variable_rate.mkv", frames, times_s=times)
    brief = write_clip(folder / "brief.tmp.mp4", frames, options=RICH | {"g": "5"})
    without_first(brief, folder / "no_key_frame_briefly.mp4", 1)
    brief.unlink()
    cv2.imwrite(str(folder / "picture.png"), noisy(drawn(), rng)[:, :, ::-1])
    (folder / "picture.png").rename(folder / "picture.mp4")
    (folder / "empty.mp4").touch()
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        samples.rate, samples.time_base = 16000, Fraction(1, 16000)
        container.mux(stream.encode(samples))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def zoo(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("zoo")
    frames = list(talk(N / 30))
    whole = write_clip(folder / "whole.mp4", frames, options=RICH)
    broken(whole, folder)
    odd(frames, folder)
    return folder


@pytest.fixture(scope="module")
def rows(zoo, tmp_path_factory) -> dict[str, dict]:
    """The table of features of the whole zoo, by name of file."""
    root = tmp_path_factory.mktemp("run")
    files = sorted(zoo.iterdir())
    dataset(root, files)
    run_extract(root, root / "faces", root / "features", CONFIG)
    names = {
        row["sample_id"]: Path(row["uri"]).name for row in read_table(root / "samples.parquet", SAMPLES).to_pylist()
    }
    table = read_table(root / "features" / "features.parquet", FEATURES).to_pylist()
    return {names[row["sample_id"]]: row for row in table}


def test_the_zoo_is_complete(zoo):
    assert {path.name for path in zoo.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_every_animal_is_a_row_with_its_status(rows, name):
    reason, frames = EXPECTED[name]
    row = rows[name]
    if reason:
        assert row["status"] == "failed"
        assert row["reason"].startswith(reason), row["reason"]
        assert all(row[feature] is None for feature in CATALOGUE)
    else:
        assert row["status"] == "ok", row["reason"]
        assert row["n_frames_decoded"] in frames
        assert row["n_frames_expected"] >= row["n_frames_decoded"]
        assert row["quality.blur"] is not None
        n_examined = (row["n_frames_decoded"] + 1) // 2
        assert row["n_crops"] == min(4, n_examined)


@pytest.mark.parametrize("name", EXPECTED)
def test_looking_at_the_headers_ends_with_facts_or_a_reason(zoo, name):
    path, config = zoo / name, IngestConfig(min_duration_s=0, min_fps=0)
    if headers_tell(path):
        assert probe(path, config).size_bytes == path.stat().st_size
    else:
        assert EXPECTED[name][0] or name == "no_rate.avi"
        with pytest.raises(MediaError):
            probe(path, config)


def headers_tell(path: Path) -> bool:
    try:
        read_facts(path)
    except MediaError:
        return False
    return True


def test_odd_coding_changes_no_value_beyond_its_noise(rows):
    plain = rows["whole.mp4"]
    for name in ("yuv444.mp4", "ten_bit.mp4", "wrong_duration.mp4"):
        for feature, tolerance in (("quality.blur", 0.2), ("face.mouth_exag", 0.1), ("art.color", 4.0)):
            assert rows[name][feature] == pytest.approx(plain[feature], abs=tolerance), (name, feature)
