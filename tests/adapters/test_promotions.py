"""The champion: who may become one, how one goes back, what is remembered, and two promotions at once."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

mlflow = pytest.importorskip("mlflow")

from unmask.adapters.tracking import connected, run_promote  # noqa: E402
from unmask.adapters.tracking_history import Action, Move, champions_behind, previous_champion  # noqa: E402
from unmask.adapters.tracking_lock import promotion_lock  # noqa: E402
from unmask.adapters.tracking_registry import list_versions, promote_version, rollback  # noqa: E402
from unmask.cli import cli  # noqa: E402
from unmask.config import PromoteConfig  # noqa: E402
from unmask.deployment.runtime import Bundle  # noqa: E402
from unmask.errors import InputError  # noqa: E402
from unmask.schemas import PromotionDecision  # noqa: E402

MODEL = "unmask-detector"
AUTOMATIC = PromoteConfig(mode="automatic")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, release_parts: ModuleType) -> Any:
    made = release_parts.write_parts(tmp_path_factory.mktemp("release"))
    made.write_bundle()
    return made


def promote(parts: Any, uri: str, out: Path, config: PromoteConfig) -> PromotionDecision:
    run_promote(**parts.inputs(), tracking_uri=uri, out=out, config=config)
    return PromotionDecision.load(out / "decision.json")


# --- one champion after the other ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, parts: Any, release_parts: ModuleType) -> tuple[str, list[Any]]:
    """Three versions, promoted one after the other in automatic mode: good, as good, worse."""
    root = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    good = parts
    equal = release_parts.variant(parts, root / "equal", "the same again")
    worse = release_parts.variant(parts, root / "worse", "worse", strength=1.2)
    each = zip(("first", "equal", "worse"), (good, equal, worse), strict=True)
    return uri, [promote(release, uri, root / f"decision-{name}", AUTOMATIC) for name, release in each]


def champion(uri: str) -> str:
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    return str(client.get_registered_model(MODEL).aliases.get("champion", ""))


def set_by_hand(uri: str, version: str) -> None:
    """Move the alias as MLflow's page does."""
    mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri).set_registered_model_alias(MODEL, "champion", version)


def test_only_what_is_not_worse_becomes_champion(registry: tuple[str, list[PromotionDecision]]) -> None:
    first, equal, worse = registry[1]
    assert (first.version, first.alias, first.champion, first.ready) == ("1", "champion", None, True)
    assert (equal.version, equal.alias, equal.champion, equal.ready) == ("2", "champion", "1", True)
    assert (worse.version, worse.alias, worse.champion, worse.ready) == ("3", "challenger", "2", False)
    failed = {line.name for line in worse.criteria if line.verdict == "failed"}
    assert {"ranking", "false alarms"} <= failed
    compared = next(line for line in worse.criteria if line.name == "size of the comparison")
    assert compared.value == "160 samples; 80 groups with reals, 80 with fakes"


def test_the_decision_is_attached_and_readable(registry: tuple[str, list[PromotionDecision]], tmp_path: Path) -> None:
    uri, decisions = registry
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version(MODEL, "3")
    assert version.tags["unmask.gate"] == "on trial"
    assert version.tags["unmask.decided_against"] == "2"
    assert "Version 2 stays champion; not passed: ranking" in version.tags["unmask.decision"]
    page = Path(client.download_artifacts(version.run_id, "decision.html", str(tmp_path))).read_text()
    assert "It ranks worse than the champion." in page
    markdown = Path(client.download_artifacts(version.run_id, "decision.md", str(tmp_path))).read_text()
    assert markdown.startswith("# unmask-detector: Version 3: on trial, must not replace the champion")
    assert decisions[2].summary in markdown


def test_back_and_forth(
    registry: tuple[str, list[PromotionDecision]], parts: Any, release_parts: ModuleType, tmp_path: Path
) -> None:
    """One story, because each step stands on the one before."""

    def promote_again(uri: str) -> PromotionDecision:
        same = release_parts.variant(parts, tmp_path / "equal", "the same again")
        return promote(same, uri, tmp_path / "again", AUTOMATIC)

    uri, _ = registry
    config = PromoteConfig()
    assert champion(uri) == "2"
    back = rollback(uri, config, why="too many false alarms on Monday", by="Ada")
    assert (back.before, back.after, back.by, champion(uri)) == ("2", "1", "Ada", "1")
    with pytest.raises(InputError, match="version 1 is the first champion"):
        rollback(uri, config, why="")
    # The pipeline runs again with the same release: that does not undo the rollback.
    again = promote_again(uri)
    assert (again.version, again.ready, again.alias, champion(uri)) == ("2", True, "challenger", "1")
    assert "only a person makes it champion again" in again.summary
    # What the gate has passed against this champion may come back by a word.
    move = promote_version("2", uri, config, why="mended", by="Ada")
    assert move is not None
    assert champion(uri) == "2"
    assert promote_version("2", uri, config, why="again") is None
    # What it has not passed takes a reason.
    with pytest.raises(InputError, match=r"did not pass version 3: .*--overrule"):
        promote_version("3", uri, config, why="")
    with pytest.raises(InputError, match="needs a reason"):
        promote_version("3", uri, config, why="", overrule=True)
    assert champion(uri) == "2"
    # A person moves the alias in the page: it is followed, written down, and there is a way back from it.
    set_by_hand(uri, "3")
    listed, moves = list_versions(uri, config)
    assert [(entry.version, entry.aliases) for entry in listed] == [
        ("3", ("champion",)),
        ("2", ()),
        ("1", ()),
    ]
    assert (moves[-1].action, moves[-1].before, moves[-1].after) == ("by hand", "2", "3")
    assert rollback(uri, config, why="that was a mistake").after == "2"
    # Also when the rollback is the first to notice.
    set_by_hand(uri, "3")
    assert rollback(uri, config, why="").after == "2"
    overruled = promote_version("3", uri, config, why="the customer insists", by="Bo", overrule=True)
    assert overruled is not None
    assert overruled.why == "against the gate: the customer insists"
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    version = client.get_model_version(MODEL, "3")
    assert version.tags["unmask.champion.by"] == "Bo"
    assert version.tags["unmask.champion.from"] == "2"
    # Removing the alias by hand is a move too; a rollback restores the last champion.
    client.delete_registered_model_alias(MODEL, "champion")
    assert rollback(uri, config, why="").after == "3"
    assert [move.action for move in list_versions(uri, config)[1]] == [
        "promote", "promote", "rollback", "promote", "by hand", "rollback", "by hand", "rollback", "promote",
        "removed by hand", "rollback",
    ]  # fmt: skip
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", move.at) for move in list_versions(uri, config)[1])


def test_the_commands(registry: tuple[str, list[PromotionDecision]], tmp_path: Path) -> None:
    uri = f"sqlite:///{shutil.copyfile(registry[0].removeprefix('sqlite:///'), tmp_path / 'copy.db')}"
    set_by_hand(uri, "2")
    run = CliRunner().invoke
    said = run(cli, ["history", "--tracking-uri", uri])
    assert said.exit_code == 0, said.output
    assert "gate: on trial" in said.output
    assert "by hand by unknown" in said.output
    said = run(cli, ["rollback", "--tracking-uri", uri, "--why", "why not", "--by", "Cy"])
    assert said.exit_code == 0, said.output
    assert f"champion is version {champion(uri)} now (before: version 2)" in said.output
    said = run(cli, ["promote", "--version", "2", "--tracking-uri", uri, "--why", "back", "--overrule"])
    assert said.exit_code == 0, said.output
    assert champion(uri) == "2"
    assert "already" in run(cli, ["promote", "--version", "2", "--tracking-uri", uri]).output
    refused = run(cli, ["promote", "--tracking-uri", uri, "--trained", str(tmp_path)])
    assert refused.exit_code == 2
    assert "--bundle" in refused.output
    assert "--version N" in refused.output
    nothing = run(cli, ["rollback", "--tracking-uri", uri, "--model", "nobody"])
    assert isinstance(nothing.exception, InputError)


def moves(*steps: tuple[Action, str]) -> list[Move]:
    before, made = "", []
    for action, after in steps:
        made.append(Move("", "", action, before, after, ""))
        before = after
    return made


@pytest.mark.parametrize(
    ("steps", "pile", "previous"),
    [
        ([], [], None),
        ([("promote", "1")], ["1"], None),
        ([("promote", "1"), ("promote", "2"), ("promote", "3")], ["1", "2", "3"], "2"),
        ([("promote", "1"), ("promote", "2"), ("rollback", "1")], ["1"], None),
        ([("promote", "1"), ("promote", "2"), ("promote", "3"), ("rollback", "2")], ["1", "2"], "1"),
        ([("promote", "1"), ("promote", "2"), ("by hand", "1")], ["1"], None),
        ([("promote", "1"), ("by hand", "2"), ("by hand", "3")], ["1", "2", "3"], "2"),
        ([("promote", "1"), ("promote", "2"), ("promote", "1")], ["1", "2", "1"], "2"),
        ([("promote", "1"), ("promote", "2"), ("removed by hand", "")], ["1", "2"], "2"),
    ],
)
def test_where_a_rollback_leads(steps: list[tuple[Action, str]], pile: list[str], previous: str | None) -> None:
    history = moves(*steps)
    assert champions_behind(history) == pile
    assert previous_champion(history, ["1", "2", "3"]) == previous


def test_a_deleted_version_is_passed_over() -> None:
    history = moves(("promote", "1"), ("promote", "2"), ("promote", "3"))
    assert previous_champion(history, ["1", "3"]) == "1"
    assert previous_champion(history, ["3"]) is None


# --- the lock --------------------------------------------------------------------------------------------------------


def test_a_living_holder_is_waited_for_and_a_dead_one_is_not(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with connected(uri) as server:
        client = server.client
        with promotion_lock(client, "m", 5, beat_s=0.05):
            # The holder gives signs, so patience of 0.6 s never sees it dead.
            start = time.monotonic()
            with (
                pytest.raises(InputError, match="Another promotion has held"),
                promotion_lock(client, "m", 1.5, dead_after_s=0.6),
            ):
                pass
            assert time.monotonic() - start >= 1.5
        assert list(client.search_registered_models()) == []
        # A holder that was killed: its lock is there and never changes.
        client.create_registered_model("m.promotion-lock", tags={"unmask.lock.owner": "dead", "unmask.lock.beat": "7"})
        with promotion_lock(client, "m", 20, dead_after_s=0.6) as lock:
            lock.check()
            client.delete_registered_model("m.promotion-lock")
            with pytest.raises(InputError, match="was removed"):
                lock.check()
        assert list(client.search_registered_models()) == []


def test_many_at_once_hold_it_one_by_one(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    inside, most, done = 0, 0, 0
    guard = threading.Lock()
    with connected(uri) as server:

        def work() -> None:
            nonlocal inside, most, done
            with promotion_lock(server.client, "m", 60):
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.05)
                with guard:
                    inside -= 1
                    done += 1

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (most, done) == (1, 4)


# --- a real server ---------------------------------------------------------------------------------------------------


def start_promotion(release: Any, uri: str, out: Path, model: str) -> subprocess.Popen[str]:
    folders = {key: value for key, value in release.inputs().items() if key != "trained"}
    command = [sys.executable, "-m", "unmask.cli", "promote", "--tracking-uri", uri, "--out", str(out)]
    command += [text for name, folder in folders.items() for text in (f"--{name}", str(folder))]
    command += [text for folder in release.trained for text in ("--trained", str(folder))]
    command += ["--set", f"promote.registered_model={model}", "--set", f"promote.experiment={model}"]
    command += ["--set", "promote.mode=automatic"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=out.parent
    )


@pytest.mark.slow
def test_two_processes_promote_at_once(server: str, parts: Any, release_parts: ModuleType, tmp_path: Path) -> None:
    """Twice the same release, and another one: two versions, one champion, a history without a gap."""
    other = release_parts.variant(parts, tmp_path / "other", "another one")
    model = "at-once"
    running = [
        start_promotion(release, server, tmp_path / f"out-{index}", model)
        for index, release in enumerate((parts, parts, other))
    ]
    outputs = [process.communicate(timeout=280)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0, 0], outputs
    decisions = [PromotionDecision.load(tmp_path / f"out-{index}" / "decision.json") for index in range(3)]
    assert decisions[0].version == decisions[1].version != decisions[2].version
    client = mlflow.MlflowClient(tracking_uri=server, registry_uri=server)
    versions = client.search_model_versions(f"name = '{model}'")
    assert sorted(int(version.version) for version in versions) == [1, 2]
    experiment = client.get_experiment_by_name(model).experiment_id
    runs = client.search_runs([experiment], "tags.`unmask.manifest_sha256` != ''")
    assert len(runs) == 2
    assert [found.name for found in client.search_registered_models() if "lock" in found.name] == []
    _, history = list_versions(server, PromoteConfig(registered_model=model))
    # The first to come became champion, the other one is as good and replaced it; the same release again did not
    # come back.
    assert [(move.action, move.before) for move in history] == [("promote", ""), ("promote", history[0].after)]
    assert {move.after for move in history} == {"1", "2"}
    assert str(client.get_model_version_by_alias(model, "champion").version) == history[-1].after


@pytest.mark.slow
def test_mlflow_serves_the_registered_version_like_our_runtime(
    server: str, parts: Any, release_parts: ModuleType, tmp_path: Path, port: int
) -> None:
    config = PromoteConfig(registered_model="served", experiment="served")
    decision = promote(parts, server, tmp_path / "out", config)
    clips = release_parts.write_clips(tmp_path / "clips")
    bundle = Bundle.load(parts.bundle)
    expected = [bundle.score(clip) for clip in clips]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", f"models:/served/{decision.version}"]
    command += ["--env-manager", "local", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # MLflow starts uvicorn by its name.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, "MLFLOW_TRACKING_URI": server, "OMP_NUM_THREADS": "1", "PATH": path}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True, env=environment
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/ping", process, tmp_path / "log")
            rows = [[base64.b64encode(clip.read_bytes()).decode(), clip.name] for clip in clips]
            body = json.dumps({"dataframe_split": {"columns": ["media", "name"], "data": rows}}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=120) as response:
                answers = json.load(response)["predictions"]
            by_path = json.dumps({"dataframe_split": {"columns": ["path"], "data": [[str(clips[0])]]}}).encode()
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", by_path, {"Content-Type": "application/json"}
            )
            with pytest.raises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(request, timeout=60)
            assert refused.value.code in (400, 500)
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended by itself; the log tells why
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    assert [answer["file"] for answer in answers] == [clip.name for clip in clips]
    # Bit for bit: JSON carries a float exactly.
    assert [answer["probability"] for answer in answers] == [verdict.probability for verdict in expected]
    assert [answer["verdict"] for answer in answers] == [verdict.verdict for verdict in expected]
    for answer, verdict in zip(answers, expected, strict=True):
        found = [detector["probability"] for detector in json.loads(answer["details"])["detectors"]]
        assert found == [detector.probability for detector in verdict.detectors]
    assert None not in [verdict.probability for verdict in expected]


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while True:
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < deadline, log.read_text()
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.5)
