"""A real MinIO server on loopback, for tests."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
USER, PASSWORD = "tester", "a-secret-for-tests"
BUILD_TIMEOUT_S = 1500
START_TIMEOUT_S = 30


def minio_binary() -> Path:
    """Find the server, or build it once for all test runs of this user; skips the test where neither is possible."""
    given = os.environ.get("UNMASK_TEST_MINIO") or shutil.which("minio")
    if given:
        return Path(given)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unmask-tests"
    binary = cache / f"minio-{VERSION}"
    if binary.is_file():
        return binary
    if shutil.which("go") is None:
        pytest.skip("no MinIO: neither a binary (UNMASK_TEST_MINIO, PATH) nor the Go tools to build one")
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "minio.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not binary.is_file():
            _build(binary)
    return binary


def _build(binary: Path) -> None:
    """Build in a folder of its own: what the build needs is ten times as large as what it makes.

    The folder stays until the build has succeeded, so that the next try goes on where a slow machine gave up.
    """
    scratch = binary.with_name(f"{binary.name}-build")
    environment = {
        **os.environ,
        "GOBIN": f"{scratch}/bin",
        "GOPATH": f"{scratch}/path",
        "GOCACHE": f"{scratch}/cache",
        "GOFLAGS": "-modcacherw",
        "CGO_ENABLED": "0",
    }
    command = ["go", "install", "-trimpath", "-ldflags=-s -w", f"github.com/minio/minio@{VERSION}"]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=BUILD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        pytest.skip(f"MinIO is not built after {BUILD_TIMEOUT_S} s; the next run goes on from here")
    if done.returncode:
        pytest.skip(f"MinIO cannot be built here: {done.stderr.strip().splitlines()[-1]}")
    shutil.move(f"{scratch}/bin/minio", binary)
    shutil.rmtree(scratch, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class MinioServer:
    """A server process with its own data folder; may be killed and started again on the same port."""

    def __init__(
        self, folder: Path, certificates: Path | None = None, user: str = USER, password: str = PASSWORD
    ) -> None:
        self.user, self.password = user, password
        self.folder = folder
        self.port = free_port()
        self.certificates = certificates
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"{'https' if self.certificates else 'http'}://127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [str(minio_binary()), "server", str(self.folder / "data"), "--address", f"127.0.0.1:{self.port}"]
        command += ["--certs-dir", str(self.certificates or self.folder / "certs"), "--quiet"]
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MINIO_", "AWS_"))},
            "HOME": str(self.folder),
            "MINIO_ROOT_USER": self.user,
            "MINIO_ROOT_PASSWORD": self.password,
            "MINIO_BROWSER": "off",
            "MINIO_UPDATE": "off",
            "GOMAXPROCS": "2",
        }
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        if wait:
            self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                    if self.certificates:
                        return
                with urllib.request.urlopen(f"{self.endpoint}/minio/health/ready", timeout=2):
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"MinIO does not start: {(self.folder / 'log').read_text()[-2000:]}")

    def kill(self) -> None:
        """End it as a crash would."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None

    def stored_files(self) -> dict[str, int]:
        """Path and modification time of what the server keeps; an object that is written again changes it."""
        data = self.folder / "data"
        found = {}
        # Its own folder is left out before it is read: what lies there comes and goes while the server works.
        for bucket in data.iterdir() if data.is_dir() else ():
            if bucket.name != ".minio.sys":
                found.update({path: path.stat().st_mtime_ns for path in bucket.rglob("*") if path.is_file()})
        return {path.relative_to(data).as_posix(): changed for path, changed in found.items()}


@contextmanager
def running_minio(folder: Path, certificates: Path | None = None):
    server = MinioServer(folder, certificates)
    server.start()
    try:
        yield server
    finally:
        server.kill()


def as_user(server: MinioServer, environment: pytest.MonkeyPatch) -> None:
    """Put address and credentials where a user puts them."""
    environment.setenv("AWS_ENDPOINT_URL_S3", server.endpoint)
    environment.setenv("AWS_ACCESS_KEY_ID", USER)
    environment.setenv("AWS_SECRET_ACCESS_KEY", PASSWORD)


@pytest.fixture(scope="session")
def minio_for_session(tmp_path_factory):
    with running_minio(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture
def minio(minio_for_session, monkeypatch):
    """A running server whose address and credentials lie in the environment."""
    as_user(minio_for_session, monkeypatch)
    return minio_for_session


@pytest.fixture
def own_minio(tmp_path, monkeypatch):
    """A server of one test, which may kill it."""
    with running_minio(tmp_path / "minio") as server:
        as_user(server, monkeypatch)
        yield server


@pytest.fixture
def bucket(minio, request):
    """Address of a new bucket."""
    return new_bucket(minio, request.node.name)


def new_bucket(server: MinioServer, wish: str) -> str:
    import hashlib

    from minio import Minio

    name = f"bucket-{hashlib.sha256(wish.encode()).hexdigest()[:12]}"
    Minio(f"127.0.0.1:{server.port}", USER, PASSWORD, secure=False, region="us-east-1").make_bucket(name)
    return f"s3://{name}"
