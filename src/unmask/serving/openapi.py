"""The description of the interface: problems as they are answered, keys, examples."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from unmask.serving.example_answer import example_answer
from unmask.serving.problems import MEDIA_TYPE, Problem

# Any route may be refused so; those that read a body, or name something, have more reasons.
_ALWAYS = {"400": "The request cannot be read", "403": "From a page of another site", "421": "Unknown host name"}
_KEYED = {"401": "API key missing or unknown", "429": "Too many requests with this key"}
_BODY = {
    "408": "The body is too slow",
    "413": "Too large or too long",
    "415": "No media that is read here",
    "422": "Broken, or nothing that this model can judge",
}
_BUSY = {"503": "Busy, starting or stopping; see Retry-After"}
_NAMED = {"404": "There is no such thing, or not any more"}


def describe(app: FastAPI, needs_key: bool) -> None:
    """Make the application describe itself fully.

    Args:
        app: All routes are in it.
        needs_key: Whether requests need an API key.
    """

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app, needs_key)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schema(app: FastAPI, needs_key: bool) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    components = schema.setdefault("components", {}).setdefault("schemas", {})
    problem = Problem.model_json_schema()
    problem["example"] = {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "code": "truncated",
        "detail": "12 of 250 frames decode (5%, the limit is 90%)",
        "fix": "Check that the file plays.",
        "request_id": "5f0c6a4be1d2f3a7",
    }
    components["Problem"] = problem
    components["Analysis"]["example"] = example_answer().model_dump(mode="json")
    for name in ("HTTPValidationError", "ValidationError"):
        components.pop(name, None)
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            _add_problems(path, method, operation, needs_key)
    if needs_key:
        schema["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return schema


def _add_problems(path: str, method: str, operation: dict[str, Any], needs_key: bool) -> None:
    open_route = path in ("/health", "/ready") or path.startswith("/v2/health")
    reasons = dict(_ALWAYS) | ({} if path == "/health" else _BUSY)
    if method == "post":
        reasons |= _BODY
    if "{" in path:
        reasons |= _NAMED | {"422": _BODY["422"]}
    if path == "/v1/feedback":
        reasons |= _NAMED
    if needs_key and not open_route:
        reasons |= _KEYED
        operation["security"] = [{"key": []}]
    operation["responses"].pop("422", None)
    for status, text in reasons.items():
        content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        operation["responses"][status] = {"description": text, "content": content}
