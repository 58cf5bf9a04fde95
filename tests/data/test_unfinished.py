"""A run that is killed while it looks into files: the next one goes on, and ends with the same bytes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from media_writers import write_picture

from unmask.config import IngestConfig
from unmask.data import inspection
from unmask.data.ingest_stage import run_ingest
from unmask.data.inspected_parts import run_inspect
from unmask.data.sources import Source
from unmask.objects import FolderStore
from unmask.schemas import Shard

CONFIG = IngestConfig()
KILLED_AFTER = 50


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were looked into."""
    names: list[str] = []
    original = inspection.examine
    monkeypatch.setattr(inspection, "examine", lambda path: names.append(path.name) or original(path))
    monkeypatch.setattr(inspection, "KEPT_EVERY_S", 0.0)
    return names


def killed(source: list[Source], out: Path, store: FolderStore | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run until the power goes."""
    every, left = inspection._read_all, iter(range(KILLED_AFTER))

    def dies(files, media):  # type: ignore[no-untyped-def]
        for found in every(files, media):
            if next(left, None) is None:
                raise KeyboardInterrupt
            yield found

    with monkeypatch.context() as patched:
        patched.setattr(inspection, "_read_all", dies)
        with pytest.raises(KeyboardInterrupt):
            run_ingest(source, out, CONFIG, 42, store)
    assert not out.exists()


@pytest.mark.parametrize("with_store", [True, False])
def test_a_killed_ingest_goes_on_and_ends_as_if_nothing_had_happened(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str], with_store: bool
) -> None:
    source = [Source("s", FolderStore(pictures))]
    (pictures / "real/broken.jpg").write_text("no picture")
    run_ingest(source, tmp_path / "alone", CONFIG, 42)
    total = len(read)
    store = FolderStore(tmp_path / "store") if with_store else None
    killed(source, tmp_path / "out", store, monkeypatch)
    read.clear()
    write_picture(pictures / "fake/GAN/sample_1000.jpg", 1000)  # the same bytes, but who knows
    os.utime(pictures / "fake/GAN/sample_1000.jpg", ns=(0, 1))
    run_ingest(source, tmp_path / "out", CONFIG, 42, store)
    assert len(read) == total - KILLED_AFTER + 1
    for name in ("samples.parquet", "dataset.json", "near_duplicates.parquet", "ingest.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "alone" / name).read_bytes()
    left = [path for path in tmp_path.rglob("*") if "unfinished" in str(path) and path.is_file()]
    assert left == []
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_shard_leaves_to_the_other_what_that_has_found(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    source, store = [Source("s", FolderStore(pictures))], FolderStore(tmp_path / "store")
    killed(source, tmp_path / "out", store, monkeypatch)
    read.clear()
    for number in (1, 2):
        run_inspect(source, tmp_path / f"part{number}", CONFIG, Shard(number, 2), store)
    assert len(read) == 120 - KILLED_AFTER


def test_what_was_kept_and_cannot_be_read_is_no_obstacle(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read: list[str]
) -> None:
    source, store = [Source("s", FolderStore(pictures))], FolderStore(tmp_path / "store")
    killed(source, tmp_path / "out", store, monkeypatch)
    for path in (tmp_path / "store").rglob("*.parquet"):
        path.write_bytes(b"PAR1")
    read.clear()
    run_ingest(source, tmp_path / "out", CONFIG, 42, store)
    assert len(read) == 120
