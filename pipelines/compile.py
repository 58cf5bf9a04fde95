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

from pipelines import presets, retraining, training, tuning
from pipelines.resources import Cluster, Images, read_cluster
from unmask.errors import UnmaskError

COMPILED = Path(__file__).parent / "compiled"


def _smoke(cluster: Cluster) -> Any:
    return training.build(cluster, presets.preset("smoke"), "smoke")


PIPELINES: dict[str, Callable[[Cluster], Any]] = {
    "training": training.build,
    # A form that shows the values that it will use says more than a field that takes the name of a preset.
    "training-smoke": _smoke,
    "retraining": retraining.build,
    "tuning": tuning.build,
}


def compile_one(name: str, folder: Path, cluster: Cluster) -> Path:
    """Compile one pipeline.

    Args:
        name: Key of `PIPELINES`.
        folder: Where ``<name>.yaml`` is written.
        cluster: What differs from cluster to cluster.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.yaml"
    compiler.Compiler().compile(PIPELINES[name](cluster), str(file))
    return file


def compile_all(folder: Path, cluster: Cluster) -> list[Path]:
    """Compile every pipeline.

    Args:
        folder: Where ``<name>.yaml`` is written.
        cluster: What differs from cluster to cluster.

    Returns:
        The files.
    """
    return [compile_one(name, folder, cluster) for name in PIPELINES]


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


def _described(file: Path | None, registry: str | None, gpus: int | None) -> Cluster:
    """Read the description of a cluster and apply the single options on top."""
    cluster = read_cluster(file) if file else Cluster()
    values = cluster.model_dump()
    if registry is not None:
        values["images"] = Images(registry=registry, tag=cluster.images.tag).model_dump()
    if gpus is not None:
        values["training"]["count"] = gpus
    return Cluster.model_validate(values)


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
    parser.add_argument("--cluster", type=Path, help="YAML file that describes a cluster; see pipelines/cluster.yaml")
    parser.add_argument("--registry", help=f"prefix of the images (default: {default.images.registry})")
    parser.add_argument("--gpus", type=int, help=f"GPUs a training step (default: {default.training.count})")
    options = parser.parse_args(arguments)
    try:
        cluster = _described(options.cluster, options.registry, options.gpus)
    except (UnmaskError, ValueError) as error:
        parser.error(str(error))
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
