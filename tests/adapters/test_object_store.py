"""The object store against a real server: what is kept, what goes wrong, and what is survived."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import subprocess
import threading
import time
from io import BytesIO

import pytest
from minio import Minio
from servers.cutting_proxy import CuttingProxy
from servers.minio_server import PASSWORD, USER, MinioServer, as_user, free_port, new_bucket, running_minio

from unmask.adapters.object_store import open_media, open_store
from unmask.config import StorageConfig
from unmask.errors import InputError, StorageError
from unmask.objects import FolderStore

QUICK = StorageConfig(attempts=1, timeout_s=5)


def client_of(server: MinioServer) -> Minio:
    return Minio(f"127.0.0.1:{server.port}", USER, PASSWORD, secure=False, region="us-east-1")


def test_a_bucket_keeps_the_same_promises_as_a_folder(bucket, tmp_path):
    for store in (open_store(f"{bucket}/some/prefix", QUICK), open_store(str(tmp_path / "store"), QUICK)):
        assert list(store.objects()) == []
        assert store.stat("a/b.bin") is None
        store.write("a/b.bin", b"one")
        store.write("a/c.bin", b"three")
        store.write("empty", b"")
        (tmp_path / "file").write_bytes(b"four!")
        store.upload(tmp_path / "file", "d")
        assert store.read("a/b.bin") == b"one"
        assert store.read("empty") == b""
        listed = list(store.objects())
        assert [(o.key, o.size_bytes) for o in listed] == [("a/b.bin", 3), ("a/c.bin", 5), ("d", 5), ("empty", 0)]
        assert [store.stat(o.key) for o in listed] == listed
        assert [o.key for o in store.objects("a/c")] == ["a/c.bin"]
        store.download("d", tmp_path / "copy" / "d")
        assert (tmp_path / "copy" / "d").read_bytes() == b"four!"
        store.write("a/b.bin", b"other")
        assert store.stat("a/b.bin") != listed[0]
        store.delete("a/b.bin")
        store.delete("a/b.bin")
        assert store.stat("a/b.bin") is None
        with pytest.raises(StorageError, match="nothing-here"):
            store.read("nothing-here")
        with pytest.raises(StorageError, match="nothing-here"):
            store.download("nothing-here", tmp_path / "none")
        assert not (tmp_path / "none").exists()
        with pytest.raises(InputError, match="not a key"):
            store.write("a/../../out", b"")
        with pytest.raises(StorageError, match="no-such-file"):
            store.upload(tmp_path / "no-such-file", "e")


def test_addresses_name_the_object_and_can_be_opened(bucket, tmp_path):
    store = open_store(f"{bucket}/media/", QUICK)
    store.write("clips/käse & co.mp4", b"bytes of a clip")
    assert store.uri == f"{bucket}/media"
    address = store.address("clips/käse & co.mp4")
    assert address == f"{bucket}/media/clips/käse & co.mp4"
    media = pickle.loads(pickle.dumps(open_media(QUICK, tmp_path / "scratch")))
    with media.local(address) as path:
        assert path.read_bytes() == b"bytes of a clip"
        assert path.suffix == ".mp4"
        assert path.is_relative_to(tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []
    with media.local(str(tmp_path / "own.mp4")) as path:
        assert path == tmp_path / "own.mp4"
    with pytest.raises(StorageError, match="NoSuchKey"), media.local(f"{bucket}/media/none.mp4"):
        pass
    with pytest.raises(InputError, match="neither"), media.local("ftp://somewhere/none.mp4"):
        pass


def test_large_files_go_in_parts_and_come_back_the_same(bucket, tmp_path, minio):
    store = open_store(bucket, QUICK)
    content = os.urandom(17 * 2**20)
    (tmp_path / "large").write_bytes(content)
    store.upload(tmp_path / "large", "large")
    assert store.stat("large").version.endswith("-2"), "it was sent in two parts"
    store.download("large", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


def test_bytes_that_differ_from_the_kept_hash_are_refused(bucket, minio, tmp_path):
    name = bucket.removeprefix("s3://")
    client = client_of(minio)
    client.put_object(name, "forged", BytesIO(b"other bytes"), 11, metadata={"sha256": "0" * 64})
    client.put_object(name, "foreign", BytesIO(b"foreign bytes"), 13)
    store = open_store(bucket, QUICK)
    assert store.read("foreign") == b"foreign bytes"
    with pytest.raises(StorageError, match="other bytes than were stored: sha256"):
        store.download("forged", tmp_path / "forged")
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_is_said_with_what_to_do(bucket, minio, monkeypatch):
    with pytest.raises(StorageError, match="NoSuchBucket") as caught:
        open_store("s3://no-such-bucket/x", QUICK)
    assert "Make bucket no-such-bucket first" in caught.value.fix
    with pytest.raises(StorageError, match="invalid bucket name"):
        open_store("s3://X", QUICK)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StorageError, match=r"127\.0\.0\.1.*SignatureDoesNotMatch") as caught:
        open_store(bucket, QUICK)
    assert "AWS_SECRET_ACCESS_KEY" in caught.value.fix
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    with pytest.raises(StorageError, match="InvalidAccessKeyId"):
        open_store(bucket, QUICK)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StorageError, match="AWS_SECRET_ACCESS_KEY not set") as caught:
        open_store(bucket, QUICK)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(StorageError, match=r"does not answer \(.*Connection refused.*after 1 tries"):
        open_store(bucket, QUICK)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "minio:9000")
    with pytest.raises(StorageError, match="not an address"):
        open_store(bucket, QUICK)
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    with pytest.raises(StorageError, match=r"No address") as caught:
        open_store(bucket, QUICK)
    assert "storage.endpoint" in caught.value.fix


def test_settings_win_over_the_environment(bucket, minio, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert list(open_store(bucket, QUICK.model_copy(update={"endpoint": minio.endpoint})).objects()) == []


@pytest.mark.parametrize("text", ["gs://bucket", "https://host/x.zip", "s3://", "s3:///x", "s3://user@bucket"])
def test_other_addresses_are_refused(text):
    with pytest.raises(InputError):
        open_store(text, QUICK)


def test_folders_need_no_server(tmp_path):
    assert isinstance(open_store(str(tmp_path), QUICK), FolderStore)


def test_nothing_is_lost_when_the_server_is_killed_midway_and_comes_back(own_minio, tmp_path, caplog):
    """Many threads write and read while the server dies twice; every object arrives, whole, and is listed once."""
    store = open_store(new_bucket(own_minio, "killed"), StorageConfig(attempts=6, timeout_s=10))
    contents = {f"{n:03}.bin": os.urandom(2**21 if n % 10 == 0 else 4000) for n in range(60)}
    keys, failures = iter(sorted(contents)), []
    taking = threading.Lock()
    started = threading.Event()

    def work() -> None:
        while True:
            with taking:
                key = next(keys, None)
            if key is None:
                return
            try:
                (tmp_path / key).write_bytes(contents[key])
                store.upload(tmp_path / key, key)
                started.set()
                assert store.read(key) == contents[key]
            except Exception as error:
                failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    assert started.wait(20)
    for _ in range(2):
        own_minio.kill()
        time.sleep(1.5)
        own_minio.start()
        time.sleep(0.2)
    for thread in threads:
        thread.join()
    assert failures == []
    assert "trying again" in caplog.text, "the server was away while it was needed"
    assert [(o.key, o.size_bytes) for o in store.objects()] == [(k, len(v)) for k, v in sorted(contents.items())]


def test_a_download_goes_on_where_the_connection_broke(minio, bucket, tmp_path, monkeypatch, caplog):
    content = os.urandom(12 * 2**20)
    open_store(bucket, QUICK).write("large", content)
    with CuttingProxy(minio.port, cuts=2, after=4 * 2**20) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        store = open_store(bucket, StorageConfig(attempts=3, timeout_s=5))
        store.download("large", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
        assert proxy.passed_bytes < len(content) + 2 * 2**20, "what had come was not asked for again"
        assert caplog.text.count("going on from there") == 2


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(minio, bucket, tmp_path, monkeypatch):
    writer = open_store(bucket, QUICK)
    writer.write("large", b"a" * 12 * 2**20)
    with CuttingProxy(minio.port, cuts=1, after=4 * 2**20) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        store = open_store(bucket, StorageConfig(attempts=3, timeout_s=5))
        monkeypatch.setattr(logging.getLogger("unmask.adapters.s3"), "warning", lambda *_: writer.write("large", b"b"))
        with pytest.raises(StorageError, match="PreconditionFailed") as caught:
            store.download("large", tmp_path / "back")
        assert "was replaced" in caught.value.fix
    assert list(tmp_path.iterdir()) == []


def test_giving_up_on_a_download_that_keeps_breaking_leaves_nothing(minio, bucket, tmp_path, monkeypatch):
    open_store(bucket, QUICK).write("large", bytes(12 * 2**20))
    with CuttingProxy(minio.port, cuts=9, after=2**20) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{proxy.port}")
        with pytest.raises(StorageError, match="large cannot be read"):
            open_store(bucket, StorageConfig(attempts=2, timeout_s=5)).download("large", tmp_path / "back")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Key and self-signed certificate of 127.0.0.1, where MinIO looks for them."""
    if shutil.which("openssl") is None:
        pytest.skip("no openssl to make a certificate with")
    folder = tmp_path_factory.mktemp("certificates")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", "private.key", "-out", "public.crt", "-days", "2", "-subj", "/CN=unmask-test"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return folder


def test_a_server_with_a_certificate_of_its_own_is_trusted_only_when_told_so(certificates, tmp_path, monkeypatch):
    with running_minio(tmp_path / "minio", certificates) as server:
        as_user(server, monkeypatch)
        trusting = StorageConfig(attempts=6, timeout_s=5, ca_file=str(certificates / "public.crt"))
        with pytest.raises(StorageError, match="NoSuchBucket"):
            open_store("s3://not-there", trusting)
        begun = time.monotonic()
        with pytest.raises(StorageError, match=r"certificate of .* is not trusted") as caught:
            open_store("s3://not-there", StorageConfig(attempts=6, timeout_s=5))
        assert time.monotonic() - begun < 1, "waiting does not mend a certificate"
        assert "storage.ca_file" in caught.value.fix
    with pytest.raises(StorageError, match="cannot be used"):
        open_store("s3://not-there", StorageConfig(ca_file=str(certificates / "none.crt")))
