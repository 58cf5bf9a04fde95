"""The health of features names what is wrong, why, and what to do; and it never looks at the test split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmask.features import CATALOGUE
from unmask.features.health import feature_health


def table(n: int = 20, **changes) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            name: rng.uniform(max(spec.low, -5), min(spec.high, 5), n) if spec.low < 5 else rng.uniform(5, 6, n)
            for name, spec in CATALOGUE.items()
        }
    )
    rows["split"] = ["train", "val", "calib", "train"] * (n // 4)
    rows["status"] = "ok"
    rows["modality"] = "video"
    rows["null_reasons"] = [{} for _ in range(n)]
    for name, values in changes.items():
        rows[name.replace("__", ".")] = values
    return rows


def health_of(rows: pd.DataFrame, name: str):
    return next(entry for entry in feature_health(rows) if entry.name == name)


def test_sound_features_are_ok():
    entries = feature_health(table())
    assert [entry.name for entry in entries] == list(CATALOGUE)
    assert all(entry.level == "ok" and entry.problems == [] and entry.n == 20 for entry in entries)
    blur = entries[0]
    values = table()["quality.blur"]
    assert (blur.mean, blur.std) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=0)))
    assert (blur.low, blur.high, blur.null_share) == (values.min(), values.max(), 0)


@pytest.mark.parametrize(("n_null", "level"), [(5, "ok"), (10, "ok"), (11, "warning"), (20, "critical")])
def test_missing_values(n_null, level):
    rows = table()
    rows.loc[: n_null - 1, "temp.rppg"] = np.nan
    rows["null_reasons"] = [{"temp.rppg": "too_short" if i else "no_face"} if i < n_null else {} for i in range(20)]
    entry = health_of(rows, "temp.rppg")
    assert (entry.level, entry.null_share) == (level, n_null / 20)
    assert entry.null_reasons == {"too_short": n_null - 1, "no_face": 1}
    if level != "ok":
        assert "too short" in entry.problems[0]
        assert "longer clips" in entry.problems[0]


def test_a_constant_feature_is_a_warning():
    entry = health_of(table(face__mouth_static=np.full(20, 1.0)), "face.mouth_static")
    assert entry.level == "warning"
    assert "All 20 values are 1" in entry.problems[0]


def test_values_out_of_range_are_a_warning():
    rows = table()
    rows.loc[[2, 5], "face.mouth_static"] = 7.0
    entry = health_of(rows, "face.mouth_static")
    assert entry.level == "warning"
    assert "2 of 20" in entry.problems[0]


def test_test_rows_failed_rows_and_rows_without_split_are_not_looked_at():
    rows = table()
    rows.loc[:3, "split"] = "test"
    rows.loc[4:5, "status"] = "failed"
    rows.loc[6:7, "split"] = None
    rows.loc[:7, "quality.blur"] = 1e9
    entry = health_of(rows, "quality.blur")
    assert (entry.n, entry.level) == (12, "ok")


def test_images_do_not_count_against_features_of_videos():
    rows = table()
    rows["modality"] = ["image"] * 10 + ["video"] * 10
    rows.loc[:9, "temp.rppg"] = np.nan
    assert (health_of(rows, "temp.rppg").n, health_of(rows, "temp.rppg").level) == (10, "ok")
    rows["modality"] = "image"
    entry = health_of(rows, "temp.rppg")
    assert (entry.n, entry.level) == (0, "warning")
    assert "No video" in entry.problems[0]
