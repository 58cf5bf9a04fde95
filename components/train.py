# mypy: allow-untyped-decorators
"""Step `train`: one detector learns; the pipeline runs one such step for each detector."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.images import TRAINING


@dsl.container_component
def train(
    detector: str,
    dataset: Input[Dataset],
    faces: Input[Dataset],
    features: Input[Dataset],
    upstream: str,
    epochs: int,
    seed: int,
    store: str,
    tracking_uri: str,
    config: str,
    trained: Output[Model],
    metrics: Output[Metrics],
) -> dsl.ContainerSpec:
    """Train one detector on the train split; the checkpoint is chosen on val.

    Args:
        detector: Name of the detector.
        dataset: Table of samples.
        faces: Face crops.
        features: Feature table.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        epochs: Passes over the training crops.
        seed: Of weights, order and augmentation.
        store: Folder that keeps checkpoints, so that a killed training goes on.
        tracking_uri: MLflow server or sqlite:/// URI that the training is logged to while it runs; empty: nowhere.
        config: Further settings as YAML.
        trained: Weights, description and the scores of all splits.
        metrics: Figures on val.
    """
    return dsl.ContainerSpec(
        image=TRAINING,
        command=["unmask", "train"],
        args=[
            "--detector",
            detector,
            "--dataset",
            dataset.path,
            "--faces",
            faces.path,
            "--features",
            features.path,
            "--out",
            trained.path,
            "--store",
            store,
            "--tracking-uri",
            tracking_uri,
            "--config-inline",
            config,
            "--set",
            f"train.epochs={epochs}",
            "--set",
            f"seed={seed}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
