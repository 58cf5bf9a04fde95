"""Inspection in shards: ingest gives the same bytes as alone, and refuses parts that do not fit together."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import pandas as pd
import pytest
from media_writers import write_picture, write_video

from unmask.cli import cli
from unmask.config import IngestConfig
from unmask.data import inspected_parts, inspection
from unmask.data.ingest_stage import run_ingest
from unmask.data.inspected_parts import read_parts, run_inspect
from unmask.data.inspection import inspect_files
from unmask.data.listing import list_sources
from unmask.data.sources import Source
from unmask.errors import ContractError, InputError
from unmask.objects import FolderStore, LocalMedia
from unmask.schemas import SAMPLES, DatasetInfo, Shard, read_table

CONFIG = IngestConfig()


def write_portrait(path: Path, seed: int, quality: int) -> None:
    """A picture whose content survives compression, so that two of them are near-duplicates."""
    portrait = cv2.resize(cv2.imread(str(write_picture(path, seed))), (96, 72), interpolation=cv2.INTER_CUBIC)
    cv2.imwrite(str(path), portrait, [cv2.IMWRITE_JPEG_QUALITY, quality])


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures and clips of both classes, a near-duplicate, a copy, and three files that cannot be used."""
    root = tmp_path_factory.mktemp("mixed")
    for i in range(12):
        write_portrait(root / "real" / f"portrait_{i}.jpg", i, 95)
        write_portrait(root / "fake" / "GAN" / f"sample_{1000 + i}.jpg", 1000 + i, 95)
    write_portrait(root / "fake" / "GAN" / "edited.jpg", 3, 60)
    shutil.copy(root / "real" / "portrait_4.jpg", root / "real" / "copied.jpg")
    for i in range(3):
        write_video(root / "real" / f"clip_{i}.mp4", seed=i)
        write_video(root / "fake" / "swap" / f"swapped_{100 + i}.mp4", seed=100 + i)
    write_video(root / "real" / "short.mp4", seed=9, n_frames=8)
    (root / "real" / "broken.jpg").write_bytes(b"no picture")
    (root / "fake" / "GAN" / "empty.jpg").touch()
    return root


def sources(root: Path) -> list[Source]:
    return [Source("mixed", FolderStore(root))]


@pytest.fixture(scope="module")
def alone(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("alone") / "out"
    run_ingest(sources(mixed), out, CONFIG, 42)
    return out


def inspect(root: Path, out: Path, of: int, store: FolderStore | None = None) -> tuple[list[Path], list[int]]:
    """Inspect every shard; give the folders and how many files were read for each."""
    folders, read = [], []
    for number in range(1, of + 1):
        folders.append(out / f"part{number}of{of}")
        outcome = run_inspect(sources(root), folders[-1], CONFIG, Shard(number, of), store)
        read.append(int(outcome.metrics["read"]))
    return folders, read


@pytest.fixture(scope="module")
def thirds(mixed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return inspect(mixed, tmp_path_factory.mktemp("thirds"), 3)[0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def forbid_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(inspection, "_look_into", refuse)


@pytest.mark.parametrize("of", [1, 3, 16])
def test_parts_give_the_bytes_of_one_run(of, mixed, alone, tmp_path, monkeypatch) -> None:
    folders, read = inspect(mixed, tmp_path, of)
    assert sum(read) == 35
    assert of == 1 or max(read) < 35
    forbid_reading(monkeypatch)
    run_ingest(sources(mixed), tmp_path / "out", CONFIG, 42, parts=folders[::-1])
    assert contents(tmp_path / "out") == contents(alone)


def test_what_they_are_compared_with_has_failures_copies_and_near_duplicates(alone) -> None:
    table = read_table(alone / "samples.parquet", SAMPLES).to_pandas()
    reasons = sorted(reason.split(":")[0] for reason in table["reason"].dropna())
    assert reasons == ["empty_file", "too_short", "unsupported"]
    assert DatasetInfo.load(alone / "dataset.json").near_duplicates == 1
    assert table["sha256"].duplicated().sum() == 1


def test_limits_are_those_of_ingest(mixed, thirds) -> None:
    strict = CONFIG.model_copy(update={"min_duration_s": 5.0})
    files = list_sources(sources(mixed)).files
    places = {"mixed": str(mixed)}
    merged, _ = inspect_files(files, places, strict, LocalMedia(), None, read_parts(thirds, places, files))
    alone, _ = inspect_files(files, places, strict, LocalMedia(), None)
    assert [(found.sha256, found.facts, found.reason) for found in merged] == [
        (found.sha256, found.facts, found.reason) for found in alone
    ]
    assert sum(str(found.reason).startswith("too_short") for found in merged) == 7


def test_a_grown_set_costs_the_new_file_and_gives_the_same(mixed, tmp_path) -> None:
    root = shutil.copytree(mixed, tmp_path / "mixed")
    one, many = FolderStore(tmp_path / "one"), FolderStore(tmp_path / "many")
    for round_, expected in (("first", 35), ("second", 1)):
        if round_ == "second":
            write_portrait(root / "real" / "late.jpg", 3, 50)
        run_ingest(sources(root), tmp_path / f"{round_}-one", CONFIG, 42, one)
        folders, read = inspect(root, tmp_path / round_, 3, many)
        assert sum(read) == expected
        run_ingest(sources(root), tmp_path / f"{round_}-many", CONFIG, 42, many, parts=folders)
        assert contents(tmp_path / f"{round_}-many") == contents(tmp_path / f"{round_}-one")


def test_the_command_moves_media_from_each_shard(mixed, alone, tmp_path) -> None:
    shared = ("--source", f"mixed={mixed}", "--media-store", str(tmp_path / "media"))
    parts: list[str] = []
    counts = []
    for number in (1, 2):
        place = str(tmp_path / f"part{number}")
        cli.main(["inspect", *shared, "--shard", f"{number}/2", "--out", place], standalone_mode=False)
        parts += ["--inspected", place]
        counts.append(sum(path.is_file() for path in (tmp_path / "media").rglob("*")))
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "media").rglob("*")}
    cli.main(["ingest", *shared, *parts, "--out", str(tmp_path / "out")], standalone_mode=False)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "media").rglob("*")} == before
    assert 0 < counts[0] < counts[1] == 31  # 32 usable files, two of the same bytes
    moved, stayed = (read_table(out / "samples.parquet", SAMPLES).to_pandas() for out in (tmp_path / "out", alone))
    pd.testing.assert_frame_equal(moved.drop(columns="uri"), stayed.drop(columns="uri"))
    usable = moved[moved["status"] == "ok"]
    assert (usable["uri"] == str(tmp_path / "media") + "/" + usable["sha256"]).all()


def refused(mixed: Path, parts: list[Path], out: Path, match: str, name: str = "mixed") -> None:
    with pytest.raises(InputError, match=match):
        run_ingest([Source(name, FolderStore(mixed))], out, CONFIG, 42, parts=parts)
    assert not out.exists()


def test_missing_and_double_shards_are_named(mixed, thirds, tmp_path) -> None:
    a, b, c = thirds
    out = tmp_path / "out"
    refused(mixed, [a], out, r"1 parts were given. 2 of 3 shards are missing: 2/3, 3/3\.")
    refused(mixed, [a, b, c, b], out, r"1 of 3 shards are given more than once: 2/3 \(2 times\)")
    refused(mixed, [a, a, c], out, r"1 of 3 shards are missing: 2/3; 1 of 3 shards .* once: 1/3 \(2 times\)")
    halves, _ = inspect(mixed, tmp_path, 2)
    refused(mixed, [*thirds, *halves], out, "unlike divisions: 1/n with n = 2, 3")


def test_parts_of_something_else_are_refused(mixed, thirds, tmp_path, monkeypatch) -> None:
    elsewhere = shutil.copytree(mixed, tmp_path / "elsewhere")
    refused(elsewhere, thirds, tmp_path / "out", f"part1of3 was made from mixed={mixed}, not from mixed={elsewhere}")
    refused(mixed, thirds, tmp_path / "out", "not from other=", name="other")
    with pytest.raises(ContractError, match="does not exist"):
        run_ingest(sources(mixed), tmp_path / "out", CONFIG, 42, parts=[mixed])
    monkeypatch.setattr(inspected_parts, "PROBE_VERSION", inspection.PROBE_VERSION + 1)
    refused(mixed, thirds, tmp_path / "out", "version 2 of the probe; this is version 3")


def test_files_that_changed_since_are_counted(mixed, tmp_path) -> None:
    root = shutil.copytree(mixed, tmp_path / "mixed")
    folders, _ = inspect(root, tmp_path, 2)
    write_portrait(root / "real" / "new.jpg", 50, 95)
    write_portrait(root / "real" / "portrait_1.jpg", 51, 95)
    (root / "real" / "portrait_2.jpg").unlink()
    refused(root, folders, tmp_path / "out", "of 35 files, 1 are in no part and 1 changed since; 1 inspected ones")
