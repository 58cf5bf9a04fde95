"""The application: routes put together, started and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match, Route

from unmask import __version__
from unmask.config import ServeConfig
from unmask.deployment.runtime import Bundle
from unmask.errors import StorageError, UnmaskError
from unmask.fusion.rules import with_feedback
from unmask.serving import routes_analysis, routes_feedback, routes_kserve, routes_page, routes_state
from unmask.serving.analyst import Analyst
from unmask.serving.gate import Gate, Places
from unmask.serving.jobs import Jobs
from unmask.serving.keys import Keys, RateLimiter
from unmask.serving.models import Follower, Models, ModelSource
from unmask.serving.openapi import describe
from unmask.serving.problems import RefusedError
from unmask.serving.services import Services
from unmask.serving.store import FeedbackStore
from unmask.serving.telemetry import Telemetry
from unmask.serving.uploads import Scratch
from unmask.serving.workers import DecoderPool

logger = logging.getLogger(__name__)

ROUTES = (routes_analysis, routes_feedback, routes_state, routes_kserve, routes_page)


def create_app(
    champion: ModelSource,
    config: ServeConfig,
    work: Path,
    *,
    challenger: ModelSource | None = None,
    keys: Keys | None = None,
    feedback_url: str = "",
    hosts: Sequence[str] = (),
) -> FastAPI:
    """Make the application.

    Args:
        champion: Where the version comes from that answers.
        config: Limits.
        work: Folder for uploads in progress, kept uploads and, without ``feedback_url``, the feedback database.
        challenger: Where a second version comes from; None for none.
        keys: That are accepted; None when everybody may ask.
        feedback_url: SQLAlchemy URL of the feedback store.
        hosts: Names under which the server may be asked; empty for all.

    Returns:
        An ASGI application.
    """
    telemetry = Telemetry()
    places = Places(config.workers + config.queue)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        url = feedback_url or f"sqlite:///{(work / 'feedback.db').absolute()}"
        async with _services(champion, challenger, config, work, url, telemetry) as services:
            app.state.services = services
            yield
            app.state.services = None

    app = FastAPI(
        title="unmask",
        version=__version__,
        summary="Is this image or video a deepfake? With the evidence.",
        lifespan=lifespan,
        # The usual documentation pages load scripts from other addresses.
        docs_url=None,
        redoc_url=None,
    )
    app.state.services = None
    app.state.keys = keys or Keys([])
    for routes in ROUTES:
        app.include_router(routes.router)
    _handle_errors(app)
    describe(app, needs_key=app.state.keys.required)
    app.add_middleware(
        Gate,
        keys=app.state.keys,
        rates=RateLimiter(config.requests_per_minute),
        places=places,
        telemetry=telemetry,
        max_body_bytes=config.max_upload_mib << 20,
        hosts=hosts,
    )
    return app


@contextlib.asynccontextmanager
async def _services(
    champion: ModelSource,
    challenger: ModelSource | None,
    config: ServeConfig,
    work: Path,
    feedback_url: str,
    telemetry: Telemetry,
) -> AsyncIterator[Services]:
    store = await asyncio.to_thread(FeedbackStore, feedback_url)
    scratch = Scratch(work / "scratch")
    models = _models(champion, challenger, config, store)
    pool = DecoderPool(
        config.workers,
        config.worker_memory_mib,
        config.decoder_threads,
        lambda reason: telemetry.restarts.labels(reason).inc(),
    )
    following = None
    try:
        for follower in models.followers.values():
            await asyncio.to_thread(follower.check)
        await pool.start()
        analyst = Analyst(config, models, pool, store, telemetry, work / "kept")
        jobs = Jobs(analyst, max(1, config.workers - 1), config.max_jobs, config.keep_results_s)
        following = asyncio.create_task(_follow(models, config.poll_s, telemetry, analyst))
        yield Services(config, models, analyst, jobs, pool, store, telemetry, scratch)
        await jobs.close()
        await analyst.close()
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await pool.stop()
        scratch.remove()
        store.close()


def _models(champion: ModelSource, challenger: ModelSource | None, config: ServeConfig, store: FeedbackStore) -> Models:
    def prepare(bundle: Bundle) -> Bundle:
        if not config.feedback_weights:
            return bundle
        try:
            counts = store.feedback_counts(bundle.version)
        except StorageError as error:
            logger.error("Users' feedback is left out: %s", error)
            return bundle
        return replace(bundle, fusion=with_feedback(bundle.fusion, counts))

    def follower(source: ModelSource) -> Follower:
        return Follower(source, config.detector_threads, config.timeline_crops, prepare, config.providers)

    second = None if challenger is None else follower(challenger)
    return Models(follower(champion), second, config.challenger_share, config.shadow)


async def _follow(models: Models, poll_s: float, telemetry: Telemetry, analyst: Analyst) -> None:
    seen: dict[str, str] = {}

    def note() -> None:
        for arm, follower in models.followers.items():
            version = follower.version
            telemetry.following.labels(arm).set(0 if follower.problem else 1)
            if version is not None and seen.get(arm) != version.name:
                if arm in seen:
                    telemetry.swaps.labels(arm).inc()
                    telemetry.model.labels(arm, seen[arm]).set(0)
                telemetry.model.labels(arm, version.name).set(1)
                seen[arm] = version.name
        analyst.results.expire()

    note()
    await models.follow(poll_s, note)


def _allowed(app: FastAPI, request: Request) -> list[str]:
    """Methods of all routes of a path; the router would name those of the first one only."""
    methods: set[str] = set()
    # What is included stays in routers of its own, behind one entry of `app.routes`.
    for route in itertools.chain(app.routes, *(module.router.routes for module in ROUTES)):
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods or set()
    return sorted(methods)


def _handle_errors(app: FastAPI) -> None:
    def request_id(request: Request) -> str:
        return str(request.scope.get("state", {}).get("request_id", ""))

    @app.exception_handler(RefusedError)
    async def refused(request: Request, error: RefusedError) -> Response:
        return error.response(request_id(request))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        status = HTTPStatus.UNPROCESSABLE_ENTITY
        return RefusedError(status, "invalid", f"{where}: {first['msg']}").response(request_id(request))

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        headers = dict(error.headers or {})
        if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
            headers["Allow"] = ", ".join(_allowed(app, request))
        code = HTTPStatus(error.status_code).name.lower()
        return RefusedError(error.status_code, code, str(error.detail), headers=headers).response(request_id(request))

    @app.exception_handler(UnmaskError)
    async def ours(request: Request, error: UnmaskError) -> Response:
        logger.error("%s", error, extra={"fields": {"request_id": request_id(request)}})
        # Its words may name folders and databases of this machine.
        status = HTTPStatus.SERVICE_UNAVAILABLE
        detail = "A part of this server does not work at the moment."
        return RefusedError(status, "unavailable", detail, "Try again later.", {"Retry-After": "10"}).response(
            request_id(request)
        )

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=HTTPStatus.BAD_REQUEST)  # nobody reads it

    @app.exception_handler(Exception)
    async def unexpected(request: Request, error: Exception) -> Response:
        status = HTTPStatus.INTERNAL_SERVER_ERROR
        fix = "Tell whoever runs this server, with the request id."
        return RefusedError(status, "internal", "Something went wrong here.", fix).response(request_id(request))
