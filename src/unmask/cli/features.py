"""Around extraction: merging shards, the health of features, their documentation and a picture of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from unmask.cli.options import FILE, FOLDER, dataset_option, features_option, out_option, stage
from unmask.cli.root import cli
from unmask.config import ExtractConfig, UnmaskConfig
from unmask.schemas import StageOutcome


@cli.command("merge-extract")
@dataset_option
@click.option("--faces", "shard_faces", multiple=True, type=FOLDER, help="Face crops of a shard; once for each.")
@click.option("--features", "shard_features", multiple=True, type=FOLDER, help="Features of a shard; once for each.")
@click.option("--out-faces", required=True, type=FOLDER, help="Folder for the face crops.")
@click.option("--out-features", required=True, type=FOLDER, help="Folder for the feature table and its health page.")
@stage
def merge_extract(
    dataset: Path,
    shard_faces: Sequence[Path],
    shard_features: Sequence[Path],
    out_faces: Path,
    out_features: Path,
    config: UnmaskConfig,
) -> StageOutcome:
    """Merge the shards that `extract --shard` wrote to what one run would have written."""
    from unmask.features.merge_stage import run_merge

    return run_merge(dataset, shard_faces, shard_features, out_faces, out_features, config.extract)


@cli.command()
@dataset_option
@features_option
@click.option("--reference-dataset", type=FOLDER, help="Data set of the reference.")
@click.option("--reference-features", type=FOLDER, help="Features to compare with: have the values drifted?")
@out_option
@stage
def health(
    dataset: Path,
    features: Path,
    reference_dataset: Path | None,
    reference_features: Path | None,
    out: Path,
    config: UnmaskConfig,
) -> StageOutcome:
    """Judge the features: what is missing, constant, unbelievable or has drifted; health.json and health.html."""
    from unmask.features.health_stage import run_health

    if (reference_dataset is None) != (reference_features is None):
        raise click.UsageError("Give --reference-dataset and --reference-features together.")
    reference = (reference_dataset, reference_features) if reference_dataset and reference_features else None
    return run_health(dataset, features, out, config.extract, reference)


@cli.command()
@click.option("--markdown", "form", flag_value="markdown", default=True, help="As Markdown.  [default]")
@click.option("--html", "form", flag_value="html", help="As a self-contained page.")
@click.option("--plot", "plots", multiple=True, type=FILE, help="Draw this video over time instead; several times.")
@click.option("--out", type=FILE, help="File to write.  [default for text: standard output]")
def features(form: Literal["markdown", "html"], plots: Sequence[Path], out: Path | None) -> None:
    """Describe every feature: method, source, range, direction, bias, and when it is null.

    With --plot, draw what the features of videos are measured from.
    """
    if plots:
        from unmask.evaluation.timeline import plot_timeline

        if out is None:
            raise click.UsageError("Give --out FILE.png with --plot.")
        plot_timeline(plots, out, ExtractConfig())
        return
    from unmask.features.catalogue_page import catalogue_html, catalogue_markdown
    from unmask.schemas import write_atomically

    text = catalogue_html() if form == "html" else catalogue_markdown()
    if out is None:
        click.echo(text, nl=False)
        return
    with write_atomically(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
