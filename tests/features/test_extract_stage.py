"""The stage: every sample becomes a row, a killed run loses nothing, and bad files do not stop good ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from drawn_face import backdrop, drawn, noisy, write_clip
from hand_made import dataset
from sounds import tone, write_sound

from unmask.config import ExtractConfig
from unmask.errors import InputError
from unmask.features import CATALOGUE, EXTRACTOR_VERSION, results
from unmask.features import extract_stage as stage
from unmask.features.extract_stage import run_extract
from unmask.media.preprocessing import decode_crop
from unmask.media.sound import window_samples
from unmask.objects import FolderStore
from unmask.schemas import (
    FACES,
    FEATURES,
    SAMPLES,
    WINDOWS,
    WINDOWS_FOLDER,
    ExtractionInfo,
    read_table,
    write_table,
)

CONFIG = ExtractConfig(crops_per_video=4, crop_size_px=64, workers=2, timeout_s=60, max_failed_share=0.8)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Six clips with a face, one picture, one sound, and three files that fail."""
    folder = tmp_path_factory.mktemp("media")
    for number in range(6):
        rng = np.random.default_rng(number)
        mouth = (0.02, 0.3)[number % 2]
        write_clip(folder / f"face{number}.mp4", (noisy(drawn(mouth), rng) for _ in range(24)))
    cv2.imwrite(str(folder / "picture.png"), drawn()[:, :, ::-1])
    write_sound(folder / "sound.wav", tone(9.0))
    write_clip(folder / "nobody.mp4", [backdrop()] * 24)
    (folder / "words.mp4").write_text("these are words\n" * 99)
    frames = (noisy(drawn(), np.random.default_rng(i)) for i in range(40))
    cut = write_clip(folder / "cut.mkv", frames, options={"crf": "10", "preset": "ultrafast", "g": "5"})
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    return folder


@pytest.fixture(scope="module")
def made(media, tmp_path_factory) -> dict[str, Path]:
    """One undisturbed run over everything."""
    root = tmp_path_factory.mktemp("run")
    (root / "dataset").mkdir()
    dataset(root / "dataset", sorted(media.iterdir()))
    outcome = run_extract(root / "dataset", root / "faces", root / "features", CONFIG, FolderStore(root / "store"))
    return {name: root / name for name in ("dataset", "faces", "features", "store")} | {"outcome": outcome}


def rows_of(made) -> dict[str, dict]:
    uris = {row["sample_id"]: Path(row["uri"]).name for row in samples(made)}
    table = read_table(made["features"] / "features.parquet", FEATURES)
    return {uris[row["sample_id"]]: row for row in table.to_pylist()}


def samples(made) -> list[dict]:
    return read_table(made["dataset"] / "samples.parquet", SAMPLES).to_pylist()


def same_tables(a: Path, b: Path) -> bool:
    names = sorted(path.name for path in a.glob("*.parquet"))
    return names == sorted(path.name for path in b.glob("*.parquet")) and all(
        (a / name).read_bytes() == (b / name).read_bytes() for name in names
    )


def test_every_sample_is_a_row_in_its_order(made):
    table = read_table(made["features"] / "features.parquet", FEATURES).to_pylist()
    assert [row["sample_id"] for row in table] == [row["sample_id"] for row in samples(made)]
    for row, sample in zip(table, samples(made), strict=True):
        assert {name: row[name] for name in ("label", "group_id", "split")} == {
            name: sample[name] for name in ("label", "group_id", "split")
        }
        assert row["extractor_version"] == EXTRACTOR_VERSION


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nobody.mp4", "no_face: "),
        ("words.mp4", "corrupt: "),
        ("cut.mkv", "truncated: "),
        ("gone.mp4", "empty_file: the file has 0 bytes"),
    ],
)
def test_what_cannot_be_measured_is_a_failed_row(made, name, reason):
    row = rows_of(made)[name]
    assert row["status"] == "failed"
    assert row["reason"].startswith(reason)
    assert all(row[feature] is None for feature in CATALOGUE)
    assert row["n_crops"] == 0


def test_what_can_be_measured_is(made):
    rows = rows_of(made)
    for name in (*(f"face{n}.mp4" for n in range(6)), "picture.png"):
        row = rows[name]
        assert (row["status"], row["reason"], row["face_share"]) == ("ok", None, 1.0)
        assert row["n_crops"] == (1 if name == "picture.png" else 4)
        nulls = dict(row["null_reasons"])
        assert all((row[feature] is None) == (feature in nulls) for feature in CATALOGUE)
    assert dict(rows["sound.wav"]["null_reasons"]) == dict.fromkeys(CATALOGUE, "audio")


def test_windows_of_sound_lie_beside_the_crops(made):
    rows = rows_of(made)
    assert (rows["sound.wav"]["n_windows"], rows["sound.wav"]["no_sound_reason"]) == (3, None)
    assert rows["face0.mp4"]["n_windows"] == 0
    assert rows["face0.mp4"]["no_sound_reason"].startswith("no_sound: ")
    assert rows["nobody.mp4"]["n_windows"] == 0
    table = read_table(made["faces"] / WINDOWS_FOLDER, WINDOWS).to_pylist()
    assert [row["window_index"] for row in table] == [0, 1, 2]
    for row in table:
        first = round(row["time_s"] * 16_000)
        np.testing.assert_array_equal(window_samples(row["pcm"]), tone(9.0)[first : first + 64_600])
        assert {name: row[name] for name in ("sample_id", "label", "group_id", "split")} == {
            name: rows["sound.wav"][name] for name in ("sample_id", "label", "group_id", "split")
        }
    assert rows["sound.wav"]["status"] == "ok"


def test_faces_have_crops_labels_and_row_groups(made):
    parts = sorted(made["faces"].glob("part-*.parquet"))
    assert [part.name for part in parts] == ["part-00000.parquet"]
    faces = read_table(made["faces"], FACES).to_pylist()
    assert len(faces) == 6 * 4 + 1 == made["outcome"].metrics["crops"]
    known = {row["sample_id"]: row for row in samples(made)}
    assert [row["sample_id"] for row in faces] == sorted(row["sample_id"] for row in faces)
    for face in faces:
        assert decode_crop(face["jpeg"]).shape == (64, 64, 3)
        assert all(face[name] == known[face["sample_id"]][name] for name in ("label", "group_id", "split"))


def test_parts_are_cut_at_whole_row_groups(made, tmp_path, monkeypatch):
    monkeypatch.setattr(results, "PART_ROWS", 10)
    run_extract(made["dataset"], tmp_path / "faces", tmp_path / "features", CONFIG, FolderStore(made["store"]))
    sizes = [pq.read_metadata(part).num_rows for part in sorted((tmp_path / "faces").glob("*.parquet"))]
    assert sizes == [10, 10, 5]
    assert read_table(tmp_path / "faces", FACES).equals(read_table(made["faces"], FACES))


def test_the_document_counts(made):
    info = ExtractionInfo.load(made["features"] / "extraction.json")
    assert (info.n_ok, info.n_failed, info.n_reused, info.n_crops) == (8, 4, 0, 25)
    assert info.failed == {"corrupt": 1, "empty_file": 1, "no_face": 1, "truncated": 1}
    assert info.dataset_version == "v" * 8
    assert [entry.name for entry in info.health] == list(CATALOGUE)
    assert any("no_face 1" in message for message in made["outcome"].messages)


def test_a_second_run_measures_nothing_and_gives_the_same(made, tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "JOB", "no.such.module:function")  # no worker could start
    outcome = run_extract(
        made["dataset"], tmp_path / "faces", tmp_path / "features", CONFIG, FolderStore(made["store"])
    )
    assert outcome.metrics["samples_reused"] == 11
    assert same_tables(made["faces"], tmp_path / "faces")
    assert same_tables(made["features"], tmp_path / "features")


def test_one_more_file_costs_one_file(made, media, tmp_path):
    (tmp_path / "dataset").mkdir()
    extra = write_clip(tmp_path / "new.mp4", (noisy(drawn(0.15), np.random.default_rng(77)) for _ in range(24)))
    store = shutil.copytree(made["store"], tmp_path / "store")
    dataset(tmp_path / "dataset", [*sorted(media.iterdir()), extra])
    outcome = run_extract(tmp_path / "dataset", tmp_path / "faces", tmp_path / "features", CONFIG, FolderStore(store))
    assert (outcome.metrics["samples_reused"], outcome.metrics["samples_ok"]) == (11, 9)


def test_without_a_store_nothing_is_left_behind_and_a_changed_file_fails(media, tmp_path):
    clip = Path(shutil.copy(media / "face0.mp4", tmp_path / "a.mp4"))
    (tmp_path / "dataset").mkdir()
    dataset(tmp_path / "dataset", [clip, media / "face1.mp4"])
    clip.write_bytes(clip.read_bytes() + b"more")
    run_extract(tmp_path / "dataset", tmp_path / "faces", tmp_path / "features", CONFIG)
    rows = read_table(tmp_path / "features" / "features.parquet", FEATURES).to_pylist()
    assert [row["status"] for row in rows] == ["failed", "ok", "failed"]
    assert rows[0]["reason"].startswith("changed: ")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "dataset", "faces", "features"]


def test_kill_9_in_the_middle_and_again_gives_the_same(made, tmp_path):
    script = (
        "import sys; from pathlib import Path; from unmask.config import ExtractConfig;"
        "from unmask.features.extract_stage import run_extract; from unmask.objects import FolderStore;"
        "a = [Path(p) for p in sys.argv[1:5]];"
        "run_extract(a[0], a[1], a[2], ExtractConfig.model_validate_json(sys.argv[5]), FolderStore(a[3]))"
    )
    places = [str(made["dataset"]), *(str(tmp_path / name) for name in ("faces", "features", "store"))]
    command = [sys.executable, "-c", script, *places, json.dumps(CONFIG.model_dump(mode="json") | {"workers": 1})]
    store = tmp_path / "store"
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(store.rglob("*.parquet"))) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = len(list(store.rglob("*.parquet")))
    assert 3 <= done < 11
    assert not (tmp_path / "features").exists()
    outcome = run_extract(made["dataset"], tmp_path / "faces", tmp_path / "features", CONFIG, FolderStore(store))
    assert outcome.metrics["samples_reused"] == done
    assert same_tables(made["faces"], tmp_path / "faces")
    assert same_tables(made["features"], tmp_path / "features")


def crash_on_two(job):
    """Stands in for a decoder that crashes on one file and hangs on another; everything else is measured."""
    if job["path"].endswith("face1.mp4"):
        os._exit(11)
    if job["path"].endswith("face2.mp4"):
        time.sleep(600)
    return stage.extract_one(job)


def test_a_crash_and_a_hang_become_rows_and_are_tried_again(made, media, tmp_path, monkeypatch):
    monkeypatch.setenv(
        "PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1] / "media")])
    )
    monkeypatch.setattr(stage, "JOB", "test_extract_stage:crash_on_two")
    (tmp_path / "dataset").mkdir()
    dataset(tmp_path / "dataset", [media / f"face{n}.mp4" for n in range(4)])
    places = tmp_path / "dataset", tmp_path / "faces", tmp_path / "features"
    quick = CONFIG.model_copy(update={"timeout_s": 6.0})
    run_extract(*places, quick, FolderStore(tmp_path / "store"))
    rows = read_table(tmp_path / "features" / "features.parquet", FEATURES).to_pylist()
    assert [row["status"] for row in rows] == ["ok", "failed", "failed", "ok", "failed"]
    assert rows[1]["reason"].startswith("crashed: the worker ended with exit code 11")
    assert rows[2]["reason"].startswith("timeout: nothing advanced for 6 s")
    monkeypatch.undo()
    outcome = run_extract(*places, quick, FolderStore(tmp_path / "store"))
    assert (outcome.metrics["samples_reused"], outcome.metrics["samples_ok"]) == (2, 4)


def test_too_many_failures_stop_with_a_sentence(made, tmp_path):
    strict = CONFIG.model_copy(update={"max_failed_share": 0.1})
    with pytest.raises(InputError, match=r"3 of 11 samples failed \(corrupt 1, no_face 1, truncated 1\)"):
        run_extract(made["dataset"], tmp_path / "faces", tmp_path / "features", strict, FolderStore(made["store"]))
    assert not (tmp_path / "features").exists()


def test_nothing_usable_stops_with_a_sentence(tmp_path):
    dataset(tmp_path, [])
    with pytest.raises(InputError, match="None of 1 samples passed ingest"):
        run_extract(tmp_path, tmp_path / "faces", tmp_path / "features", CONFIG)


def test_remote_samples_are_refused(tmp_path, media):
    dataset(tmp_path, [media / "face0.mp4"])
    frame = read_table(tmp_path / "samples.parquet", SAMPLES).to_pandas()
    frame["uri"] = "s3://bucket/face0.mp4"
    write_table(tmp_path / "samples.parquet", frame.astype(object).where(frame.notna(), None), SAMPLES)
    with pytest.raises(InputError, match="is not a file on this machine"):
        run_extract(tmp_path, tmp_path / "faces", tmp_path / "features", CONFIG)
