"""Around ingest: inspecting files in shards, and looking for leaks in any data set."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from unmask.cli.options import FILE, FOLDER, named_sources, opened, out_option, source_option, stage, store_option
from unmask.cli.root import cli
from unmask.config import UnmaskConfig
from unmask.errors import InputError
from unmask.schemas import Shard, StageOutcome

LEAK_FOUND = 3  # exit status, so that a script can tell a leak from an error


@cli.command()
@source_option
@click.option("--shard", default="1/1", show_default=True, metavar="I/N", help="Look only into part I of N.")
@out_option
@store_option
@click.option(
    "--media-store",
    default="",
    metavar="FOLDER|s3://…",
    help="Move the usable files of the part there, each once under its hash.  [default: storage.media]",
)
@stage
def inspect(
    sources: Sequence[str], shard: str, out: Path, store: str, media_store: str, config: UnmaskConfig
) -> StageOutcome:
    """Look into the files of one shard: hash, probe and fingerprint, for `ingest --inspected`.

    Several machines share a large set this way. Give each shard 1/N to N/N once, with the same sources and settings;
    `ingest` with all of them writes what it would have written alone.
    """
    from unmask.adapters.object_store import open_media
    from unmask.data.inspected_parts import run_inspect

    part = Shard.parse(shard)
    return run_inspect(
        named_sources(sources, config, store),
        out,
        config.ingest,
        part,
        opened(store, config),
        media=open_media(config.storage),
        media_store=opened(media_store or config.storage.media, config),
    )


@cli.command()
@click.argument("table", type=click.Path(path_type=Path))
@click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="MEANING=NAME",
    help="Column of a foreign table: path, label, split, group, identity, manipulation or source.",
)
@click.option("--media", type=FOLDER, help="Where the paths of a foreign table begin.  [default: beside the table]")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.option("--page", type=FILE, help="Also write the report to this file: HTML, or Markdown if it ends in .md.")
def audit(table: Path, columns: Sequence[str], media: Path | None, as_json: bool, page: Path | None) -> None:
    """Find out what the splits of a data set share that they must not.

    TABLE is a folder that `ingest` wrote, a CSV or Parquet table with columns for path, label and split, or a folder
    of media that comes divided into train, val and test. The exit status is 3 if there is a leak.
    """
    from unmask.data.leaks import as_html, as_text, find_leaks, read_audited
    from unmask.schemas import write_atomically

    report = find_leaks(read_audited(table, dict(map(_column, columns)), media))
    click.echo(report.model_dump_json(indent=2) if as_json else as_text(report), nl=as_json)
    if page is not None:
        text = as_text(report) if page.suffix.lower() == ".md" else as_html(report)
        with write_atomically(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if report.leaking:
        sys.exit(LEAK_FOUND)


def _column(text: str) -> tuple[str, str]:
    meanings = ("path", "label", "split", "group", "identity", "manipulation", "source")
    meaning, _, name = text.partition("=")
    if meaning not in meanings or not name:
        raise InputError(f"--column {text} cannot be read.", f"Write MEANING=NAME with one of {', '.join(meanings)}.")
    return meaning, name
