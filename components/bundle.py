# mypy: allow-untyped-decorators
"""Step `bundle`: all that scoring needs goes to one folder without torch."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Metrics, Model, Output

from components.images import TRAINING


@dsl.container_component
def bundle(
    detectors: Input[list[Model]],
    ensemble: Input[Model],
    fusion: Input[Model],
    features: Input[Dataset],
    dataset: Input[Dataset],
    faces: Input[Dataset],
    evaluation: Input[Artifact],
    upstream: str,
    seed: int,
    config: str,
    bundle: Output[Model],
    metrics: Output[Metrics],
    sizes: Output[HTML],
    detectors_2: Input[list[Model]] = None,  # how kfp spells an optional input
    detectors_3: Input[list[Model]] = None,
) -> dsl.ContainerSpec:
    """Export all that scoring needs to one folder: ONNX, calibration, fusion, thresholds.

    Args:
        detectors: Trained detectors; the command finds them through the executor input.
        ensemble: Ensemble.
        fusion: Fusion with its thresholds.
        features: Feature table.
        dataset: Table of samples.
        faces: Face crops, for the numeric check and for quantisation.
        evaluation: Figures on test, which the bundle carries for those who read its verdicts.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        seed: Of what is fitted anew when detectors are made smaller.
        config: Further settings as YAML.
        bundle: The folder that is registered and served.
        metrics: Parity of ONNX with torch.
        sizes: Size, time and AUC of each detector and of every smaller form that was tried.
        detectors_2: Those that were trained on another kind of node.
        detectors_3: Those that were trained on a third kind of node.
    """
    return dsl.ContainerSpec(
        image=TRAINING,
        command=["unmask", "bundle"],
        args=[
            "--ensemble",
            ensemble.path,
            "--fusion",
            fusion.path,
            "--features",
            features.path,
            "--dataset",
            dataset.path,
            "--faces",
            faces.path,
            "--evaluation",
            evaluation.path,
            "--out",
            bundle.path,
            "--out-sizes",
            sizes.path,
            "--set",
            f"seed={seed}",
            "--config-inline",
            config,
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
