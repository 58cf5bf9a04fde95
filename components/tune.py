# mypy: allow-untyped-decorators
"""Step `tune`: search training settings for one detector."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Output

from components.images import TRAINING


@dsl.container_component
def tune(
    detector: str,
    dataset: Input[Dataset],
    faces: Input[Dataset],
    features: Input[Dataset],
    upstream: str,
    trials: int,
    seed: int,
    store: str,
    config: str,
    tuned: Output[Artifact],
    metrics: Output[Metrics],
) -> dsl.ContainerSpec:
    """Search training settings for one detector, judged on val.

    Args:
        detector: Name of the detector.
        dataset: Table of samples.
        faces: Face crops.
        features: Feature table.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        trials: Trainings, the first with the settings as they are.
        seed: Of the search and of every training.
        store: Keeps finished trials, so that a killed search goes on.
        config: Further settings as YAML.
        tuned: All trials, and the best settings as a configuration.
        metrics: Figures on val.
    """
    return dsl.ContainerSpec(
        image=TRAINING,
        command=["unmask", "tune"],
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
            tuned.path,
            "--store",
            store,
            "--config-inline",
            config,
            "--set",
            f"tune.trials={trials}",
            "--set",
            f"seed={seed}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
