"""Shards that are merged give what one run gives; a few of each kind can be tried; nothing resumed if not wanted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from drawn_face import drawn, noisy, write_clip
from hand_made import dataset
from test_extract_stage import CONFIG, same_tables

from unmask.errors import InputError
from unmask.features import extract_stage as stage
from unmask.features import results
from unmask.features.extract_stage import run_extract
from unmask.features.merge_stage import run_merge
from unmask.features.subset import few_of_each
from unmask.objects import FolderStore
from unmask.schemas import FACES, FEATURES, SAMPLES, ExtractionInfo, Shard, read_table

N_CLIPS = 10


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for number in range(N_CLIPS):
        rng = np.random.default_rng(number)
        write_clip(folder / f"clip{number}.mp4", (noisy(drawn((0.02, 0.3)[number % 2]), rng) for _ in range(16)))
    shutil.copy(folder / "clip0.mp4", folder / "copy.mp4")
    (folder / "words.mp4").write_text("no video\n" * 50)
    return folder


@pytest.fixture(scope="module")
def whole(media, tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    (root / "dataset").mkdir()
    dataset(root / "dataset", sorted(media.iterdir()))
    run_extract(root / "dataset", root / "faces", root / "features", CONFIG, FolderStore(root / "store"))
    return root


def extract_shards(whole: Path, out: Path, of: int, numbers=None) -> tuple[list[Path], list[Path]]:
    for number in numbers or range(1, of + 1):
        places = out / f"faces{number}", out / f"features{number}"
        run_extract(whole / "dataset", *places, CONFIG, FolderStore(whole / "store"), shard=Shard(number, of))
    names = [str(number) for number in numbers or range(1, of + 1)]
    return [out / f"faces{n}" for n in names], [out / f"features{n}" for n in names]


@pytest.mark.parametrize("of", [1, 3, 16])
def test_merged_shards_are_what_one_run_writes(whole, tmp_path, monkeypatch, of):
    faces, features = extract_shards(whole, tmp_path, of)
    order = np.random.default_rng(0).permutation(of)
    faces, features = [faces[i] for i in order], [features[i] for i in order]
    run_merge(whole / "dataset", faces, features, tmp_path / "faces", tmp_path / "features", CONFIG)
    assert same_tables(whole / "faces", tmp_path / "faces")
    assert same_tables(whole / "features", tmp_path / "features")
    one, merged = (ExtractionInfo.load(root / "features" / "extraction.json") for root in (whole, tmp_path))
    assert merged.model_copy(update={"n_reused": 0}) == one


def test_each_sample_is_in_one_shard_and_copies_are_together(whole):
    rows = read_table(whole / "dataset" / "samples.parquet", SAMPLES).to_pylist()
    places = {row["uri"]: [n for n in range(1, 5) if Shard(n, 4).holds(row)] for row in rows}
    assert all(len(found) == 1 for found in places.values())
    twins = [found for uri, found in places.items() if uri.endswith(("clip0.mp4", "copy.mp4"))]
    assert twins[0] == twins[1]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "one", "1/4/2", ""])
def test_what_is_no_shard_is_refused(text):
    with pytest.raises(InputError, match="is no shard"):
        Shard.parse(text)
    assert Shard.parse("2/4") == Shard(2, 4)


def test_a_missing_or_doubled_shard_is_refused(whole, tmp_path):
    faces, features = extract_shards(whole, tmp_path, 2)
    places = tmp_path / "faces", tmp_path / "features", CONFIG
    with pytest.raises(InputError, match="are in no shard"):
        run_merge(whole / "dataset", faces[:1], features[:1], *places)
    with pytest.raises(InputError, match="is in two shards"):
        run_merge(whole / "dataset", faces * 2, features * 2, *places)
    with pytest.raises(InputError, match="Give both"):
        run_merge(whole / "dataset", faces, features[:1], *places)
    with pytest.raises(InputError, match="do not fit"):
        run_merge(whole / "dataset", faces[::-1], features, *places)
    assert not (tmp_path / "features").exists()


def test_a_limit_takes_of_each_kind(whole, tmp_path):
    rows = read_table(whole / "dataset" / "samples.parquet", SAMPLES).to_pylist()
    few = few_of_each(rows, 8)
    assert len({(row["split"], row["label"]) for row in few}) == 8
    run_extract(whole / "dataset", tmp_path / "a", tmp_path / "b", CONFIG, FolderStore(whole / "store"), limit=8)
    table = read_table(tmp_path / "b" / "features.parquet", FEATURES).to_pylist()
    assert [row["sample_id"] for row in table] == [row["sample_id"] for row in few]


def test_without_resuming_everything_is_measured_anew(whole, tmp_path):
    store = shutil.copytree(whole / "store", tmp_path / "store")
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.parquet")}
    outcome = run_extract(
        whole / "dataset", tmp_path / "faces", tmp_path / "features", CONFIG, FolderStore(store), resume=False
    )
    assert outcome.metrics["samples_reused"] == 0
    assert all(path.stat().st_mtime_ns > stamp for path, stamp in before.items())
    assert same_tables(whole / "features", tmp_path / "features")


def test_the_rarer_class_gets_more_crops_if_asked(whole, tmp_path):
    config = CONFIG.model_copy(update={"more_crops_of_rare_class": True, "crops_per_video": 3})
    (tmp_path / "dataset").mkdir()
    files = [Path(row["uri"]) for row in read_table(whole / "dataset" / "samples.parquet", SAMPLES).to_pylist()[:-1]]
    clips = [path for path in files if path.name.startswith("clip")]
    dataset(tmp_path / "dataset", [*clips, *clips[:3]])
    rows = read_table(tmp_path / "dataset" / "samples.parquet", SAMPLES).to_pylist()
    train = [row["label"] for row in rows if row["split"] == "train"]
    assert (train.count(0), train.count(1)) == (2, 1)
    rare = 1
    run_extract(tmp_path / "dataset", tmp_path / "faces", tmp_path / "features", config)
    faces = read_table(tmp_path / "faces", FACES).to_pylist()
    counts = {row["sample_id"]: 0 for row in faces}
    for row in faces:
        counts[row["sample_id"]] += 1
    for row in rows:
        if row["sample_id"] in counts:
            expected = 3 * train.count(1 - rare) // train.count(rare)
            assert counts[row["sample_id"]] == (expected if row["split"] == "train" and row["label"] == rare else 3)


def test_an_unusable_feature_stops_the_run_before_training(whole, tmp_path, monkeypatch):
    real = results.feature_row

    def broken(row, failure, measurement):
        found = real(row, failure, measurement)
        if measurement:
            found["quality.blur"] = None
            found["null_reasons"] = [*found["null_reasons"], ("quality.blur", "undefined")]
        return found

    monkeypatch.setattr(stage, "feature_row", broken)
    places = whole / "dataset", tmp_path / "faces", tmp_path / "features"
    with pytest.raises(InputError, match=r"quality\.blur: No value at all"):
        run_extract(*places, CONFIG, FolderStore(whole / "store"))
    assert "No value at all" in (tmp_path / "features" / "health.html").read_text()
    run_extract(*places, CONFIG.model_copy(update={"stop_on_critical": False}), FolderStore(whole / "store"))


@pytest.mark.slow
def test_kill_9_at_ten_random_moments_loses_and_doubles_nothing(whole, tmp_path):
    """Each run is killed with its workers at a moment drawn from the time that a whole run takes."""
    script = (
        "import sys; from pathlib import Path; from unmask.config import ExtractConfig;"
        "from unmask.features.extract_stage import run_extract; from unmask.objects import FolderStore;"
        "a = [Path(p) for p in sys.argv[1:5]];"
        "run_extract(a[0], a[1], a[2], ExtractConfig.model_validate_json(sys.argv[5]), FolderStore(a[3]))"
    )
    places = [str(whole / "dataset"), *(str(tmp_path / name) for name in ("faces", "features", "store"))]
    command = [sys.executable, "-c", script, *places, json.dumps(CONFIG.model_dump(mode="json") | {"workers": 1})]
    rng = np.random.default_rng(11)
    store = tmp_path / "store"
    seen: set[Path] = set()
    killed_at = []
    for moment in rng.uniform(0, 1, 10):
        process = subprocess.Popen(command, start_new_session=True)
        # Counted from the first sign of life, so that slow imports do not make every moment the same.
        deadline = time.monotonic() + 60
        while process.poll() is None and not list(tmp_path.glob(".extract-*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(moment * 2)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        done = set(store.rglob("*.parquet"))
        assert seen <= done  # no finished sample is lost
        seen = done
        killed_at.append(len(done))
        for leftover in tmp_path.glob(".extract-*"):
            shutil.rmtree(leftover)
    run_extract(whole / "dataset", tmp_path / "faces", tmp_path / "features", CONFIG, FolderStore(store))
    table = read_table(tmp_path / "features" / "features.parquet", FEATURES).to_pylist()
    rows = read_table(whole / "dataset" / "samples.parquet", SAMPLES).to_pylist()
    assert [row["sample_id"] for row in table] == [row["sample_id"] for row in rows]
    assert same_tables(whole / "features", tmp_path / "features"), killed_at
    assert same_tables(whole / "faces", tmp_path / "faces"), killed_at
    assert not list(store.rglob("*.tmp")) or same_tables(whole / "faces", tmp_path / "faces")
