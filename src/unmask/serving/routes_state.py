"""Routes that tell how the server is: for load balancers, Prometheus and the curious."""

from __future__ import annotations

from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from starlette.requests import Request

from unmask import __version__
from unmask.schemas import Document
from unmask.serving.answers import ModelsInfo, model_info
from unmask.serving.problems import RefusedError
from unmask.serving.services import Services, Shared

router = APIRouter(tags=["state"])


class Health(Document):
    """The process runs."""

    status: Literal["ok"] = "ok"
    unmask_version: str = __version__


class Ready(Document):
    """The server can answer.

    Attributes:
        status: Always ready; otherwise the answer is 503.
        model_version: That answers most callers.
    """

    status: Literal["ready"] = "ready"
    model_version: str


class Limits(Document):
    """What the server takes.

    Attributes:
        max_upload_bytes: Largest body.
        max_duration_s: Longest video of a direct request.
        max_job_duration_s: Longest video of a job.
        max_batch_files: Files of a batch.
        keep_uploads: Whether uploads may be kept if their sender agrees.
        keep_results_s: How long an answer can be read again.
    """

    max_upload_bytes: int
    max_duration_s: float
    max_job_duration_s: float
    max_batch_files: int
    keep_uploads: bool
    keep_results_s: float


@router.get("/health", summary="Whether the process runs", operation_id="health")
async def health() -> Health:
    """Says nothing about the model."""
    return Health()


@router.get("/ready", summary="Whether the server can answer", operation_id="ready")
async def ready(request: Request) -> Ready:
    """503 until a model has passed its self-test and a decoding process waits for work."""
    found = request.app.state.services
    version = found.models.champion.version if isinstance(found, Services) else None
    if not isinstance(found, Services) or version is None:
        raise RefusedError(HTTPStatus.SERVICE_UNAVAILABLE, "starting", "The server is starting or stopping.")
    return Ready(model_version=version.name)


@router.get("/v1/model", summary="Which versions answer", operation_id="model")
async def model(shared: Shared) -> ModelsInfo:
    """Their detectors, features, threshold, and how they did on calibration material."""
    infos = [
        model_info(follower.version, arm, follower.problem)
        for arm, follower in shared.models.followers.items()
        if follower.version is not None
    ]
    return ModelsInfo(models=infos, challenger_share=shared.models.share, shadow=shared.models.shadow)


@router.get("/v1/limits", summary="What the server takes", operation_id="limits")
async def limits(shared: Shared) -> Limits:
    """So that a client need not send what would be refused."""
    config = shared.config
    return Limits(
        max_upload_bytes=config.max_upload_mib << 20,
        max_duration_s=config.max_duration_s,
        max_job_duration_s=config.max_job_duration_s,
        max_batch_files=config.max_batch_files,
        keep_uploads=config.keep_uploads,
        keep_results_s=config.keep_results_s,
    )


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    operation_id="metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(shared: Shared) -> Response:
    """In the text format of Prometheus."""
    for status in ("waiting", "running", "done", "failed"):
        shared.telemetry.jobs.labels(status).set(shared.jobs.counts().get(status, 0))
    return Response(shared.telemetry.render(), media_type="text/plain; version=0.0.4; charset=utf-8")
