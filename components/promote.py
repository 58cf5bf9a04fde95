# mypy: allow-untyped-decorators
"""Step `promote`: the run is logged, the bundle registered, and the gate decides on its alias."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from components.images import PIPELINE


@dsl.container_component
def promote(
    bundle: Input[Model],
    evaluation: Input[Artifact],
    dataset: Input[Dataset],
    features: Input[Dataset],
    faces: Input[Dataset],
    detectors: Input[list[Model]],
    ensemble: Input[Model],
    fusion: Input[Model],
    upstream: str,
    tracking_uri: str,
    registered_model: str,
    config: str,
    decision: Output[Artifact],
    metrics: Output[Metrics],
    detectors_2: Input[list[Model]] = None,  # how kfp spells an optional input
    detectors_3: Input[list[Model]] = None,
) -> dsl.ContainerSpec:
    """Log the run to MLflow, register the bundle, and give it the alias that the gate allows.

    Args:
        bundle: What is registered.
        evaluation: Figures on test.
        dataset: Table of samples.
        features: Feature table.
        faces: Face crops, on which a champion that was tested on other samples is scored anew.
        detectors: Trained detectors; the command finds them through the executor input.
        ensemble: Ensemble.
        fusion: Fusion.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        tracking_uri: MLflow server or sqlite:/// URI.
        registered_model: Name in the registry.
        config: Further settings as YAML.
        decision: What was decided and why.
        metrics: Outcome as numbers.
        detectors_2: Those that were trained on another kind of node.
        detectors_3: Those that were trained on a third kind of node.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "promote"],
        args=[
            "--bundle",
            bundle.path,
            "--evaluation",
            evaluation.path,
            "--dataset",
            dataset.path,
            "--features",
            features.path,
            "--faces",
            faces.path,
            "--ensemble",
            ensemble.path,
            "--fusion",
            fusion.path,
            "--tracking-uri",
            tracking_uri,
            "--out",
            decision.path,
            "--config-inline",
            config,
            "--set",
            f"promote.registered_model={registered_model}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
