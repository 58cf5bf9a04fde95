"""A Kubeflow Pipelines server: pipelines are uploaded, started, put on a schedule and looked at.

Everything goes by name and can be repeated: a pipeline version is named after its content, so uploading it again
changes nothing; a schedule of one name is replaced, and at no moment are two of them active. Requests that fail because
the server is away are tried again; where that could make a thing twice, it is first looked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml

import unmask
from unmask.adapters.cron import Schedule
from unmask.errors import InputError, MissingExtraError, UnmaskError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
PASSING_STATUS = (0, 429, 500, 502, 503, 504)
PAGE = 100
# Where pods that may talk to Kubeflow Pipelines of several users get their token.
POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
LOG_PATH = "/apis/v1alpha1/runs/{run_id}/nodes/{node_id}/log"
KINDS: Mapping[str, tuple[type, ...]] = {
    "STRING": (str,),
    "NUMBER_INTEGER": (int,),
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": (bool,),
    "LIST": (list,),
    "STRUCT": (dict,),
}
WORDS = {
    "STRING": "text",
    "NUMBER_INTEGER": "a whole number",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a list",
    "STRUCT": "a mapping",
}


class ServiceError(UnmaskError):
    """The Kubeflow Pipelines server refused or failed.

    Args:
        problem: What is wrong.
        fix: What to do about it.
        status: HTTP status; 0 if there was no answer.
    """

    def __init__(self, problem: str, fix: str, status: int) -> None:
        super().__init__(problem, fix)
        self.status = status


@dataclass(frozen=True)
class Connection:
    """How to reach a server.

    Attributes:
        host: Address of the API, for example https://kubeflow.example/pipeline; empty asks the cluster that this runs
            in, or else that of the kubeconfig.
        token: Bearer token; never logged.
        kube_context: Context of the kubeconfig; None is the current one.
        namespace: Of the user, on an installation for several users; empty otherwise.
        installed_in: Namespace of Kubeflow Pipelines itself.
        ca_file: Certificates to trust besides the system's.
        ui_url: Address of the UI for links; empty is the host.
        attempts: Tries of a request.
        first_wait_s: Before the second try; doubles each time.
    """

    host: str = ""
    token: str = ""
    kube_context: str | None = None
    namespace: str = ""
    installed_in: str = "kubeflow"
    ca_file: str | None = None
    ui_url: str = ""
    attempts: int = 5
    first_wait_s: float = 1.0


@dataclass(frozen=True)
class Uploaded:
    """A pipeline version on the server.

    Attributes:
        name: Of the pipeline.
        version: Name of the version.
        pipeline_id: Of the server.
        version_id: Of the server.
        new: Whether this call made it.
        link: To its page.
    """

    name: str
    version: str
    pipeline_id: str
    version_id: str
    new: bool
    link: str


@dataclass(frozen=True)
class Submitted:
    """A run that was started.

    Attributes:
        name: Its name.
        run_id: Of the server.
        link: To its page.
    """

    name: str
    run_id: str
    link: str


@dataclass(frozen=True)
class Scheduled:
    """A recurring run.

    Attributes:
        name: Its name.
        recurring_run_id: Of the server.
        change: created, replaced or unchanged.
        link: To its page.
    """

    name: str
    recurring_run_id: str
    change: str
    link: str


@dataclass(frozen=True)
class StepLog:
    """What one step of a run said.

    Attributes:
        step: Its name.
        state: For example SUCCEEDED.
        error: The server's word on why it failed; empty if it did not.
        pods: Names of its pods.
        text: Its log, or a sentence on why there is none.
    """

    step: str
    state: str
    error: str
    pods: tuple[str, ...]
    text: str


def read_pipeline(compiled: Path) -> tuple[str, dict[str, Any]]:
    """Read a compiled pipeline.

    Args:
        compiled: YAML file of the kfp compiler.

    Returns:
        Its name, and its parameters by name as the file describes them.

    Raises:
        InputError: The file is missing or holds something else.
    """
    try:
        spec = _documents(compiled)[0]
        name = str(spec["pipelineInfo"]["name"])
        return name, dict(spec["root"].get("inputDefinitions", {}).get("parameters", {}))
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError, KeyError, TypeError) as error:
        raise InputError(
            f"{compiled} is not a compiled pipeline ({type(error).__name__}).", "Write it: unmask pipeline compile"
        ) from error


def _documents(compiled: Path) -> list[Any]:
    # The loader in C is ten times as quick, and compiled pipelines have thousands of lines.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return list(yaml.load_all(compiled.read_text(encoding="utf-8"), Loader=loader))


def version_name(compiled: Path) -> str:
    """Name a version after its content.

    Args:
        compiled: YAML file of the kfp compiler.

    Returns:
        Version of the package and 12 hexadecimal digits of the hash of the file without the compiler's version.
    """
    documents = _documents(compiled)
    for document in documents:
        document.pop("sdkVersion", None)
    digest = hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()
    return f"{unmask.__version__}-{digest[:12]}"


def check_parameters(compiled: Path, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Compare parameters with what a pipeline takes, before a run fails on them.

    Args:
        compiled: YAML file of the kfp compiler.
        parameters: Name to value.

    Returns:
        The parameters.

    Raises:
        InputError: Lists everything that is missing, unknown or of a wrong kind.
    """
    name, known = read_pipeline(compiled)
    wrong = [f"  {key}: unknown; there are {', '.join(sorted(known))}" for key in sorted(set(parameters) - set(known))]
    for key, entry in sorted(known.items()):
        kind = entry["parameterType"]
        if key not in parameters:
            if "defaultValue" not in entry and not entry.get("isOptional"):
                wrong.append(f"  {key}: missing; {entry.get('description', '').rstrip('.')}")
        elif not _fits(parameters[key], kind):
            wrong.append(f"  {key}: {parameters[key]!r} is not {WORDS.get(kind, kind)}")
    if wrong:
        raise InputError(
            f"The parameters of {name} have errors:\n" + "\n".join(wrong) + "\n",
            "Mend the file of parameters, or give --param NAME=VALUE.",
        )
    return dict(parameters)


def _fits(value: object, kind: str) -> bool:
    if isinstance(value, bool) and kind != "BOOLEAN":
        return False
    return isinstance(value, KINDS.get(kind, (object,)))


class PipelineService:
    """A server, with the calls that unmask makes.

    Args:
        connection: How to reach it.

    Raises:
        MissingExtraError: kfp is not installed.
        InputError: There is neither a host nor a cluster.
        ServiceError: The server does not answer, or does not let us in.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.address = connection.host or "the cluster"
        self._client = self._call("ask whether the server is there", lambda: _client(connection))
        self._ui = (connection.ui_url or connection.host or "").rstrip("/")

    def upload(self, compiled: Path, description: str = "") -> Uploaded:
        """Bring a compiled pipeline to the server; what is there already stays.

        Args:
            compiled: YAML file of the kfp compiler.
            description: Of a new pipeline.

        Returns:
            The version.
        """
        name, _ = read_pipeline(compiled)
        version = version_name(compiled)
        pipeline_id = self._find_pipeline(name) or self._create_pipeline(name, description)
        version_id = self._find_version(pipeline_id, version)
        new = version_id is None
        if version_id is None:
            made = self._create(
                f"upload version {version} of {name}",
                lambda: self._client.upload_pipeline_version(str(compiled), version, pipeline_id=pipeline_id),
                lambda: self._find_version(pipeline_id, version),
            )
            version_id = made if isinstance(made, str) else str(made.pipeline_version_id)
        link = self._link(f"pipelines/details/{pipeline_id}/version/{version_id}")
        return Uploaded(name, version, pipeline_id, version_id, new, link)

    def run(
        self,
        uploaded: Uploaded,
        parameters: Mapping[str, Any],
        experiment: str,
        name: str = "",
        pipeline_root: str = "",
        service_account: str = "",
    ) -> Submitted:
        """Start a run.

        Args:
            uploaded: The version to run.
            parameters: Of the pipeline; see `check_parameters`.
            experiment: Name of the experiment; made if there is none.
            name: Of the run; left out, the pipeline's with the time.
            pipeline_root: Where artifacts go; left out, what the cluster is configured for.
            service_account: Of the pods; left out, the cluster's.

        Returns:
            The run.
        """
        # The last part makes the name unique, so that a run can be found if the answer to its creation was lost.
        moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        name = f"{name or uploaded.name} {moment} {uuid.uuid4().hex[:6]}"
        experiment_id = self._experiment(experiment)
        made = self._create(
            f"start a run of {uploaded.name}",
            lambda: self._client.run_pipeline(
                experiment_id,
                name,
                params=dict(parameters),
                pipeline_id=uploaded.pipeline_id,
                version_id=uploaded.version_id,
                pipeline_root=pipeline_root or None,
                service_account=service_account or None,
            ),
            lambda: self._find_run(name, experiment_id),
        )
        run_id = made if isinstance(made, str) else str(made.run_id)
        return Submitted(name, run_id, self._link(f"runs/details/{run_id}"))

    def schedule(
        self,
        uploaded: Uploaded,
        schedule: Schedule,
        parameters: Mapping[str, Any],
        experiment: str,
        name: str,
        pipeline_root: str = "",
        service_account: str = "",
    ) -> Scheduled:
        """Put a pipeline on a schedule: one run at a time, and none made up for that was missed.

        The server cannot change a recurring run. A changed one is made anew, asleep; then the old one is removed, and
        the new one is woken. Wherever this is interrupted, at most one is active, and the next call puts it right.

        Args:
            uploaded: The version to run.
            schedule: When.
            parameters: Of the pipeline; see `check_parameters`.
            experiment: Name of the experiment; made if there is none.
            name: Of the recurring run; another schedule of this name is replaced.
            pipeline_root: Where artifacts go; left out, what the cluster is configured for.
            service_account: Of the pods; left out, the cluster's.

        Returns:
            The recurring run.
        """
        experiment_id = self._experiment(experiment)
        wanted = _Wanted(
            schedule.expression,
            uploaded.version_id,
            dict(parameters),
            pipeline_root or None,
            service_account or None,
        )
        before = self._recurring_runs(name, experiment_id)
        same = [entry for entry in before if wanted.matches(entry)]
        chosen = next((entry for entry in same if _is_enabled(entry)), same[0] if same else None)
        change = "unchanged" if chosen is not None and len(before) == 1 and _is_enabled(chosen) else "replaced"
        if chosen is None:
            change = "replaced" if before else "created"
            chosen = self._create_asleep(uploaded, wanted, experiment_id, name)
        for entry in before:
            if entry.recurring_run_id != chosen.recurring_run_id:
                self._delete_recurring_run(entry)
        if change != "unchanged":
            identity = str(chosen.recurring_run_id)
            self._call(f"enable the schedule {name}", lambda: self._client.enable_recurring_run(identity))
        link = self._link(f"recurringrun/details/{chosen.recurring_run_id}")
        return Scheduled(name, str(chosen.recurring_run_id), change, link)

    def unschedule(self, experiment: str, name: str) -> int:
        """Remove the recurring runs of a name.

        Args:
            experiment: Name of the experiment.
            name: Of the recurring run.

        Returns:
            How many there were.
        """
        found = self._recurring_runs(name, self._experiment(experiment))
        for entry in found:
            self._delete_recurring_run(entry)
        return len(found)

    def overview(self, experiment: str, runs: int = 10) -> dict[str, list[dict[str, str]]]:
        """List what is on the server.

        Args:
            experiment: Name of the experiment.
            runs: How many runs, the newest first.

        Returns:
            ``pipelines``, ``schedules`` and ``runs``, each a list of facts as text.
        """
        experiment_id = self._find_experiment(experiment)
        pipelines = self._pages(
            "list pipelines",
            lambda token: self._client.list_pipelines(
                page_token=token, page_size=PAGE, namespace=self._connection.namespace or None
            ),
            "pipelines",
        )
        found: dict[str, list[dict[str, str]]] = {
            "pipelines": [{"name": str(p.display_name), "id": str(p.pipeline_id)} for p in pipelines],
            "schedules": [],
            "runs": [],
        }
        if experiment_id is not None:
            found["schedules"] = [_schedule_facts(entry) for entry in self._recurring_runs(None, experiment_id)]
            listed = self._call(
                "list runs",
                lambda: self._client.list_runs(page_size=runs, sort_by="created_at desc", experiment_id=experiment_id),
            )
            found["runs"] = [_run_facts(run) for run in listed.runs or []]
        return found

    def logs(self, run_id: str, step: str = "") -> list[StepLog]:
        """Fetch what the steps of a run said.

        Args:
            run_id: Of the run.
            step: Only steps whose name begins with this.

        Returns:
            One entry a step that has a pod, in order of their start.
        """
        run = self._call(f"look at run {run_id}", lambda: self._client.get_run(run_id))
        details = (run.run_details.task_details if run.run_details else None) or []
        details = sorted(details, key=lambda task: (task.start_time is None, task.start_time, task.display_name))
        found = []
        for task in details:
            pods = tuple(_pods(task))
            if not pods or not str(task.display_name).startswith(step):
                continue
            text = "\n".join(self._pod_log(run_id, pod) for pod in pods)
            error = str(task.error.message or "") if task.error else ""
            found.append(StepLog(str(task.display_name), str(task.state or ""), error, pods, text))
        return found

    # --- what is there ---

    def _find_pipeline(self, name: str) -> str | None:
        listed = self._call(
            f"look for pipeline {name}",
            lambda: self._client.list_pipelines(
                filter=_named(name), page_size=PAGE, namespace=self._connection.namespace or None
            ),
        )
        return next((str(p.pipeline_id) for p in listed.pipelines or [] if p.display_name == name), None)

    def _find_version(self, pipeline_id: str, version: str) -> str | None:
        listed = self._call(
            f"look for version {version}",
            lambda: self._client.list_pipeline_versions(pipeline_id, page_size=PAGE, filter=_named(version)),
        )
        versions = listed.pipeline_versions or []
        return next((str(v.pipeline_version_id) for v in versions if v.display_name == version), None)

    def _find_experiment(self, name: str) -> str | None:
        listed = self._call(
            f"look for experiment {name}",
            lambda: self._client.list_experiments(
                page_size=PAGE, namespace=self._connection.namespace or None, filter=_named(name)
            ),
        )
        return next((str(e.experiment_id) for e in listed.experiments or [] if e.display_name == name), None)

    def _find_run(self, name: str, experiment_id: str) -> str | None:
        listed = self._call(
            f"look for run {name}",
            lambda: self._client.list_runs(page_size=PAGE, experiment_id=experiment_id, filter=_named(name)),
        )
        return next((str(run.run_id) for run in listed.runs or [] if run.display_name == name), None)

    def _recurring_runs(self, name: str | None, experiment_id: str) -> list[Any]:
        entries = self._pages(
            "list schedules",
            lambda token: self._client.list_recurring_runs(
                page_token=token, page_size=PAGE, experiment_id=experiment_id
            ),
            "recurring_runs",
        )
        return [entry for entry in entries if name in (None, entry.display_name)]

    def _pages(self, what: str, page: Callable[[str], Any], field: str) -> list[Any]:
        found: list[Any] = []
        token = ""
        while True:
            answer = self._call(what, lambda token=token: page(token))  # type: ignore[misc]
            found += getattr(answer, field) or []
            token = answer.next_page_token or ""
            if not token:
                return found

    # --- what is made ---

    def _experiment(self, name: str) -> str:
        if found := self._find_experiment(name):
            return found
        made = self._create(
            f"create experiment {name}",
            lambda: self._client.create_experiment(name, namespace=self._connection.namespace or None),
            lambda: self._find_experiment(name),
        )
        return made if isinstance(made, str) else str(made.experiment_id)

    def _create_pipeline(self, name: str, description: str) -> str:
        import kfp_server_api

        # An upload that makes pipeline and version at once would name the version after the pipeline.
        body = kfp_server_api.V2beta1Pipeline(
            display_name=name,
            name=name,
            description=description or None,
            namespace=self._connection.namespace or None,
        )
        made = self._create(
            f"create pipeline {name}",
            lambda: self._client.pipelines.pipeline_service_create_pipeline(pipeline=body),
            lambda: self._find_pipeline(name),
        )
        return made if isinstance(made, str) else str(made.pipeline_id)

    def _create_asleep(self, uploaded: Uploaded, wanted: _Wanted, experiment_id: str, name: str) -> Any:
        def found() -> Any:
            entries = self._recurring_runs(name, experiment_id)
            return next((entry for entry in entries if wanted.matches(entry)), None)

        return self._create(
            f"create the schedule {name}",
            lambda: self._client.create_recurring_run(
                experiment_id,
                name,
                description=f"unmask {unmask.__version__}: {uploaded.name} version {uploaded.version}",
                cron_expression=wanted.cron,
                max_concurrency=1,
                no_catchup=True,
                params=wanted.parameters,
                pipeline_id=uploaded.pipeline_id,
                version_id=uploaded.version_id,
                enabled=False,
                pipeline_root=wanted.pipeline_root,
                service_account=wanted.service_account,
            ),
            found,
        )

    def _delete_recurring_run(self, entry: Any) -> None:
        identity = str(entry.recurring_run_id)
        try:
            self._call(f"remove schedule {identity}", lambda: self._client.delete_recurring_run(identity))
        except ServiceError as error:
            if error.status != 404:  # an earlier try got through, though its answer was lost
                raise

    def _pod_log(self, run_id: str, pod: str) -> str:
        def fetch() -> str:
            text, _, _ = self._client._run_api.api_client.call_api(
                LOG_PATH,
                "GET",
                path_params={"run_id": run_id, "node_id": pod},
                response_type="str",
                auth_settings=["Bearer"],
            )
            return str(text)

        try:
            return str(self._call(f"fetch the log of {pod}", fetch))
        except ServiceError as error:
            return f"(no log: {error.problem} With access to the cluster: kubectl logs {pod} -c main)"

    # --- how it is asked ---

    def _link(self, page: str) -> str:
        return f"{self._ui}/#/{page}" if self._ui else f"#/{page} in the Kubeflow Pipelines UI"

    def _create(self, what: str, make: Callable[[], Result], find: Callable[[], Any]) -> Any:
        """Make a thing once: after a failure that leaves open whether it was made, it is looked for."""
        try:
            return self._call(what, make, before_next_try=find)
        except ServiceError as error:
            if error.status == 409 and (found := find()) is not None:
                return found
            raise

    def _call(self, what: str, request: Callable[[], Result], before_next_try: Callable[[], Any] | None = None) -> Any:
        wait_s = self._connection.first_wait_s
        for attempt in range(1, self._connection.attempts + 1):
            try:
                with _explained(what, self.address, self._connection.namespace):
                    return request()
            except ServiceError as error:
                if error.status not in PASSING_STATUS or attempt == self._connection.attempts:
                    raise
                logger.warning("%s Trying again in %.0f s (%d of %d) ...", error.problem, wait_s, attempt + 1,
                               self._connection.attempts)  # fmt: skip
            time.sleep(wait_s)
            wait_s *= 2
            if before_next_try is not None and (found := before_next_try()) is not None:
                return found
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class _Wanted:
    """What a recurring run must be like."""

    cron: str
    version_id: str
    parameters: dict[str, Any]
    pipeline_root: str | None
    service_account: str | None

    def matches(self, entry: Any) -> bool:
        """Say whether a recurring run of the server is like that."""
        cron = entry.trigger.cron_schedule.cron if entry.trigger and entry.trigger.cron_schedule else None
        version = entry.pipeline_version_reference
        runtime = entry.runtime_config
        return bool(
            cron == self.cron
            and version is not None
            and version.pipeline_version_id == self.version_id
            and ((runtime.parameters if runtime else None) or {}) == self.parameters
            and ((runtime.pipeline_root if runtime else None) or None) == self.pipeline_root
            # The server fills its own account in where none was asked for.
            and self.service_account in (None, entry.service_account)
            and entry.no_catchup
            and int(entry.max_concurrency or 0) == 1
        )


def _is_enabled(entry: Any) -> bool:
    return str(entry.mode) == "ENABLE" or str(entry.status) == "ENABLED"


def _named(name: str) -> str:
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": "display_name", "stringValue": name}]})


def _pods(task: Any) -> Iterator[str]:
    """Yield the pods in which a task's own container ran; drivers only prepare it."""
    names = [task.pod_name, *(child.pod_name for child in task.child_tasks or [])]
    for name in dict.fromkeys(name for name in names if name):
        if "driver" not in name:
            yield str(name)


def _schedule_facts(entry: Any) -> dict[str, str]:
    cron = entry.trigger.cron_schedule.cron if entry.trigger and entry.trigger.cron_schedule else ""
    return {
        "name": str(entry.display_name),
        "id": str(entry.recurring_run_id),
        "cron": str(cron),
        "state": "enabled" if _is_enabled(entry) else "disabled",
    }


def _run_facts(run: Any) -> dict[str, str]:
    created = run.created_at.strftime("%Y-%m-%d %H:%M:%S") if run.created_at else ""
    return {"name": str(run.display_name), "id": str(run.run_id), "state": str(run.state or ""), "created": created}


def _client(connection: Connection) -> Any:
    """Make a client of kfp; it asks the server for its health, once."""
    try:
        import kfp
        from kfp.client.set_volume_credentials import ServiceAccountTokenVolumeCredentials
    except ImportError as error:
        raise MissingExtraError("Talking to Kubeflow Pipelines", "pipeline") from error

    class Client(kfp.Client):  # type: ignore[misc]  # kfp is untyped
        def _load_config(self, *given: Any) -> Any:
            return _with_fixed_host(super()._load_config(*given))

        def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
            # kfp's own asks five times with five seconds between, whatever the answer, and hides it.
            return self._healthz_api.healthz_service_get_healthz()

    if not connection.host:
        _check_cluster(connection.kube_context)
    credentials = None
    if connection.host and not connection.token and POD_TOKEN.is_file():
        credentials = ServiceAccountTokenVolumeCredentials(str(POD_TOKEN))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore", FutureWarning)
        client = Client(
            host=connection.host or None,
            existing_token=connection.token or None,
            namespace=connection.installed_in,
            kube_context=connection.kube_context,
            ssl_ca_cert=connection.ca_file,
            ui_host=connection.ui_url or None,
            credentials=credentials,
        )
    # kfp remembers a namespace in a file of the home folder, and otherwise takes its own for the user's.
    client._context_setting = {"namespace": connection.namespace}
    client.get_kfp_healthz()
    return client


def _with_fixed_host(config: Any) -> Any:
    """Keep the path through the Kubernetes proxy: refreshing the token of a kubeconfig would drop it again."""
    host, refresh = config.host.rstrip("/"), config.refresh_api_key_hook

    def refresh_token_only(client_configuration: Any) -> None:
        refresh(client_configuration)
        # Refreshing puts its own address and its own hook back.
        client_configuration.host = host
        client_configuration.refresh_api_key_hook = refresh_token_only

    config.host = host
    if refresh is not None:
        config.refresh_api_key_hook = refresh_token_only
    return config


def _check_cluster(context: str | None) -> None:
    """Make sure that there is a cluster to talk to; kfp would silently try this machine."""
    from kubernetes import config

    if Path("/var/run/secrets/kubernetes.io/serviceaccount/token").is_file():
        return
    try:
        config.new_client_from_config(context=context)
    except (config.ConfigException, OSError) as error:
        raise InputError(
            f"There is neither a host nor a usable kubeconfig ({error}).",
            "Give --host https://…, or --kube-context, or set KUBECONFIG.",
        ) from error


@contextlib.contextmanager
def _explained(what: str, address: str, namespace: str) -> Iterator[None]:
    """Turn exceptions of the client into errors in plain words; keep what kfp prints from standard output."""
    try:
        import urllib3.exceptions
        from kfp_server_api.exceptions import ApiException
    except ImportError as error:
        raise MissingExtraError("Talking to Kubeflow Pipelines", "pipeline") from error

    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    except ApiException as error:
        status = int(error.status or 0)
        said = _server_words(error)
        problem = f"Kubeflow Pipelines at {address} could not {what}: {_meaning(status)}{said}."
        raise ServiceError(problem, _advice(status, namespace), status) from error
    except (urllib3.exceptions.HTTPError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        problem = f"Kubeflow Pipelines at {address} does not answer ({reason})."
        raise ServiceError(problem, _advice(0, namespace), 0) from error


def _server_words(error: Any) -> str:
    try:
        body = json.loads(error.body)
        text = body.get("message") or body.get("error") or ""
    except (TypeError, ValueError, AttributeError):
        text = str(error.reason or "")
    return f": {' '.join(str(text).split())[:300]}" if text else ""


def _meaning(status: int) -> str:
    known = {
        0: "no secure connection",
        400: "it does not accept the request (HTTP 400)",
        401: "it does not know who asks (HTTP 401)",
        403: "it does not allow that (HTTP 403)",
        404: "there is no such thing (HTTP 404)",
        409: "there is one already (HTTP 409)",
        429: "it is asked too often (HTTP 429)",
    }
    return known.get(status, f"it failed (HTTP {status})")


def _advice(status: int, namespace: str) -> str:
    where = f"namespace {namespace}" if namespace else "your namespace"
    known = {
        0: "Check --host and --ca-file, and that the server runs: kubectl -n kubeflow get pods",
        400: "The sentence of the server says what is wrong; `unmask pipeline list` shows what is there.",
        401: "Give a fresh token with --token-file, or log in again; a token of another cluster does not do.",
        403: f"Ask for the role kubeflow-pipelines-edit in {where}, or name yours with --namespace.",
        404: "Check the id and --namespace; if nothing is found at all, --host must be the address of the API.",
        409: "Choose another name, or remove the other one in the UI.",
    }
    return known.get(status, "Try again later; the log of the pod ml-pipeline says more.")
