from __future__ import annotations

import os
import struct
import wave
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from unmask.config import IngestConfig
from unmask.errors import MediaError
from unmask.media.probe import expected_modality, probe, read_facts

CONFIG = IngestConfig()
PICTURE = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)


def write_video(
    path: Path,
    *,
    codec: str = "libx264",
    width: int = 64,
    height: int = 48,
    n_frames: int = 60,
    fps: int = 30,
    sound: bool = False,
    rotation: int = 0,
    options: dict[str, str] | None = None,
) -> Path:
    rng = np.random.default_rng(1)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if rotation:
            stream.set_display_rotation(rotation)
        voice = container.add_stream("aac", rate=16000, layout="mono") if sound else None
        for _ in range(n_frames):
            picture = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        if voice is not None:
            samples = rng.normal(0, 0.1, (1, 16000 * n_frames // fps)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.rate = 16000
            container.mux(voice.encode(frame))
            container.mux(voice.encode())
    return path


def write_sound(path: Path, *, duration_s: float = 2.5, rate_hz: int = 22050) -> Path:
    samples = np.random.default_rng(2).integers(-3000, 3000, round(duration_s * rate_hz), dtype=np.int16)
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(rate_hz)
        stream.writeframes(samples.tobytes())
    return path


def write_picture(path: Path) -> Path:
    assert cv2.imwrite(str(path), PICTURE)
    return path


def code_of(path: Path, config: IngestConfig = CONFIG) -> str:
    with pytest.raises(MediaError) as caught:
        probe(path, config)
    assert str(caught.value).startswith(f"{caught.value.code}: ")
    return caught.value.code


def test_video_facts_are_those_it_was_written_with(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", n_frames=75, fps=25)
    facts = probe(path, CONFIG)
    assert (facts.modality, facts.codec, facts.width_px, facts.height_px) == ("video", "h264", 64, 48)
    assert (facts.fps, facts.duration_s, facts.n_frames) == (25.0, 3.0, 75)
    assert facts.bitrate_bps == path.stat().st_size * 8 / 3
    assert (facts.has_audio, facts.sample_rate_hz, facts.rotation_deg) == (False, None, 0)


def test_video_with_sound(tmp_path: Path) -> None:
    facts = probe(write_video(tmp_path / "a.mp4", sound=True), CONFIG)
    assert (facts.has_audio, facts.sample_rate_hz, facts.n_frames) == (True, 16000, 60)


@pytest.mark.parametrize(("rotation", "clockwise"), [(90, 270), (-90, 90), (180, 180)])
def test_rotation_flag_swaps_the_displayed_size(tmp_path: Path, rotation: int, clockwise: int) -> None:
    facts = probe(write_video(tmp_path / "a.mp4", rotation=rotation), CONFIG)
    assert facts.rotation_deg == clockwise
    assert (facts.width_px, facts.height_px) == ((64, 48) if clockwise == 180 else (48, 64))


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.mkv", "libx264", "h264"),
        ("a.webm", "libvpx", "vp8"),
        ("a.avi", "mpeg4", "mpeg4"),
        ("a.ts", "libx264", "h264"),
    ],
)
def test_other_containers(tmp_path: Path, name: str, codec: str, expected: str) -> None:
    facts = probe(write_video(tmp_path / name, codec=codec), CONFIG)
    assert (facts.modality, facts.codec) == ("video", expected)
    assert facts.n_frames == pytest.approx(60, abs=1)
    assert facts.duration_s == pytest.approx(2, abs=0.05)


def test_frames_are_counted_where_the_header_is_silent(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", options={"live": "1"})
    with av.open(str(path)) as container:
        assert not container.duration  # or else the test tests nothing
    facts = probe(path, CONFIG)
    assert (facts.n_frames, facts.fps) == (60, pytest.approx(30, rel=0.02))
    assert facts.duration_s == pytest.approx(2, abs=0.05)


def test_sound_facts(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "a.wav")
    facts = probe(path, CONFIG)
    assert (facts.modality, facts.codec, facts.sample_rate_hz) == ("audio", "pcm_s16le", 22050)
    assert facts.duration_s == pytest.approx(2.5)
    assert (facts.width_px, facts.fps, facts.n_frames, facts.rotation_deg) == (None, None, None, None)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".tiff", ".gif"])
def test_image_facts(tmp_path: Path, suffix: str) -> None:
    facts = probe(write_picture(tmp_path / f"a{suffix}"), CONFIG)
    assert (facts.modality, facts.width_px, facts.height_px, facts.n_frames) == ("image", 60, 40, 1)
    assert (facts.fps, facts.duration_s, facts.bitrate_bps) == (None, None, None)


def test_exif_orientation_swaps_the_displayed_size(tmp_path: Path) -> None:
    jpeg = write_picture(tmp_path / "plain.jpg").read_bytes()
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)  # orientation 6: turn 90 degrees clockwise
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 1) + entry + b"\0\0\0\0"
    path = tmp_path / "turned.jpg"
    path.write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    facts = probe(path, CONFIG)
    assert (facts.width_px, facts.height_px, facts.rotation_deg) == (40, 60, 90)
    assert cv2.imread(str(path)).shape[:2] == (60, 40)  # an independent reader agrees


def test_a_wrong_image_suffix_is_harmless(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert probe(path, CONFIG).codec == "png"


def test_a_name_without_suffix_is_judged_by_content(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4").rename(tmp_path / "upload")
    assert expected_modality(path.name) is None
    assert probe(path, CONFIG).modality == "video"


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.touch()
    assert code_of(path) == "empty_file"


def test_missing_file(tmp_path: Path) -> None:
    assert code_of(tmp_path / "a.mp4") == "unreadable"


def test_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    os.mkfifo(path)
    assert code_of(path) == "unreadable"


def test_text_as_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_text("This is no film. " * 200)
    assert code_of(path) == "unsupported"


@pytest.mark.parametrize(
    "playlist",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile '{}'\n",
    ],
)
def test_a_playlist_opens_no_other_file(tmp_path: Path, playlist: str) -> None:
    other = write_video(tmp_path / "other.ts")
    path = tmp_path / "a.mp4"
    path.write_text(playlist.format(other))
    assert code_of(path) == "unsupported"


def test_noise_as_video(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(np.random.default_rng(3).bytes(50_000))
    assert code_of(path) == "corrupt"


def test_video_cut_before_its_index(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(MediaError, match=r"corrupt: .*moov"):
        probe(path, CONFIG)


def test_header_that_reads_with_frames_that_do_not_decode(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", options={"movflags": "faststart"})
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b"mdat") + 100])
    with pytest.raises(MediaError, match=r"corrupt: the headers read"):
        probe(path, CONFIG)


def test_picture_named_as_video(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png").rename(tmp_path / "a.mp4")
    assert code_of(path) == "wrong_type"


def test_video_named_as_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4").rename(tmp_path / "a.jpg")
    assert code_of(path) == "wrong_type"


def test_sound_in_a_video_container(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.float32), format="fltp", layout="mono")
        frame.rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert code_of(path) == "no_video_stream"
    assert probe(path.rename(tmp_path / "a.m4a"), CONFIG).modality == "audio"


def test_cut_jpeg(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert code_of(path) == "truncated"


def test_cut_png(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert code_of(path) == "corrupt"


def test_picture_of_absurd_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_picture(tmp_path / "a.png")
    assert probe(path, CONFIG).width_px == 60
    monkeypatch.setattr("unmask.media.probe.MAX_PIXELS", 60 * 40 - 1)
    assert code_of(path) == "corrupt"


def test_animation_is_unsupported(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb8"
        for shade in range(0, 250, 25):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), shade, np.uint8), format="rgb24")
            container.mux(stream.encode(frame.reformat(format="rgb8")))
        container.mux(stream.encode())
    assert code_of(path) == "unsupported"


def test_limits_of_duration_and_frame_rate(tmp_path: Path) -> None:
    short = write_video(tmp_path / "short.mp4", n_frames=45)
    slow = write_video(tmp_path / "slow.mp4", n_frames=30, fps=10)
    assert code_of(short) == "too_short"
    assert code_of(slow) == "too_slow"
    assert code_of(write_sound(tmp_path / "short.wav", duration_s=1.0)) == "too_short"
    generous = IngestConfig(min_duration_s=1, min_fps=5)
    assert probe(short, generous).duration_s == pytest.approx(1.5)
    assert probe(slow, generous).fps == 10
    assert read_facts(short).n_frames == 45  # the facts are known although the file is refused


def test_sound_of_an_unknown_coding_leaves_the_video_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "clip.mkv"
    with av.open(str(file), "w") as container:
        video = container.add_stream("libx264", 25)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        sound = container.add_stream("pcm_s16le", 16000)
        for _ in range(75):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8))))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), layout="mono")
        samples.sample_rate = 16000
        container.mux(sound.encode(samples))
        container.mux(video.encode())
    content = file.read_bytes()
    assert content.count(b"A_PCM/INT/LIT") == 1
    file.write_bytes(content.replace(b"A_PCM/INT/LIT", b"A_XYZ/INT/LIT"))
    facts = probe(file, IngestConfig())
    assert facts.modality == "video"
    assert facts.has_audio
    assert facts.sample_rate_hz is None
