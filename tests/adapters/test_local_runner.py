"""The local runner, with small pipelines of real container components whose steps are real processes."""

import builtins
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kfp import compiler, dsl, local
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from unmask.adapters import local_runner
from unmask.adapters.local_runner import StepError, last_words, run_compiled, run_training, with_settings
from unmask.errors import InputError, UnmaskError

STEP = textwrap.dedent(
    """
    import json, os, subprocess, sys, time
    from pathlib import Path

    name, out, behaviour, note, executor_input = sys.argv[1:6]
    here = Path(__file__).parent
    with (here / "ran.txt").open("a") as ran:
        ran.write(name + "\\n")
    print(f"{name} speaks")
    print(f"waits {os.environ.get('OMP_WAIT_POLICY')}")
    print(f"{name} warns", file=sys.stderr)
    mode, _, who = behaviour.partition(":")
    if behaviour == "fail:a" and name == "b":
        (here / "b-began").touch()
        time.sleep(300)
    if who in ("", name):
        if behaviour == "fail:a":
            while not (here / "b-began").exists():
                time.sleep(0.01)
        if mode == "fail" and not (here / "mended").exists():
            raise ValueError("the reel is torn")
        if mode == "mute":
            sys.exit(0)
        if mode in ("sleep", "die"):
            worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
            (here / f"worker-{name}.json").write_text(json.dumps(worker.pid))
            if mode == "sleep":
                time.sleep(300)
            os.kill(os.getpid(), 9)
    task = json.loads(executor_input)
    inputs = task.get("inputs", {}).get("artifacts", {})
    lines = [Path(made["uri"]).read_text() for key in sorted(inputs) for made in inputs[key]["artifacts"]]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    for output in task["outputs"]["artifacts"].values():
        Path(output["artifacts"][0]["uri"]).write_text(f"{name}({','.join(lines)}){note}")
    message = {"parameterValues": {"version": f"{name}-1"}, "artifacts": task["outputs"]["artifacts"]}
    if name != "first":
        del message["parameterValues"]
    Path(task["outputs"]["outputFile"]).write_text(json.dumps(message))
    """
)
IMAGE = "nowhere/never-pulled:1"


@pytest.fixture(autouse=True)
def unchanged_code(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no one who edits the package while the tests run change what they see."""
    if "hash_of_the_code" not in request.node.name:
        monkeypatch.setattr(local_runner, "_hash_of_code", lambda: "as it was")


@pytest.fixture
def step(tmp_path: Path) -> Path:
    file = tmp_path / "step.py"
    file.write_text(STEP, encoding="utf-8")
    return file


@pytest.fixture
def compiled(tmp_path: Path, step: Path) -> Path:
    """first -> [branch a, branch b] -> last, with retries that a cluster would make."""
    script, executor_input = str(step), dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER

    @dsl.container_component
    def first(
        behaviour: str,
        note: str,
        out: Output[Dataset],
        metrics: Output[Metrics],
        version: dsl.OutputPath(str),  # type: ignore[valid-type]
    ):  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(
            image=IMAGE, command=["python", script], args=["first", out.path, behaviour, note, executor_input]
        )

    @dsl.container_component
    def branch(item: str, behaviour: str, data: Input[Dataset], version: str, made: Output[Model]):  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(
            image=IMAGE, command=["python", script], args=[item, made.path, behaviour, "", executor_input]
        )

    @dsl.container_component
    def last(behaviour: str, parts: Input[list[Model]], result: Output[Dataset]):  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(
            image=IMAGE, command=["python", script], args=["last", result.path, behaviour, "", executor_input]
        )

    @dsl.pipeline(name="little")
    def little(behaviour: str, items: list = ["a", "b"], note: str = ""):  # type: ignore[no-untyped-def, type-arg] # noqa: B006
        one = first(behaviour=behaviour, note=note).set_retry(3, backoff_duration="60s")
        with dsl.ParallelFor(items) as item:
            two = branch(
                item=item, behaviour=behaviour, data=one.outputs["out"], version=one.outputs["version"]
            ).set_retry(3, backoff_duration="60s")
        last(behaviour=behaviour, parts=dsl.Collected(two.outputs["made"])).set_memory_limit("1G")

    file = tmp_path / "little.yaml"
    compiler.Compiler().compile(little, str(file))
    return file


@pytest.fixture
def drive(tmp_path: Path, compiled: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    """Start a run in a process of its own, as `make run` does."""
    driver = textwrap.dedent(
        f"""
        import logging, sys
        from pathlib import Path
        from unmask.adapters.local_runner import run_compiled
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
        run_compiled(Path({str(compiled)!r}), {{"behaviour": sys.argv[1]}}, Path({str(tmp_path / "work")!r}))
        """
    )
    started: list[subprocess.Popen[str]] = []

    def start(behaviour: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", driver, behaviour], stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ran(tmp_path: Path) -> list[str]:
    file = tmp_path / "ran.txt"
    return sorted(file.read_text(encoding="utf-8").split()) if file.exists() else []


def wait_for(condition: Callable[[], Any], seconds: float = 120) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def worker_pids(tmp_path: Path, process: subprocess.Popen[str] | None, *names: str) -> list[int]:
    """Wait until the steps run; a driver that ended before shows why."""
    files = [tmp_path / f"worker-{name}.json" for name in names]

    def running() -> bool:
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[1])
        return all(file.exists() and file.read_text() for file in files)

    wait_for(running)
    return [json.loads(file.read_text()) for file in files]


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    stat = Path(f"/proc/{pid}/stat")  # killed, but nobody has collected it yet
    return stat.exists() and stat.read_text().rsplit(")", 1)[1].split()[0] == "Z"


def test_the_compiled_graph_runs_and_lists_reach_the_step(
    compiled: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    handlers, printing = logging.getLogger().handlers[:], builtins.print
    with caplog.at_level(logging.INFO):
        result = run_compiled(compiled, {"behaviour": "ok", "items": ["a", "b", "c"]}, tmp_path / "work")
    text = result.outputs["result"].read_text(encoding="utf-8")
    assert text == "last(a(first()),b(first()),c(first()))"
    assert result.outputs["branch b/made"].read_text(encoding="utf-8") == "b(first())"
    assert result.outputs["first/out"] == result.outputs["out"]
    assert "made" not in result.outputs
    assert result.outputs["metrics"] == result.outputs["first/metrics"]
    assert result.cached == dict.fromkeys(["first", "branch a", "branch b", "branch c", "last"], False)
    lines = [record.getMessage() for record in caplog.records]
    assert "[first] first speaks" in lines
    assert "[branch c] c warns" in lines
    assert "[branch c] waits PASSIVE" in lines
    assert "[last] waits None" in lines
    assert all(line.startswith("[") for line in lines), "kfp's own log is not shown"
    assert capfd.readouterr().out == ""
    assert (logging.getLogger().handlers[:], builtins.print) == (handlers, printing)


def test_what_a_person_types_into_a_parameter_arrives_unchanged(compiled: Path, tmp_path: Path) -> None:
    note = 'train:\n  note: "it\'s 100 % {braces} $HOME `x` \\\\ ü"\n'
    result = run_compiled(compiled, {"behaviour": "ok", "note": note}, tmp_path / "work")
    assert result.outputs["out"].read_text(encoding="utf-8") == f"first(){note}"


def test_a_second_run_uses_what_is_finished(compiled: Path, tmp_path: Path) -> None:
    first = run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work")
    second = run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work")
    assert ran(tmp_path) == ["a", "b", "first", "last"]
    assert set(second.cached.values()) == {True}
    assert second.outputs == first.outputs
    run_compiled(compiled, {"behaviour": "ok", "items": ["a", "z"]}, tmp_path / "work")
    assert ran(tmp_path) == ["a", "b", "first", "last", "last", "z"]


def test_a_result_whose_file_is_gone_is_made_again(compiled: Path, tmp_path: Path) -> None:
    first = run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work")
    first.outputs["result"].unlink()
    second = run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work")
    assert [step for step, cached in second.cached.items() if not cached] == ["last"]


def test_edited_code_is_not_answered_from_the_cache(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work")
    monkeypatch.setattr(local_runner, "_hash_of_code", lambda: "edited")
    assert set(run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work").cached.values()) == {False}


def test_the_hash_of_the_code_sees_every_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "package" / "adapters"
    package.mkdir(parents=True)
    monkeypatch.setattr(local_runner, "__file__", str(package / "local_runner.py"))
    (tmp_path / "package" / "page.html").write_text("a", encoding="utf-8")
    before = local_runner._hash_of_code()
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert local_runner._hash_of_code() == before
    (tmp_path / "package" / "page.html").write_text("b", encoding="utf-8")
    assert local_runner._hash_of_code() != before


def test_a_failing_step_speaks_last_and_the_next_run_resumes(compiled: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(StepError) as caught:
        run_compiled(compiled, {"behaviour": "fail:last"}, tmp_path / "work")
    assert time.monotonic() - begin < 30, "the retries of the cluster are not made here"
    error = caught.value
    assert (error.step, error.exit_status) == ("last", 1)
    assert error.last_words.startswith("Traceback (most recent call last)")
    assert error.last_words.endswith("ValueError: the reel is torn")
    assert "'last' failed with exit status 1" in str(error)
    assert "last speaks" in error.log.read_text(encoding="utf-8")
    assert ran(tmp_path) == ["a", "b", "first", "last"]
    (tmp_path / "mended").touch()
    resumed = run_compiled(compiled, {"behaviour": "fail:last"}, tmp_path / "work")
    assert ran(tmp_path) == ["a", "b", "first", "last", "last"]
    assert [step for step, cached in resumed.cached.items() if not cached] == ["last"]


def test_when_one_of_two_steps_fails_the_other_is_stopped(compiled: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(StepError) as caught:
        run_compiled(compiled, {"behaviour": "fail:a"}, tmp_path / "work")
    assert caught.value.step == "branch a"
    assert time.monotonic() - begin < 60, "the sleeping sibling was not waited for"
    assert "last" not in ran(tmp_path)


def test_a_step_that_reports_nothing_is_an_error_now_and_later(compiled: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(StepError, match="no outputs metrics, out, version"):
            run_compiled(compiled, {"behaviour": "mute:first"}, tmp_path / "work")
    assert ran(tmp_path) == ["first", "first"]


def test_a_killed_step_with_living_workers_ends_the_run(compiled: Path, tmp_path: Path) -> None:
    with pytest.raises(StepError, match="killed by SIGKILL"):
        run_compiled(compiled, {"behaviour": "die:first"}, tmp_path / "work")
    (worker,) = worker_pids(tmp_path, None, "first")
    wait_for(lambda: gone(worker))


def test_while_a_run_lasts_its_folder_is_taken_and_sigterm_leaves_no_process(
    drive: Callable[[str], subprocess.Popen[str]], tmp_path: Path, compiled: Path
) -> None:
    process = drive("sleep:first")
    (worker,) = worker_pids(tmp_path, process, "first")
    with pytest.raises(InputError, match=f"process {process.pid}"):
        run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work")
    process.send_signal(signal.SIGTERM)
    _, text = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Stopping on SIGTERM" in text
    wait_for(lambda: gone(worker))


def test_ctrl_c_stops_steps_that_run_side_by_side(
    drive: Callable[[str], subprocess.Popen[str]], tmp_path: Path, step: Path
) -> None:
    step.write_text(STEP.replace('who in ("", name)', 'name in "ab"'), encoding="utf-8")
    process = drive("sleep:both")
    workers = worker_pids(tmp_path, process, "a", "b")
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGINT
    assert "KeyboardInterrupt" in text
    for worker in workers:
        wait_for(lambda pid=worker: gone(pid))


def test_a_runner_killed_without_a_word_takes_its_steps_along(
    drive: Callable[[str], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = drive("sleep:first")
    (worker,) = worker_pids(tmp_path, process, "first")
    process.kill()
    process.communicate(timeout=120)
    wait_for(lambda: gone(worker))


def test_it_also_runs_outside_the_main_thread(compiled: Path, tmp_path: Path) -> None:
    results: list[Any] = []
    thread = threading.Thread(
        target=lambda: results.append(run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work"))
    )
    thread.start()
    thread.join()
    assert results[0].outputs["result"].exists()


def test_a_missing_parameter_or_program_is_a_plain_error(compiled: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="behaviour"):
        run_compiled(compiled, {}, tmp_path / "work")
    with pytest.raises(InputError, match="tracking_uri"):
        run_training({"sources": ["x"]}, tmp_path / "work")
    text = compiled.read_text(encoding="utf-8").replace("- python\n", "- no-such-program\n")
    compiled.write_text(text, encoding="utf-8")
    with pytest.raises(StepError, match="no program 'no-such-program'"):
        run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work")


def test_a_setting_is_not_lost_to_the_default_of_the_pipeline_parameter() -> None:
    text = "seed: 7\ntrain: {epochs: 3}\nfusion: {target_fpr: 0.2, operating_point: youden}\ndetectors: [meso4]\n"
    filled = with_settings({"config": text, "seed": 8})
    assert filled.pop("config") == text
    assert filled == {
        "detectors": ["meso4"],
        "epochs": 3,
        "target_fpr": 0.2,
        "operating_point": "youden",
        "registered_model": "unmask-detector",
        "seed": 8,
    }


def test_the_internals_of_kfp_are_where_they_were() -> None:
    local_runner.check_kfp()


@pytest.mark.parametrize(
    ("module", "name"),
    [("subprocess_task_handler", "SubprocessTaskHandler"), ("logging_utils", "indented_print")],
)
def test_moved_internals_of_kfp_are_noticed_before_anything_runs(
    module: str, name: str, compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getattr(local, module), name, lambda something_else: None)
    with pytest.raises(UnmaskError, match=f"has moved kfp.local.{module}:{name}"):
        run_compiled(compiled, {"behaviour": "ok"}, tmp_path / "work")
    monkeypatch.delattr(getattr(local, module), name)
    with pytest.raises(UnmaskError, match="found None"):
        local_runner.check_kfp()
    assert ran(tmp_path) == []


def test_last_words() -> None:
    assert last_words([]) == "(nothing)"
    assert last_words(["epoch 1", "error: no rows.", "  fix: add some."]) == "error: no rows.\n  fix: add some."
    chained = [
        "noise",
        "Traceback (most recent call last):",
        "KeyError: 'a'",
        "",
        "The above exception was the direct cause of the following exception:",
        "",
        "Traceback (most recent call last):",
        "ValueError: b",
    ]
    assert last_words(chained) == "\n".join(chained[1:])
    assert last_words([str(i) for i in range(50)]) == "\n".join(str(i) for i in range(30, 50))
