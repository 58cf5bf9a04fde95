"""A registered model as a source of versions for the server: its alias is asked again and again, and followed."""

from __future__ import annotations

import re
from pathlib import Path

from unmask.adapters.tracking import connected, resolve_model
from unmask.errors import InputError
from unmask.serving.models import Found

_URI = re.compile(r"models:/([^@/]+)(?:@([\w-]+)|/(\d+))")


class AliasSource:
    """An alias or version of a model in the MLflow registry.

    Args:
        uri: ``models:/name@alias``, or ``models:/name/version``, which never changes.
        tracking_uri: MLflow server, or ``sqlite:///`` and the path of a database.
        cache: Folder that keeps fetched bundles; the user's cache folder when left out.

    Raises:
        InputError: The URI is not understood.
    """

    def __init__(self, uri: str, tracking_uri: str, cache: Path | None = None) -> None:
        match = _URI.fullmatch(uri)
        if match is None:
            raise InputError(f"{uri!r} names no registered model.", "Write models:/NAME@ALIAS or models:/NAME/VERSION.")
        self._name, self._alias, self._number = match.groups()
        self._tracking_uri = tracking_uri
        self._cache = cache

    def current(self) -> Found:
        """Ask the registry which version the alias names.

        Raises:
            InputError: The server does not answer, or there is no such model or alias.
        """
        if self._number is not None:
            return self._found(self._number)
        with connected(self._tracking_uri) as server:
            version = server.version(self._name, self._alias, self._number)
            return self._found(str(version.version))

    def fetch(self, found: Found) -> Path:
        """Fetch the bundle of a version, every file checked against its hash.

        Asked for by its number, not by the alias, which may have moved since.

        Raises:
            InputError: The server does not answer.
            ContractError: What was fetched is not what was registered.
        """
        return resolve_model(f"models:/{self._name}/{found.key}", self._tracking_uri, self._cache)

    def _found(self, number: str) -> Found:
        return Found(number, f"{self._name} version {number}")
