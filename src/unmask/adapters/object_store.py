"""Opening what settings name: a store of objects (folder or bucket), and media wherever they lie."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unmask.config import StorageConfig
from unmask.errors import InputError, MissingExtraError, StorageError
from unmask.objects import FolderStore, MediaFiles, ObjectStore

if TYPE_CHECKING:
    from unmask.adapters.s3 import S3Store

S3 = "s3://"


def open_store(text: str, config: StorageConfig) -> ObjectStore:
    """Open a folder or a bucket.

    Args:
        text: A folder, or ``s3://bucket/prefix``.
        config: Of object stores; credentials come from ``AWS_ACCESS_KEY_ID`` and ``AWS_SECRET_ACCESS_KEY``.

    Returns:
        The store; a bucket has answered once.

    Raises:
        InputError: The address is of another kind.
        StorageError: Endpoint or credentials are missing or wrong, the bucket does not exist, or nobody answers.
    """
    if not text.startswith(S3):
        if "://" in text:
            raise InputError(f"{text} is not a store.", "Give a folder, or s3://bucket/prefix.")
        return FolderStore(Path(text))
    store = _bucket(text, config)
    store.check()
    return store


def open_media(config: StorageConfig, scratch: Path | None = None) -> MediaFiles:
    """Make media reachable as files: those on this machine as they are, those in buckets fetched one at a time.

    Nothing is asked of a server before the first ``s3://`` address comes.

    Args:
        config: Of object stores.
        scratch: Folder for fetched files; the system's temporary folder when left out.
    """
    return FetchedMedia(config, scratch)


class FetchedMedia:
    """Media on this machine and in buckets; may be used by many threads, and be sent to another process.

    Args:
        config: Of object stores.
        scratch: Folder for fetched files; the system's temporary folder when left out.
    """

    def __init__(self, config: StorageConfig, scratch: Path | None = None) -> None:
        self._config = config
        self._scratch = scratch
        self._stores: dict[str, S3Store] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        # Connections stay behind; another process opens its own.
        return {"config": self._config, "scratch": self._scratch}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["config"], state["scratch"])  # type: ignore[misc]

    @contextmanager
    def local(self, uri: str) -> Iterator[Path]:
        """Give the file at an address; one that was fetched is checked, and removed when the block ends.

        Args:
            uri: A path, or ``s3://bucket/key``.

        Raises:
            InputError: The address is of another kind.
            StorageError: The bytes cannot be fetched whole.
        """
        if not uri.startswith(S3):
            if "://" in uri:
                raise InputError(f"{uri} is neither a file nor an object of a bucket.", "Ingest its source again.")
            yield Path(uri)
            return
        store, name = self._store_of(uri)
        folder = self._new_folder()
        try:
            path = folder / (name.rpartition("/")[2] or "object")
            store.fetch(name, path)
            yield path
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _store_of(self, uri: str) -> tuple[S3Store, str]:
        bucket, _, name = uri.removeprefix(S3).partition("/")
        if not name:
            raise InputError(f"{uri} names no object.", "Give s3://bucket/key.")
        with self._lock:
            if bucket not in self._stores:
                store = _bucket(f"{S3}{bucket}", self._config)
                store.check()
                self._stores[bucket] = store
            return self._stores[bucket], name

    def _new_folder(self) -> Path:
        try:
            if self._scratch is not None:
                self._scratch.mkdir(parents=True, exist_ok=True)
            return Path(tempfile.mkdtemp(prefix="unmask-media-", dir=self._scratch))
        except OSError as error:
            raise StorageError(f"No room for fetched media ({error}).", "Check the scratch folder.") from error


def _bucket(text: str, config: StorageConfig) -> S3Store:
    try:
        from unmask.adapters.s3 import Place, S3Store, find_endpoint
    except ImportError as error:
        raise MissingExtraError(f"The object store {text}", "storage") from error
    place = Place.parse(text)
    return S3Store(find_endpoint(config), place, config)
