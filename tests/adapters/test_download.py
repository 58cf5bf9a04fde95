"""Downloads from a server that drops connections, lies about lengths and sends wrong bytes."""

from __future__ import annotations

import hashlib
import os
import threading
import time

import pytest
from servers.http_server import BadServer, Page

from unmask.adapters import download
from unmask.adapters.download import Downloader, Remote
from unmask.config import DownloadConfig
from unmask.errors import StorageError

CONTENT = os.urandom(3_000_000)
HASH = hashlib.sha256(CONTENT).hexdigest()
CONFIG = DownloadConfig(attempts=3, timeout_s=2)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(download, "LONGEST_WAIT_S", 0.01)


def remote(server: BadServer, tmp_path, sha256=HASH, name="set.zip") -> Remote:
    return Remote(f"{server.url}/{name}?token=secret", tmp_path / name, sha256)


def fetch(server, tmp_path, page, sha256=HASH) -> bytes:
    server.pages["/set.zip"] = page
    Downloader(CONFIG).fetch_all([remote(server, tmp_path, sha256)], "test")
    assert [path.name for path in tmp_path.iterdir()] == ["set.zip"], "nothing unfinished stays"
    return (tmp_path / "set.zip").read_bytes()


def fails(server, tmp_path, page, match, sha256=HASH) -> StorageError:
    server.pages["/set.zip"] = page
    with pytest.raises(StorageError, match=match) as caught:
        Downloader(CONFIG).fetch_all([remote(server, tmp_path, sha256)], "test")
    assert not (tmp_path / "set.zip").exists()
    assert caught.value.fix
    assert "secret" not in str(caught.value)
    return caught.value


def ranges(server) -> list[str | None]:
    return [headers.get("Range") for _, headers in server.asked]


@pytest.mark.parametrize("sha256", [HASH, None], ids=["hashed", "unhashed"])
def test_a_download_that_breaks_off_goes_on_where_it_stopped(bad_server, tmp_path, sha256):
    assert fetch(bad_server, tmp_path, Page(CONTENT, cuts=[1_000_000, 0, 500_000]), sha256) == CONTENT
    assert ranges(bad_server) == [None, "bytes=1000000-", "bytes=1000000-", "bytes=1500000-"]
    assert bad_server.sent_bytes == len(CONTENT), "no byte was sent twice"


def test_a_new_run_goes_on_where_the_last_one_gave_up(bad_server, tmp_path):
    error = fails(bad_server, tmp_path, Page(CONTENT, cuts=[2_000_000, 0, 0, 0]), "2000000 of 3000000 bytes are here")
    assert "Run again" in error.fix
    bad_server.sent_bytes = 0
    assert fetch(bad_server, tmp_path, Page(CONTENT)) == CONTENT
    assert bad_server.sent_bytes == 1_000_000


def test_a_file_that_changed_meanwhile_is_fetched_anew_not_mixed(bad_server, tmp_path):
    fails(bad_server, tmp_path, Page(os.urandom(2_500_000), cuts=[2_000_000, 0, 0, 0]), "bytes are here", None)
    assert fetch(bad_server, tmp_path, Page(CONTENT), None) == CONTENT


def test_without_etag_and_hash_nothing_is_resumed(bad_server, tmp_path):
    fails(bad_server, tmp_path, Page(CONTENT, cuts=[2_000_000, 0, 0, 0], etag=False), "bytes are here", None)
    assert fetch(bad_server, tmp_path, Page(CONTENT, etag=False), None) == CONTENT
    assert ranges(bad_server)[-1] is None


def test_a_server_that_ignores_range_is_read_from_the_start(bad_server, tmp_path):
    assert fetch(bad_server, tmp_path, Page(CONTENT, cuts=[1_000_000], ranges=False)) == CONTENT


def test_a_server_that_ignores_range_and_never_ends_is_given_up(bad_server, tmp_path):
    fails(bad_server, tmp_path, Page(CONTENT, ranges=False, cut_always=1_000_000), "1000000 of 3000000 bytes are here")
    assert len(bad_server.asked) <= 4


def test_another_range_than_asked_for_is_not_glued_together(bad_server, tmp_path):
    page = Page(CONTENT, cuts=[1_000_000], shift=7)
    assert fetch(bad_server, tmp_path, page) == CONTENT
    assert ranges(bad_server) == [None, "bytes=1000000-", None]


def test_a_file_shorter_than_the_stated_length_never_passes_for_whole(bad_server, tmp_path):
    fails(bad_server, tmp_path, Page(CONTENT[:-10], length=len(CONTENT)), "2999990 of 3000000 bytes", None)


def test_a_stated_length_that_is_too_short_is_found_by_the_hash(bad_server, tmp_path):
    fails(bad_server, tmp_path, Page(CONTENT, length=len(CONTENT) - 10), "twice its 2999990 bytes had another SHA-256")


def test_wrong_bytes_are_thrown_away_and_asked_for_once_more(bad_server, tmp_path):
    wrong = bytearray(CONTENT)
    wrong[1_500_000] ^= 1
    error = fails(
        bad_server, tmp_path, Page(bytes(wrong)), f"another SHA-256, last {hashlib.sha256(wrong).hexdigest()}"
    )
    assert HASH in error.problem
    assert len(bad_server.asked) == 2
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_were_damaged_on_disk_meanwhile_are_found(bad_server, tmp_path):
    fails(bad_server, tmp_path, Page(CONTENT, cuts=[2_000_000, 0, 0, 0]), "bytes are here")
    part = next(path for path in tmp_path.iterdir() if path.stat().st_size == 2_000_000)
    part.write_bytes(bytes(2_000_000))
    assert fetch(bad_server, tmp_path, Page(CONTENT)) == CONTENT


def test_chunks_end_with_a_mark_and_streams_without_one_need_a_hash(bad_server, tmp_path):
    assert fetch(bad_server, tmp_path, Page(CONTENT, chunked=True), None) == CONTENT
    (tmp_path / "set.zip").unlink()
    fails(bad_server, tmp_path, Page(CONTENT, chunked=True, cut_always=100_000, etag=False), "cannot be fetched", None)
    for path in tmp_path.iterdir():
        path.unlink()
    fails(bad_server, tmp_path, Page(CONTENT, length=-1), "does not say how long it is", None)
    assert fetch(bad_server, tmp_path, Page(CONTENT, length=-1)) == CONTENT


def test_a_server_that_is_busy_is_asked_again(bad_server, tmp_path):
    assert fetch(bad_server, tmp_path, Page(CONTENT, status=[503, 429])) == CONTENT
    (tmp_path / "set.zip").unlink()
    fails(bad_server, tmp_path, Page(CONTENT, forever=503), "status 503.*after 3 tries")


@pytest.mark.parametrize("status", [401, 403, 404, 410, 418])
def test_refusals_are_said_at_once(bad_server, tmp_path, status):
    fails(bad_server, tmp_path, Page(forever=status), f"answers with status {status}")
    assert len(bad_server.asked) == 1


def test_nobody_there(tmp_path):
    from servers.minio_server import free_port

    with pytest.raises(StorageError, match=r"Connection refused; 0 bytes are here after 3 tries"):
        Downloader(CONFIG).fetch_all([Remote(f"http://127.0.0.1:{free_port()}/x.zip", tmp_path / "x.zip")], "test")


def test_credentials_do_not_follow_to_another_host(bad_server, tmp_path):
    other = BadServer()
    try:
        other.pages["/real.zip"] = Page(CONTENT)
        bad_server.pages["/set.zip"] = Page(redirect=f"{other.url.replace('127.0.0.1', 'localhost')}/real.zip")
        Downloader(CONFIG).fetch_all(
            [Remote(f"{bad_server.url}/set.zip", tmp_path / "set.zip", HASH, {"Authorization": "Bearer secret"})],
            "test",
        )
    finally:
        other.close()
    assert bad_server.asked[0][1]["Authorization"] == "Bearer secret"
    assert "Authorization" not in other.asked[0][1]
    assert (tmp_path / "set.zip").read_bytes() == CONTENT


def test_files_come_side_by_side_and_finished_ones_stay(bad_server, tmp_path):
    for number in range(6):
        bad_server.pages[f"/{number}"] = Page(CONTENT, forever=404 if number == 5 else None)
    remotes = [Remote(f"{bad_server.url}/{n}", tmp_path / str(n), HASH) for n in range(6)]
    with pytest.raises(StorageError, match="status 404"):
        Downloader(DownloadConfig(connections=1, attempts=1)).fetch_all(remotes, "test")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2", "3", "4"]
    asked = len(bad_server.asked)
    bad_server.pages["/5"] = Page(CONTENT)
    Downloader(CONFIG).fetch_all(remotes, "test")
    assert len(bad_server.asked) == asked + 1, "only what was missing was asked for"


def test_several_connections_are_used(bad_server, tmp_path):
    barrier = threading.Barrier(3, timeout=5)

    class Slow(bytes):
        def __getitem__(self, key):  # an answer begins when three are under way
            barrier.wait()
            return bytes(self)

    for number in range(3):
        bad_server.pages[f"/{number}"] = Page(Slow(b"x" * 1000))
    remotes = [Remote(f"{bad_server.url}/{n}", tmp_path / str(n)) for n in range(3)]
    Downloader(DownloadConfig(connections=3)).fetch_all(remotes, "test")
    assert bad_server.most_together == 3


def test_a_server_that_says_nothing_is_not_waited_for_longer_than_said(tmp_path):
    import socket

    silent = socket.create_server(("127.0.0.1", 0))
    begun = time.monotonic()
    downloader = Downloader(DownloadConfig(attempts=2, timeout_s=0.3))
    url = f"http://127.0.0.1:{silent.getsockname()[1]}/x.zip"
    with silent, pytest.raises(StorageError, match=r"timed out"):
        downloader.fetch_all([Remote(url, tmp_path / "x.zip")], "test")
    assert time.monotonic() - begun < 5
