"""Questions about finished runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from unmask.cli.options import (
    FOLDER,
    dataset_option,
    faces_option,
    features_option,
    opened,
    out_option,
    stage,
    store_option,
)
from unmask.cli.root import cli
from unmask.config import UnmaskConfig
from unmask.errors import InputError
from unmask.schemas import StageOutcome


@cli.command()
@click.argument("systems", nargs=-1, required=True, type=FOLDER)
@click.option("--dataset", type=FOLDER, help="Folder that `ingest` wrote; its test files are scored, for bundles.")
@out_option
@stage
def compare(systems: Sequence[Path], dataset: Path | None, out: Path, config: UnmaskConfig) -> StageOutcome:
    """Compare two or more SYSTEMS on the same test samples, each with the first.

    A system is a folder that `fuse` wrote, or a bundle. Says who is better and by how much, with the interval of the
    difference, and who decides rightly more often, each at its own threshold.
    """
    from unmask.evaluation.compare import contender_of, write_comparison

    bundles = [folder for folder in systems if (folder / "manifest.json").is_file()]
    scored = {}
    if bundles:
        from unmask.deployment.bundle_scores import score_bundles

        if dataset is None:
            raise InputError(f"{bundles[0]} is a bundle and has no scores.", "Give --dataset with labelled test files.")
        scored = score_bundles(bundles, dataset)
    contenders = [contender_of(folder, place, scored.get(folder)) for place, folder in enumerate(systems)]
    return write_comparison(contenders, out, config.evaluate, config.seed)


@cli.command("cross-dataset")
@dataset_option
@faces_option
@features_option
@click.option(
    "--detector", "detectors", multiple=True, help="See `unmask detectors`.  [default: those of the settings]"
)
@click.option(
    "--by",
    type=click.Choice(["source", "manipulation", "both"]),
    default="both",
    show_default=True,
    help="What is left out of training.",
)
@store_option
@out_option
@stage
def cross_dataset(
    dataset: Path,
    faces: Path,
    features: Path,
    detectors: Sequence[str],
    by: str,
    store: str,
    out: Path,
    config: UnmaskConfig,
) -> StageOutcome:
    """Train on some sources or manipulations and test on those that were not seen.

    Prints who was tested on what as a matrix, what not having seen costs, and how far the probabilities drift from
    source to source. With --store, a training that was made before is not made again.
    """
    from unmask.evaluation.cross_dataset import run_cross_dataset

    return run_cross_dataset(
        dataset,
        faces,
        features,
        detectors or config.detectors,
        out,
        config.train,
        by=("source", "manipulation") if by == "both" else (by,),
        resamples=config.evaluate.resamples,
        seed=config.seed,
        store=opened(store, config),
    )
