"""What the routes of a running server share."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from unmask.config import ServeConfig
from unmask.serving.analyst import Analyst
from unmask.serving.jobs import Jobs
from unmask.serving.models import Models
from unmask.serving.problems import RefusedError
from unmask.serving.store import FeedbackStore
from unmask.serving.telemetry import Telemetry
from unmask.serving.uploads import Scratch
from unmask.serving.workers import DecoderPool


@dataclass
class Services:
    """What routes use; made when the application starts.

    Attributes:
        config: Limits.
        models: Who answers.
        analyst: Answers.
        jobs: Answers later.
        pool: Measures.
        store: Records.
        telemetry: Counts.
        scratch: Where uploads lie.
    """

    config: ServeConfig
    models: Models
    analyst: Analyst
    jobs: Jobs
    pool: DecoderPool
    store: FeedbackStore
    telemetry: Telemetry
    scratch: Scratch


def services(request: Request) -> Services:
    """Give a route what it uses.

    Raises:
        RefusedError: 503, the application is starting or stopping.
    """
    found = request.app.state.services
    if found is None:
        raise RefusedError(
            HTTPStatus.SERVICE_UNAVAILABLE, "starting", "The server is starting or stopping.", "", {"Retry-After": "2"}
        )
    assert isinstance(found, Services)
    return found


def caller(request: Request) -> str:
    """Name of the API key that the gate found."""
    return str(request.scope["state"]["caller"])


Shared = Annotated[Services, Depends(services)]
Caller = Annotated[str, Depends(caller)]
