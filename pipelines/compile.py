"""Compile the pipelines: `python -m pipelines.compile` rewrites ``pipelines/compiled/``.

The committed files are for the default cluster; options write a file for another one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml
from kfp import compiler

from pipelines import training
from pipelines.resources import Cluster

COMPILED = Path(__file__).parent / "compiled"
PIPELINES: dict[str, Callable[[Cluster], Any]] = {"training": training.build}


def compile_all(folder: Path, cluster: Cluster) -> list[Path]:
    """Compile every pipeline.

    Args:
        folder: Where ``<name>.yaml`` is written.
        cluster: What differs from cluster to cluster.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for name, build in PIPELINES.items():
        file = folder / f"{name}.yaml"
        compiler.Compiler().compile(build(cluster), str(file))
        files.append(file)
    return files


def spec_of(file: Path) -> list[Any]:
    """Read a compiled pipeline for comparison.

    Args:
        file: The YAML file.

    Returns:
        Its documents, without the version of the compiler.
    """
    documents = list(yaml.safe_load_all(file.read_text(encoding="utf-8")))
    for document in documents:
        document.pop("sdkVersion", None)
    return documents


def stale() -> list[str]:
    """List the committed files that differ from what the code compiles to.

    Returns:
        File names; empty when all is well.
    """
    with tempfile.TemporaryDirectory() as folder:
        fresh = compile_all(Path(folder), Cluster())
        return [
            file.name
            for file in fresh
            if not (COMPILED / file.name).is_file() or spec_of(file) != spec_of(COMPILED / file.name)
        ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Compile, or check that the committed files are up to date.

    Args:
        arguments: Of the command line.

    Returns:
        Exit status.
    """
    default = Cluster()
    parser = argparse.ArgumentParser(prog="python -m pipelines.compile", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the committed files are stale")
    parser.add_argument("--out", type=Path, default=COMPILED, help="folder to write (default: %(default)s)")
    parser.add_argument("--registry", default=default.registry, help="prefix of the images (default: %(default)s)")
    parser.add_argument("--gpus", type=int, default=default.gpus, help="GPUs a training step (default: %(default)s)")
    parser.add_argument("--gpu-type", default=default.gpu_type, help="Kubernetes resource (default: %(default)s)")
    options = parser.parse_args(arguments)
    cluster = Cluster(registry=options.registry, gpu_type=options.gpu_type, gpus=options.gpus)
    if options.check:
        files = stale()
        if files:
            sys.stderr.write(f"Stale: {', '.join(files)}. Run `make compile` and commit the result.\n")
        return 1 if files else 0
    if cluster != default and options.out.resolve() == COMPILED.resolve():
        parser.error("the committed files are for the default cluster; give --out another folder")
    for file in compile_all(options.out, cluster):
        sys.stdout.write(f"Wrote {file}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
