"""The gate in front of every route: who may ask, how much, how often; headers, records and places.

It stands before the framework reads a body, so that a refused request costs nothing.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import urlsplit

from unmask.serving.keys import ANONYMOUS, Keys, RateLimiter
from unmask.serving.problems import RefusedError, busy
from unmask.serving.telemetry import Telemetry

logger = logging.getLogger("unmask.serving.access")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Without a key: the page itself, and what a load balancer asks.
OPEN = re.compile(
    r"/(?:|page/[\w.-]+|report|monitoring|health|ready|openapi\.json|favicon\.ico|v2/health/(?:live|ready))"
)
HEAVY = re.compile(
    r"/(?:v1/analyze|v1/analyze/batch|v1/jobs|inference/analyze-frame|v2/models/[^/]+/infer"
    r"|v1/analyses/[^/]+/faces/\d+/heatmap)"
)
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src blob:; "
        "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(self), microphone=(), geolocation=(), interest-cohort=()",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
RETRY_AFTER_S = 2
SMALL_BODY_BYTES = 1 << 20
# A refused body is read on for a little while: a client that is cut off in the middle never sees the answer.
DRAINED_BYTES = 64 << 20
DRAINED_S = 5.0


class Places:
    """Places for requests that cost something: those that are worked on and those that wait.

    Args:
        n: How many.
    """

    def __init__(self, n: int) -> None:
        self._free = n
        self.n = n

    def enter(self) -> bool:
        """Take a place, if there is one."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def leave(self) -> None:
        """Give it back."""
        self._free += 1

    @property
    def taken(self) -> int:
        """Places that are taken."""
        return self.n - self._free


class Gate:
    """ASGI middleware.

    Args:
        app: Behind it.
        keys: That are accepted.
        rates: Of the keys.
        places: For costly requests.
        telemetry: Counts.
        max_body_bytes: Largest body of a costly request; others may have 1 MiB.
        hosts: Names under which the server may be asked; empty for all. Keeps foreign pages from reaching a server on
            this machine by a name of their own (DNS rebinding).
    """

    def __init__(
        self,
        app: App,
        keys: Keys,
        rates: RateLimiter,
        places: Places,
        telemetry: Telemetry,
        max_body_bytes: int,
        hosts: Iterable[str],
    ) -> None:
        self._app = app
        self._keys = keys
        self._rates = rates
        self._places = places
        self._telemetry = telemetry
        self._max_body_bytes = max_body_bytes
        self._hosts = frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        request_id = secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        answered: dict[str, int] = {}

        async def send_safely(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                answered["status"] = message["status"]
                _add_headers(message, request_id)
            await send(message)

        try:
            await self._pass(scope, receive, send_safely)
        finally:
            self._note(scope, request_id, answered.get("status", 0), time.perf_counter() - start)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        heavy = scope["method"] in ("POST", "GET") and HEAVY.fullmatch(path) is not None
        heavy = heavy and (scope["method"] == "POST" or path.endswith("/heatmap"))
        headers = _headers(scope)
        largest = self._max_body_bytes if heavy else SMALL_BODY_BYTES
        has_place = False
        try:
            self._check_origin(scope, headers)
            scope["state"]["caller"] = ANONYMOUS
            if OPEN.fullmatch(path) is None:
                scope["state"]["caller"] = self._check_key(headers)
            _check_length(headers, largest)
            if heavy:
                has_place = self._places.enter()
                if not has_place:
                    self._telemetry.busy.inc()
                    raise busy(f"{self._places.n} requests are being worked on or waiting.", RETRY_AFTER_S)
                self._telemetry.in_flight.set(self._places.taken)
            await self._app(scope, _counted(receive, largest), send)
        except RefusedError as error:
            await _drain(receive)
            await error.response(scope["state"]["request_id"])(scope, receive, send)
        finally:
            if has_place:
                self._places.leave()
                self._telemetry.in_flight.set(self._places.taken)

    def _check_origin(self, scope: Scope, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if self._hosts and urlsplit(f"//{host}").hostname not in self._hosts:
            raise RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "unknown_host",
                "This server does not answer to that name.",
                "Ask it by the name it was started with, or start it with --allowed-host.",
            )
        origin = headers.get("origin")
        if origin is not None and scope["method"] not in ("GET", "HEAD") and urlsplit(origin).netloc != host:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "foreign_origin", "Pages of other sites may not send anything to this server."
            )

    def _check_key(self, headers: dict[str, str]) -> str:
        if not self._keys.required:
            return ANONYMOUS
        key = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()
        entry = self._keys.find(key) if key else None
        if entry is None:
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED,
                "no_key",
                "The API key is missing or unknown.",
                "Send it as `Authorization: Bearer KEY` or `X-Api-Key: KEY`.",
                {"WWW-Authenticate": "Bearer"},
            )
        wait_s = self._rates.wait_s(entry.name, entry.requests_per_minute)
        if wait_s > 0:
            raise RefusedError(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_requests",
                "This key has used up its requests for the moment.",
                f"Try again in {wait_s:.0f} s.",
                {"Retry-After": f"{wait_s:.0f}"},
            )
        return entry.name

    def _note(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", None) or ("refused" if status else "gone")
        self._telemetry.requests.labels(route, str(status)).inc()
        self._telemetry.seconds.labels(route).observe(seconds)
        fields = {
            "request_id": request_id,
            "method": scope["method"],
            "route": route,
            "status": status,
            "ms": round(1000 * seconds, 1),
            "caller": scope["state"].get("caller", ""),
        }
        logger.info("request", extra={"fields": fields})


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}


def _add_headers(message: MutableMapping[str, Any], request_id: str) -> None:
    there = {name.lower() for name, _ in message.get("headers", ())}
    added = SECURITY_HEADERS | {"x-request-id": request_id}
    message["headers"] = [
        *message.get("headers", ()),
        *((name.encode(), value.encode()) for name, value in added.items() if name.encode() not in there),
    ]


def _check_length(headers: dict[str, str], largest: int) -> None:
    stated = headers.get("content-length", "")
    if stated.isascii() and stated.isdigit() and int(stated) > largest:
        raise _too_large(largest)


def _too_large(largest: int) -> RefusedError:
    return RefusedError(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        "too_large",
        f"The body has more than {largest / (1 << 20):.0f} MiB.",
        "Send a smaller file.",
    )


def _counted(receive: Receive, largest: int) -> Receive:
    """Stop a body that is longer than it may be, whatever its headers say."""
    n_bytes = 0

    async def counted() -> MutableMapping[str, Any]:
        nonlocal n_bytes
        message = await receive()
        n_bytes += len(message.get("body", b""))
        if n_bytes > largest:
            raise _too_large(largest)
        return message

    return counted


async def _drain(receive: Receive) -> None:
    n_bytes = 0
    try:
        async with asyncio.timeout(DRAINED_S):
            while n_bytes < DRAINED_BYTES:
                message = await receive()
                n_bytes += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
    except TimeoutError:
        return
