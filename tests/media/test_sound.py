"""Windows of sound: where they lie, what becomes of rates, channels and codecs, and why there may be none."""

from __future__ import annotations

import av
import numpy as np
import pytest
from drawn_face import drawn, write_clip
from sounds import RATE_HZ, add_sound, tone, write_sound

from unmask.media.preprocessing import decode_item, to_input
from unmask.media.sound import WINDOW_SAMPLES, read_sound, window_samples
from unmask.schemas import SoundPreprocessing


def loudest_hz(pcm: bytes) -> float:
    samples = window_samples(pcm).astype(float)
    return float(np.argmax(np.abs(np.fft.rfft(samples * np.hanning(len(samples))))) * RATE_HZ / len(samples))


@pytest.mark.parametrize(
    ("seconds", "wanted", "starts"),
    [
        (1.0, 4, [0.0]),
        (4.0375, 4, [0.0]),
        (6.0, 4, [0.0, 1.9625]),
        (20.0, 4, [0.0, 5.3208125, 10.641625, 15.9625]),
        (20.0, 1, [7.98125]),
    ],
)
def test_windows_are_evenly_spaced_and_no_more_than_cover_the_clip(tmp_path, seconds, wanted, starts):
    samples = np.arange(round(seconds * RATE_HZ)) % 20011 - 10000
    sound = read_sound(write_sound(tmp_path / "a.wav", samples.astype(np.int16)), wanted)
    assert sound.reason is None
    assert [window.time_s for window in sound.windows] == pytest.approx(starts, abs=1e-4)
    for window in sound.windows:
        first = round(window.time_s * RATE_HZ)
        np.testing.assert_array_equal(window_samples(window.pcm), samples[first : first + WINDOW_SAMPLES])


@pytest.mark.parametrize(
    ("name", "rate_hz", "codec", "channels"),
    [
        ("a.wav", 22_050, "pcm_s16le", 1),
        ("a.wav", 48_000, "pcm_s16le", 2),
        ("a.wav", 8_000, "pcm_u8", 1),
        ("a.flac", 44_100, "flac", 2),
        ("a.mp3", 44_100, "libmp3lame", 2),
        ("a.m4a", 44_100, "aac", 1),
        ("a.ogg", 48_000, "libopus", 1),
    ],
)
def test_every_rate_coding_and_number_of_channels_sounds_the_same(tmp_path, name, rate_hz, codec, channels):
    samples = np.tile(tone(5.0, 1000.0, rate_hz), (channels, 1))
    sound = read_sound(write_sound(tmp_path / name, samples, rate_hz, codec), 2)
    assert len(sound.windows) == 2
    for window in sound.windows:
        assert len(window.pcm) == 2 * WINDOW_SAMPLES
        assert loudest_hz(window.pcm) == pytest.approx(1000, abs=1)
        inner = window_samples(window.pcm)[4000:-4000].astype(float)
        assert np.sqrt(np.mean(inner**2)) == pytest.approx(0.5 * 32767 / np.sqrt(2), rel=0.1)


def test_the_sound_of_a_video_is_heard(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        add_sound(container, tone(3.0, 700.0, 44_100), 44_100, "aac")
    (window,) = read_sound(path, 4).windows
    assert loudest_hz(window.pcm) == pytest.approx(700, abs=1)


def test_why_there_is_nothing_to_hear(tmp_path):
    silent = write_clip(tmp_path / "silent.mp4", [drawn()] * 5)
    quiet = write_sound(tmp_path / "quiet.wav", np.zeros(40_000, np.int16))
    short = write_sound(tmp_path / "short.wav", tone(0.05))
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"RIFF\x00")
    codes = {
        path.name: read_sound(path, 4).reason.partition(":")[0]
        for path in (silent, quiet, short, broken, tmp_path / "gone.wav")
    }
    assert codes == {
        "silent.mp4": "no_sound",
        "quiet.wav": "silent",
        "short.wav": "sound_too_short",
        "broken.wav": "sound_unreadable",
        "gone.wav": "sound_unreadable",
    }
    assert read_sound(quiet, 0).reason.startswith("not_wanted")


def test_silent_stretches_are_left_out_and_the_others_keep_their_place(tmp_path):
    samples = np.concatenate([tone(5.0), np.zeros(10 * RATE_HZ, np.int16), tone(5.0)])
    sound = read_sound(write_sound(tmp_path / "a.wav", samples), 5)
    assert [window.window_index for window in sound.windows] == [0, 1, 3, 4]


def test_half_a_file_gives_what_is_left(tmp_path):
    path = write_sound(tmp_path / "a.mp3", tone(10.0, rate_hz=44_100), 44_100, "libmp3lame")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert len(read_sound(path, 4).windows) == 2


def test_a_window_becomes_an_input_of_one_length_and_level():
    preprocessing = SoundPreprocessing(n_samples=10_000, rms=0.1)
    short = decode_item(tone(0.25).tobytes(), preprocessing)
    batch = to_input([short, short // 10, tone(1.0), np.zeros(500, np.int16)], preprocessing)
    assert (batch.shape, batch.dtype) == ((4, 10_000), np.float32)
    np.testing.assert_allclose(np.sqrt((batch[:3] ** 2).mean(axis=1)), 0.1, rtol=1e-3)
    np.testing.assert_array_equal(batch[0, 4000:8000], batch[0, :4000])
    np.testing.assert_allclose(batch[0], batch[1], atol=0.005)
    assert not batch[3].any(), "silence stays silence"
