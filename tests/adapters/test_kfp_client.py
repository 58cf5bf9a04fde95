"""The client of Kubeflow Pipelines: the real `kfp.Client` against a server that speaks its REST API on loopback."""

from __future__ import annotations

import json
import logging
import socket
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

sys.path.insert(0, str(Path(__file__).parent))
from kfp_server import KfpServer, Trouble, serve

from pipelines import compile as compiling
from unmask.adapters.cron import parse_cron
from unmask.adapters.kfp_client import (
    Connection,
    PipelineService,
    ServiceError,
    check_parameters,
    version_name,
)
from unmask.cli import cli
from unmask.errors import InputError

TRAINING = compiling.COMPILED / "training.yaml"
RETRAINING = compiling.COMPILED / "retraining.yaml"
PARAMETERS = {"sources": ["s3://media/ffpp"], "tracking_uri": "http://mlflow:5000"}
SUNDAYS = parse_cron("0 2 * * 0")


@pytest.fixture
def server() -> Iterator[KfpServer]:
    state = KfpServer()
    http = serve(state)
    yield state
    http.shutdown()
    http.server_close()


@pytest.fixture
def service(server: KfpServer) -> PipelineService:
    return connect(server)


def connect(server: KfpServer, **options: object) -> PipelineService:
    return PipelineService(Connection(host=server.address, first_wait_s=0.01, attempts=3, **options))  # type: ignore[arg-type]


def test_an_upload_makes_a_pipeline_and_a_version_named_after_its_content(
    server: KfpServer, service: PipelineService
) -> None:
    uploaded = service.upload(TRAINING, "Trains detectors.")
    (pipeline,) = server.pipelines.values()
    (version,) = server.versions.values()
    assert (pipeline["display_name"], pipeline["description"]) == ("unmask-training", "Trains detectors.")
    assert version["display_name"] == uploaded.version == version_name(TRAINING)
    assert uploaded.new
    package = version["package"]
    text = package if isinstance(package, str) else package.decode()
    assert text == TRAINING.read_text(encoding="utf-8")
    assert uploaded.link == (
        f"{server.address}/#/pipelines/details/{uploaded.pipeline_id}/version/{uploaded.version_id}"
    )


def test_uploading_again_changes_nothing_and_changed_content_is_a_new_version(
    server: KfpServer, service: PipelineService, tmp_path: Path
) -> None:
    first = service.upload(TRAINING)
    server.requests.clear()
    second = service.upload(TRAINING)
    assert server.made() == []
    assert not second.new
    assert (second.pipeline_id, second.version_id) == (first.pipeline_id, first.version_id)
    changed = tmp_path / "training.yaml"
    changed.write_text(TRAINING.read_text(encoding="utf-8").replace("maxRetryCount: 2", "maxRetryCount: 4"))
    assert service.upload(changed).new
    assert len(server.versions) == 2
    assert len(server.pipelines) == 1
    # The version of the compiler is not content.
    changed.write_text(TRAINING.read_text(encoding="utf-8").replace("kfp-2.17.0", "kfp-2.17.1"))
    assert not service.upload(changed).new


def test_a_run_names_the_version_and_carries_the_parameters(server: KfpServer, service: PipelineService) -> None:
    uploaded = service.upload(TRAINING)
    started = service.run(uploaded, PARAMETERS, "nightly", "try", "s3://artifacts/unmask", "pipeline-runner")
    (run,) = server.runs.values()
    (experiment,) = server.experiments.values()
    assert experiment["display_name"] == "nightly"
    assert run["experiment_id"] == experiment["experiment_id"]
    assert run["display_name"] == started.name
    assert started.name.startswith("try 20")
    assert run["pipeline_version_reference"] == {
        "pipeline_id": uploaded.pipeline_id,
        "pipeline_version_id": uploaded.version_id,
    }
    assert run["runtime_config"] == {"parameters": PARAMETERS, "pipeline_root": "s3://artifacts/unmask"}
    assert run["service_account"] == "pipeline-runner"
    assert started.link == f"{server.address}/#/runs/details/{started.run_id}"
    service.run(uploaded, PARAMETERS, "nightly")
    assert len(server.experiments) == 1
    assert len(server.runs) == 2


def test_a_schedule_has_no_catch_up_and_one_run_at_a_time(server: KfpServer, service: PipelineService) -> None:
    uploaded = service.upload(RETRAINING)
    made = service.schedule(uploaded, SUNDAYS, PARAMETERS, "nightly", "weekly")
    (entry,) = server.recurring.values()
    assert made.change == "created"
    assert entry["trigger"] == {"cron_schedule": {"cron": "0 0 2 * * 0"}}
    assert entry["no_catchup"] is True
    assert int(entry["max_concurrency"]) == 1
    assert entry["mode"] == "ENABLE"
    assert entry["runtime_config"]["parameters"] == PARAMETERS
    assert entry["pipeline_version_reference"]["pipeline_version_id"] == uploaded.version_id


def test_the_same_schedule_again_changes_nothing(server: KfpServer, service: PipelineService) -> None:
    uploaded = service.upload(RETRAINING)
    first = service.schedule(uploaded, SUNDAYS, PARAMETERS, "nightly", "weekly")
    server.requests.clear()
    second = service.schedule(uploaded, SUNDAYS, PARAMETERS, "nightly", "weekly")
    assert second.change == "unchanged"
    assert second.recurring_run_id == first.recurring_run_id
    assert server.made() == server.made("DELETE") == []


@pytest.mark.parametrize("what", ["cron", "parameters", "version"])
def test_a_changed_schedule_replaces_the_old_one_without_a_moment_with_two(
    server: KfpServer, service: PipelineService, what: str
) -> None:
    old = service.upload(TRAINING)
    first = service.schedule(old, SUNDAYS, PARAMETERS, "nightly", "weekly")
    service.schedule(old, SUNDAYS, PARAMETERS, "nightly", "another")
    uploaded = service.upload(RETRAINING) if what == "version" else old
    times = parse_cron("0 3 * * 1") if what == "cron" else SUNDAYS
    parameters = {**PARAMETERS, "epochs": 3} if what == "parameters" else PARAMETERS
    second = service.schedule(uploaded, times, parameters, "nightly", "weekly")
    assert second.change == "replaced"
    assert second.recurring_run_id != first.recurring_run_id
    assert sorted(entry["display_name"] for entry in server.recurring.values()) == ["another", "weekly"]
    assert all(entry["mode"] == "ENABLE" for entry in server.recurring.values())
    assert server.most_active == 1


def test_an_interrupted_change_is_put_right_by_the_next_call(server: KfpServer, service: PipelineService) -> None:
    uploaded = service.upload(RETRAINING)
    service.schedule(uploaded, SUNDAYS, PARAMETERS, "nightly", "weekly")
    server.troubles = [Trouble("POST", ":enable$", 503, times=99)]
    with pytest.raises(ServiceError):
        service.schedule(uploaded, parse_cron("0 3 * * *"), PARAMETERS, "nightly", "weekly")
    server.troubles.clear()
    service.schedule(uploaded, parse_cron("0 3 * * *"), PARAMETERS, "nightly", "weekly")
    (entry,) = server.recurring.values()
    assert (entry["mode"], entry["trigger"]["cron_schedule"]["cron"]) == ("ENABLE", "0 0 3 * * *")
    assert server.most_active == 1


def test_a_refused_change_leaves_the_old_schedule_running(server: KfpServer, service: PipelineService) -> None:
    uploaded = service.upload(RETRAINING)
    first = service.schedule(uploaded, SUNDAYS, PARAMETERS, "nightly", "weekly")
    server.troubles = [Trouble("POST", "/recurringruns$", 403)]
    with pytest.raises(ServiceError):
        service.schedule(uploaded, parse_cron("0 3 * * *"), PARAMETERS, "nightly", "weekly")
    (entry,) = server.recurring.values()
    assert entry["recurring_run_id"] == first.recurring_run_id
    assert entry["mode"] == "ENABLE"


def test_a_schedule_is_removed_by_name(server: KfpServer, service: PipelineService) -> None:
    uploaded = service.upload(RETRAINING)
    service.schedule(uploaded, SUNDAYS, PARAMETERS, "nightly", "weekly")
    assert service.unschedule("nightly", "weekly") == 1
    assert not server.recurring
    assert service.unschedule("nightly", "weekly") == 0


@pytest.mark.parametrize(
    ("status", "problem", "fix"),
    [
        (401, "does not know who asks", "token"),
        (403, "does not allow that", "kubeflow-pipelines-edit in namespace team-a"),
        (404, "no such thing", "--host"),
        (409, "one already", "another name"),
        (500, "it failed (HTTP 500)", "ml-pipeline"),
    ],
)
def test_a_refusal_is_told_in_plain_words(server: KfpServer, status: int, problem: str, fix: str) -> None:
    service = connect(server, namespace="team-a")
    server.troubles = [Trouble("GET", "/pipelines$", status, times=99)]
    with pytest.raises(ServiceError) as caught:
        service.upload(TRAINING)
    assert caught.value.status == status
    assert problem in caught.value.problem
    assert "as the test asked" in caught.value.problem
    assert fix in caught.value.fix
    asked = sum(request.path.endswith("/pipelines") for request in server.requests)
    assert asked == (3 if status == 500 else 1)


def test_a_conflict_with_someone_quicker_is_no_error(server: KfpServer, service: PipelineService) -> None:
    server.troubles = [Trouble("POST", "/pipelines$", 409, after=True)]
    assert service.upload(TRAINING).new
    assert len(server.pipelines) == 1


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_requests_are_tried_again_when_the_server_stumbles(
    server: KfpServer, service: PipelineService, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    server.troubles = [Trouble(method, "", status, times=2) for method in ("GET", "POST")]
    with caplog.at_level(logging.WARNING):
        service.upload(TRAINING)
    assert "Trying again" in caplog.text
    assert len(server.versions) == 1


@pytest.mark.parametrize(
    ("path", "table"), [("/runs$", "runs"), ("/recurringruns$", "recurring"), ("upload_version$", "versions")]
)
def test_nothing_is_made_twice_when_only_the_answer_was_lost(
    server: KfpServer, service: PipelineService, path: str, table: str
) -> None:
    server.troubles = [Trouble("POST", path, 502, after=True)]
    uploaded = service.upload(TRAINING)
    service.run(uploaded, PARAMETERS, "nightly")
    service.schedule(uploaded, SUNDAYS, PARAMETERS, "nightly", "weekly")
    assert server.troubles[0].times == 0
    assert len(getattr(server, table)) == 1


def test_a_token_is_sent_and_a_wrong_one_is_refused(server: KfpServer) -> None:
    server.token = "secret-token"
    connect(server, token="secret-token").upload(TRAINING)
    assert {request.authorization for request in server.requests} == {"Bearer secret-token"}
    with pytest.raises(ServiceError, match="HTTP 401") as caught:
        connect(server, token="stale-token")
    assert "stale-token" not in str(caught.value)


def test_a_namespace_reaches_every_list_and_every_new_thing(server: KfpServer) -> None:
    service = connect(server, namespace="team-a")
    uploaded = service.upload(TRAINING)
    service.run(uploaded, PARAMETERS, "nightly")
    assert [pipeline["namespace"] for pipeline in server.pipelines.values()] == ["team-a"]
    assert [experiment["namespace"] for experiment in server.experiments.values()] == ["team-a"]
    for request in server.requests:
        if request.method == "GET" and request.path.endswith(("/pipelines", "/experiments")):
            assert request.query["namespace"] == "team-a"


def test_a_kubeconfig_gives_address_and_token(
    server: KfpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.token = "of-the-kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": server.address}}],
        "users": [{"name": "u", "user": {"token": "of-the-kubeconfig"}}],
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
    }
    file = tmp_path / "kubeconfig"
    file.write_text(yaml.safe_dump(config))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    PipelineService(Connection(attempts=1)).upload(TRAINING)
    assert server.proxied == len(server.requests) > 2
    assert {request.authorization for request in server.requests} == {"Bearer of-the-kubeconfig"}
    assert len(server.versions) == 1
    file.unlink()
    with pytest.raises(InputError, match="neither a host nor a usable kubeconfig"):
        PipelineService(Connection())


def test_nobody_listening_is_told_within_seconds() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServiceError, match="does not answer") as caught:
        PipelineService(Connection(host=f"http://127.0.0.1:{port}", attempts=2, first_wait_s=0.01))
    assert "--host" in caught.value.fix


def test_logs_of_a_run_with_state_and_error(server: KfpServer, service: PipelineService) -> None:
    server.runs["r1"] = {
        "run_id": "r1",
        "display_name": "one",
        "run_details": {
            "task_details": [
                {"display_name": "root", "state": "FAILED"},
                {
                    "display_name": "train",
                    "state": "FAILED",
                    "start_time": "2026-01-01T00:00:02Z",
                    "error": {"code": 1, "message": "exit status 1"},
                    "child_tasks": [{"pod_name": "x-system-container-impl-2"}],
                },
                {"display_name": "train-driver", "child_tasks": [{"pod_name": "x-system-container-driver-2"}]},
                {
                    "display_name": "ingest",
                    "state": "SUCCEEDED",
                    "start_time": "2026-01-01T00:00:01Z",
                    "child_tasks": [{"pod_name": "x-system-container-impl-1"}],
                },
            ]
        },
    }
    server.logs["x-system-container-impl-2"] = "epoch 1\nerror: no crops\n"
    ingest, train = service.logs("r1")
    assert (ingest.step, ingest.state) == ("ingest", "SUCCEEDED")
    assert "kubectl logs x-system-container-impl-1 -c main" in ingest.text
    assert (train.step, train.state, train.error) == ("train", "FAILED", "exit status 1")
    assert "error: no crops" in train.text
    assert [entry.step for entry in service.logs("r1", "train")] == ["train"]
    with pytest.raises(ServiceError, match="404"):
        service.logs("r2")


def test_parameters_are_checked_before_anything_is_sent() -> None:
    with pytest.raises(InputError) as caught:
        check_parameters(TRAINING, {"epochs": "many", "speed": 1, "sources": ["x"], "target_fpr": True})
    text = str(caught.value)
    assert "epochs: 'many' is not a whole number" in text
    assert "speed: unknown" in text
    assert "tracking_uri: missing" in text
    assert "target_fpr: True is not a number" in text
    assert check_parameters(TRAINING, {**PARAMETERS, "target_fpr": 1}) == {**PARAMETERS, "target_fpr": 1}


def invoke(server: KfpServer, *arguments: str) -> str:
    result = CliRunner().invoke(
        cli, ["pipeline", *arguments, "--host", server.address], catch_exceptions=False, standalone_mode=False
    )
    return result.output


def test_the_command_uploads_runs_schedules_and_lists(server: KfpServer, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text(yaml.safe_dump(PARAMETERS))
    assert "unmask-training version" in invoke(server, "upload")
    assert "was there already" in invoke(server, "upload")
    out = invoke(server, "run", "--params", str(params), "--preset", "smoke", "--param", "epochs=2")
    assert f"{server.address}/#/runs/details/" in out
    (run,) = server.runs.values()
    assert run["runtime_config"]["parameters"]["detectors"] == ["meso4"]
    assert run["runtime_config"]["parameters"]["epochs"] == 2
    schedule = ["schedule", "--pipeline", "retraining", "--params", str(params), "--cron", "30 1 * * mon-fri"]
    out = invoke(server, *schedule)
    assert "created" in out
    assert "at 01:30 on weekdays" in out
    assert "next, in UTC" in out
    assert "unchanged" in invoke(server, *schedule)
    out = invoke(server, "list")
    assert "unmask-retraining  enabled  at 01:30 on weekdays" in out
    assert "PENDING" in out
    assert "Removed" in invoke(server, "unschedule", "--name", "unmask-retraining")
    # What kfp prints by itself stays away.
    assert "Experiment details" not in out


def test_the_command_compiles_for_a_cluster(tmp_path: Path) -> None:
    cluster = Path(compiling.__file__).with_name("cluster.yaml")
    result = CliRunner().invoke(
        cli, ["pipeline", "compile", "--cluster", str(cluster), "--out", str(tmp_path)], catch_exceptions=False
    )
    assert result.exit_code == 0
    images = json.dumps(list(yaml.safe_load_all((tmp_path / "training.yaml").read_text())))
    assert "registry.example/unmask/training:" in images


@pytest.mark.parametrize(
    ("text", "expression", "words"),
    [
        ("0 2 * * 0", "0 0 2 * * 0", "at 02:00 on Sunday"),
        ("0 0 2 * * 0", "0 0 2 * * 0", "at 02:00 on Sunday"),
        ("30 1 * * MON-FRI", "0 30 1 * * MON-FRI", "at 01:30 on weekdays"),
        ("0 */6 * * *", "0 0 */6 * * *", "at 00:00, 06:00, 12:00 and 18:00 every day"),
        ("15 * * * *", "0 15 * * * *", "at minute 15 of every hour"),
        ("0 4 1,15 * *", "0 0 4 1,15 * *", "at 04:00 on day 1 and 15 of the month every"),
        ("0 4 1 jan,jul *", "0 0 4 1 jan,jul *", "at 04:00 on day 1 of the month in January and July"),
        ("0 4 1 * 7", "0 0 4 1 * 0", "at 04:00 on day 1 of the month or on Sunday"),
        ("@daily", "0 0 0 * * *", "at 00:00 every day"),
    ],
)
def test_cron_in_words(text: str, expression: str, words: str) -> None:
    schedule = parse_cron(text)
    assert schedule.expression == expression
    assert str(schedule) == words.removesuffix(" every")


@pytest.mark.parametrize(
    "text",
    ["", "0 2 * *", "60 2 * * *", "0 24 * * *", "0 2 0 * *", "0 2 30 2 *", "0 2 * * 8", "5-1 * * * *", "*/0 * * * *",
     "* 0 2 * * *", "0 2 * * someday", "0 2 * * * * *"],
)  # fmt: skip
def test_a_wrong_cron_expression_is_told(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_cron(text)
    assert caught.value.fix


def test_next_times_are_those_of_a_slow_search_through_all_minutes() -> None:
    start = datetime(2027, 12, 30, 23, 59, 30, tzinfo=UTC)
    assert [f"{t:%m-%d %H:%M}" for t in parse_cron("0 2 * * 0").next_times(start)] == [
        "01-02 02:00",
        "01-09 02:00",
        "01-16 02:00",
    ]
    assert [f"{t:%Y-%m-%d}" for t in parse_cron("0 0 29 2 *").next_times(start, 2)] == ["2028-02-29", "2032-02-29"]
    assert parse_cron("0 0 0 * * *").next_times(start, 1) == [datetime(2027, 12, 31, tzinfo=UTC)]
