"""What people do with registered versions: go back, look at what happened; `promote` stands with the stages."""

from __future__ import annotations

import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from unmask.cli.options import FILE, local_tracking_uri
from unmask.cli.root import DEFAULT_WORK, cli
from unmask.config import PromoteConfig, load_config
from unmask.schemas import StageOutcome

if TYPE_CHECKING:
    from unmask.adapters.tracking_history import Move

WIDTH = 100
tracking_option = click.option(
    "--tracking-uri", default="", help="MLflow server or sqlite:/// URI.  [default: a file in .unmask]"
)
model_option = click.option("--model", default="", help="Registered model.  [default: promote.registered_model]")
config_option = click.option("--config", "config_file", type=FILE, help="YAML file; see `unmask config init`.")
why_option = click.option("--why", default="", help="The reason; kept in the history.")
by_option = click.option("--by", default="", help="Who decides; kept in the history.  [default: your user name]")


def _settings(config_file: Path | None, model: str) -> PromoteConfig:
    overrides = [f"promote.registered_model={model}"] if model else []
    return load_config(config_file, overrides).promote


def promote_registered(
    version: str, tracking_uri: str, config: PromoteConfig, why: str, by: str, overrule: bool
) -> StageOutcome:
    """Make a registered version champion: `unmask promote --version N`."""
    from unmask.adapters.tracking_registry import promote_version

    uri = tracking_uri or local_tracking_uri(DEFAULT_WORK)
    move = promote_version(version, uri, config, why=why, by=by, overrule=overrule)
    if move is None:
        return StageOutcome(messages=(f"{config.registered_model} version {version} is the champion already.",))
    return StageOutcome(messages=(_told(move, config),))


@cli.command()
@model_option
@tracking_option
@why_option
@by_option
@config_option
def rollback(model: str, tracking_uri: str, why: str, by: str, config_file: Path | None) -> None:
    """Return to the previous champion. Servers that follow the alias change over by themselves.

    A champion that was set in the MLflow page counts like any other.
    """
    from unmask.adapters.tracking_registry import rollback as go_back

    config = _settings(config_file, model)
    click.echo(_told(go_back(tracking_uri or local_tracking_uri(DEFAULT_WORK), config, why=why, by=by), config))


@cli.command()
@model_option
@tracking_option
@config_option
def history(model: str, tracking_uri: str, config_file: Path | None) -> None:
    """List the registered versions, what the gate said about each, and who was champion when and why."""
    from unmask.adapters.tracking_registry import list_versions

    config = _settings(config_file, model)
    versions, moves = list_versions(tracking_uri or local_tracking_uri(DEFAULT_WORK), config)
    click.echo(f"Versions of {config.registered_model}, newest first:")
    for each in versions:
        made = datetime.fromtimestamp(each.created_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")
        alias = f" [{', '.join(each.aliases)}]" if each.aliases else ""
        click.echo(f"  {each.version:>3}  {made}  gate: {each.gate or 'not asked'}{alias}")
        click.echo(textwrap.fill(each.decision, WIDTH, initial_indent=" " * 7, subsequent_indent=" " * 7))
    click.echo(f"Moves of the alias {config.champion_alias}, oldest first:" if moves else "There was no champion yet.")
    for move in moves:
        click.echo(f"  {move.at}  {move.before or 'none'} -> {move.after or 'none'}  {move.action} by {move.by}")
        click.echo(textwrap.fill(move.why, WIDTH, initial_indent=" " * 7, subsequent_indent=" " * 7))


def _told(move: Move, config: PromoteConfig) -> str:
    before = f"version {move.before}" if move.before else "none"
    return (
        f"{config.registered_model}: champion is version {move.after} now (before: {before}). "
        f"{move.action.capitalize()} by {move.by}: {move.why}"
    )
