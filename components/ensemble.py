# mypy: allow-untyped-decorators
"""Step `ensemble`: detectors are calibrated and weighed against each other."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from components.images import PIPELINE


@dsl.container_component
def ensemble(
    dataset: Input[Dataset],
    detectors: Input[list[Model]],
    upstream: str,
    seed: int,
    config: str,
    ensemble: Output[Model],
    metrics: Output[Metrics],
    detectors_2: Input[list[Model]] = None,  # how kfp spells an optional input
    detectors_3: Input[list[Model]] = None,
) -> dsl.ContainerSpec:
    """Calibrate the detectors and weigh them against each other, on the calib split.

    Args:
        dataset: Table of samples.
        detectors: Trained detectors; the command finds them through the executor input.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        seed: Of the weight search.
        config: Further settings as YAML.
        ensemble: Temperatures, weights and a score for every sample.
        metrics: Figures on calib.
        detectors_2: Those that were trained on another kind of node.
        detectors_3: Those that were trained on a third kind of node.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "ensemble"],
        args=[
            "--dataset",
            dataset.path,
            "--out",
            ensemble.path,
            "--config-inline",
            config,
            "--set",
            f"seed={seed}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
