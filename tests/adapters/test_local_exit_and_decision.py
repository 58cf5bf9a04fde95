"""The retraining pipeline's shape on one machine: a decision that leaves steps out, and a message whatever happens."""

import json
import textwrap
from pathlib import Path

import pytest
from kfp import compiler, dsl
from kfp.dsl import Dataset, Input, Model, Output

from unmask.adapters import local_runner
from unmask.adapters.local_runner import RunResult, StepError, run_compiled

STEP = textwrap.dedent(
    """
    import json, sys
    from pathlib import Path

    name, behaviour, executor_input = sys.argv[1:4]
    with (Path(__file__).parent / "ran.txt").open("a") as ran:
        ran.write(json.dumps([name, *sys.argv[4:]]) + "\\n")
    if behaviour == f"fail:{name}":
        sys.exit("error: the reel is torn")
    task = json.loads(executor_input)
    for output in task["outputs"].get("artifacts", {}).values():
        Path(output["artifacts"][0]["uri"]).parent.mkdir(parents=True, exist_ok=True)
        Path(output["artifacts"][0]["uri"]).write_text(name)
    values = {"verdict": "no" if behaviour == "skip" else "yes"} if name == "decide" else {}
    message = {"parameterValues": values, "artifacts": task["outputs"].get("artifacts", {})}
    out = Path(task["outputs"]["outputFile"])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(message))
    """
)


@pytest.fixture(autouse=True)
def unchanged_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_runner, "_hash_of_code", lambda: "as it was")


@pytest.fixture
def compiled(tmp_path: Path) -> Path:
    """decide -> (if yes: [learn a, learn b] -> join), and tell whatever happened."""
    script, executor_input = str(tmp_path / "step.py"), dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER
    Path(script).write_text(STEP, encoding="utf-8")
    command = ["python", script]

    @dsl.container_component
    def tell(status: dsl.PipelineTaskFinalStatus, behaviour: str):  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec("nowhere/image:1", command, ["tell", behaviour, executor_input, status])

    @dsl.container_component
    def decide(behaviour: str, data: Output[Dataset], verdict: dsl.OutputPath(str)):  # type: ignore[no-untyped-def, valid-type]
        return dsl.ContainerSpec("nowhere/image:1", command, ["decide", behaviour, executor_input])

    @dsl.container_component
    def learn(item: str, behaviour: str, data: Input[Dataset], made: Output[Model]):  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec("nowhere/image:1", command, [item, behaviour, executor_input])

    @dsl.container_component
    def join(behaviour: str, parts: Input[list[Model]], joined: Output[Model]):  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec("nowhere/image:1", command, ["join", behaviour, executor_input])

    @dsl.pipeline(name="watched")
    def watched(behaviour: str, items: list = ["a", "b"]):  # type: ignore[no-untyped-def, type-arg] # noqa: B006
        with dsl.ExitHandler(tell(behaviour=behaviour)):
            decided = decide(behaviour=behaviour)
            with dsl.If(decided.outputs["verdict"] == "yes"):
                with dsl.ParallelFor(items) as item:
                    learnt = learn(item=item, behaviour=behaviour, data=decided.outputs["data"])
                join(behaviour=behaviour, parts=dsl.Collected(learnt.outputs["made"]))

    file = tmp_path / "watched.yaml"
    compiler.Compiler().compile(watched, str(file))
    return file


def run(compiled: Path, behaviour: str) -> RunResult:
    return run_compiled(compiled, {"behaviour": behaviour}, compiled.parent / "work")


def ran(compiled: Path) -> list[list[str]]:
    return [json.loads(line) for line in (compiled.parent / "ran.txt").read_text().splitlines()]


def told(compiled: Path) -> str:
    (status,) = [arguments[0] for name, *arguments in ran(compiled) if name == "tell"]
    return str(json.loads(status)["state"])


def test_when_the_decision_says_yes_everything_runs(compiled: Path) -> None:
    result = run(compiled, "go")
    assert sorted(name for name, *_ in ran(compiled)) == ["a", "b", "decide", "join", "tell"]
    assert result.outputs["joined"].read_text() == "join"
    assert told(compiled) == "SUCCEEDED"
    assert ran(compiled)[-1][0] == "tell"


def test_when_the_decision_says_no_only_the_message_follows(compiled: Path) -> None:
    result = run(compiled, "skip")
    assert [name for name, *_ in ran(compiled)] == ["decide", "tell"]
    assert "joined" not in result.outputs
    assert told(compiled) == "SUCCEEDED"


@pytest.mark.parametrize("step", ["decide", "a", "join"])
def test_a_failure_is_told_before_it_is_raised(compiled: Path, step: str) -> None:
    with pytest.raises(StepError, match="the reel is torn") as caught:
        run(compiled, f"fail:{step}")
    assert step in caught.value.step or caught.value.step == f"learn {step}"
    assert told(compiled) == "FAILED"
    assert ran(compiled)[-1][0] == "tell"
    if step != "join":
        assert "join" not in [name for name, *_ in ran(compiled)]


def test_a_message_that_cannot_be_sent_is_a_failure(compiled: Path) -> None:
    with pytest.raises(StepError, match="tell"):
        run(compiled, "fail:tell")
