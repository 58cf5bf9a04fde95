"""Decoding: what comes out is upright, in order, in the right colours, counted, and never silently short."""

from __future__ import annotations

import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn_face import backdrop, write_clip

from unmask.errors import MediaError
from unmask.media.video import Frame, VideoReader, read_image, rgb_matrix


def pictures(n: int = 30, height: int = 96, width: int = 128) -> list[np.ndarray]:
    wall = cv2.GaussianBlur(cv2.resize(backdrop(3, 256), (width + n, height)), (0, 0), 2)
    return [wall[:, i : i + width].copy() for i in range(n)]


def read_all(path: Path, threads: int = 1) -> tuple[list[Frame], VideoReader]:
    with VideoReader(path, threads) as reader:
        frames = []
        for frame in reader:
            frame.luma = frame.luma.copy()
            frame.chroma = tuple(plane.copy() for plane in frame.chroma) if frame.chroma else None
            frames.append(frame)
    return frames, reader


def whole(frame: Frame) -> np.ndarray:
    return frame.rgb(0, 0, frame.width_px, frame.height_px)


def test_frames_come_in_order_with_times_sizes_and_kinds(tmp_path):
    source = pictures()
    frames, reader = read_all(write_clip(tmp_path / "a.mp4", source))
    assert [frame.index for frame in frames] == list(range(30))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(30) / 30, atol=1e-4)
    assert (reader.n_decoded, reader.facts.n_frames, reader.n_damaged, reader.decoded_share) == (30, 30, 0, 1.0)
    assert {frame.coded_as for frame in frames} == {"I", "P", "B"}
    assert sum(frame.coded_bytes for frame in frames) == reader.coded_bytes
    for frame in frames:
        distances = [float(np.abs(whole(frame).astype(int) - picture).mean()) for picture in source]
        assert int(np.argmin(distances)) == frame.index
        assert min(distances) < 6


def test_threads_that_decode_ahead_give_the_same_frames(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", pictures(50))
    one, one_reader = read_all(clip)
    many, many_reader = read_all(clip, threads=4)
    assert len(many) == len(one) == 50
    for a, b in zip(one, many, strict=True):
        assert (a.index, a.time_s, a.coded_as, a.coded_bytes) == (b.index, b.time_s, b.coded_as, b.coded_bytes)
        assert np.array_equal(whole(a), whole(b))
    assert (one_reader.n_damaged, one_reader.coded_bytes) == (many_reader.n_damaged, many_reader.coded_bytes)


def test_a_reader_that_decodes_ahead_can_be_left_at_any_frame(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", pictures(50))
    for last in (0, 1, 7, 49):
        with VideoReader(clip, threads=4) as reader:
            for frame in reader:
                if frame.index == last:
                    break
        assert reader.n_decoded == last + 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("unmask-decode")]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"])
def test_every_pixel_format_of_h264_gives_the_colours_that_were_put_in(tmp_path, pix_fmt):
    source = pictures(4)
    options = {"qp": "1", "preset": "ultrafast"}
    frames, _ = read_all(write_clip(tmp_path / "a.mp4", source, pix_fmt=pix_fmt, options=options))
    assert np.abs(whole(frames[2]).astype(int) - source[2]).mean() < 2
    if "444" in pix_fmt:
        assert frames[0].chroma[0].shape == frames[0].luma.shape


@pytest.mark.parametrize(
    ("codec", "pix_fmt"),
    [("ffv1", "bgr0"), ("ffv1", "yuv420p"), ("ffv1", "gray"), ("rawvideo", "nv12"), ("rawvideo", "rgb24")],
)
def test_rgb_grey_packed_and_odd_sizes(tmp_path, codec, pix_fmt):
    source = pictures(3, height=48 if codec == "rawvideo" else 49, width=66 if codec == "rawvideo" else 67)
    frames, _ = read_all(write_clip(tmp_path / "a.nut", source, codec=codec, pix_fmt=pix_fmt, options={}))
    assert frames[0].luma.shape == source[0].shape[:2]
    expected = source[1] if pix_fmt != "gray" else cv2.cvtColor(source[1], cv2.COLOR_RGB2GRAY)[..., None]
    assert np.abs(whole(frames[1]).astype(int) - expected).mean() < 3


@pytest.mark.parametrize(("name", "number"), [("bt601", 5), ("bt709", 1), ("bt2020", 9)])
@pytest.mark.parametrize("full", [False, True])
def test_colour_matrices_agree_with_swscale(name, number, full):
    rng = np.random.default_rng(0)
    planes = rng.integers(40, 200, (3, 16, 16)).astype(np.uint8)
    raw = av.VideoFrame.from_ndarray(planes, format="yuv444p")
    raw.colorspace, raw.color_range = number, 2 if full else 1
    expected = raw.reformat(format="rgb24", src_colorspace=number, src_color_range=2 if full else 1).to_ndarray()
    matrix = rgb_matrix(name, full)
    found = np.clip(np.einsum("ij,jyx->yxi", matrix[:, :3], planes.astype(float)) + matrix[:, 3], 0, 255)
    assert np.abs(found - expected).max() < 2.5


def test_untagged_video_is_bt709_from_720_lines_on(tmp_path):
    small, _ = read_all(write_clip(tmp_path / "s.mp4", pictures(1)))
    large, _ = read_all(write_clip(tmp_path / "l.mp4", pictures(1, 720, 64)))
    assert (small[0].matrix, large[0].matrix) == ("bt601", "bt709")


@pytest.mark.parametrize("angle", [90, 180, -90])
def test_rotation_flag_is_applied_as_opencv_does(tmp_path, angle):
    path = write_clip(tmp_path / "a.mp4", pictures(3), rotation=angle)
    frames, _ = read_all(path)
    reference = cv2.VideoCapture(str(path)).read()[1][:, :, ::-1]
    found = whole(frames[0])
    assert found.shape == reference.shape
    assert np.abs(found.astype(int) - reference).mean() < 2
    assert frames[0].coded_luma.shape == (96, 128)


def test_variable_frame_rate_keeps_its_times(tmp_path):
    times = [0.0, 0.04, 0.1, 0.4, 0.45, 1.0]
    frames, _ = read_all(write_clip(tmp_path / "a.mkv", pictures(6), times_s=times))
    np.testing.assert_allclose([frame.time_s for frame in frames], times, atol=2e-3)


def test_truncated_mp4_decodes_what_is_there_and_says_so(tmp_path):
    options = {"crf": "10", "preset": "ultrafast"}
    path = write_clip(tmp_path / "a.mp4", pictures(60), options=options)
    fast = tmp_path / "fast.mp4"
    with av.open(str(path)) as source, av.open(str(fast), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    data = fast.read_bytes()
    fast.write_bytes(data[: len(data) * 6 // 10])
    frames, reader = read_all(fast)
    assert reader.facts.n_frames == 60
    assert 5 < len(frames) < 50
    assert reader.decoded_share == len(frames) / 60


def test_truncated_matroska_is_short_of_its_stated_duration(tmp_path):
    path = write_clip(tmp_path / "a.mkv", pictures(60), options={"crf": "10", "preset": "ultrafast"})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    frames, reader = read_all(path)
    assert 5 < len(frames) < 50
    assert reader.facts.n_frames == pytest.approx(60, abs=3)
    assert reader.decoded_share < 0.85


def test_whole_matroska_promises_what_it_holds(tmp_path):
    _, reader = read_all(write_clip(tmp_path / "a.mkv", pictures(31)))
    assert (reader.facts.n_frames, reader.n_decoded) == (31, 31)


def test_a_zeroed_hole_costs_frames_and_not_the_file(tmp_path):
    options = {"crf": "10", "preset": "ultrafast", "g": "10"}
    path = write_clip(tmp_path / "a.mp4", pictures(60), options=options)
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 4
    hole = start + (len(data) - start) // 3
    data[hole : hole + (len(data) - start) // 10] = bytes((len(data) - start) // 10)
    path.write_bytes(data)
    frames, reader = read_all(path)
    assert 30 < len(frames) < 60
    assert reader.n_damaged > 0


@pytest.mark.parametrize(
    ("content", "code"), [(b"just a few words\n" * 50, "corrupt"), (b"", "empty_file"), (None, "unreadable")]
)
def test_what_is_no_video_is_refused(tmp_path, content, code):
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MediaError) as caught:
        VideoReader(path)
    assert caught.value.code == code


def test_sound_alone_is_refused(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        sound.rate = 16000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    with pytest.raises(MediaError) as caught:
        VideoReader(path)
    assert caught.value.code == "no_video_stream"


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (16, 3)])
def test_tiny_pictures_and_single_frames_decode(tmp_path, size):
    path = write_clip(
        tmp_path / "a.nut", [np.full((*size, 3), 90, np.uint8)], codec="rawvideo", pix_fmt="yuv444p", options={}
    )
    frames, _ = read_all(path)
    assert len(frames) == 1
    assert whole(frames[0]).shape == (*size, 3)
    assert frames[0].thumbnail_rgb(192).ndim == 3
    assert min(frames[0].level(5).shape) == 1


def test_levels_keep_the_mean_and_share_their_work():
    luma = backdrop(1, 256)[..., 0]
    frame = Frame(0, 0.0, luma, None)
    assert frame.level(2).shape == (64, 64)
    assert frame.level(2).mean() == pytest.approx(luma.mean(), abs=0.6)
    assert frame.level(2) is frame.level(2)
    assert frame.luma_at(100).shape == (100, 100)
    assert frame.level_from(100).shape == (128, 128)


def test_region_beyond_the_picture_is_black_and_the_rest_is_where_it_was():
    frame = Frame(0, 0.0, np.full((40, 40), 200, np.uint8), None, full_range=True)
    region = frame.rgb(-10, -10, 20, 20)
    assert (region[:10] == 0).all()
    assert (region[:, :10] == 0).all()
    assert (region[10:, 10:] == 200).all()


def test_shrinking_a_region_by_way_of_a_level_gives_the_same_picture():
    rng = np.random.default_rng(0)
    planes = [cv2.resize(rng.integers(60, 190, (24, 24)).astype(np.uint8), (256, 256)) for _ in range(3)]
    direct = Frame(0, 0.0, planes[0], (planes[1], planes[2]))
    odd = Frame(0, 0.0, planes[0][:255], (planes[1][:255], planes[2][:255]))  # cannot be halved
    by_level, without = (frame.rgb(16, 16, 240, 240, (56, 56)) for frame in (direct, odd))
    assert np.abs(by_level.astype(int) - without).max() <= 2


def test_images_are_upright_and_keep_their_colours(tmp_path):
    picture = pictures(1)[0]
    cv2.imwrite(str(tmp_path / "a.png"), picture[:, :, ::-1])
    assert np.abs(whole(read_image(tmp_path / "a.png")).astype(int) - picture).max() <= 3
    jpeg = cv2.imencode(".jpg", picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6
    marker = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    (tmp_path / "b.jpg").write_bytes(jpeg[:2] + marker + jpeg[2:])
    turned = read_image(tmp_path / "b.jpg")
    assert np.abs(whole(turned).astype(int) - np.rot90(picture, -1)).mean() < 4


def test_an_image_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.jpg").write_text("no picture at all " * 20)
    with pytest.raises(MediaError):
        read_image(tmp_path / "a.jpg")
