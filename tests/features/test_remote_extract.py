"""Media and store in a bucket of a real server give the same tables as a folder; what is done is not done again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawn_face import drawn, noisy, write_clip
from hand_made import dataset
from test_extract_stage import CONFIG, same_tables

from unmask.adapters.object_store import open_media, open_store
from unmask.config import StorageConfig
from unmask.features import extract_stage as stage
from unmask.features.extract_stage import run_extract
from unmask.schemas import FEATURES, SAMPLES, Shard, read_table, write_table

STORAGE = StorageConfig(attempts=2, timeout_s=10)


def moved(local: Path, remote: Path, uri: str) -> Path:
    """The same data set with its files in a bucket."""
    remote.mkdir(parents=True)
    rows = read_table(local / "samples.parquet", SAMPLES).to_pandas()
    rows["uri"] = [f"{uri}/media/{Path(path).name}" for path in rows["uri"]]
    write_table(remote / "samples.parquet", rows.astype(object).where(rows.notna(), None), SAMPLES)
    (remote / "dataset.json").write_bytes((local / "dataset.json").read_bytes())
    return remote


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("local")
    clips = []
    for number in range(4):
        rng = np.random.default_rng(number)
        clips.append(write_clip(root / f"clip{number}.mp4", (noisy(drawn(), rng) for _ in range(12))))
    (root / "dataset").mkdir()
    dataset(root / "dataset", clips)
    run_extract(root / "dataset", root / "faces", root / "features", CONFIG)
    return root


def test_a_bucket_gives_what_a_folder_gives(local, bucket, tmp_path, monkeypatch):
    media = open_store(f"{bucket}/media", STORAGE)
    for clip in local.glob("*.mp4"):
        media.upload(clip, clip.name)
    remote = moved(local / "dataset", tmp_path / "dataset", bucket)
    store = open_store(f"{bucket}/store", STORAGE)
    scratch = tmp_path / "scratch"
    places = tmp_path / "faces", tmp_path / "features"
    run_extract(remote, *places, CONFIG, store, open_media(STORAGE, scratch), shard=Shard(1, 2))
    half = len(list(store.objects("extract/")))
    run_extract(remote, *places, CONFIG, store, open_media(STORAGE, scratch))
    assert half < len(list(store.objects("extract/"))) == 4
    assert same_tables(local / "faces", tmp_path / "faces")
    assert same_tables(local / "features", tmp_path / "features")
    assert not list(scratch.iterdir())  # what was fetched is gone
    monkeypatch.setattr(stage, "JOB", "no.such.module:function")  # no worker could start
    outcome = run_extract(remote, tmp_path / "f2", tmp_path / "g2", CONFIG, store, open_media(STORAGE, scratch))
    assert outcome.metrics["samples_reused"] == 4
    assert same_tables(local / "faces", tmp_path / "f2")
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []


def test_what_cannot_be_fetched_is_a_row_and_is_tried_again(local, bucket, tmp_path):
    media = open_store(f"{bucket}/media", STORAGE)
    clips = sorted(local.glob("*.mp4"))
    for clip in clips[1:]:
        media.upload(clip, clip.name)
    remote = moved(local / "dataset", tmp_path / "dataset", bucket)
    store = open_store(f"{bucket}/store", STORAGE)
    places = tmp_path / "faces", tmp_path / "features", CONFIG, store
    run_extract(remote, *places, open_media(STORAGE))
    rows = read_table(tmp_path / "features" / "features.parquet", FEATURES).to_pylist()
    assert [row["status"] for row in rows] == ["failed", "ok", "ok", "ok", "failed"]
    assert rows[0]["reason"].startswith("not_fetched: ")
    media.upload(clips[0], clips[0].name)
    outcome = run_extract(remote, *places, open_media(STORAGE))
    assert (outcome.metrics["samples_ok"], outcome.metrics["samples_reused"]) == (4, 3)
