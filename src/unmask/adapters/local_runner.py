"""The compiled pipeline on this machine: the graph that a cluster runs, its steps as processes or containers.

`kfp.local` walks the graph. Out of the box it refuses container components outside Docker, hides which step speaks,
retries what is broken, leaves running steps behind when it is stopped, and answers from its cache after the code has
changed. This module replaces the few functions of `kfp.local` that do so while a run lasts. They are internals, so kfp
is pinned and `check_kfp` compares their signatures before every run.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import inspect
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, Literal, Self

from unmask.config import load_config
from unmask.errors import InputError, MissingExtraError, UnmaskError

logger = logging.getLogger(__name__)
Runner = Literal["local", "docker"]
KILL_AFTER_S = 10.0
TAIL_LINES = 400
# Waits on its standard input; if the runner dies without a word, nobody else would stop the step.
WATCHDOG = 'read -r _ || kill -s KILL -- "-$0"'
CONTAINER_LABEL = "unmask.work"
# Steps of a loop share the cores: threads that wait for each other sleep, which saves a seventh of the CPU time.
SIDE_BY_SIDE: Mapping[str, str] = MappingProxyType({"OMP_WAIT_POLICY": "PASSIVE"})
# What this module replaces, with the parameters it relies on. Attributes are looked up by kfp at call time.
KFP_CONTRACT: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "kfp.local.subprocess_task_handler:SubprocessTaskHandler": (
            "image",
            "full_command",
            "pipeline_root",
            "runner",
            "env_vars",
        ),
        "kfp.local.docker_task_handler:DockerTaskHandler": (
            "image",
            "full_command",
            "pipeline_root",
            "runner",
            "env_vars",
        ),
        "kfp.local.orchestrator.task_executor:execute_single_task": (
            "task_name",
            "task_spec",
            "pipeline_resource_name",
            "components",
            "executors",
            "io_store",
            "pipeline_root",
            "runner",
            "unique_pipeline_id",
            "fail_stack",
        ),
        "kfp.local.cache:get_local_cache": (),
        "kfp.local.cache:LocalCache.compute_key": (
            "self",
            "component_name",
            "image",
            "full_command",
            "arguments",
            "env_vars",
            "custom_cache_key",
        ),
        "kfp.local.cache:LocalCache.put": ("self", "key", "outputs"),
        "kfp.local.logging_utils:local_logger_context": (),
        "kfp.local.logging_utils:indented_print": ("num_spaces",),
        "kfp.local.logging_utils:print_horizontal_line": (),
    }
)


class StepError(UnmaskError):
    """A step of the pipeline failed.

    Args:
        step: Name of the step, for example ``train meso4``.
        exit_status: Of its process or container; negative for a signal.
        last_words: The step's own message or traceback.
        log: File with everything it said.
    """

    def __init__(self, step: str, exit_status: int, last_words: str, log: Path) -> None:
        super().__init__(
            f"Step {step!r} {_describe_exit(exit_status)}. It said:\n\n{last_words}\n",
            f"Its whole log is {log}. Run the same command again afterwards: finished steps are not repeated.",
        )
        self.step = step
        self.exit_status = exit_status
        self.last_words = last_words
        self.log = log


class Interrupted(KeyboardInterrupt):
    """The run was stopped by Ctrl-C; no step is left running."""


@dataclass(frozen=True)
class RunResult:
    """What a run brought.

    Attributes:
        outputs: ``<step>/<artifact>`` to the file or folder, and ``<artifact>`` alone where only one step makes one.
        seconds: Wall time.
        cached: Step to whether its result of an earlier run was used.
    """

    outputs: dict[str, Path]
    seconds: float
    cached: dict[str, bool]


def run_training(arguments: Mapping[str, object], work_dir: Path, runner: Runner = "local") -> RunResult:
    """Run the training pipeline on this machine.

    Args:
        arguments: Parameters of the pipeline. Those that are left out come from ``config``, then from the pipeline.
        work_dir: Folder for runs, cache and logs; a later run with the same folder reuses what is finished.
        runner: ``local`` runs steps as processes of this Python, ``docker`` in the image that the pipeline names.

    Returns:
        Where the artifacts lie.

    Raises:
        InputError: Another run uses the folder, a parameter is missing, or no container engine answers.
        StepError: A step failed.
        KeyboardInterrupt: Ctrl-C; every step has been stopped.
        SystemExit: SIGTERM; every step has been stopped.
    """
    given = with_settings(arguments)
    return run_compiled(committed_pipeline("training"), given, work_dir, runner, read_only=_folders(arguments))


def run_retraining(arguments: Mapping[str, object], work_dir: Path, runner: Runner = "local") -> RunResult:
    """Run the retraining pipeline on this machine; see `run_training`.

    Steps that the decision leaves out are missing in the result. A failed step does not keep the message about it
    from being sent.

    Args:
        arguments: Parameters of the pipeline.
        work_dir: Folder for runs, cache and logs.
        runner: ``local`` or ``docker``.

    Returns:
        Where the artifacts lie.
    """
    given = with_settings(arguments)
    for name in ("target_fpr", "operating_point"):  # this pipeline reads them from ``config`` alone
        given.pop(name, None)
    return run_compiled(committed_pipeline("retraining"), given, work_dir, runner, read_only=_folders(arguments))


def with_settings(arguments: Mapping[str, object]) -> dict[str, object]:
    """Fill the pipeline parameters that are settings, too, from the configuration.

    On a cluster such a parameter wins over ``config``, because its default is filled in before anyone can ask where a
    value comes from. A run that only brings a configuration must not lose, say, its ``train.epochs`` to that default.

    Args:
        arguments: Parameters of the training pipeline.

    Returns:
        The same, with every such parameter present.

    Raises:
        ConfigError: ``config`` has errors.
    """
    config = load_config(inline=str(arguments.get("config", "")))
    settings: dict[str, object] = {
        "detectors": list(config.detectors),
        "epochs": config.train.epochs,
        "target_fpr": config.fusion.target_fpr,
        "operating_point": config.fusion.operating_point,
        "registered_model": config.promote.registered_model,
        "seed": config.seed,
    }
    return {**settings, **arguments}


def run_compiled(
    compiled: Path,
    arguments: Mapping[str, object],
    work_dir: Path,
    runner: Runner = "local",
    read_only: Sequence[Path] = (),
) -> RunResult:
    """Run a compiled pipeline on this machine; see `run_training`.

    Args:
        compiled: YAML file that the kfp compiler wrote.
        arguments: Parameters of the pipeline.
        work_dir: Folder for runs, cache and logs.
        runner: ``local`` or ``docker``.
        read_only: Folders that containers may read besides ``work_dir``.

    Returns:
        Where the artifacts lie.
    """
    check_kfp()
    begin = time.monotonic()
    work_dir = work_dir.resolve()
    work_dir.mkdir(parents=True, exist_ok=True)
    with _only_run_in(work_dir):
        component, spec, secrets = _load(compiled)
        images = sorted({entry["container"]["image"] for entry in spec["deploymentSpec"]["executors"].values()})
        if runner == "docker":
            steps: _Steps = _ContainerSteps(work_dir, read_only, images, secrets)
        else:
            steps = _HostSteps()
        run = _Run(steps, work_dir, _has_exit_task(spec))
        with _signals(run.stop), _patched_kfp(run, runner, work_dir):
            run.execute(component, dict(arguments))
    return RunResult(_named(run.outputs), time.monotonic() - begin, dict(run.cached))


def check_kfp() -> None:
    """Compare kfp's internals with what this module was written for.

    Raises:
        MissingExtraError: kfp is not installed.
        UnmaskError: kfp is another version and its internals moved.
    """
    if importlib.util.find_spec("kfp") is None:
        raise MissingExtraError("Running the pipeline on this machine", "pipeline")
    import kfp

    for name, expected in KFP_CONTRACT.items():
        module, _, path = name.partition(":")
        try:
            target: Any = importlib.import_module(module)
            for part in path.split("."):
                target = getattr(target, part)
            found: tuple[str, ...] | None = tuple(inspect.signature(target).parameters)
        except (ImportError, AttributeError):
            found = None
        if found != expected:
            raise UnmaskError(
                f"kfp {kfp.__version__} has moved {name}: expected {expected}, found {found}.",
                "Install the pinned version (requirements/), or adapt unmask.adapters.local_runner.",
            )


# --- steps -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A step that is about to run."""

    label: str
    image: str
    command: list[str]
    environment: dict[str, str]
    log: Path


class _Steps:
    """Runs steps and can stop all of them at any moment, from any thread."""

    salt: str  # what besides the graph decides on a step's result

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a signal handler may run inside the locked part
        self._running: dict[object, Callable[[bool], None]] = {}
        self.stopping = False

    def run(self, job: _Job, say: Callable[[str], None]) -> int:
        """Run a step to its end.

        Args:
            job: The step.
            say: Gets each line.

        Returns:
            Exit status; negative for a signal.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Stop every running step, and let none begin any more; the second call does not wait for good manners."""
        with self._lock:
            at_once, self.stopping = self.stopping, True
            for end in list(self._running.values()):
                end(at_once)

    @contextlib.contextmanager
    def _stoppable(self, key: object, end: Callable[[bool], None]) -> Iterator[None]:
        with self._lock:
            self._running[key] = end
            if self.stopping:  # the signal came while the step was being started
                end(False)
        try:
            yield
        finally:
            with self._lock:
                del self._running[key]


class _HostSteps(_Steps):
    """Steps as processes of this machine, each in its own process group."""

    def __init__(self) -> None:
        super().__init__()
        self.salt = _hash_of_code()

    def run(self, job: _Job, say: Callable[[str], None]) -> int:
        own = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
        program = shutil.which(job.command[0], path=own)
        if program is None:
            say(f"error: there is no program {job.command[0]!r} beside {sys.executable} or on the PATH")
            return 127
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PATH": own, **job.environment}
        with _ProcessGroup([program, *job.command[1:]], environment) as group, self._stoppable(group, group.end):
            for line in group.lines():
                say(line.rstrip("\n"))
            return group.wait()


class _ProcessGroup:
    """A process with all its children: they end together, whoever ends first, even if this process is killed."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._force: threading.Timer | None = None
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
            bufsize=1,
            env=environment,
            start_new_session=True,
        )
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", WATCHDOG, str(self._process.pid)],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Workers of a process that was killed would keep its output open, and reading would never end.
        self._reaper = threading.Thread(target=self._reap, daemon=True)
        self._reaper.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGKILL)
        self._reaper.join()
        if self._force is not None:
            self._force.cancel()
        self._watchdog.communicate(b"done\n")

    def lines(self) -> Iterator[str]:
        """Yield what the group writes, line by line."""
        assert self._process.stdout is not None
        yield from self._process.stdout

    def wait(self) -> int:
        """Wait for the process.

        Returns:
            Exit status; negative for a signal.
        """
        return self._process.wait()

    def end(self, at_once: bool) -> None:
        """Ask the group to end, and make it end if it does not listen."""
        self._signal(signal.SIGKILL if at_once else signal.SIGTERM)
        if self._force is None:
            self._force = threading.Timer(KILL_AFTER_S, self._signal, (signal.SIGKILL,))
            self._force.daemon = True
            self._force.start()

    def _reap(self) -> None:
        self._process.wait()
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class _ContainerSteps(_Steps):
    """Steps as containers: the work folder is writable, the sources are read-only, nothing else of the host is seen.

    Variables that a cluster would set from secrets are handed on if they are set here.
    """

    def __init__(
        self, work_dir: Path, read_only: Sequence[Path], images: Sequence[str], secrets: Sequence[str] = ()
    ) -> None:
        super().__init__()
        import docker
        from docker.types import Mount

        try:
            self._client = docker.from_env(timeout=600)
            self._client.ping()
        except docker.errors.DockerException as error:
            raise InputError(f"No container engine answers ({error}).", "Start Docker, or use RUNNER=local.") from error
        identities = []
        for image in images:
            try:
                identities.append(self._client.images.get(image).id)
            except docker.errors.ImageNotFound as error:
                raise InputError(f"There is no image {image} on this machine.", "Run: make images") from error
        # The code lies in the image, so the image decides on the result.
        self.salt = "docker " + " ".join(identities)
        self._work = str(work_dir)
        self._secrets = {name: os.environ[name] for name in secrets if name in os.environ}
        outside = [path.resolve() for path in read_only if not path.resolve().is_relative_to(work_dir)]
        self._mounts = [
            Mount(self._work, self._work, type="bind"),
            *(Mount(str(path), str(path), type="bind", read_only=True) for path in outside),
        ]
        for left in self._client.containers.list(all=True, filters={"label": f"{CONTAINER_LABEL}={self._work}"}):
            left.remove(force=True)  # of a run that was killed without a word

    def run(self, job: _Job, say: Callable[[str], None]) -> int:
        container = self._client.containers.run(
            job.image,
            job.command,
            detach=True,
            mounts=self._mounts,
            environment={"PYTHONUNBUFFERED": "1", "HOME": "/tmp", **self._secrets, **job.environment},
            user=f"{os.getuid()}:{os.getgid()}",
            working_dir="/tmp",
            network_mode="host",  # a tracking server on this machine keeps its address
            init=True,
            shm_size="1g",
            labels={CONTAINER_LABEL: self._work},
        )
        try:
            with self._stoppable(container.id, lambda at_once: self._end(container, at_once)):
                pending = b""
                for chunk in container.logs(stream=True, follow=True):
                    *lines, pending = (pending + chunk).split(b"\n")
                    for line in lines:
                        say(line.decode("utf-8", "replace"))
                if pending:
                    say(pending.decode("utf-8", "replace"))
                # kfp's own handler lets Docker remove the container and then takes a missing one for a success.
                return int(container.wait()["StatusCode"])
        finally:
            with contextlib.suppress(Exception):
                container.remove(force=True)

    def _end(self, container: Any, at_once: bool) -> None:
        def end() -> None:
            with contextlib.suppress(Exception):  # it may have ended by itself
                container.stop(timeout=0 if at_once else int(KILL_AFTER_S))

        threading.Thread(target=end, daemon=True).start()  # a signal handler must not wait


# --- a run -----------------------------------------------------------------------------------------------------------


@dataclass
class _Run:
    """One walk over the graph: who speaks, what came out, what failed."""

    steps: _Steps
    work_dir: Path
    has_exit_task: bool = False
    outputs: dict[str, dict[str, Path]] = field(default_factory=dict)
    cached: dict[str, bool] = field(default_factory=dict)
    failure: StepError | None = None
    stopped_by: int | None = None
    _here: threading.local = field(default_factory=threading.local)

    def execute(self, component: Any, arguments: dict[str, object]) -> None:
        """Walk the graph; raise what stopped it."""
        try:
            component(**arguments)
        except (TypeError, ValueError) as error:
            if self.failure is None and self.stopped_by is None:
                raise InputError(f"The pipeline cannot start: {error}.", "Check the pipeline's parameters.") from error
        except RuntimeError:
            if self.failure is None and self.stopped_by is None:
                raise
        if self.stopped_by == signal.SIGINT:
            raise KeyboardInterrupt
        if self.stopped_by is not None:
            raise SystemExit(128 + self.stopped_by)
        if self.failure is not None:
            raise self.failure

    def stop(self, number: int) -> None:
        """Stop all steps because of a signal."""
        if self.stopped_by is None:
            self.stopped_by = number
            logger.warning("Stopping on %s ...", signal.Signals(number).name)
        self.steps.stop()

    def start_step(self, original: Callable[..., Any], **given: Any) -> Any:
        """Stand in for kfp's `execute_single_task`; with an exit task, a failure is not the end of the walk."""
        if not self.has_exit_task:
            return self._walk_step(original, **given)
        from kfp.local import status

        if _is_exit_task(given["task_spec"]) and self.stopped_by is None:
            self.steps.stopping = False
        try:
            return self._walk_step(original, **given)
        except RuntimeError:
            return {}, status.Status.FAILURE

    def _walk_step(self, original: Callable[..., Any], **given: Any) -> Any:
        """Name a step, time it, note its outputs."""
        label = _label(given["task_name"], given["task_spec"], given["io_store"])
        self._here.label, self._here.ran = label, False
        self._here.environment = SIDE_BY_SIDE if label != given["task_name"] else {}
        self._here.log = self.work_dir / "runs" / given["pipeline_resource_name"] / f"{_file_name(label)}.log"
        declared = given["components"][given["task_spec"].component_ref.name].output_definitions
        self._here.declared = {*declared.artifacts, *declared.parameters}
        begin = time.monotonic()
        outputs, status = original(**given)
        if not self.complete(outputs):
            missing = ", ".join(sorted(self._here.declared - set(outputs)))
            self._fail(StepError(label, 0, f"It ended well, but reported no outputs {missing}.", self._here.log))
        for name, value in outputs.items():
            if not hasattr(value, "uri"):
                # kfp.local looks a condition's operand up among the inputs of the graph, under its channel's name; on
                # a cluster the condition gets it from the step.
                given["io_store"].put_parent_input(f"pipelinechannel--{given['task_name']}-{name}", value)
        self.cached[label] = not self._here.ran
        self.outputs[label] = {
            name: Path(value.uri) for name, value in outputs.items() if isinstance(getattr(value, "uri", None), str)
        }
        seconds = time.monotonic() - begin
        logger.info("[%s] %s", label, f"done in {seconds:.1f} s" if self._here.ran else "finished before, reused")
        return outputs, status

    def complete(self, outputs: Mapping[str, object]) -> bool:
        """Say whether a step of this thread told of every output that it declares."""
        return bool(self._here.declared <= set(outputs))

    def task_handler(
        self,
        image: str,
        full_command: list[str],
        pipeline_root: str,
        runner: object,
        env_vars: dict[str, str] | None = None,
    ) -> _TaskHandler:
        """Stand in for the constructors of kfp's task handlers."""
        self._here.ran = True
        environment = {**self._here.environment, **(env_vars or {})}
        return _TaskHandler(self, _Job(self._here.label, image, full_command, environment, self._here.log))

    def run_job(self, job: _Job) -> None:
        """Run a step; raise, so that kfp neither retries nor goes on, if it fails."""
        if self.steps.stopping:
            raise RuntimeError("stopped")
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        logger.info("[%s] started", job.label)
        with job.log.open("a", encoding="utf-8") as log:

            def say(line: str) -> None:
                tail.append(line)
                log.write(line + "\n")
                log.flush()
                logger.info("[%s] %s", job.label, line)

            exit_status = self.steps.run(job, say)
        if self.steps.stopping:
            raise RuntimeError("stopped")
        if exit_status != 0:
            self._fail(StepError(job.label, exit_status, last_words(list(tail)), job.log))

    def _fail(self, error: StepError) -> None:
        self.failure = self.failure or error
        self.steps.stop()  # the others go on where they stopped once the fault is mended
        raise RuntimeError(f"step {error.step} failed")


@dataclass(frozen=True)
class _TaskHandler:
    """What kfp calls to run a task."""

    owner: _Run
    job: _Job

    def run(self) -> object:
        from kfp.local import status

        self.owner.run_job(self.job)
        return status.Status.SUCCESS


def last_words(lines: Sequence[str]) -> str:
    """Find what a failed step said about its failure.

    Args:
        lines: The end of its log.

    Returns:
        From the last traceback or the last ``error:`` line on; without either, the last 20 lines.
    """
    starts = [i for i, line in enumerate(lines) if line.startswith(("Traceback (most recent call last)", "error: "))]
    if not starts:
        return "\n".join(lines[-20:]) or "(nothing)"
    first = starts[-1]
    # An exception raised while another was handled: both belong together.
    joint = re.compile("^(During handling of the above|The above exception was the direct cause)")
    while any(joint.match(line) for line in lines[max(0, first - 3) : first]):
        earlier = [i for i in starts if i < first]
        if not earlier:
            break
        first = earlier[-1]
    return "\n".join(lines[first:])


def _describe_exit(exit_status: int) -> str:
    if exit_status < 0 or exit_status > 128:
        number = -exit_status if exit_status < 0 else exit_status - 128
        with contextlib.suppress(ValueError):
            name = signal.Signals(number).name
            hint = ", often because memory ran out" if name == "SIGKILL" else ""
            return f"was killed by {name} (exit status {exit_status}{hint})"
    return f"failed with exit status {exit_status}"


def _label(task_name: str, task_spec: Any, io_store: Any) -> str:
    """Name a step; steps of a loop also carry the item."""
    for entry in task_spec.inputs.parameters.values():
        if "-loop-item" in entry.component_input_parameter:  # of a list that is a parameter, or of a fixed one
            return f"{task_name} {io_store.get_parent_input(entry.component_input_parameter)}"
    return task_name


def _file_name(label: str) -> str:
    return re.sub(r"[^\w.-]+", "-", label)


def _named(outputs: Mapping[str, Mapping[str, Path]]) -> dict[str, Path]:
    named = {f"{step}/{name}": path for step, made in outputs.items() for name, path in made.items()}
    for made in outputs.values():
        for name, path in made.items():
            if sum(name in others for others in outputs.values()) == 1:
                named[name] = path
    return named


def _folders(arguments: Mapping[str, object]) -> list[Path]:
    """List the sources that are folders of this machine; what is behind an address is fetched by the steps."""
    places = [str(source).split("=", 1)[-1] for source in _as_list(arguments.get("sources", ()))]
    return [Path(place) for place in places if "://" not in place]


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


# --- kfp -------------------------------------------------------------------------------------------------------------


def committed_pipeline(name: str) -> Path:
    """Find a compiled pipeline; the package that holds it is not imported, for that would compile it anew."""
    spec = importlib.util.find_spec("pipelines")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder) / "compiled" / f"{name}.yaml"
        if file.is_file():
            return file
    raise InputError(f"The compiled pipeline {name}.yaml is not installed.", "Run `make compile` in the repository.")


def _load(compiled: Path) -> tuple[Any, dict[str, Any], list[str]]:
    """Read a compiled pipeline: for kfp, as a mapping, and the variables that it fills from secrets."""
    import yaml
    from kfp import components

    text = compiled.read_text(encoding="utf-8")
    # kfp.local does not know this placeholder.
    text = text.replace("{{$.pipeline_job_create_time_utc}}", datetime.now(UTC).isoformat(timespec="seconds"))
    spec, *platform = yaml.safe_load_all(text)
    kubernetes = platform[0]["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values() if platform else ()
    filled = {
        key["envVar"] for entry in kubernetes for secret in entry.get("secretAsEnv", ()) for key in secret["keyToEnv"]
    }
    return components.load_component_from_text(text), spec, sorted(filled)


def _has_exit_task(spec: Mapping[str, Any]) -> bool:
    """Say whether a pipeline has a task that runs whatever happened."""
    tasks = spec["root"]["dag"]["tasks"].values()
    inputs = [entry for task in tasks for entry in task.get("inputs", {}).get("parameters", {}).values()]
    return any("taskFinalStatus" in entry for entry in inputs)


def _is_exit_task(task_spec: Any) -> bool:
    return any(entry.HasField("task_final_status") for entry in task_spec.inputs.parameters.values())


def _hash_of_code() -> str:
    """Hash the package, so that edited code is not answered from the cache.

    The commands of the components are in the cache key already, by way of the compiled graph.
    """
    package = Path(__file__).parents[1]
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(package.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            with contextlib.suppress(FileNotFoundError):  # an editor's temporary file
                content = path.read_bytes()
                digest.update(f"{path.relative_to(package)}\0{len(content)}\0".encode())
                digest.update(content)
    return digest.hexdigest()


def _cache(folder: Path, run: _Run) -> Any:
    from kfp.local import cache

    class CodeAwareCache(cache.LocalCache):  # type: ignore[misc]  # kfp is untyped
        def compute_key(self, **given: Any) -> str:
            return hashlib.sha256(f"{run.steps.salt}\0{super().compute_key(**given)}".encode()).hexdigest()

        def put(self, key: str, outputs: dict[str, Any]) -> None:
            if run.complete(outputs):
                super().put(key, outputs)

    return CodeAwareCache(str(folder))


@contextlib.contextmanager
def _patched_kfp(run: _Run, runner: Runner, work_dir: Path) -> Iterator[None]:
    """Put this module in place of kfp's internals while a run lasts."""
    from kfp import local
    from kfp.local import cache, docker_task_handler, logging_utils, subprocess_task_handler
    from kfp.local.orchestrator import task_executor

    stock = task_executor.execute_single_task
    own_cache = _cache(work_dir / "cache", run)
    replacements: list[tuple[Any, str, object]] = [
        (subprocess_task_handler, "SubprocessTaskHandler", run.task_handler),
        (docker_task_handler, "DockerTaskHandler", run.task_handler),
        (task_executor, "execute_single_task", lambda **given: run.start_step(stock, **given)),
        (cache, "get_local_cache", lambda: own_cache),
        # These swap the handlers of the root logger and the builtin print, which breaks when steps run side by side.
        (logging_utils, "local_logger_context", contextlib.nullcontext),
        (logging_utils, "indented_print", contextlib.nullcontext),
        (logging_utils, "print_horizontal_line", lambda: None),
    ]
    with contextlib.ExitStack() as stack:
        for owner, name, replacement in replacements:
            stack.callback(setattr, owner, name, getattr(owner, name))
            setattr(owner, name, replacement)
        stack.enter_context(_quiet_root_logger())
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message=".*have no effect in the current local runner.*")
        local.init(
            runner=local.DockerRunner() if runner == "docker" else local.SubprocessRunner(use_venv=False),
            pipeline_root=str(work_dir / "runs"),
            workspace_root=str(work_dir / "workspace"),
        )
        yield


@contextlib.contextmanager
def _quiet_root_logger() -> Iterator[None]:
    """Drop what kfp logs, which it does on the root logger; the loggers below it are not touched."""

    def keep(record: logging.LogRecord) -> bool:
        return f"{os.sep}kfp{os.sep}" not in record.pathname

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)


@contextlib.contextmanager
def _signals(stop: Callable[[int], None]) -> Iterator[None]:
    """Call ``stop`` on Ctrl-C and SIGTERM.

    The handlers only stop the steps; the walk then ends by itself. An exception raised at an arbitrary point of the
    main thread could lose a process that was just started.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        stop(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _only_run_in(work_dir: Path) -> Iterator[None]:
    """Keep a second run out of the folder while one lasts; the lock ends with the process, however that ends."""
    with (work_dir / "lock").open("a+", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = json.loads(lock.read() or "{}").get("pid", "unknown")
            raise InputError(
                f"Another run (process {owner}) uses {work_dir}.", "Wait for it, or choose another folder with WORK=."
            ) from error
        lock.truncate(0)
        lock.write(json.dumps({"pid": os.getpid()}))
        lock.flush()
        yield
