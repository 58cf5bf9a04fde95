"""Ingest from a bucket and from an archive, with media kept under their hashes, on a real server."""

from __future__ import annotations

import hashlib
import io
import shutil
import threading
import time
import zipfile
from pathlib import Path

import click
import pandas as pd
import pytest
from media_writers import write_picture
from servers.http_server import Page
from servers.minio_server import new_bucket

from unmask.adapters.object_store import open_media, open_store
from unmask.adapters.s3 import S3Store
from unmask.cli import cli
from unmask.config import StorageConfig
from unmask.data import media_store
from unmask.data.inspection import Inspection
from unmask.data.media_store import keep_media
from unmask.data.sources import SourceFile
from unmask.errors import StorageError
from unmask.objects import FolderStore, LocalMedia

STORAGE = StorageConfig(attempts=6, timeout_s=5)


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Ten reals and ten fakes, each a group of its own, and one file that is no picture."""
    root = tmp_path / "few"
    for i in range(10):
        write_picture(root / "real" / f"portrait_{i}.jpg", seed=i)
        write_picture(root / "fake" / "GAN" / f"sample_{1000 + i}.jpg", seed=1000 + i)
    (root / "real" / "broken.jpg").write_bytes(b"no picture")
    return root


def upload(folder: Path, place: str) -> None:
    store = open_store(place, STORAGE)
    for path in folder.rglob("*.jpg"):
        store.upload(path, path.relative_to(folder).as_posix())


def ingest(*options: str, out: Path) -> pd.DataFrame:
    cli.main(["ingest", *options, "--out", str(out)], standalone_mode=False)
    return pd.read_parquet(out / "samples.parquet").set_index("sample_id")


def of_media(stored: dict[str, int]) -> dict[str, int]:
    return {path: time_ns for path, time_ns in stored.items() if "/media/" in path}


def test_a_bucket_gives_the_same_table_as_a_folder_and_moves_each_file_once(few, bucket, minio, tmp_path):
    upload(few, f"{bucket}/clips")
    from_folder = ingest("--source", f"few={few}", out=tmp_path / "folder")
    options = ("--source", f"few={bucket}/clips", "--media-store", f"{bucket}/media", "--store", f"{bucket}/store")
    table = ingest(*options, out=tmp_path / "first")
    pd.testing.assert_frame_equal(table.drop(columns="uri"), from_folder.drop(columns="uri"))

    usable = table[table["status"] == "ok"]
    assert len(usable) == 20
    assert (usable["uri"] == f"{bucket}/media/" + usable["sha256"]).all()
    broken = table[table["status"] == "failed"]["uri"].item()
    assert broken == f"{bucket}/clips/real/broken.jpg", "only usable files are kept"
    with open_media(STORAGE, tmp_path / "scratch").local(usable["uri"].iloc[0]) as path:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == usable["sha256"].iloc[0]

    before = of_media(minio.stored_files())
    pd.testing.assert_frame_equal(ingest(*options, out=tmp_path / "again"), table)
    assert of_media(minio.stored_files()) == before, "an unchanged ingest moves nothing"

    write_picture(few / "real" / "new.jpg", seed=77)
    ingest("--source", f"other={few}", "--media-store", f"{bucket}/media", out=tmp_path / "other")
    after = of_media(minio.stored_files())
    assert {path: after[path] for path in before} == before, "another data set shares what is there"
    assert len({path.split("/media/")[1].split("/")[0] for path in set(after) - set(before)}) == 1


def test_nothing_is_lost_when_the_server_is_killed_during_ingest(few, own_minio, tmp_path):
    bucket = new_bucket(own_minio, "killed")
    upload(few, f"{bucket}/clips")
    done = threading.Event()

    def kill_when_media_arrive() -> None:
        while not of_media(own_minio.stored_files()) and not done.is_set():
            time.sleep(0.001)
        own_minio.kill()
        time.sleep(1)
        own_minio.start()

    killer = threading.Thread(target=kill_when_media_arrive)
    killer.start()
    table = ingest("--source", f"few={bucket}/clips", "--media-store", f"{bucket}/media", out=tmp_path / "out")
    done.set()
    killer.join()
    kept = {stored.key for stored in open_store(f"{bucket}/media", STORAGE).objects()}
    assert kept == set(table[table["status"] == "ok"]["sha256"])
    assert len(kept) == 20


def test_an_ingest_that_is_killed_while_it_moves_media_goes_on_with_the_rest(few, bucket, minio, tmp_path, monkeypatch):
    upload(few, f"{bucket}/clips")
    options = ("--source", f"few={bucket}/clips", "--media-store", f"{bucket}/media", "--store", f"{bucket}/store")
    sent, send = [], S3Store.upload

    def dies_after_seven(store, path, key):
        if len(sent) == 7:
            raise KeyboardInterrupt
        sent.append(key)
        send(store, path, key)

    monkeypatch.setattr(media_store, "CONNECTIONS", 1)
    monkeypatch.setattr(S3Store, "upload", dies_after_seven)
    with pytest.raises((KeyboardInterrupt, click.Abort)):
        ingest(*options, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    media = f"{bucket.removeprefix('s3://')}/media/"
    before = {path: at for path, at in minio.stored_files().items() if path.startswith(media)}
    assert len({path.removeprefix(media).split("/")[0] for path in before}) == 7

    sent.clear()
    monkeypatch.setattr(S3Store, "upload", lambda store, path, key: (sent.append(key), send(store, path, key)))
    table = ingest(*options, out=tmp_path / "out")
    assert len([key for key in sent if key in set(table["sha256"])]) == 13, "only what was missing is moved"
    after = minio.stored_files()
    assert {path: after[path] for path in before} == before
    kept = {stored.key for stored in open_store(f"{bucket}/media", STORAGE).objects()}
    assert kept == set(table[table["status"] == "ok"]["sha256"])


@pytest.mark.parametrize(
    ("variable", "value", "place", "problem", "fix"),
    [
        ("AWS_SECRET_ACCESS_KEY", "wrong", "", "SignatureDoesNotMatch", "Check AWS_ACCESS_KEY_ID and AWS_SECRET"),
        ("AWS_ACCESS_KEY_ID", "nobody", "", "InvalidAccessKeyId", "Check AWS_ACCESS_KEY_ID and AWS_SECRET"),
        ("AWS_ACCESS_KEY_ID", None, "s3://no-such-bucket/clips", "NoSuchBucket", "Make bucket no-such-bucket first"),
    ],
)
def test_a_wrong_key_or_bucket_stops_ingest_at_once_with_what_to_do(
    few, bucket, tmp_path, monkeypatch, variable, value, place, problem, fix
):
    if value:
        monkeypatch.setenv(variable, value)
    for options in (
        ("--source", f"few={place or bucket + '/clips'}"),
        ("--source", f"few={few}", "--media-store", place or f"{bucket}/media"),
    ):
        begun = time.monotonic()
        with pytest.raises(StorageError, match=problem) as caught:
            ingest(*options, out=tmp_path / "out")
        assert fix in caught.value.fix
        assert time.monotonic() - begun < 20, "waiting does not mend it"
        assert not (tmp_path / "out").exists()


def test_an_archive_is_fetched_and_the_table_outlives_the_download(few, bad_server, tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for path in sorted(few.rglob("*.jpg")):
            archive.write(path, f"set/{path.relative_to(few)}")
    bad_server.pages["/set.zip"] = Page(packed.getvalue(), cuts=[5000])
    digest = hashlib.sha256(packed.getvalue()).hexdigest()
    table = ingest(
        *("--source", f"few={bad_server.url}/set.zip#sha256={digest}"),
        *("--store", str(tmp_path / "store"), "--media-store", str(tmp_path / "media")),
        out=tmp_path / "out",
    )
    shutil.rmtree(tmp_path / "store" / "downloads")
    usable = table[table["status"] == "ok"]
    assert len(usable) == 20
    assert all(hashlib.sha256(Path(row.uri).read_bytes()).hexdigest() == row.sha256 for row in usable.itertuples())


def test_what_changed_after_it_was_inspected_is_not_kept_under_the_old_hash(tmp_path):
    path = write_picture(tmp_path / "real" / "a.jpg", seed=1)
    file = SourceFile("s", str(path), "real/a.jpg", 0, (), None)
    inspection = Inspection("0" * 64, None, None, None)
    with pytest.raises(StorageError, match="changed after it was inspected"):
        keep_media([file], [inspection], LocalMedia(), FolderStore(tmp_path / "media"))
    path.unlink()
    with pytest.raises(StorageError, match="cannot be read any more"):
        keep_media([file], [inspection], LocalMedia(), FolderStore(tmp_path / "media"))
    assert not (tmp_path / "media").exists()
