"""A detector of sound learns from windows, scores them like crops, and its augmentations do what they say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmask import detectors
from unmask.config import AugmentationConfig, TrainConfig
from unmask.errors import ContractError, InputError
from unmask.media.sound import spectrogram, window_samples
from unmask.metrics import roc_auc
from unmask.schemas import FRAME_SCORES, WINDOWS, DetectorInfo, read_table, write_table
from unmask.training.augment_sound import DAMAGES, SoundAugmentation, band_limited, coloured_noise, companded
from unmask.training.loader import CropLoader, TrainingView, index_windows
from unmask.training.mixing import mix
from unmask.training.train_stage import run_train

SPLITS = {"train": 12, "val": 4, "calib": 6, "test": 6}
RATE_HZ = 16_000


def voice(rng: np.random.Generator, fake: bool, seconds: float = 1.2) -> np.ndarray:
    """Overtones of a gliding pitch with breath; a fake has no breath above 4 kHz, as from a coarse vocoder."""
    time_s = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    phase = 2 * np.pi * np.cumsum(rng.uniform(90, 250) * (1 + 0.1 * np.sin(2 * np.pi * 3 * time_s))) / RATE_HZ
    tones = sum(np.sin(k * phase) / k for k in range(1, 14))
    breath = 0.1 * rng.standard_normal(len(time_s))
    breath = band_limited(breath, 0, 4000) if fake else breath
    return np.int16(rng.uniform(1000, 6000) * (tones + breath))


@pytest.fixture(scope="module")
def heard(make_faces, tmp_path_factory):
    """A data set without any face, whose samples have two windows of sound each."""
    root = tmp_path_factory.mktemp("heard")
    made = make_faces(root, {"train": 2})
    rng = np.random.default_rng(0)
    rows = [
        {
            "sample_id": f"{split}{number:03d}".ljust(16, "0"),
            "window_index": window,
            "time_s": 4.0 * window,
            "label": number % 2,
            "group_id": f"{split}-{number // 2}",
            "split": split,
            "pcm": voice(rng, bool(number % 2)).astype("<i2").tobytes(),
        }
        for split, count in SPLITS.items()
        for number in range(count)
        for window in range(2)
    ]
    write_table(made.faces / "windows" / "part-00000.parquet", pd.DataFrame(rows), WINDOWS)
    return made


@pytest.fixture(scope="module")
def trained(heard, tmp_path_factory):
    out = tmp_path_factory.mktemp("trained") / "lcnn"
    config = TrainConfig(epochs=8, batch_size=8, threads=1)
    outcome = run_train("lcnn", heard.dataset, heard.faces, heard.features, out, config, 1)
    return out, outcome


def test_a_detector_of_sound_learns_and_scores_every_window(heard, trained):
    out, outcome = trained
    scores = read_table(out / "scores.parquet", FRAME_SCORES).to_pandas()
    assert scores.groupby("split")["sample_id"].nunique().to_dict() == SPLITS
    assert set(scores["frame_index"]) == {0, 1}
    assert set(scores["face_index"]) == {0}
    videos = scores.groupby("sample_id").agg({"label": "first", "logit": "mean", "split": "first"})
    held_out = videos[videos["split"].isin(["calib", "test"])]
    assert roc_auc(held_out["label"], held_out["logit"]) >= 0.9
    assert "video AUC on val" in outcome.messages[0]


def test_scores_are_those_of_the_saved_detector(heard, trained):
    detector, info = detectors.load_detector(trained[0])
    assert info.preprocessing.modality == detector.modality == "audio"
    assert DetectorInfo.load(trained[0] / "detector.json") == info
    rows = read_table(heard.faces / "windows", WINDOWS).to_pandas().rename(columns={"window_index": "frame_index"})
    scores = read_table(trained[0] / "scores.parquet", FRAME_SCORES).to_pandas()
    both = rows.merge(scores, on=["sample_id", "frame_index"])
    again = detectors.score_images(detector, [window_samples(pcm) for pcm in both["pcm"]])
    np.testing.assert_allclose(both["logit"], again, atol=1e-4)


def test_without_windows_it_says_what_is_missing(made, heard, tmp_path):
    with pytest.raises(ContractError, match="table windows"):
        run_train("lcnn", made.dataset, made.faces, made.features, tmp_path / "a", TrainConfig(), 1)
    with pytest.raises(InputError, match="with a face is in val"):
        run_train("meso4", heard.dataset, heard.faces, heard.features, tmp_path / "b", TrainConfig(), 1)


def test_windows_come_in_the_order_of_the_rows_and_are_augmented_by_row_and_epoch(heard):
    loader = CropLoader(index_windows(heard.faces), detectors.build("lcnn", n_samples=20_000).preprocessing)
    rows = np.array([3, 0, 3 + len(loader.index.frame)])
    view = TrainingView(SoundAugmentation(AugmentationConfig(sound_noise=1.0)), seed=(1, 1))
    (plain,), (one,), (same,) = (list(loader.batches([rows], each)) for each in (None, view, view))
    assert plain.inputs.shape == (3, 20_000)
    assert (plain.inputs[0] == plain.inputs[2]).all()
    assert not (one.inputs[0] == one.inputs[2]).all(), "drawn a second time it is damaged in another way"
    assert (one.inputs == same.inputs).all()
    mixed, labels = mix(plain.inputs, plain.labels, AugmentationConfig(cutmix=1.0), np.random.default_rng(0))
    assert mixed is plain.inputs, "sound has no boxes to swap"
    assert labels is plain.labels


@pytest.mark.parametrize("name", DAMAGES)
def test_each_damage_changes_a_window_a_little_and_alike_for_a_seed(name):
    chances = {f"sound_{each}": float(each == name) for each in DAMAGES}
    augmentation = SoundAugmentation(AugmentationConfig(**chances))
    samples = voice(np.random.default_rng(5), fake=False)
    before = samples.copy()
    one, same, other = (augmentation(samples, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (samples == before).all()
    assert (one.dtype, one.shape) == (samples.dtype, samples.shape)
    assert (one == same).all()
    assert (one != samples).any()
    assert name == "codec" or (one != other).any()
    loudness = [float(np.sqrt(np.mean(each.astype(float) ** 2))) for each in (samples, one)]
    assert loudness[1] == pytest.approx(loudness[0], rel=0.5)


def test_nothing_happens_when_no_chance_is_given():
    silent = AugmentationConfig(**{f"sound_{name}": 0.0 for name in DAMAGES})
    samples = voice(np.random.default_rng(5), fake=True)
    assert (SoundAugmentation(silent)(samples, np.random.default_rng(0)) == samples).all()


def test_damages_are_what_they_are_called():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal(RATE_HZ) * 3000
    power = np.abs(np.fft.rfft(band_limited(noise, 300, 3000))) ** 2  # one bin a hertz
    assert power[3300:].sum() < 1e-6 * power.sum()
    assert power[:270].sum() < 1e-6 * power.sum()
    steps = np.abs(companded(noise) - noise) / np.abs(noise).clip(300)
    assert 0.003 < np.median(steps) < 0.03, "about 6 bits of every sample are left, whatever its size"
    falling = np.abs(np.fft.rfft(coloured_noise(1 << 16, -20.0, rng))) ** 2
    low, high = falling[300:600].mean(), falling[3000:6000].mean()
    assert 10 * np.log10(low / high) == pytest.approx(20, abs=1.5)


def test_a_spectrum_shows_where_a_tone_lies():
    tone = np.int16(9000 * np.sin(2 * np.pi * 2000 * np.arange(RATE_HZ) / RATE_HZ))
    picture = spectrogram(tone)
    assert (picture.shape, picture.dtype) == ((128, 256, 3), np.uint8)
    brightest = picture.sum(axis=2).mean(axis=1).argmax()
    assert brightest == pytest.approx(128 - 128 * 2000 / 8000, abs=2)
