"""The whole pass on clips with known truth, on clips that were only packed differently, and on damaged files."""

from __future__ import annotations

import math
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from drawn_face import backdrop, drawn, noisy, remux, write_clip
from sounds import tone, write_sound
from talking import talk

from unmask.config import ExtractConfig
from unmask.errors import InputError, MediaError
from unmask.features import CATALOGUE, NULL_REASONS, Measurement, measure
from unmask.media.preprocessing import decode_crop

CONFIG = ExtractConfig(crops_per_video=8, crop_size_px=128)
LOSSLESS = {"qp": "0", "preset": "ultrafast"}


@pytest.fixture(scope="module")
def lively(tmp_path_factory) -> Path:
    """Eight seconds: speaking, three blinks, pulse of 78 a minute."""
    path = tmp_path_factory.mktemp("clips") / "lively.mp4"
    return write_clip(
        path, talk(8, blinks_s=(1.5, 3.9, 6.2), pulse_bpm=78), options={"crf": "12", "preset": "veryfast"}
    )


@pytest.fixture(scope="module")
def lively_measured(lively) -> Measurement:
    return measure(lively, "video", CONFIG)


@pytest.fixture(scope="module")
def frozen_measured(tmp_path_factory) -> Measurement:
    path = tmp_path_factory.mktemp("clips") / "frozen.mp4"
    clip = write_clip(path, talk(8, speaking=False), options={"crf": "12", "preset": "veryfast"})
    return measure(clip, "video", CONFIG)


def check_whole(found: Measurement, modality: str) -> None:
    assert list(found.features) == list(CATALOGUE)
    assert set(found.null_reasons) == {name for name, value in found.features.items() if value is None}
    for name, value in found.features.items():
        spec = CATALOGUE[name]
        if value is None:
            assert found.null_reasons[name] in spec.nulls
        else:
            assert math.isfinite(value)
            assert modality in spec.modalities
    assert set(found.null_reasons.values()) <= set(NULL_REASONS)


def test_a_lively_face_is_measured_as_such(lively_measured):
    found = lively_measured
    check_whole(found, "video")
    assert found.features["face.eye_blink"] == pytest.approx(3 / 8 * 60, abs=60 / 8)
    assert found.features["face.mouth_static"] < 0.2
    assert found.features["face.mouth_exag"] > 0.2
    assert found.features["temp.rppg"] > 0
    assert (found.n_frames_expected, found.n_frames_decoded, found.face_share) == (240, 240, 1.0)
    for name, value in found.features.items():
        if value is not None:
            assert CATALOGUE[name].low <= value <= CATALOGUE[name].high


def test_a_frozen_face_is_measured_as_such(lively_measured, frozen_measured):
    lively, frozen = lively_measured.features, frozen_measured.features
    assert frozen["face.mouth_static"] > 0.9
    assert frozen["face.eye_blink"] == 0
    assert frozen["face.mouth_exag"] < 0.1
    assert frozen["temp.rppg"] < lively["temp.rppg"] - 3
    assert frozen["face.sym_drift"] < lively["face.sym_drift"]


def test_crops_show_the_face_and_cover_the_clip(lively_measured):
    crops = lively_measured.crops
    assert len(crops) == 8
    assert {crop.face_index for crop in crops} == {0}
    assert crops[0].frame_index < 30
    assert crops[-1].frame_index > 210
    assert np.ptp(np.diff([crop.frame_index for crop in crops])) <= 3
    for crop in crops:
        image = decode_crop(crop.jpeg)
        assert image.shape == (128, 128, 3)
        assert np.abs(image[54:74, 50:78].mean(axis=(0, 1)) - [205, 160, 135]).max() < 40  # skin around the nose
        assert 60 < crop.x1_px - crop.x0_px < 140
        assert crop.time_s == pytest.approx(crop.frame_index / 30, abs=0.01)
        assert crop.confidence > 0.9


def test_flicker_is_found_in_the_face(tmp_path):
    values = [
        measure(write_clip(tmp_path / "a.mp4", talk(2, flicker=share), options=LOSSLESS), "video", CONFIG).features[
            "forensics.flicker"
        ]
        for share in (0.0, 0.01, 0.03)
    ]
    assert values[0] < 0.3
    assert values[1] == pytest.approx(1.0, rel=0.3)
    assert values[2] == pytest.approx(3.0, rel=0.3)


@pytest.mark.parametrize("suffix", [".mkv", ".mov"])
def test_another_container_changes_nothing(lively, lively_measured, tmp_path, suffix):
    again = measure(remux(lively, tmp_path / f"a{suffix}"), "video", CONFIG)
    for name, value in lively_measured.features.items():
        assert again.features[name] == (value if value is None else pytest.approx(value, rel=1e-3, abs=1e-3)), name
    assert [crop.jpeg for crop in again.crops] == [crop.jpeg for crop in lively_measured.crops]


def test_a_rotated_clip_with_its_flag_gives_the_same(tmp_path):
    frames = list(talk(6, blinks_s=(2.0,)))
    options = {"crf": "8", "preset": "veryfast"}
    upright = measure(write_clip(tmp_path / "a.mp4", frames, options=options), "video", CONFIG)
    turned = [np.ascontiguousarray(np.rot90(frame, -1)) for frame in frames]
    flagged = measure(write_clip(tmp_path / "b.mp4", turned, rotation=90, options=options), "video", CONFIG)
    tolerances = {
        "quality.bitrate": 0.5,
        "quality.brisque": 4,
        "face.eye_blink": 1e-6,
        "art.freq": 0.3,
        "temp.rppg": 6,
        "face.sym_drift": 0.3,
    }
    for name, value in upright.features.items():
        if name != "forensics.codec":  # the encoder worked on another picture
            assert flagged.null_reasons.get(name) == upright.null_reasons.get(name), name
            if value is not None:
                assert flagged.features[name] == pytest.approx(value, abs=tolerances.get(name, 0.15)), name
    sides = [crop.x1_px - crop.x0_px for crop in (upright.crops[3], flagged.crops[3])]
    assert sides[0] == pytest.approx(sides[1], abs=3)


def test_a_mirrored_clip_gives_the_same_within_tolerance(tmp_path):
    frames = list(talk(2.5))
    plain = measure(write_clip(tmp_path / "a.mp4", frames), "video", CONFIG).features
    mirrored = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    other = measure(write_clip(tmp_path / "b.mp4", mirrored), "video", CONFIG).features
    tolerances = {"quality.brisque": 3, "art.color": 1.0, "art.freq": 0.3, "face.sym_drift": 0.6}
    for name, value in plain.items():
        if value is not None and name != "forensics.codec":
            assert other[name] == pytest.approx(value, abs=tolerances.get(name, 0.15)), name


def test_the_same_file_gives_the_same_bytes(lively, lively_measured):
    assert measure(lively, "video", CONFIG) == lively_measured


def test_two_people_get_numbers_by_size(tmp_path):
    wide = np.concatenate([cv2.resize(backdrop(9), (160, 256)), drawn(seed=9)], axis=1)
    wide[100:228, 16:144] = cv2.resize(drawn(0.3), (128, 128))
    rng = np.random.default_rng(0)
    found = measure(write_clip(tmp_path / "a.mp4", (noisy(wide, rng) for _ in range(40))), "video", CONFIG)
    middles = {crop.face_index: (crop.x0_px + crop.x1_px) / 2 for crop in found.crops}
    assert set(middles) == {0, 1}
    assert middles[0] > 200 > middles[1]
    assert [crop.face_index for crop in found.crops] == [0] * 8 + [1] * 8


@pytest.mark.parametrize("modality", ["video", "image"])
def test_one_picture_gives_what_one_picture_can(tmp_path, modality):
    picture = noisy(drawn(), np.random.default_rng(0))
    if modality == "video":
        path = write_clip(tmp_path / "a.mp4", [picture])
    else:
        path = tmp_path / "a.png"
        cv2.imwrite(str(path), picture[:, :, ::-1])
    found = measure(path, modality, CONFIG)
    check_whole(found, modality)
    assert len(found.crops) == 1
    assert (found.n_frames_decoded, found.face_share) == (1, 1.0)
    measured = {name for name, value in found.features.items() if value is not None}
    assert {"quality.blur", "art.edge", "art.freq"} <= measured
    assert not measured & {"temp.rppg", "face.eye_blink", "forensics.flicker", "quality.shake"}
    assert ("single_image" in found.null_reasons.values()) == (modality == "image")


def test_audio_has_no_picture_and_does_not_fail(tmp_path):
    found = measure(write_sound(tmp_path / "a.wav", tone(5.0)), "audio", CONFIG)
    assert [window.window_index for window in found.windows] == [0, 1]
    assert found.no_sound_reason is None
    assert set(found.features) == set(CATALOGUE)
    assert found.null_reasons == dict.fromkeys(CATALOGUE, "audio")
    assert (found.crops, found.n_frames_decoded, found.face_share) == ([], None, None)


def test_audio_that_does_not_decode_fails(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    assert failure(tmp_path / "a.wav", "audio").code == "corrupt"


def test_a_silent_video_says_that_it_has_no_sound(lively_measured):
    assert lively_measured.windows == []
    assert lively_measured.no_sound_reason.startswith("no_sound: ")


def test_an_unknown_modality_is_refused(tmp_path):
    with pytest.raises(InputError):
        measure(tmp_path / "a", "hologram", CONFIG)


def failure(path: Path, modality: str = "video") -> MediaError:
    with pytest.raises(MediaError) as caught:
        measure(path, modality, CONFIG)
    return caught.value


def test_nobody_is_a_failure(tmp_path):
    rng = np.random.default_rng(0)
    path = write_clip(tmp_path / "a.mp4", (noisy(backdrop(), rng) for _ in range(30)))
    assert failure(path).code == "no_face"
    assert measure(path, "video", CONFIG.model_copy(update={"min_face_share": 0.0})).crops == []
    cv2.imwrite(str(tmp_path / "a.png"), backdrop())
    assert failure(tmp_path / "a.png", "image").code == "no_face"


def test_a_face_now_and_then_is_enough_or_not(tmp_path):
    rng = np.random.default_rng(0)
    path = write_clip(tmp_path / "a.mp4", (noisy(drawn() if i < 20 else backdrop(), rng) for i in range(60)))
    assert 0.2 < measure(path, "video", CONFIG).face_share < 0.5
    with pytest.raises(MediaError, match="the limit is 60%"):
        measure(path, "video", CONFIG.model_copy(update={"min_face_share": 0.6}))


def test_a_truncated_clip_is_a_failure_and_not_a_short_clip(tmp_path):
    path = write_clip(tmp_path / "a.mkv", talk(2), options={"crf": "10", "preset": "ultrafast"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    error = failure(path)
    assert error.code == "truncated"
    assert "of 60 frames decode" in error.detail
    allowed = measure(path, "video", CONFIG.model_copy(update={"min_decoded_share": 0.3}))
    assert allowed.n_frames_decoded < allowed.n_frames_expected == 60


@pytest.mark.parametrize("size", [(1, 1), (2, 40), (20, 20)])
def test_tiny_pictures_are_a_failure_and_no_crash(tmp_path, size):
    frames = [np.full((*size, 3), 100, np.uint8)] * 40
    path = write_clip(tmp_path / "a.nut", frames, codec="rawvideo", pix_fmt="yuv444p", options={})
    assert failure(path).code == "no_face"
    check_whole(measure(path, "video", CONFIG.model_copy(update={"min_face_share": 0.0})), "video")


def test_what_is_no_video_is_a_failure(tmp_path):
    text = tmp_path / "a.mp4"
    text.write_text("not a video\n" * 100)
    assert failure(text).code == "corrupt"
    assert failure(text, "image").code == "corrupt"
    assert failure(tmp_path / "absent.mp4").code == "unreadable"
    sound = tmp_path / "b.mp4"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        samples.rate = 16000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    assert failure(sound).code == "no_video_stream"


def test_a_clip_of_which_every_frame_is_damaged_is_a_failure(tmp_path):
    path = write_clip(tmp_path / "a.mp4", talk(1))
    data = bytearray(path.read_bytes())
    start = data.find(b"mdat") + 8
    end = data.find(b"moov") - 4
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    assert failure(path).code in ("corrupt", "truncated")
