# mypy: allow-untyped-decorators
"""Step `evaluate`: everything is measured on the test split, and the report is written."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, ClassificationMetrics, Dataset, Input, Markdown, Metrics, Model, Output

from components.images import TRAINING


@dsl.container_component
def evaluate(
    dataset: Input[Dataset],
    faces: Input[Dataset],
    features: Input[Dataset],
    detectors: Input[list[Model]],
    ensemble: Input[Model],
    fusion: Input[Model],
    upstream: str,
    seed: int,
    config: str,
    evaluation: Output[Artifact],
    report: Output[HTML],
    summary: Output[Markdown],
    metrics: Output[Metrics],
    roc: Output[ClassificationMetrics],
    detectors_2: Input[list[Model]] = None,  # how kfp spells an optional input
    detectors_3: Input[list[Model]] = None,
) -> dsl.ContainerSpec:
    """Measure everything on the test split, with intervals, and write the report.

    Args:
        dataset: Table of samples.
        faces: Face crops.
        features: Feature table.
        detectors: Trained detectors; the command finds them through the executor input.
        ensemble: Ensemble with its scores.
        fusion: Fusion with its scores and thresholds.
        upstream: What the inputs were made from; only for the cache key, which leaves the bytes of artifacts out.
        seed: Of the bootstrap.
        config: Further settings as YAML.
        evaluation: Figures and robustness table.
        report: The report as one HTML file.
        summary: The headline in Markdown.
        metrics: Figures on test.
        roc: ROC curve and confusion matrix on test.
        detectors_2: Those that were trained on another kind of node.
        detectors_3: Those that were trained on a third kind of node.
    """
    return dsl.ContainerSpec(
        image=TRAINING,
        command=["unmask", "evaluate"],
        args=[
            "--dataset",
            dataset.path,
            "--faces",
            faces.path,
            "--features",
            features.path,
            "--ensemble",
            ensemble.path,
            "--fusion",
            fusion.path,
            "--out",
            evaluation.path,
            "--out-report",
            report.path,
            "--out-summary",
            summary.path,
            "--config-inline",
            config,
            "--set",
            f"seed={seed}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
