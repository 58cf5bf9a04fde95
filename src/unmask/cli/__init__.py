"""The `unmask` command; the modules below add its subcommands."""

from unmask.cli import (
    analysis,
    data,
    distillation,
    features,
    local,
    pipeline,
    registry,
    retraining,
    serving,
    stages,
    training,
)
from unmask.cli.root import cli, main

__all__ = [
    "analysis",
    "cli",
    "data",
    "distillation",
    "features",
    "local",
    "main",
    "pipeline",
    "registry",
    "retraining",
    "serving",
    "stages",
    "training",
]
