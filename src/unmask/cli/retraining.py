"""Steps of the scheduled pipeline around training (prerequisites, decision, messages), and its run on one machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from unmask.cli.options import (
    FILE,
    FOLDER,
    dataset_option,
    features_option,
    local_tracking_uri,
    named_places,
    on_this_machine,
    out_option,
    stage,
)
from unmask.cli.root import DEFAULT_WORK, cli
from unmask.config import UnmaskConfig, load_config
from unmask.errors import InputError
from unmask.schemas import StageOutcome, write_atomically

EVENTS = ("failure", "challenger", "success")


@cli.command("check-prerequisites")
@click.option("--source", "sources", multiple=True, metavar="[NAME=]PLACE", help="Folder or s3:// place with media.")
@click.option("--store", default="", help="Folder or s3:// place that keeps finished work; is written to.")
@click.option("--tracking-uri", default="", help="MLflow server or sqlite:/// URI.")
@click.option("--out-report", type=FILE, help="Also write the outcome as Markdown.")
@stage
def check_prerequisites(
    sources: Sequence[str], store: str, tracking_uri: str, out_report: Path | None, config: UnmaskConfig
) -> StageOutcome:
    """Check within seconds that sources, store and tracking server answer and let us in."""
    from unmask.adapters import prerequisites

    listed: list[str] = []
    for text in sources:  # Kubeflow hands over a whole list as one JSON text
        listed += json.loads(text) if text.startswith("[") else [text]
    checks = prerequisites.check_prerequisites(listed, store, tracking_uri, config.storage, config.promote)
    return _told(checks, out_report)


@cli.command("check-gpu")
@click.option("--need-gpu", type=bool, default=True, show_default=True, help="Fail if there is none.")
@click.option("--out-report", type=FILE, help="Also write the outcome as Markdown.")
@stage
def check_gpu(need_gpu: bool, out_report: Path | None, config: UnmaskConfig) -> StageOutcome:
    """Check that PyTorch can use a GPU here."""
    from unmask.adapters import prerequisites

    return _told([prerequisites.check_gpu(need_gpu)], out_report)


def _told(checks: Sequence[object], out_report: Path | None) -> StageOutcome:
    from unmask.adapters.prerequisites import Check, render_markdown, require

    outcomes = [check for check in checks if isinstance(check, Check)]
    if out_report is not None:
        with write_atomically(out_report) as temporary:
            temporary.write_text(render_markdown(outcomes), encoding="utf-8")
    require(outcomes)
    return StageOutcome(metrics={}, messages=tuple(f"{check.name} {check.place}: {check.said}" for check in outcomes))


@cli.command("decide-retraining")
@dataset_option
@features_option
@click.option("--faces", type=FOLDER, help="Face crops that `extract` wrote; the registered version scores new ones.")
@click.option("--tracking-uri", default="", help="MLflow server or sqlite:/// URI.  [default: a file in .unmask]")
@click.option("--force", type=bool, default=False, show_default=True, help="Train whatever the data say.")
@out_option
@click.option("--out-summary", type=FILE, help="Also write the decision as Markdown to this path.")
@stage
def decide_retraining(
    dataset: Path,
    features: Path,
    faces: Path | None,
    tracking_uri: str,
    force: bool,
    out: Path,
    out_summary: Path | None,
    config: UnmaskConfig,
) -> StageOutcome:
    """Decide whether new data, drift or age ask for training, compared with the registered version."""
    from unmask.adapters.reference import find_reference, scorer_of
    from unmask.evaluation.retraining import SUMMARY, run_decide_retraining

    model, uri = config.promote.registered_model, tracking_uri or local_tracking_uri(DEFAULT_WORK)
    reference = find_reference(model, uri, config.promote)
    score = scorer_of(model, reference, uri, faces, features, config.extract) if reference and faces else None
    outcome = run_decide_retraining(dataset, features, model, reference, out, config.retraining, force, score)
    if out_summary is not None:
        with write_atomically(out_summary) as temporary:
            shutil.copyfile(out / SUMMARY, temporary)
    return outcome


@cli.command()
@click.option("--status", required=True, metavar="JSON", help="How the run ended, as Kubeflow tells it.")
@click.option("--run-name", default="", help="Of the run.")
@click.option("--run-id", default="", help="Of the run.")
@click.option("--run-created", default="", help="When the run was created, RFC 3339.")
@click.option("--ui-url", default="", help="Address of the KFP UI, for a link.")
@click.option("--tracking-uri", default="", help="MLflow server or sqlite:/// URI; asked for a waiting challenger.")
@click.option("--on", "events", default=",".join(EVENTS), show_default=True, help="Events that are worth a message.")
@click.option("--config-inline", default="", metavar="YAML", help="Settings as YAML text.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting.")
def notify(
    status: str,
    run_name: str,
    run_id: str,
    run_created: str,
    ui_url: str,
    tracking_uri: str,
    events: str,
    config_inline: str,
    overrides: Sequence[str],
) -> None:
    """Tell people how a run ended: by e-mail and in a chat, as far as these are set up in the environment."""
    from unmask.adapters.notifications import read_channels, send
    from unmask.adapters.run_end import RunEnd, describe

    wanted = {event.strip() for event in events.split(",") if event.strip()}
    if unknown := sorted(wanted - set(EVENTS)):
        raise InputError(f"Unknown events: {', '.join(unknown)}.", f"There are {', '.join(EVENTS)}.")
    config = load_config(None, overrides, config_inline)
    end = RunEnd.from_kubeflow(status, run_name, run_id, run_created, ui_url)
    event, message = describe(end, tracking_uri, config.promote)
    click.echo(f"{message.subject}\n{message.text}")
    channels = read_channels(os.environ)
    if event not in wanted:
        click.echo(f"Nobody is told, because {event} is not among the events to tell of.")
    elif channels.mail is None and not channels.webhook:
        click.echo("Nobody is told: neither e-mail nor webhook is set up (secret unmask-notifications).")
    else:
        click.echo(f"Told by {' and '.join(send(message, channels))}.")


@cli.command()
@click.option("--data", "sources", multiple=True, required=True, metavar="[NAME=]FOLDER", help="real/ and fake/ below.")
@click.option("--work", default=DEFAULT_WORK, show_default=True, type=FOLDER, help="Folder for everything written.")
@on_this_machine
@click.option("--force", is_flag=True, help="Train whatever the data say.")
@click.option("--config", "config_file", type=FILE, help="YAML file; see `unmask config init`.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting, e.g. train.epochs=3.")
def retrain(
    sources: Sequence[str],
    work: Path,
    runner: Literal["local", "docker"],
    store: str,
    tracking_uri: str,
    force: bool,
    config_file: Path | None,
    overrides: Sequence[str],
) -> None:
    """Run the retraining pipeline on this machine: look at the data, and train only if they ask for it."""
    from unmask.adapters.local_run import retrain_on_this_machine

    config = load_config(config_file, overrides)
    places = named_places(sources)  # the first step tells what is wrong with them, and the last one sends it
    click.echo(retrain_on_this_machine(places, work, config, force, runner, store, tracking_uri))
