# mypy: allow-untyped-decorators
"""Step `ingest`: folders of media become a table of samples."""

from kfp import dsl
from kfp.dsl import Dataset, Metrics, Output

from components.images import PIPELINE


@dsl.container_component
def ingest(
    sources: list[str],
    data_version: str,
    seed: int,
    store: str,
    config: str,
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    dataset_version: dsl.OutputPath(str),  # type: ignore[valid-type]  # how kfp spells an output parameter
) -> dsl.ContainerSpec:
    """Find, check and split media.

    Args:
        sources: Places as [NAME=]PLACE: folder, s3://bucket/prefix, https:// archive, kaggle:owner/dataset.
        data_version: Changes when the bytes behind the sources change; only for the cache key.
        seed: Of the split.
        store: Folder that keeps the latest result, so that samples keep their split when data are added.
        config: Further settings as YAML.
        dataset: Table of samples with groups, splits and reasons of failures; media stay where they are or in
            storage.media.
        metrics: Counts.
        dataset_version: Content hash of the data set.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "ingest"],
        args=[
            "--source",
            sources,
            "--out",
            dataset.path,
            "--store",
            store,
            "--config-inline",
            config,
            "--set",
            f"seed={seed}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
