"""Around training: detectors, learning rates, searches for settings, and runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import click

from unmask.cli.options import (
    FILE,
    dataset_option,
    faces_option,
    features_option,
    local_tracking_uri,
    opened,
    out_option,
    stage,
    store_option,
)
from unmask.cli.root import DEFAULT_WORK, cli
from unmask.config import UnmaskConfig, load_config
from unmask.schemas import StageOutcome

detector_option = click.option("--detector", required=True, help="Name of the detector, e.g. meso4.")


@cli.group(invoke_without_command=True)
@click.pass_context
def detectors(context: click.Context) -> None:
    """List the detectors that `train` knows, or take over published weights."""
    if context.invoked_subcommand:
        return
    from unmask.detectors import names

    for name in names():
        click.echo(name)
    click.echo("timm:<any model of timm with an average-pooled backbone>")


@detectors.command("import")
@click.option("--detector", required=True, type=click.Choice(["meso4", "mesoinception4"]), help="Whose weights.")
@click.option("--weights", required=True, type=FILE, help="HDF5 file as Keras writes it.")
@click.option("--out", required=True, type=FILE, help="Safetensors file to write, for train.pretrained.")
@click.option(
    "--output-means",
    type=click.Choice(["real", "fake"]),
    default="real",
    show_default=True,
    help="What an output near 1 says; the published weights mean real.",
)
def import_weights(detector: str, weights: Path, out: Path, output_means: Literal["real", "fake"]) -> None:
    """Convert published Meso weights (Keras, HDF5, channels last) to a file that `train.pretrained` takes."""
    from unmask.detectors.keras_weights import import_keras_weights

    import_keras_weights(weights, detector, out, output_means=output_means)
    click.echo(f"Wrote {out}. Use it: --set train.pretrained={out}")


@detectors.command("fetch")
@click.argument("names", nargs=-1, required=True, metavar="DETECTOR…")
@click.option("--store", required=True, metavar="FOLDER|s3://…", help="The --store of the trainings.")
@click.option("--config", "config_file", type=FILE, help="YAML file; see `unmask config init`.")
def fetch_weights(names: Sequence[str], store: str, config_file: Path | None) -> None:
    """Put the ImageNet weights of detectors into a store, for trainings on machines without internet.

    A training with internet and --store does the same by itself.
    """
    from unmask.detectors import WeightSource, build, weights_from

    with weights_from(WeightSource(opened(store, load_config(config_file)))):
        for name in names:
            build(name, pretrained="imagenet")
            click.echo(f"The ImageNet weights of {name} are in {store}.")


@cli.command("find-learning-rate")
@detector_option
@dataset_option
@faces_option
@features_option
@click.option("--steps", default=60, show_default=True, type=click.IntRange(10, 10_000), help="Optimiser steps.")
@stage
def find_learning_rate(
    detector: str, dataset: Path, faces: Path, features: Path, steps: int, config: UnmaskConfig
) -> StageOutcome:
    """Train a few steps with a rising learning rate, and say where the loss falls fastest."""
    from unmask.training.device import reproducible
    from unmask.training.range_test import find_learning_rate as find
    from unmask.training.train_stage import prepare

    settings = config.train.resolved_for(detector)
    with reproducible(settings, config.seed) as threads:
        prepared = prepare(detector, dataset, faces, features, settings, config.seed, threads=threads)
        found = find(prepared.trainer(settings), steps=steps)
    rows = zip(found.learning_rates, found.losses, strict=True)
    table = [f"  {rate:9.2e}  {loss:.4f}" for rate, loss in list(rows)[:: max(1, len(found.losses) // 15)]]
    return StageOutcome(
        metrics={"learning_rate": found.suggestion},
        messages=(
            "learning rate  smoothed loss",
            *table,
            f"{detector}: the loss falls fastest at {found.suggestion:.1e}; now set is {settings.learning_rate:.1e}. "
            f"Use it: --set train.learning_rate={found.suggestion:.1e}",
        ),
    )


@cli.command()
@detector_option
@dataset_option
@faces_option
@features_option
@out_option
@store_option
@stage
def tune(
    detector: str, dataset: Path, faces: Path, features: Path, out: Path, store: str, config: UnmaskConfig
) -> StageOutcome:
    """Search training settings for a detector with Optuna, judged on val.

    Writes the best ones as a configuration file. With --store, a killed search goes on where it stopped.
    """
    from unmask.adapters.object_store import open_media
    from unmask.training.device import reproducible
    from unmask.training.tuning import run_tune

    with reproducible(config.train.resolved_for(detector), config.seed):
        return run_tune(
            detector,
            dataset,
            faces,
            features,
            out,
            config.train,
            config.tune,
            config.seed,
            opened(store, config),
            open_media(config.storage),
        )


@cli.group()
def runs() -> None:
    """Look at trainings."""


@runs.command("compare")
@click.argument("a")
@click.argument("b")
@click.option("--tracking-uri", default="", help="MLflow server or sqlite:/// URI.  [default: a file in .unmask]")
def compare_runs(a: str, b: str, tracking_uri: str) -> None:
    """Show two trainings side by side: settings that differ, and figures.

    A and B are folders that `train` wrote, or ids of MLflow runs.
    """
    from unmask.training.comparison import RunFacts, facts_of_folder, render_comparison

    def facts(name: str) -> RunFacts:
        if Path(name).is_dir():
            return facts_of_folder(Path(name))
        from unmask.adapters.tracked_runs import facts_of_run

        return facts_of_run(name, tracking_uri or local_tracking_uri(DEFAULT_WORK))

    click.echo(render_comparison(facts(a), facts(b)))
