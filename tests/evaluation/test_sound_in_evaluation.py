"""Recordings beside videos: figures of each kind, weights scaled up and counted, spectra among the mistakes."""

from __future__ import annotations

import numpy as np
import pandas as pd

from unmask.ensemble.wording import _partly_scored, _renormalised
from unmask.evaluation.cautions import _features
from unmask.evaluation.figures import parts_of
from unmask.evaluation.inputs import SystemScores, read_test_windows
from unmask.evaluation.mistakes import _sound, _spread
from unmask.schemas import WINDOWS, FeatureHealth, write_table


def scores(n: int = 8) -> SystemScores:
    ids = np.array([f"s{k}" for k in range(n)], object)
    return SystemScores("fusion", "fusion", ids, np.arange(n) % 2, np.linspace(0, 1, n), ids)


def samples(modalities: list[str]) -> pd.DataFrame:
    about = {"sample_id": [f"s{k}" for k in range(len(modalities))], "modality": modalities, "source": "a"}
    return pd.DataFrame(about).assign(manipulation=None, compression=None)


def test_each_kind_of_media_is_a_part_where_there_are_several():
    parts = parts_of(scores(), samples(["video"] * 5 + ["audio"] * 3))
    assert list(parts["modality=audio"].sample_ids) == ["s5", "s6", "s7"]
    assert list(parts["modality=video"].sample_ids) == ["s0", "s1", "s2", "s3", "s4"]
    assert not [name for name in parts_of(scores(), samples(["audio"] * 8)) if name.startswith("modality")]


def test_samples_that_some_detectors_could_not_judge_are_counted_by_those_that_could():
    nan = np.nan
    logits = pd.DataFrame({"aasist_l": [1.0, nan, nan, 2.0, nan], "meso4": [0.5, 1.0, 1.0, nan, nan]})
    partly = _partly_scored(logits)
    assert partly == {"meso4": 2, "aasist_l": 1}
    sentence = _renormalised(partly)
    assert "3 samples scored by some of the detectors only" in sentence
    assert "1 by aasist_l; 2 by meso4" in sentence
    assert not _partly_scored(logits.dropna())


def test_windows_of_wanted_test_samples_are_drawn_as_spectra(tmp_path):
    assert read_test_windows(tmp_path, ["a"]).num_rows == 0
    pcm = np.int16(9000 * np.sin(np.arange(20_000))).tobytes()
    rows = [
        {
            "sample_id": sample,
            "window_index": k,
            "time_s": 4.0 * k,
            "label": 0,
            "group_id": "g",
            "split": split,
            "pcm": pcm,
        }
        for sample, split in (("a", "test"), ("b", "test"), ("c", "calib"))
        for k in range(4)
    ]
    write_table(tmp_path / "windows" / "part-00000.parquet", pd.DataFrame(rows), WINDOWS)
    found = read_test_windows(tmp_path, ["a", "c"]).to_pandas()
    assert list(found["sample_id"]) == ["a"] * 4
    drawn = _spread(found, _sound)
    assert [one.text for one in drawn] == [f"spectrum of the sound from {s:.1f} s on" for s in (0, 8, 12)]
    assert all(one.data_uri.startswith("data:image/jpeg;base64,") for one in drawn)


def test_features_that_no_recording_has_are_no_reason_for_care():
    health = [
        FeatureHealth(
            name=name, n=0, null_share=0, mean=None, std=None, low=None, high=None, level="warning", problems=["none"]
        )
        for name in ("quality.blur", "art.edge")
    ]
    assert _features(health) == [
        "There are no forensic features of such media: the verdict rests on the detectors alone."
    ]
    assert "quality.blur" in _features([health[0].model_copy(update={"n": 3}), health[1]])[0]
