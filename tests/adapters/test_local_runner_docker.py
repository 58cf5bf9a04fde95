"""The local runner with containers; the engine and the step image must be there, and nothing is pulled."""

import json
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import docker
import pytest
from kfp import compiler, dsl
from kfp.dsl import Dataset, Output

from components import images
from unmask.adapters.local_runner import CONTAINER_LABEL, StepError, run_compiled
from unmask.errors import InputError

STEP = textwrap.dedent(
    """
    import json, os, sys, time
    from pathlib import Path

    out, source, behaviour, executor_input = sys.argv[1:5]
    print("container speaks", flush=True)
    if behaviour == "fail":
        sys.exit(3)
    if behaviour == "sleep":
        time.sleep(300)
    facts = {"read": Path(source).read_text(), "inside": Path("/.dockerenv").exists(), "uid": os.getuid()}
    try:
        Path(source).write_text("changed")
        facts["source"] = "writable"
    except OSError:
        facts["source"] = "read-only"
    task = json.loads(executor_input)
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(facts))
    Path(task["outputs"]["outputFile"]).write_text(json.dumps({"artifacts": task["outputs"]["artifacts"]}))
    """
)


@pytest.fixture(scope="module")
def engine() -> Any:
    try:
        client = docker.from_env()
        client.images.get(images.PIPELINE)
    except docker.errors.ImageNotFound:
        pytest.skip(f"the image {images.PIPELINE} is not built (make images)")
    except docker.errors.DockerException as error:
        pytest.skip(f"no container engine answers: {error}")
    return client


def one_step(folder: Path, image: str) -> Path:
    @dsl.container_component
    def only(source: str, behaviour: str, out: Output[Dataset]):  # type: ignore[no-untyped-def]
        return dsl.ContainerSpec(
            image=image,
            command=["python3", "-c", STEP],
            args=[out.path, source, behaviour, dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER],
        )

    @dsl.pipeline(name="one")
    def one(source: str, behaviour: str):  # type: ignore[no-untyped-def]
        only(source=source, behaviour=behaviour)

    file = folder / "one.yaml"
    compiler.Compiler().compile(one, str(file))
    return file


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "media"
    folder.mkdir()
    (folder / "clip.txt").write_text("bytes", encoding="utf-8")
    return folder / "clip.txt"


def test_a_step_reads_the_sources_and_writes_only_the_work_folder(engine: Any, tmp_path: Path, source: Path) -> None:
    compiled = one_step(tmp_path, images.PIPELINE)
    arguments = {"source": str(source), "behaviour": "ok"}
    first = run_compiled(compiled, arguments, tmp_path / "work", "docker", read_only=[source.parent])
    facts = json.loads(first.outputs["out"].read_text(encoding="utf-8"))
    assert (facts["read"], facts["inside"], facts["source"]) == ("bytes", True, "read-only")
    assert first.outputs["out"].stat().st_uid == facts["uid"]
    second = run_compiled(compiled, arguments, tmp_path / "work", "docker", read_only=[source.parent])
    assert second.cached == {"only": True}


def test_a_container_that_fails_at_once_is_never_taken_for_a_success(engine: Any, tmp_path: Path, source: Path) -> None:
    compiled = one_step(tmp_path, images.PIPELINE)
    for _ in range(5):
        with pytest.raises(StepError) as caught:
            run_compiled(compiled, {"source": str(source), "behaviour": "fail"}, tmp_path / "work", "docker")
        assert (caught.value.exit_status, caught.value.last_words) == (3, "container speaks")


def test_a_stopped_run_leaves_no_container(engine: Any, tmp_path: Path, source: Path) -> None:
    compiled = one_step(tmp_path, images.PIPELINE)
    driver = textwrap.dedent(
        f"""
        from pathlib import Path
        from unmask.adapters.local_runner import run_compiled
        run_compiled(Path({str(compiled)!r}), {{"source": {str(source)!r}, "behaviour": "sleep"}},
                     Path({str(tmp_path / "work")!r}), "docker")
        """
    )
    ours = {"label": f"{CONTAINER_LABEL}={tmp_path / 'work'}"}
    process = subprocess.Popen([sys.executable, "-c", driver], stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + 60
        while not engine.containers.list(filters=ours):
            assert time.monotonic() < end
            time.sleep(0.1)
        process.terminate()
        assert process.wait(timeout=60) == 143
    finally:
        process.kill()
    assert engine.containers.list(all=True, filters=ours) == []


def test_a_missing_image_is_named_with_what_to_do(engine: Any, tmp_path: Path, source: Path) -> None:
    compiled = one_step(tmp_path, "nowhere/never-built:1")
    with pytest.raises(InputError, match=r"nowhere/never-built:1.*make images"):
        run_compiled(compiled, {"source": str(source), "behaviour": "ok"}, tmp_path / "work", "docker")


def test_a_missing_engine_is_a_plain_error(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'nobody.sock'}")
    with pytest.raises(InputError, match="No container engine answers"):
        run_compiled(
            one_step(tmp_path, images.PIPELINE), {"source": str(source), "behaviour": "ok"}, tmp_path / "work", "docker"
        )
