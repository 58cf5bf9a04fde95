"""The check before a run: it names what is wrong, where, and what to do, within seconds."""

from __future__ import annotations

import socket
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from unmask.adapters.prerequisites import check_gpu, check_prerequisites, render_markdown, require
from unmask.config import PromoteConfig, StorageConfig
from unmask.errors import InputError


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_what_is_there_passes_and_nothing_is_left_in_the_store(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (tmp_path / "media").mkdir()
    checks = check_prerequisites(
        [f"mine={tmp_path / 'media'}"],
        str(tmp_path / "store"),
        f"sqlite:///{tmp_path / 'mlflow.db'}",
        StorageConfig(),
        PromoteConfig(),
    )
    require(checks)
    assert [check.name for check in checks] == ["source", "store", "tracking server"]
    assert [path for path in (tmp_path / "store").rglob("*") if path.is_file()] == []
    assert render_markdown(checks).startswith("# All 3 checks passed")


def test_everything_that_is_wrong_is_told_with_its_place_within_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "somebody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-secret")
    nobody = f"http://127.0.0.1:{closed_port()}"
    begin = time.monotonic()
    checks = check_prerequisites(
        [str(tmp_path / "nowhere"), "b=s3://unmask-media/main"],
        "s3://unmask-store/work",
        nobody,
        StorageConfig(endpoint=nobody),
        PromoteConfig(),
    )
    assert time.monotonic() - begin < 60
    with pytest.raises(InputError) as caught:
        require(checks)
    text = str(caught.value)
    assert "4 of 4 prerequisites are not met" in text
    for place in (str(tmp_path / "nowhere"), "s3://unmask-media/main", "s3://unmask-store/work", nobody):
        assert place in text
    assert caught.value.fix
    assert "wrong-secret" not in text + render_markdown(checks)
    assert render_markdown(checks).count("FAILED") == 4


@pytest.mark.parametrize(("status", "advice"), [(401, "MLFLOW_TRACKING_PASSWORD"), (403, "--allowed-hosts")])
def test_a_tracking_server_that_refuses_is_told_from_one_that_is_away(status: int, advice: str) -> None:
    """MLflow answers in plain text when it does not know who asks, not with an error of its API."""
    pytest.importorskip("mlflow")

    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"You are not authenticated.")

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        (check,) = check_prerequisites([], "", uri, StorageConfig(), PromoteConfig())
        server.shutdown()
    assert not check.passed
    assert f"refused (HTTP {status})" in check.said
    assert advice in check.fix


def test_a_missing_gpu_fails_only_where_one_is_needed() -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        require([check_gpu(True)])
        return
    require([check_gpu(False)])
    with pytest.raises(InputError, match="sees no GPU"):
        require([check_gpu(True)])
