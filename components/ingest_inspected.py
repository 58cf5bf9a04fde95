# mypy: allow-untyped-decorators
"""Step `ingest-inspected`: what the shards found becomes a table of samples, as `ingest` would have written it."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Output

from components.images import PIPELINE


@dsl.container_component
def ingest_inspected(
    sources: list[str],
    inspected: Input[list[Dataset]],
    data_version: str,
    seed: int,
    store: str,
    config: str,
    dataset: Output[Dataset],
    metrics: Output[Metrics],
    dataset_version: dsl.OutputPath(str),  # type: ignore[valid-type]  # how kfp spells an output parameter
) -> dsl.ContainerSpec:
    """Group, check and split media that were inspected in shards.

    Args:
        sources: Places as the shards were given them.
        inspected: What all shards found.
        data_version: Changes when the bytes behind the sources change; only for the cache key.
        seed: Of the split.
        store: Place that keeps the latest result, so that samples keep their split when data are added.
        config: Further settings as YAML.
        dataset: Table of samples with groups, splits and reasons of failures.
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
