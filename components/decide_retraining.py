# mypy: allow-untyped-decorators
"""Step `decide-retraining`: train only when data, drift or age ask for it."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Metrics, Output

from components.images import PIPELINE


@dsl.container_component
def decide_retraining(
    dataset: Input[Dataset],
    features: Input[Dataset],
    faces: Input[Dataset],
    upstream: str,
    tracking_uri: str,
    registered_model: str,
    force: bool,
    config: str,
    decision: Output[Artifact],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    retrain: dsl.OutputPath(str),  # type: ignore[valid-type]  # how kfp spells an output parameter
) -> dsl.ContainerSpec:
    """Compare the data with those that the registered version has seen.

    Args:
        dataset: Table of samples.
        features: Feature table.
        faces: Face crops, on which the registered version scores new samples.
        upstream: What the inputs were made from.
        tracking_uri: MLflow server or sqlite:/// URI.
        registered_model: Name in the registry.
        force: Train whatever the data say.
        config: Further settings as YAML; the bounds are in its section retraining.
        decision: The decision with every comparison.
        summary: The same as a page.
        metrics: Its figures.
        retrain: yes or no.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "decide-retraining"],
        args=[
            "--dataset",
            dataset.path,
            "--features",
            features.path,
            "--faces",
            faces.path,
            "--tracking-uri",
            tracking_uri,
            "--force",
            force,
            "--out",
            decision.path,
            "--out-summary",
            summary.path,
            "--config-inline",
            config,
            "--set",
            f"promote.registered_model={registered_model}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
