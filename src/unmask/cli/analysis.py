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
from unmask.schemas import StageOutcome


@cli.command()
@click.argument("a", type=FOLDER)
@click.argument("b", type=FOLDER)
@out_option
@stage
def compare(a: Path, b: Path, out: Path, config: UnmaskConfig) -> StageOutcome:
    """Compare two runs on the same test samples: A and B are folders that `fuse` wrote.

    Says whether B is better than A, with the interval of the difference.
    """
    from unmask.evaluation.compare import run_compare

    return run_compare(a, b, out, config.evaluate, config.seed)


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
