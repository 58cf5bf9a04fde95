"""Questions about finished runs."""

from __future__ import annotations

from pathlib import Path

import click

from unmask.cli.options import FOLDER, out_option, stage
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
