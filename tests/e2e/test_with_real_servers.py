"""The whole way with the servers of a cluster: real MinIO, PostgreSQL and MLflow, and the accidents that happen there.

`make e2e` runs it: steps in the images, by kfp.local's DockerRunner; with ``E2E=local`` as processes. It is no part of
`make test`, because it takes minutes and servers of its own.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from servers.cluster_services import Services, running_services

from unmask.data.sampleset import generate
from unmask.schemas import PromotionDecision

RUNNER = os.environ.get("UNMASK_E2E_RUNNER", "")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not RUNNER, reason="takes minutes and servers of its own: make e2e"),
]
mlflow = pytest.importorskip("mlflow")

VIDEOS = 24
MEDIA, STORE = "s3://unmask-media/main", "s3://unmask-store/work"
OUTAGE_S = 30
# Enough to go through every part; figures are not looked at here.
QUICK = ["detectors=[meso4]", "train.epochs=4", "promote.min_auc=0", "ensemble.trials=10", "evaluate.resamples=200"]
QUICK += ["evaluate.severities=[3]", "evaluate.perturbations=[jpeg]", "evaluate.max_robustness_samples=20"]


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    if RUNNER == "docker":
        check_images()
    with running_services(tmp_path_factory.mktemp("services")) as running:
        yield running


def check_images() -> None:
    import docker

    from components import images

    client = docker.from_env()
    for role in images.ROLES:
        client.images.get(images.IMAGES.reference(role))


@pytest.fixture(scope="module")
def environment(services: Services) -> dict[str, str]:
    """What a step finds in its environment; nothing of this machine's own accounts."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "MLFLOW_", "UNMASK_SMTP"))}
    return {**plain, **services.environment}


def keys(services: Services, bucket: str, prefix: str = "") -> list[str]:
    from minio import Minio

    secret = services.secrets["unmask-object-store"]
    client = Minio(f"127.0.0.1:{services.minio.port}", secret["accesskey"], secret["secretkey"], secure=False)
    return [str(item.object_name) for item in client.list_objects(bucket, prefix, recursive=True)]


def upload(folder: Path, environment: dict[str, str]) -> None:
    """Put media where the page for administrators says: with the same few lines."""
    page = (Path(__file__).parents[2] / "manifests" / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"python - <<'PY'\n(.*?)PY\n", page, re.DOTALL)
    subprocess.run([sys.executable, "-c", script], cwd=folder.parent, env=environment, check=True, timeout=300)


class Run:
    """A command of ours in a process of its own, whose log can be read while it works."""

    def __init__(self, arguments: list[str], environment: dict[str, str], log: Path) -> None:
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "unmask.cli", *arguments],
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def until(self, reached: Callable[[], bool], timeout_s: float = 900) -> None:
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert self.process.poll() is None, f"the run ended too early:\n{self.said()[-4000:]}"
            assert time.monotonic() < deadline, f"it never came to that:\n{self.said()[-4000:]}"
            time.sleep(0.1)

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(60)


def training_arguments(services: Services, work: Path) -> list[str]:
    settings = [text for setting in QUICK for text in ("--set", setting)]
    places = ["--data", f"main={MEDIA}", "--store", STORE, "--tracking-uri", services.tracking_uri]
    return ["run", "--runner", RUNNER, "--work", str(work), *places, *settings]


def kill_training(work: Path) -> None:
    """End the training step as a lost node would: `docker kill`, or SIGKILL to its process."""
    if RUNNER == "docker":
        listed = ["docker", "ps", "--no-trunc", "--format", "{{.ID}} {{.Command}}", "--filter"]
        running = subprocess.run([*listed, f"label=unmask.work={work}"], capture_output=True, text=True, check=True)
        (container,) = [line.split()[0] for line in running.stdout.splitlines() if "train" in line]
        subprocess.run(["docker", "kill", container], check=True, stdout=subprocess.DEVNULL)
        return
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        words = entry.read_bytes().split(b"\0")
        if b"train" in words and any(str(work).encode() in word for word in words):
            os.kill(int(entry.parent.name), signal.SIGKILL)
            return
    raise AssertionError("no training step runs")


@dataclass(frozen=True)
class Done:
    work: Path
    first: str
    second: str

    @property
    def decision(self) -> PromotionDecision:
        return PromotionDecision.load(self.work / "latest" / "decision" / "decision.json")


@pytest.fixture(scope="module")
def done(services: Services, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Done:
    """A run with two accidents: the object store is away for a while in extraction, and training is killed."""
    folder = tmp_path_factory.mktemp("way")
    generate(folder / "media", videos=VIDEOS, seed=7)
    upload(folder / "media", environment)
    work = folder / "work"
    first = Run(training_arguments(services, work), environment, folder / "first.log")
    try:
        first.until(lambda: len(keys(services, "unmask-store", "work/extract/")) >= 3)
        services.minio.kill()
        time.sleep(OUTAGE_S)
        services.minio.start()
        first.until(lambda: any("last" in key for key in keys(services, "unmask-store", "work/checkpoints/")))
        kill_training(work)
        assert first.process.wait(300) != 0
    finally:
        first.stop()
    second = Run(training_arguments(services, work), environment, folder / "second.log")
    try:
        assert second.process.wait(1200) == 0, second.said()[-6000:]
    finally:
        second.stop()
    return Done(work, first.said(), second.said())


def test_an_object_store_that_was_away_for_a_while_is_waited_for(done: Done) -> None:
    assert "[extract] done" in done.first
    assert "error" not in done.first.partition("[extract] done")[0]


def test_a_killed_training_goes_on_from_its_checkpoint_in_the_bucket(done: Done) -> None:
    assert re.search(r"Step 'train meso4' was killed by SIGKILL", done.first)
    assert re.search(r"\[train meso4\].*resume: [1-9]\d* epochs", done.second)
    for step in ("ingest", "extract"):
        assert f"[{step}] finished before, reused" in done.second


def test_everything_that_is_kept_lies_in_the_object_store(done: Done, services: Services) -> None:
    kinds = {key.split("/")[1] for key in keys(services, "unmask-store", "work/")}
    assert {"ingest", "extract", "checkpoints"} <= kinds
    assert len(keys(services, "unmask-media")) == VIDEOS
    assert not (done.work / "store").exists()
    assert not (done.work / "mlflow.db").exists()


def test_run_and_model_are_registered_in_the_server(
    done: Done, services: Services, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.setenv(name, environment[name])
    client = mlflow.MlflowClient(services.tracking_uri, services.tracking_uri)
    version = client.get_model_version(done.decision.model, done.decision.version)
    assert version.run_id == done.decision.run_id
    assert client.get_run(version.run_id).info.status == "FINISHED"
    stored = keys(services, "unmask-mlflow")
    assert any(key.endswith("report.html") for key in stored)
    assert any(key.endswith(".onnx") for key in stored)
    files = Path(client.download_artifacts(version.run_id, "report.html", str(tmp_path)))
    assert files.read_bytes() == (done.work / "latest" / "evaluation" / "report.html").read_bytes()


def test_the_registry_lies_in_postgresql(done: Done, services: Services) -> None:
    import pg8000.native

    host, _, port = services.database.partition(":")
    password = services.secrets["unmask-tracking-server"]["postgres-password"]
    connection = pg8000.native.Connection("mlflow", host=host, port=int(port), database="mlflow", password=password)
    try:
        rows = connection.run("SELECT name, version FROM model_versions")
    finally:
        connection.close()
    assert [[str(value) for value in row] for row in rows] == [[done.decision.model, done.decision.version]]


@pytest.fixture
def chat() -> Iterator[tuple[str, list[dict[str, object]]]]:
    """Address of a webhook, and what it received."""
    received: list[dict[str, object]] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()
    server.server_close()


def retraining_arguments(services: Services, work: Path, data: str = MEDIA) -> list[str]:
    arguments = training_arguments(services, work)[1:]
    arguments[arguments.index("--data") + 1] = f"main={data}"
    return ["retrain", *arguments]


def test_nothing_new_ends_with_the_reason_and_a_message(
    done: Done,
    services: Services,
    environment: dict[str, str],
    tmp_path: Path,
    chat: tuple[str, list[dict[str, object]]],
) -> None:
    address, received = chat
    run = Run(
        retraining_arguments(services, tmp_path / "work"),
        {**environment, "UNMASK_WEBHOOK_URL": address},
        tmp_path / "log",
    )
    assert run.process.wait(900) == 0, run.said()[-6000:]
    assert "Nothing was trained. The data are those that version" in run.said()
    assert "train meso4" not in run.said()
    (message,) = received
    assert "Run succeeded" in str(message["text"])


def test_wrong_credentials_are_told_by_the_first_step_with_their_places(
    services: Services, environment: dict[str, str], tmp_path: Path, chat: tuple[str, list[dict[str, object]]]
) -> None:
    address, received = chat
    wrong = {"AWS_SECRET_ACCESS_KEY": "not-the-secret", "MLFLOW_TRACKING_PASSWORD": "not-the-password"}
    begin = time.monotonic()
    run = Run(
        retraining_arguments(services, tmp_path / "work", "s3://unmask-media/nowhere"),
        {**environment, **wrong, "UNMASK_WEBHOOK_URL": address},
        tmp_path / "log",
    )
    assert run.process.wait(300) != 0
    said = run.said()
    assert "3 of 3 prerequisites are not met" in said
    for place in ("s3://unmask-media/nowhere", STORE, services.tracking_uri):
        assert place in said
    assert "[ingest] started" not in said
    assert time.monotonic() - begin < 120
    assert not any(secret in said for secret in wrong.values())
    (message,) = received
    assert "Run failed" in str(message["text"])
