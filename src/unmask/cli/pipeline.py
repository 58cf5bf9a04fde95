"""Pipelines on a cluster: compile, upload, run, schedule, list, logs."""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import yaml

from unmask.cli.options import FILE, FOLDER
from unmask.cli.root import cli
from unmask.errors import InputError

Command = TypeVar("Command", bound=Callable[..., Any])
NAMES = ("training", "training-smoke", "retraining")
TOKEN_VARIABLE = "UNMASK_KFP_TOKEN"
EXPERIMENT = "unmask"


@cli.group()
def pipeline() -> None:
    """Bring pipelines to a Kubeflow cluster, start them, and put them on a schedule."""


def connected(function: Command) -> Command:
    """Add the options that say how the server is reached, and hand the command a `PipelineService`."""

    @click.option("--host", envvar="UNMASK_KFP_HOST", default="", help="API of Kubeflow Pipelines, https://…/pipeline.")
    @click.option("--token-file", type=FILE, help=f"File with a bearer token; or set {TOKEN_VARIABLE}.")
    @click.option("--kube-context", help="Context of the kubeconfig, when no --host is given.")
    @click.option("--namespace", envvar="UNMASK_KFP_NAMESPACE", default="", help="Yours, on a shared installation.")
    @click.option("--installed-in", default="kubeflow", show_default=True, help="Namespace of Kubeflow Pipelines.")
    @click.option("--ca-file", type=FILE, help="Certificates to trust besides the system's.")
    @click.option("--ui", "ui_url", envvar="UNMASK_KFP_UI", default="", help="Address of the UI, for links.")
    @functools.wraps(function)
    def wrapped(
        host: str,
        token_file: Path | None,
        kube_context: str | None,
        namespace: str,
        installed_in: str,
        ca_file: Path | None,
        ui_url: str,
        **options: Any,
    ) -> None:
        from unmask.adapters.kfp_client import Connection, PipelineService

        token = os.environ.get(TOKEN_VARIABLE, "")
        if token_file is not None:
            try:
                token = token_file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(f"{token_file} cannot be read ({error}).", "Check --token-file.") from error
        connection = Connection(
            host,
            token.strip(),
            kube_context,
            namespace,
            installed_in,
            str(ca_file) if ca_file else None,
            ui_url,
        )
        function(service=PipelineService(connection), **options)

    return wrapped  # type: ignore[return-value]


def chosen(function: Command) -> Command:
    """Add the options that choose a compiled pipeline; the command gets its path as ``compiled``."""

    @click.option(
        "--pipeline", "which", type=click.Choice(NAMES), default="training", show_default=True, help="One of ours."
    )
    @click.option("--file", "file", type=FILE, help="Another compiled pipeline.")
    @click.option("--cluster", type=FILE, help="Compile it for this cluster first; see pipelines/cluster.yaml.")
    @functools.wraps(function)
    def wrapped(which: str, file: Path | None, cluster: Path | None, **options: Any) -> None:
        from unmask.adapters.local_runner import committed_pipeline

        if file is not None and cluster is not None:
            raise InputError("Both --file and --cluster were given.", "A file is compiled already; give one of them.")
        if cluster is None:
            function(compiled=file or committed_pipeline(which), **options)
            return
        from pipelines.compile import compile_one
        from pipelines.resources import read_cluster

        with tempfile.TemporaryDirectory(prefix="unmask-") as folder:
            function(compiled=compile_one(which, Path(folder), read_cluster(cluster)), **options)

    return wrapped  # type: ignore[return-value]


def parameterised(function: Command) -> Command:
    """Add the options that set parameters; the command gets the merged and checked mapping as ``parameters``."""

    @click.option("--preset", help="Named set of parameters, e.g. smoke or thorough; see pipelines/presets.yaml.")
    @click.option("--params", "params_file", type=FILE, help="YAML file of parameters; wins over --preset.")
    @click.option("--param", "single", multiple=True, metavar="NAME=VALUE", help="One parameter; the value is YAML.")
    @click.option("--experiment", default=EXPERIMENT, show_default=True, help="Groups runs; made if there is none.")
    @click.option("--pipeline-root", default="", help="Where artifacts go, e.g. s3://bucket/unmask.")
    @click.option("--service-account", default="", help="Of the pods.")
    @functools.wraps(function)
    def wrapped(
        preset: str | None, params_file: Path | None, single: Sequence[str], compiled: Path, **options: Any
    ) -> None:
        from unmask.adapters.kfp_client import check_parameters

        parameters = check_parameters(compiled, _merged(preset, params_file, single))
        function(compiled=compiled, parameters=parameters, **options)

    return wrapped  # type: ignore[return-value]


def _merged(preset: str | None, params_file: Path | None, single: Sequence[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if preset:
        from pipelines.presets import preset as named_preset

        values |= named_preset(preset)
    if params_file is not None:
        try:
            loaded = yaml.safe_load(params_file.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{params_file} cannot be read as YAML ({error}).", "Check --params.") from error
        if not isinstance(loaded, dict):
            raise InputError(f"{params_file} holds no parameters.", "Write `name: value` lines.")
        values |= loaded
    for text in single:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--param {text!r} has no '='.", "Write --param NAME=VALUE.")
        try:
            values[key] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError as error:
            raise InputError(f"--param {text!r}: the value is not YAML.", "Quote it.") from error
    return values


@pipeline.command("compile")
@click.option("--cluster", type=FILE, help="YAML file that describes the cluster; see pipelines/cluster.yaml.")
@click.option("--out", type=FOLDER, required=True, help="Folder for the compiled pipelines.")
def compile_pipelines(cluster: Path | None, out: Path) -> None:
    """Compile the pipelines for a cluster: its images, nodes, GPUs and secrets."""
    from pipelines.compile import compile_all
    from pipelines.resources import Cluster, read_cluster

    for file in compile_all(out, read_cluster(cluster) if cluster else Cluster()):
        click.echo(f"Wrote {file}")


@pipeline.command()
@chosen
@connected
def upload(compiled: Path, service: Any) -> None:
    """Upload a pipeline; a version that is there already is left alone."""
    uploaded = service.upload(compiled)
    click.echo(f"{uploaded.name} version {uploaded.version}: {'uploaded' if uploaded.new else 'was there already'}")
    click.echo(uploaded.link)


@pipeline.command("run")
@chosen
@parameterised
@click.option("--name", default="", help="Of the run; the time is added.")
@connected
def run_pipeline(
    compiled: Path,
    parameters: dict[str, Any],
    experiment: str,
    pipeline_root: str,
    service_account: str,
    name: str,
    service: Any,
) -> None:
    """Start a run; the pipeline is uploaded if it is not there yet."""
    uploaded = service.upload(compiled)
    started = service.run(uploaded, parameters, experiment, name, pipeline_root, service_account)
    click.echo(f"Started {started.name} ({uploaded.name} version {uploaded.version})")
    click.echo(f"  id:   {started.run_id}")
    click.echo(f"  link: {started.link}")


@pipeline.command()
@chosen
@parameterised
@click.option("--cron", required=True, help="E.g. '0 2 * * 0', Sundays at 02:00; five or six fields.")
@click.option("--name", default="", help="Of the schedule; left out, the pipeline's.")
@connected
def schedule(
    compiled: Path,
    parameters: dict[str, Any],
    experiment: str,
    pipeline_root: str,
    service_account: str,
    cron: str,
    name: str,
    service: Any,
) -> None:
    """Run a pipeline again and again: one run at a time, missed ones are not made up for.

    Called again with the same name, it changes the schedule; with nothing changed, it does nothing.
    """
    from unmask.adapters.cron import parse_cron

    times = parse_cron(cron)
    uploaded = service.upload(compiled)
    made = service.schedule(
        uploaded, times, parameters, experiment, name or uploaded.name, pipeline_root, service_account
    )
    following = ", ".join(f"{time:%Y-%m-%d %H:%M}" for time in times.next_times(datetime.now(UTC)))
    click.echo(f"Schedule {made.name}: {made.change}. {uploaded.name} version {uploaded.version} runs {times}.")
    click.echo(f"  cron: {times.expression} (next, in UTC: {following})")
    click.echo(f"  link: {made.link}")


@pipeline.command()
@click.option("--name", required=True, help="Of the schedule.")
@click.option("--experiment", default=EXPERIMENT, show_default=True)
@connected
def unschedule(name: str, experiment: str, service: Any) -> None:
    """Remove a schedule; its runs stay."""
    count = service.unschedule(experiment, name)
    click.echo(f"Removed the schedule {name}." if count else f"There is no schedule {name} in {experiment}.")


@pipeline.command("list")
@click.option("--experiment", default=EXPERIMENT, show_default=True)
@click.option("--runs", "count", default=10, show_default=True, help="How many runs, the newest first.")
@connected
def list_all(experiment: str, count: int, service: Any) -> None:
    """List pipelines, schedules and the latest runs."""
    from unmask.adapters.cron import parse_cron

    found = service.overview(experiment, count)
    click.echo("Pipelines:")
    for entry in found["pipelines"]:
        click.echo(f"  {entry['name']}  {entry['id']}")
    click.echo("Schedules:")
    for entry in found["schedules"]:
        words = parse_cron(entry["cron"]) if entry["cron"] else "at intervals"
        click.echo(f"  {entry['name']}  {entry['state']}  {words}  {entry['id']}")
    click.echo("Runs:")
    for entry in found["runs"]:
        click.echo(f"  {entry['created']}  {entry['state']:<10}  {entry['name']}  {entry['id']}")


@pipeline.command()
@click.argument("run_id")
@click.option("--step", default="", help="Only steps whose name begins with this.")
@connected
def logs(run_id: str, step: str, service: Any) -> None:
    """Print what the steps of a run said; RUN_ID is what `run` and `list` print."""
    found = service.logs(run_id, step)
    if not found:
        raise InputError("No step of this run has a pod (yet).", "Wait a little, or check --step.")
    for entry in found:
        click.echo(f"== {entry.step}: {entry.state}" + (f": {entry.error}" if entry.error else ""))
        click.echo(entry.text.rstrip("\n"))
