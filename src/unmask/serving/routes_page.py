"""The page, its report and the monitoring page: static files of this package."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from unmask.serving.problems import RefusedError

router = APIRouter(include_in_schema=False)

FOLDER = Path(__file__).with_name("page")
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


@router.get("/")
async def page() -> Response:
    """The page for people."""
    return _file("index.html")


@router.get("/report")
async def report() -> Response:
    """A report to print; which one stands behind the # of the address."""
    return _file("report.html")


@router.get("/monitoring")
async def monitoring() -> Response:
    """How the versions are doing."""
    return _file("monitoring.html")


@router.get("/favicon.ico")
async def icon() -> Response:
    """The icon."""
    return _file("icon.svg")


@router.get("/page/{name}")
async def asset(name: str) -> Response:
    """A file of the page."""
    return _file(name)


def _file(name: str) -> Response:
    # Only names that lie in the folder: nothing of the request becomes a path.
    known = {path.name: path for path in FOLDER.iterdir() if path.suffix in TYPES}
    if name not in known:
        raise RefusedError(HTTPStatus.NOT_FOUND, "not_found", "There is no such page.")
    return FileResponse(known[name], media_type=TYPES[known[name].suffix], headers={"cache-control": "no-cache"})
