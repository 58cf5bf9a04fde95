# mypy: allow-untyped-decorators
"""Step `check-prerequisites`: what would fail in an hour fails now, with its place and its remedy."""

from kfp import dsl
from kfp.dsl import Markdown, Output

from components.images import PIPELINE


@dsl.container_component
def check_prerequisites(
    sources: list[str],
    store: str,
    tracking_uri: str,
    registered_model: str,
    config: str,
    report: Output[Markdown],
) -> dsl.ContainerSpec:
    """Check within seconds that sources, store and tracking server answer and let us in.

    Args:
        sources: Folders or buckets as [NAME=]PLACE.
        store: Folder or bucket that keeps finished work between runs; is written to.
        tracking_uri: MLflow server or sqlite:/// URI.
        registered_model: Name in the registry.
        config: Further settings as YAML.
        report: What was checked, and how it went.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "check-prerequisites"],
        args=[
            "--source",
            sources,
            "--store",
            store,
            "--tracking-uri",
            tracking_uri,
            "--out-report",
            report.path,
            "--config-inline",
            config,
            "--set",
            f"promote.registered_model={registered_model}",
            "--executor-input",
            dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER,
        ],
    )
