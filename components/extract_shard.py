# mypy: allow-untyped-decorators
"""Step `extract-shard`: one part of a data set is decoded; a pipeline runs one such step for each shard."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components.images import PIPELINE


@dsl.container_component
def extract_shard(
    dataset: Input[Dataset],
    upstream: str,
    shard: str,
    store: str,
    config: str,
    faces: Output[Dataset],
    features: Output[Dataset],
    metrics: Output[Metrics],
) -> dsl.ContainerSpec:
    """Decode each file of one shard once: face crops and forensic features.

    Args:
        dataset: Table of samples.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        shard: Which part, as i/n.
        store: Folder or s3:// address that keeps finished work between runs.
        config: Further settings as YAML.
        faces: JPEG crops of the shard in Parquet parts.
        features: One row a sample of the shard.
        metrics: Counts.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "extract"],
        args=[
            "--dataset",
            dataset.path,
            "--shard",
            shard,
            "--out-faces",
            faces.path,
            "--out-features",
            features.path,
            "--store",
            store,
            "--config-inline",
            config,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
