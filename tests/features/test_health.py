"""The health of features names what is wrong, why, and what to do; and it never looks at the test split."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmask.features import CATALOGUE
from unmask.features.health import feature_health, holm, stability_index
from unmask.features.health_page import health_page


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


@pytest.mark.parametrize(("n_null", "level"), [(5, "ok"), (10, "ok"), (11, "warning"), (20, "warning")])
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


def test_no_value_at_all_is_critical_unless_the_material_explains_it():
    rows = table()
    rows["temp.rppg"] = np.nan
    unexplained = health_of(rows, "temp.rppg")
    assert unexplained.level == "critical"
    assert "No value at all in 20 rows" in unexplained.problems[0]
    rows["null_reasons"] = [{"temp.rppg": "undefined" if i < 12 else "too_short"} for i in range(20)]
    assert health_of(rows, "temp.rppg").level == "critical"
    rows["null_reasons"] = [{"temp.rppg": "static"} for _ in range(20)]
    assert health_of(rows, "temp.rppg").level == "warning"


def test_a_missing_column_is_critical():
    entry = health_of(table().drop(columns="art.freq"), "art.freq")
    assert (entry.level, entry.n, entry.mean) == ("critical", 0, None)
    assert "Run extract again" in entry.problems[0]


def test_drift_is_found_where_it_is_and_seldom_where_it_is_not():
    before = table(400)
    moved = table(400, art__freq=table(400)["art.freq"].to_numpy() * 0.5 + 3)
    found = {entry.name: entry for entry in feature_health(moved, before)}
    assert found["art.freq"].level == "warning"
    assert "drifted" in found["art.freq"].problems[-1]
    assert found["art.freq"].drift.psi > 0.25
    assert all(entry.level == "ok" for name, entry in found.items() if name != "art.freq")
    alarms = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        now, then = (table(80, **{name: rng.normal(0, 1, 80) for name in CATALOGUE}) for _ in range(2))
        alarms += any(entry.drift.p_value < 0.05 for entry in feature_health(now, then))
    assert alarms <= 8  # 5 % of 60 is 3; without a correction it would be about 35


def test_stability_index_and_correction_agree_with_their_definitions():
    before = np.arange(1000.0)
    assert stability_index(before, before) == pytest.approx(0, abs=1e-12)
    now = np.repeat([50.0, 950.0], 500)
    shares = np.where(np.isin(np.arange(10), (0, 9)), 500.5, 0.5) / 1005
    expected = ((shares - 0.1) * np.log(shares / 0.1)).sum()
    assert stability_index(before, now) == pytest.approx(expected, rel=0.02)
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_the_page_stands_alone_and_shows_what_is_wrong():
    rows = table(face__mouth_static=np.full(20, 1.0))
    rows["label"] = [0, 1] * 10
    rows["temp.rppg"] = np.nan
    text = health_page(feature_health(rows, table(40)), rows)
    assert "All 20 values are 1" in text
    assert 'class="critical"' in text
    assert text.count("<svg") == len(CATALOGUE) - 2
    assert all(name in text for name in CATALOGUE)
    assert "http" not in text.replace("http-equiv", "")
    assert "PSI" in text


def test_a_constant_feature_is_a_warning():
    entry = health_of(table(face__mouth_static=np.full(20, 1.0)), "face.mouth_static")
    assert entry.level == "warning"
    assert "All 20 values are 1" in entry.problems[0]


def test_what_a_constant_means_depends_on_the_feature():
    assert "what camera footage is like" in health_of(table(wm__detected=np.zeros(20)), "wm.detected").problems[0]
    assert "copies of one another" in health_of(table(art__freq=np.full(20, -2.0)), "art.freq").problems[0]


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
