"""What people do around the stages on one machine: a whole run, a sample set, verdicts, configuration files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from unmask.cli.options import FILE, FOLDER, local_tracking_uri, named_sources, on_this_machine
from unmask.cli.root import DEFAULT_WORK, cli
from unmask.config import commented_defaults, load_config
from unmask.errors import InputError


@cli.command("sources")
def known_sources() -> None:
    """List known data sets: what they hold, on which terms, and how to get them.

    Besides these, --source takes any folder, s3://bucket/prefix, https:// archive and Kaggle data set that holds media
    in real/ and fake/.
    """
    from unmask.data.known_sets import described

    click.echo(described())


@cli.command()
@click.option("--out", required=True, type=FOLDER, help="Folder to write.")
@click.option("--videos", default=80, show_default=True, help="Number of clips, half of them fake.")
@click.option("--seed", default=42, show_default=True, help="Same seed, same bytes.")
def sample(out: Path, videos: int, seed: int) -> None:
    """Render a sample set of talking faces, real and fake, to try the pipeline on.

    The faces are drawn by a program: the set shows the way, not the accuracy.
    """
    from unmask.data.sampleset import generate

    for message in generate(out, videos, seed).messages:
        click.echo(message)


@cli.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--bundle",
    "bundle_folder",
    type=FOLDER,
    help="Folder that `bundle` wrote.  [default: .unmask/latest/bundle, from the last `unmask run`]",
)
@click.option("--model", help="Registered model instead of a folder, e.g. models:/unmask-detector@challenger.")
@click.option("--tracking-uri", default="", help="MLflow server or sqlite:/// URI for --model.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document a line instead of text.")
def score(
    files: Sequence[Path], bundle_folder: Path | None, model: str | None, tracking_uri: str, as_json: bool
) -> None:
    """Judge files: probability, verdict, and the evidence for it."""
    from unmask.deployment.runtime import Bundle
    from unmask.deployment.verdict import render_text

    if model and bundle_folder:
        raise InputError("Both --model and --bundle were given.", "Give one of them.")
    if model:
        from unmask.adapters.tracking import resolve_model

        bundle_folder = resolve_model(model, tracking_uri or local_tracking_uri(DEFAULT_WORK))
    bundle_folder = bundle_folder or DEFAULT_WORK / "latest" / "bundle"
    if not bundle_folder.is_dir():
        raise InputError(
            f"There is no bundle at {bundle_folder}.", "Run `make run` first, or give --bundle FOLDER or --model URI."
        )
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise InputError(f"No such file: {', '.join(missing)}.", "Check the path.")
    loaded = Bundle.load(bundle_folder)
    for file in files:
        verdict = loaded.score(file)
        click.echo(verdict.model_dump_json() if as_json else render_text(verdict))


@cli.group()
def config() -> None:
    """Write and check configuration files."""


@config.command("init")
@click.option("--out", type=FILE, help="File to write; standard output when left out.")
def config_init(out: Path | None) -> None:
    """Write every setting with its default and its meaning."""
    if out is None:
        click.echo(commented_defaults(), nl=False)
        return
    if out.exists():
        raise InputError(f"{out} exists.", "Choose another name, or remove it first.")
    out.write_text(commented_defaults(), encoding="utf-8")
    click.echo(f"Wrote {out}.")


@config.command("check")
@click.argument("file", type=FILE)
def config_check(file: Path) -> None:
    """Check a configuration file; all errors are reported together."""
    load_config(file)
    click.echo(f"{file} is valid.")


@cli.command()
@click.option(
    "--data",
    "sources",
    multiple=True,
    metavar="[NAME=]PLACE",
    help="Media with labels, as for `unmask ingest`; a rendered sample set when left out.",
)
@click.option("--videos", default=80, show_default=True, help="Clips in the rendered sample set.")
@click.option("--work", default=DEFAULT_WORK, show_default=True, type=FOLDER, help="Folder for everything written.")
@on_this_machine
@click.option("--config", "config_file", type=FILE, help="YAML file; see `unmask config init`.")
@click.option("--set", "overrides", multiple=True, metavar="NAME=VALUE", help="One setting, e.g. train.epochs=3.")
def run(
    sources: Sequence[str],
    videos: int,
    work: Path,
    runner: Literal["local", "docker"],
    store: str,
    tracking_uri: str,
    config_file: Path | None,
    overrides: Sequence[str],
) -> None:
    """Run the whole pipeline on this machine: from media to a registered, explained detector.

    It is the same compiled pipeline that a cluster runs. Finished steps are not run again: a second run with nothing
    changed takes seconds, and a failed or killed one goes on where it stopped.
    """
    from unmask.adapters.local_run import run_on_this_machine

    resolved = load_config(config_file, overrides)
    found = named_sources(sources, resolved, store or str(work / "store"))
    click.echo(run_on_this_machine(found, videos, work, runner, resolved, store, tracking_uri))
