"""Where bytes lie between runs: a folder, or a bucket of an S3-compatible store behind the same few calls.

The library sees only the protocols here. Folders are served by this module; `s3://` addresses by
`unmask.adapters.object_store`, the one place that knows the `minio` client.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from unmask.errors import InputError, StorageError
from unmask.schemas.files import write_atomically


@dataclass(frozen=True)
class StoredObject:
    """One object of a store.

    Attributes:
        key: Its name within the store, with ``/`` between parts.
        size_bytes: Its size.
        version: Changes when the bytes change: the ETag of an object store, size and modification time of a file.
    """

    key: str
    size_bytes: int
    version: str


class ObjectStore(Protocol):
    """Bytes by key. Objects appear whole or not at all; keys are relative, with ``/`` between parts.

    All calls raise `unmask.errors.StorageError` when the store cannot be reached, refuses, or answers with bytes that
    are not those that were asked for; `stat` and `exists` tell of a missing object without an error.
    """

    @property
    def uri(self) -> str:
        """Address of the store: an absolute path, or ``s3://bucket/prefix``."""

    def address(self, key: str) -> str:
        """Full address of an object, as it is written in tables."""

    def stat(self, key: str) -> StoredObject | None:
        """Describe an object; None if there is none."""

    def read(self, key: str) -> bytes:
        """Return the bytes of an object."""

    def write(self, key: str, content: bytes) -> None:
        """Store bytes under a key, replacing what was there."""

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a file, atomically."""

    def upload(self, path: Path, key: str) -> None:
        """Store the bytes of a file under a key, replacing what was there."""

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """List the objects whose key starts with a prefix, in order of key."""

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""


class MediaFiles(Protocol):
    """Gives media as files, wherever they lie."""

    def local(self, uri: str) -> AbstractContextManager[Path]:
        """Give the file at an address; a copy that was fetched for this is removed when the block ends.

        Args:
            uri: An absolute path or ``s3://bucket/key``.

        Raises:
            StorageError: The bytes cannot be fetched.
        """


class LocalMedia:
    """Media that lie on this machine."""

    def local(self, uri: str) -> AbstractContextManager[Path]:
        """Give the file at a path as it is."""
        if "://" in uri:
            raise InputError(f"{uri} is not a file on this machine.", "Give the settings of the object store.")
        return nullcontext(Path(uri))


class FolderStore:
    """Objects as files below a folder.

    Args:
        root: The folder; made when something is written.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.expanduser().absolute()

    @property
    def uri(self) -> str:
        """The folder."""
        return str(self._root)

    def address(self, key: str) -> str:
        """Absolute path of an object."""
        return f"{self._root}/{_checked(key)}"

    def stat(self, key: str) -> StoredObject | None:
        """Describe a file; None if there is none."""
        path = self._path(key)
        return self._described(path) if path.is_file() else None

    def read(self, key: str) -> bytes:
        """Return the bytes of a file."""
        try:
            return self._path(key).read_bytes()
        except OSError as error:
            raise StorageError(f"{self.address(key)} cannot be read ({error}).", "Check the path.") from error

    def write(self, key: str, content: bytes) -> None:
        """Write a file atomically."""
        try:
            with write_atomically(self._path(key)) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise StorageError(
                f"{self.address(key)} cannot be written ({error}).", "Check space and permissions."
            ) from error

    def download(self, key: str, path: Path) -> None:
        """Copy a file of the store to another place."""
        self._copy(self._path(key), path)

    def upload(self, path: Path, key: str) -> None:
        """Copy a file into the store."""
        self._copy(path, self._path(key))

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """List the files whose path below the folder starts with a prefix; unfinished ones are passed over.

        Links are followed, but never round in a circle; a link to nowhere is listed with 0 bytes.
        """
        start = prefix.rpartition("/")[0]
        found = _files_below(str(self._root / start), f"{start}/" if start else "", frozenset())
        return iter(sorted((entry for entry in found if entry.key.startswith(prefix)), key=lambda entry: entry.key))

    def delete(self, key: str) -> None:
        """Remove a file."""
        self._path(key).unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._root / _checked(key)

    def _described(self, path: Path) -> StoredObject:
        return _described(path.relative_to(self._root).as_posix(), path.stat())

    def _copy(self, source: Path, target: Path) -> None:
        try:
            with write_atomically(target) as temporary:
                shutil.copyfile(source, temporary)
        except OSError as error:
            raise StorageError(f"{source} cannot be copied to {target} ({error}).", "Check the path.") from error


def _checked(key: str) -> str:
    if not key or key.startswith("/") or ".." in key.split("/"):
        raise InputError(f"{key!r} is not a key of a store.", "Use a relative path without '..'.")
    return key


def _described(key: str, facts: os.stat_result) -> StoredObject:
    return StoredObject(key, facts.st_size, f"{facts.st_size}-{facts.st_mtime_ns}")


def _files_below(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> Iterator[StoredObject]:
    """Walk a folder; ``above`` holds device and inode of the folders on the way down, so that circles end."""
    try:
        facts = os.stat(folder)
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"{folder} cannot be read ({error.strerror}).", "Check its permissions.") from error
    here = (facts.st_dev, facts.st_ino)
    if here in above:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _files_below(entry.path, f"{prefix}{entry.name}/", above | {here})
        elif not entry.name.endswith(".tmp"):
            try:
                yield _described(prefix + entry.name, entry.stat())
            except OSError:  # a link to nowhere; whoever reads it is told so
                yield StoredObject(prefix + entry.name, 0, "missing")
