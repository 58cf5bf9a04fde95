# mypy: allow-untyped-decorators
"""Step `merge-extract`: the shards of an extraction become one table of crops and one of features."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components.images import PIPELINE


@dsl.container_component
def merge_extract(
    dataset: Input[Dataset],
    shard_faces: Input[list[Dataset]],
    shard_features: Input[list[Dataset]],
    upstream: str,
    config: str,
    faces: Output[Dataset],
    features: Output[Dataset],
    metrics: Output[Metrics],
) -> dsl.ContainerSpec:
    """Merge shards to what one step over the whole data set would have written, and judge the features.

    Args:
        dataset: Table of samples.
        shard_faces: Crops of all shards.
        shard_features: Features of all shards.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        config: Further settings as YAML.
        faces: JPEG crops in Parquet parts.
        features: One row a sample; null with a reason where not measurable.
        metrics: Counts.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "merge-extract"],
        args=[
            "--dataset",
            dataset.path,
            "--out-faces",
            faces.path,
            "--out-features",
            features.path,
            "--config-inline",
            config,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
