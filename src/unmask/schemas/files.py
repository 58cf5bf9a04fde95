"""Atomic files and folders, content hashes, and what a stage reports back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unmask.errors import InputError


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Give a temporary path beside ``path`` and rename it to ``path`` if the block succeeds.

    A killed process leaves either the old file or the new one, never a half-written one.

    Args:
        path: The file to write. Its folder is created.

    Yields:
        The temporary path to write to.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``path`` and rename it to ``path`` if the block succeeds.

    A folder that a previous run left at ``path`` is replaced as a whole, but only if it is empty or was itself
    written by this function (it holds the marker ``.unmask``), so that a mistyped ``--out`` never deletes a user's
    files.

    Args:
        path: The folder to make.

    Yields:
        The temporary folder to fill.

    Raises:
        InputError: ``path`` is a file, or a folder that unmask did not write.
    """
    if path.is_file():
        raise InputError(f"{path} is a file, not a folder.", "Choose another output folder.")
    if path.is_dir() and any(path.iterdir()) and not (path / ".unmask").exists():
        raise InputError(f"{path} exists and was not written by unmask.", "Choose an empty or new output folder.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    temporary.mkdir()
    try:
        yield temporary
        (temporary / ".unmask").touch()
        if path.exists():
            old = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.old"
            os.replace(path, old)
            os.replace(temporary, path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Hash the bytes of a file.

    Args:
        path: The file.

    Returns:
        SHA-256 in lower-case hexadecimal, 64 characters.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash a JSON-serialisable value, independent of the order of keys.

    Args:
        value: Anything that ``json.dumps`` takes; other objects are hashed by their ``str``.

    Returns:
        SHA-256 in lower-case hexadecimal, 64 characters.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class StageOutcome:
    """What a stage tells whoever called it, for the log, for KFP and for tracking.

    Attributes:
        metrics: Name to number; shown in the KFP UI and logged to tracking.
        messages: Sentences for the user, in order of importance.
        roc: Points ``(threshold, false positive rate, true positive rate)`` of a ROC curve, if the stage has one.
        confusion: ``[[TN, FP], [FN, TP]]`` at the stored operating point, rows are the truth, if the stage has one.
    """

    metrics: dict[str, float] = field(default_factory=dict)
    messages: tuple[str, ...] = ()
    roc: tuple[tuple[float, float, float], ...] | None = None
    confusion: tuple[tuple[int, int], tuple[int, int]] | None = None
