"""A small detector from the whole ensemble."""

from __future__ import annotations

from pathlib import Path

import click

from unmask.cli.options import dataset_option, ensemble_option, faces_option, features_option, out_option, stage
from unmask.cli.root import cli
from unmask.config import UnmaskConfig
from unmask.errors import InputError
from unmask.schemas import StageOutcome


@cli.command()
@dataset_option
@faces_option
@features_option
@ensemble_option
@out_option
@click.option("--strict", is_flag=True, help="Fail if the student loses more AUC than distill.max_auc_loss.")
@stage
def distill(
    dataset: Path, faces: Path, features: Path, ensemble: Path, out: Path, strict: bool, config: UnmaskConfig
) -> StageOutcome:
    """Train a small detector (distill.student) on what the ensemble says, for serving with little time.

    The result is a detector like any other: give its folder alone to ensemble, fuse, evaluate and bundle.
    """
    from unmask.deployment.distil_stage import run_distill

    outcome = run_distill(dataset, faces, features, ensemble, out, config.distill, config.train, config.seed)
    if strict and not outcome.metrics["good_enough"]:
        raise InputError(
            outcome.messages[0],
            f"Train longer, choose a larger student, or raise distill.max_auc_loss; it lies in {out}.",
        )
    return outcome
