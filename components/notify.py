# mypy: allow-untyped-decorators
"""Step `notify`: people hear how the run ended."""

from kfp import dsl

from components.images import PIPELINE


@dsl.container_component
def notify(
    status: dsl.PipelineTaskFinalStatus,
    run_name: str,
    run_id: str,
    run_created: str,
    ui_url: str,
    tracking_uri: str,
    registered_model: str,
    notify_on: str,
    config: str,
) -> dsl.ContainerSpec:
    """Send an e-mail and a chat message: the run failed, succeeded, or left a challenger that waits for a person.

    Args:
        status: How the run ended.
        run_name: Of the run.
        run_id: Of the run.
        run_created: When it was created, RFC 3339 in UTC.
        ui_url: Address of the KFP UI, for a link to the run; may be empty.
        tracking_uri: MLflow server or sqlite:/// URI.
        registered_model: Name in the registry.
        notify_on: Events that are worth a message: failure, challenger, success.
        config: Further settings as YAML.
    """
    return dsl.ContainerSpec(
        image=PIPELINE,
        command=["unmask", "notify"],
        args=[
            "--status",
            status,
            "--run-name",
            run_name,
            "--run-id",
            run_id,
            "--run-created",
            run_created,
            "--ui-url",
            ui_url,
            "--tracking-uri",
            tracking_uri,
            "--on",
            notify_on,
            "--config-inline",
            config,
            "--set",
            f"promote.registered_model={registered_model}",
        ],
    )
