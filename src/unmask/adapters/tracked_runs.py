"""Reading runs back from MLflow."""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from unmask.errors import InputError
from unmask.training.comparison import RunFacts


def facts_of_run(run_id: str, tracking_uri: str) -> RunFacts:
    """Read settings and figures of a run.

    Args:
        run_id: Of MLflow.
        tracking_uri: Server or ``sqlite:///`` URI.

    Returns:
        Its facts.

    Raises:
        InputError: There is no such run, or the server cannot be reached.
    """
    try:
        run = MlflowClient(tracking_uri).get_run(run_id)
    except MlflowException as error:
        raise InputError(
            f"{run_id!r} is neither a folder that `train` wrote nor a run of {tracking_uri} ({error.message}).",
            "Give the path of a folder, or a run id as MLflow shows it, and --tracking-uri.",
        ) from error
    figures = {name: f"{value:.4g}" for name, value in sorted(run.data.metrics.items())}
    return RunFacts(run.info.run_name or run_id, dict(sorted(run.data.params.items())), figures)
