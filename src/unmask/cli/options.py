"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from unmask.cli.root import DEFAULT_WORK
from unmask.config import UnmaskConfig, load_config
from unmask.errors import InputError
from unmask.objects import ObjectStore
from unmask.schemas import StageOutcome

if TYPE_CHECKING:  # importing it costs the time of opening the video library
    from unmask.data.sources import Source

Command = TypeVar("Command", bound=Callable[..., Any])
FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path, dir_okay=False)


def stage(function: Command) -> Command:
    """Add what every stage understands: configuration and the KFP executor input."""

    @click.option("--config", "config_file", type=FILE, help="YAML file; see `unmask config init`.")
    @click.option("--config-inline", default="", metavar="YAML", help="Settings as YAML text; win over --config.")
    @click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting, e.g. train.epochs=3.")
    @click.option("--executor-input", default="", hidden=True, help="Written by Kubeflow Pipelines.")
    @functools.wraps(function)
    def wrapped(
        config_file: Path | None,
        config_inline: str,
        overrides: Sequence[str],
        executor_input: str,
        **options: Any,
    ) -> None:
        from unmask.adapters.kfp_executor import ExecutorIO

        config = load_config(config_file, overrides, config_inline)
        task = ExecutorIO.from_json(executor_input) if executor_input else None
        if task is not None and "trained" in options:
            options["trained"] = (*options["trained"], *task.numbered_input_paths("detectors"))
        if task is not None and "inspected" in options and task.has_input("inspected"):
            options["inspected"] = (*options["inspected"], *task.input_paths("inspected"))
        for name in ("shard_faces", "shard_features"):
            if task is not None and name in options:
                options[name] = (*options[name], *task.input_paths(name))
        # `promote --version` needs no folder at all, and `ensemble --reweigh` has the scores in another one.
        needless = options.get("version") or options.get("reweigh")
        if "trained" in options and not options["trained"] and not needless:
            raise InputError("No trained detector was given.", "Give --trained FOLDER once for each detector.")
        outcome: StageOutcome = function(config=config, **options)
        for message in outcome.messages:
            click.echo(message)
        if task is not None:
            task.finish(outcome, _output_parameters(options))

    return wrapped  # type: ignore[return-value]


def _output_parameters(options: dict[str, Any]) -> dict[str, str]:
    """Read the small values that later KFP steps take as parameters."""
    from unmask.schemas import DatasetInfo, RetrainingDecision

    out = options.get("out")
    if out is not None and (out / "retraining.json").is_file():
        # One plain word: kfp's local evaluation of conditions stumbles over quotes and spaces.
        return {"retrain": "yes" if RetrainingDecision.load(out / "retraining.json").retrain else "no"}
    if out is not None and (out / "samples.parquet").is_file():
        return {"dataset_version": DatasetInfo.load(out / "dataset.json").version}
    return {}


def folder_option(name: str, text: str) -> Callable[[Command], Command]:
    """Make a required option that names a folder."""
    return click.option(f"--{name}", required=True, type=FOLDER, help=text)


out_option = folder_option("out", "Folder to write; appears only when the stage has succeeded.")
dataset_option = folder_option("dataset", "Folder that `ingest` wrote.")
faces_option = folder_option("faces", "Face crops that `extract` wrote.")
features_option = folder_option("features", "Features that `extract` wrote.")
ensemble_option = folder_option("ensemble", "Folder that `ensemble` wrote.")
fusion_option = folder_option("fusion", "Folder that `fuse` wrote.")
trained_option = click.option(
    "--trained", multiple=True, type=FOLDER, help="Folder that `train` wrote; once for each detector."
)
source_option = click.option(
    "--source",
    "sources",
    multiple=True,
    metavar="[NAME=]PLACE",
    help="A folder, s3://bucket/prefix, https://host/set.zip#sha256=…, kaggle:owner/dataset or faceforensics:c23; may "
    "be given several times. See `unmask sources`.",
)
store_option = click.option(
    "--store",
    default="",
    metavar="FOLDER|s3://…",
    help="Keeps finished work between runs, so that a killed run loses little.",
)


def on_this_machine(function: Command) -> Command:
    """Add the options that say how and with which servers a whole pipeline runs on this machine."""
    options = (
        click.option("--runner", type=click.Choice(["local", "docker"]), default="local", show_default=True),
        click.option(
            "--store", default="", metavar="FOLDER|s3://…", help="Keeps finished work.  [default: a folder in --work]"
        ),
        click.option("--tracking-uri", default="", help="MLflow server.  [default: a database in --work]"),
    )
    for option in reversed(options):
        function = option(function)
    return function


def named_sources(texts: Sequence[str], config: UnmaskConfig, store: str) -> list[Source]:
    """Open sources; what lies elsewhere is fetched first. Kubeflow hands over a whole list as one JSON text.

    Args:
        texts: As the user wrote them.
        config: Of object stores and downloads.
        store: What --store names; fetched sources are kept below it if it is a folder.
    """
    from unmask.adapters.sources import open_sources
    from unmask.data.addresses import parse_source

    listed: list[str] = []
    for text in texts:
        listed += json.loads(text) if text.startswith("[") else [text]
    work = Path(store) if store and "://" not in store else DEFAULT_WORK
    downloads = Path(config.download.folder) if config.download.folder else work / "downloads"
    return open_sources([parse_source(text) for text in listed], downloads.expanduser(), config)


def named_places(texts: Sequence[str]) -> list[str]:
    """Read sources without opening them, for steps that open them elsewhere: folders become absolute.

    Args:
        texts: As the user wrote them.
    """
    from unmask.data.addresses import FolderAddress, parse_source

    places = []
    for text in texts:
        address = parse_source(text)
        places.append(f"{address.name}={address.path.resolve()}" if isinstance(address, FolderAddress) else text)
    return places


def local_tracking_uri(work: Path) -> str:
    """Name the MLflow database of a work folder."""
    return f"sqlite:///{(work / 'mlflow.db').resolve()}"


def opened(store: str, config: UnmaskConfig) -> ObjectStore | None:
    """Open what --store names; None when it was not given."""
    from unmask.adapters.object_store import open_store

    return open_store(store, config.storage) if store else None
