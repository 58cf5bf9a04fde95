# mypy: allow-untyped-decorators
"""Step `fuse`: the ensemble's score and the forensic features become one calibrated probability."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.images import PIPELINE


@dsl.container_component
def fuse(
    dataset: Input[Dataset],
    ensemble: Input[Model],
    features: Input[Dataset],
    upstream: str,
    target_fpr: float,
    operating_point: str,
    seed: int,
    config: str,
    fusion: Output[Model],
    metrics: Output[Metrics],
) -> dsl.ContainerSpec:
    """Join the ensemble's score and the forensic features to one calibrated probability, on the calib split.

    Args:
        dataset: Table of samples.
        ensemble: Ensemble with its scores.
        features: Feature table.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        target_fpr: False alarms allowed at the operating point target_fpr.
        operating_point: The threshold that verdicts use: max_f1, youden or target_fpr.
        seed: Of the folds.
        config: Further settings as YAML.
        fusion: Coefficients, thresholds and a score for every sample.
        metrics: Figures on calib.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "fuse"],
        args=[
            "--dataset",
            dataset.path,
            "--ensemble",
            ensemble.path,
            "--features",
            features.path,
            "--out",
            fusion.path,
            "--config-inline",
            config,
            "--set",
            f"fusion.target_fpr={target_fpr}",
            "--set",
            f"fusion.operating_point={operating_point}",
            "--set",
            f"seed={seed}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
