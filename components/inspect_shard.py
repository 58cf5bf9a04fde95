# mypy: allow-untyped-decorators
"""Step `inspect-shard`: one part of the files of a data set is looked into; one such step runs for each shard."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from components.images import PIPELINE


@dsl.container_component
def inspect_shard(
    sources: list[str],
    data_version: str,
    shard: str,
    store: str,
    config: str,
    inspected: Output[Dataset],
    metrics: Output[Metrics],
) -> dsl.ContainerSpec:
    """Hash, probe and fingerprint the files of one shard.

    Args:
        sources: Places as [NAME=]PLACE that every pod sees alike, such as s3://bucket/prefix.
        data_version: Changes when the bytes behind the sources change; only for the cache key.
        shard: Which part, as i/n.
        store: Place that keeps the latest result, so that unchanged files are not read again.
        config: Further settings as YAML; with storage.media, usable files of the shard are moved there.
        inspected: What was found, one row a file.
        metrics: Counts.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "inspect"],
        args=[
            "--source",
            sources,
            "--shard",
            shard,
            "--out",
            inspected.path,
            "--store",
            store,
            "--config-inline",
            config,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
