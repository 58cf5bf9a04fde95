"""A database file for MLflow, made whole or not at all."""

from __future__ import annotations

import fcntl
import importlib
import re
from pathlib import Path
from typing import Any

from unmask.errors import InputError, MissingExtraError


def make_database(uri: str) -> None:
    """Make the database file that a URI names, with its folder, unless it is there.

    MLflow makes its tables in dozens of migrations; a process killed in one of them leaves a database that no later
    process can use or repair. So the tables are made in another file, which then takes the name in one step.

    Args:
        uri: ``sqlite:///`` and a path; any other URI is left to its server.

    Raises:
        InputError: The folder or the file cannot be written.
        MissingExtraError: Only the small MLflow client is installed, which cannot make one.
    """
    path = database_path(uri)
    if path is None or _filled(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file, because a folder cannot be locked on every network drive.
        with path.with_name(f".{path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # ends with the process
            if not _filled(path):
                _make(path, uri)
    except OSError as error:
        raise InputError(f"{path} cannot be made: {error.strerror}.", "Choose another database.") from error


def database_path(uri: str) -> Path | None:
    """Get the path in a ``sqlite:///`` URI, or None for any other."""
    match = re.fullmatch(r"sqlite(?:\+\w+)?:///([^?]+)(?:\?.*)?", uri)
    return Path(match[1]) if match else None


def artifact_location(uri: str) -> str | None:
    """Put artifacts beside a database file; a server has its own place for them."""
    path = database_path(uri)
    return None if path is None else (path.resolve().parent / "mlflow-artifacts").as_uri()


def _filled(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _make(path: Path, uri: str) -> None:
    try:
        made_by: Any = importlib.import_module("mlflow.store.tracking.sqlalchemy_store")
    except ImportError as error:  # the small MLflow client, which speaks to servers only
        raise MissingExtraError("An MLflow database file", "tracking") from error

    # What a killed process left; nobody else holds the lock now.
    for leftover in path.parent.glob(f".{path.name}.new*"):
        leftover.unlink()
    unfinished = path.with_name(f".{path.name}.new")
    store = made_by.SqlAlchemyStore(f"sqlite:///{unfinished}", artifact_location(uri))
    store.engine.dispose()
    unfinished.replace(path)
