"""The `unmask` command; the modules below add its subcommands."""

from unmask.cli import analysis, local, registry, serving, stages, training
from unmask.cli.root import cli, main

__all__ = ["analysis", "cli", "local", "main", "registry", "serving", "stages", "training"]
