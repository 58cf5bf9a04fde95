"""The `unmask` command; the modules below add its subcommands."""

from unmask.cli import analysis, data, features, local, pipeline, registry, retraining, serving, stages, training
from unmask.cli.root import cli, main

__all__ = [
    "analysis",
    "cli",
    "data",
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
