"""Moving media into a store where each file lies once, under the hash of its bytes.

A second ingest moves only what is new, and data sets share files. The bytes are checked against the hash on the way:
what stands under a hash is what was inspected.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from unmask.data.inspection import Inspection
from unmask.data.sources import SourceFile
from unmask.errors import StorageError
from unmask.objects import MediaFiles, ObjectStore
from unmask.progress import track
from unmask.schemas import sha256_file

CONNECTIONS = 8


def keep_media(
    files: Sequence[SourceFile], inspections: Sequence[Inspection], media: MediaFiles, store: ObjectStore | None
) -> list[str]:
    """Move the bytes of usable files into a store that lacks them, and say where each file lies.

    Args:
        files: As they were found.
        inspections: What was found in them, in the same order.
        media: Gives their bytes.
        store: Where they end; files stay where they are when it is None.

    Returns:
        One address a file; that of an unusable file is where it was found.

    Raises:
        StorageError: A file cannot be read or stored, or is not any more what was inspected.
    """
    if store is None:
        return [file.uri for file in files]
    keys = [None if found.reason else found.sha256 for found in inspections]
    there = {stored.key for stored in store.objects()}
    missing = {key: file for key, file in zip(keys, files, strict=True) if key is not None and key not in there}
    with ThreadPoolExecutor(max_workers=CONNECTIONS) as pool:
        work = [pool.submit(_move, file, key, media, store) for key, file in missing.items()]
        try:
            for future in track(work, len(work), "store", "files"):
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # what is stored stays, and is not moved again
            raise
    return [file.uri if key is None else store.address(key) for file, key in zip(files, keys, strict=True)]


def _move(file: SourceFile, key: str, media: MediaFiles, store: ObjectStore) -> None:
    with media.local(file.uri) as path:
        try:
            found = sha256_file(path)
        except OSError as error:
            raise StorageError(
                f"{file.uri} cannot be read any more ({error.strerror}).", "Run ingest again."
            ) from error
        if found != key:
            raise StorageError(f"{file.uri} changed after it was inspected.", "Run ingest again.")
        store.upload(path, key)
