"""The hand-made release of the deployment tests, for the tests of tracking; and a real MLflow server."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def release_parts() -> ModuleType:
    """The module that makes the release."""
    return sys.modules.get("release_parts") or _load(
        "release_parts", Path(__file__).parents[1] / "deployment" / "release_parts.py"
    )


def free_port() -> int:
    """Find a port of the loopback that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@pytest.fixture
def port() -> int:
    """A port of the loopback that nobody uses."""
    return free_port()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on the loopback; tests use registered models of their own names."""
    from unmask.adapters.tracking import connected
    from unmask.errors import InputError

    port = free_port()
    home = tmp_path_factory.mktemp("server")
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{home}/mlflow.db",
        "--artifacts-destination",
        str(home / "artifacts"),
    ]
    with (home / "log").open("w") as log:
        # Without its executors of background jobs, which nothing here needs, it starts in half the time.
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, start_new_session=True, env=environment)
        try:
            uri = f"http://127.0.0.1:{port}"
            deadline = time.monotonic() + 480
            while True:
                assert process.poll() is None, (home / "log").read_text()
                assert time.monotonic() < deadline, (home / "log").read_text()
                try:
                    with connected(uri):
                        break
                except InputError:
                    time.sleep(1)
            yield uri
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
