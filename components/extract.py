# mypy: allow-untyped-decorators
"""Step `extract`: one decode of each file gives face crops and forensic features."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components.images import PIPELINE


@dsl.container_component
def extract(
    dataset: Input[Dataset],
    upstream: str,
    store: str,
    config: str,
    faces: Output[Dataset],
    features: Output[Dataset],
    metrics: Output[Metrics],
) -> dsl.ContainerSpec:
    """Decode each file once: face crops and forensic features.

    Args:
        dataset: Table of samples.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        store: Folder that keeps finished work between runs.
        config: Further settings as YAML.
        faces: JPEG crops in Parquet parts.
        features: One row a sample; null with a reason where not measurable.
        metrics: Counts.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "extract"],
        args=[
            "--dataset",
            dataset.path,
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
