"""The feature store gives back what was put in, keyed by content, version and settings, and survives damage."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from unmask.config import ExtractConfig
from unmask.features import CATALOGUE, Crop, Measurement, Window
from unmask.features import store as storing
from unmask.features.store import Failure, FeatureStore, store_key
from unmask.objects import FolderStore

SHA = "ab" * 32


def in_folder(folder: Path) -> FeatureStore:
    return FeatureStore(FolderStore(folder), ExtractConfig(), folder / "scratch")


def result() -> Measurement:
    features = {name: 0.1 * index if index % 2 else None for index, name in enumerate(CATALOGUE)}
    nulls = {name: "static" for name, value in features.items() if value is None}
    crops = [
        Crop(face, frame, frame / 30, 1.5, 2.25, 30.0, 40.0, 0.5, -3.0, bytes([face, frame] * 9))
        for face in (0, 1)
        for frame in (3, 5)
    ]
    windows = [Window(index, 0.1 * index, bytes([index, 7] * 30)) for index in range(3)]
    return Measurement(features, nulls, crops, 31, 30, 0.1 + 0.2, windows)


@pytest.mark.parametrize(
    "value", [result(), Measurement({}, {}, no_sound_reason="silent: …"), Failure("truncated", "12 of 30: half")]
)
def test_what_goes_in_comes_out(tmp_path, value):
    store = in_folder(tmp_path)
    assert store.load(SHA, "video") is None
    store.save(SHA, "video", value)
    assert store.load(SHA, "video") == value
    assert store.load(SHA, "image") is None
    assert [path.name for path in store.path(SHA, "video").parent.iterdir()] == [f"{SHA}.video.parquet"]


def test_bytes_are_the_same_every_time(tmp_path):
    paths = []
    for name in ("a", "b"):
        store = in_folder(tmp_path / name)
        store.save(SHA, "video", result())
        paths.append(store.path(SHA, "video"))
    assert paths[0].read_bytes() == paths[1].read_bytes()


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"x" * 500])
def test_a_damaged_file_counts_as_absent(tmp_path, damage):
    store = in_folder(tmp_path)
    store.save(SHA, "video", result())
    path = store.path(SHA, "video")
    path.write_bytes(damage(path.read_bytes()))
    assert store.load(SHA, "video") is None


@pytest.mark.parametrize(
    ("setting", "value", "same"),
    [
        ("crops_per_video", 7, False),
        ("crop_size_px", 64, False),
        ("crop_scale", 1.5, False),
        ("jpeg_quality", 90, False),
        ("min_decoded_share", 0.5, False),
        ("min_face_share", 0.5, False),
        ("workers", 3, True),
        ("timeout_s", 5.0, True),
        ("max_failed_share", 0.1, True),
        ("more_crops_of_rare_class", True, True),
        ("stop_on_critical", False, True),
    ],
)
def test_only_settings_that_change_a_result_change_the_key(setting, value, same):
    changed = ExtractConfig().model_copy(update={setting: value})
    assert (store_key(changed) == store_key(ExtractConfig())) is same


def test_every_setting_is_decided_upon():
    decided = {
        *storing._SETTINGS,
        "workers",
        "timeout_s",
        "max_failed_share",
        "more_crops_of_rare_class",
        "stop_on_critical",
    }
    assert set(ExtractConfig.model_fields) == decided


def test_another_extractor_version_measures_anew(tmp_path, monkeypatch):
    before = in_folder(tmp_path)
    before.save(SHA, "video", result())
    monkeypatch.setattr(storing, "EXTRACTOR_VERSION", "another")
    assert in_folder(tmp_path).load(SHA, "video") is None


def test_a_crop_has_the_columns_of_the_table():
    columns = {field.name: None for kind in (Crop, Window) for field in dataclasses.fields(kind)}
    assert list(columns) == storing._COLUMNS.names
