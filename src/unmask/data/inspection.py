"""Looking into files: hash and probe each once, many at a time, and never again while the file is unchanged."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from unmask.config import IngestConfig, SplitFractions
from unmask.data.sources import SourceFile
from unmask.errors import ContractError, MediaError
from unmask.media.probe import MediaFacts, check_facts, read_facts
from unmask.progress import track
from unmask.schemas import SAMPLES, Document, read_table, sha256_file

logger = logging.getLogger(__name__)

# Raise when the probe comes to other facts about the same bytes: files are then looked at again.
PROBE_VERSION = 1
BATCH = 1024
INDEX_FILE = "ingest.json"
SAMPLES_FILE = "samples.parquet"


class IngestIndex(Document):
    """``ingest.json``: what a later run needs to do only what is new.

    Attributes:
        probe_version: Of the probe that filled the table.
        seed: Of the splits.
        fractions: Of the splits.
        modified_ns: Sample id to the time of the last change of the file, in ns since 1970.
        containers: Sample id to the format of the file, where it was read.
    """

    probe_version: int
    seed: int
    fractions: SplitFractions
    modified_ns: dict[str, int]
    containers: dict[str, str]


@dataclass(frozen=True)
class Inspection:
    """What was found in a file.

    Attributes:
        size_bytes: Its size; 0 when it cannot be read.
        modified_ns: Time of its last change; 0 when unknown.
        sha256: Hash of its bytes; None when they cannot be read.
        facts: From its headers; None when they cannot be read.
        reason: Why it cannot be used, as ``code: sentence``; None when it can.
    """

    size_bytes: int
    modified_ns: int
    sha256: str | None
    facts: MediaFacts | None
    reason: str | None


@dataclass(frozen=True)
class Earlier:
    """What an earlier run left.

    Attributes:
        rows: Sample id to its row of the samples table.
        index: Beside it.
    """

    rows: dict[str, dict[str, Any]]
    index: IngestIndex

    def splits(self, seed: int, fractions: SplitFractions) -> dict[str, str]:
        """Give the split of each sample; none if seed or fractions were other ones, because these ask for others."""
        if (seed, fractions) != (self.index.seed, self.index.fractions):
            return {}
        return {sample_id: row["split"] for sample_id, row in self.rows.items() if row["split"] is not None}

    def inspection(self, file: SourceFile, status: os.stat_result) -> Inspection | None:
        """Give what was found in a file before, if it is the same file and was not changed since."""
        row = self.rows.get(file.sample_id)
        same = (
            row is not None
            and self.index.probe_version == PROBE_VERSION
            and (row["uri"], row["size_bytes"]) == (uri_of(file.path), status.st_size)
            and self.index.modified_ns.get(file.sample_id) == status.st_mtime_ns
        )
        if not same or row is None or row["sha256"] is None:
            return None
        facts = None
        if file.sample_id in self.index.containers:
            fields = {name: row[name] for name in MediaFacts.__dataclass_fields__ if name != "container"}
            facts = MediaFacts(container=self.index.containers[file.sample_id], **fields)
        return Inspection(status.st_size, status.st_mtime_ns, row["sha256"], facts, None if facts else row["reason"])


def uri_of(path: Path) -> str:
    """Give the absolute path of a file as text."""
    return str(path.absolute())


def read_earlier(folder: Path) -> Earlier | None:
    """Read what an earlier run left in a folder.

    Args:
        folder: That `unmask ingest` wrote.

    Returns:
        It, or None if there is nothing, or nothing that can be understood: then everything is done anew.
    """
    if not (folder / INDEX_FILE).is_file():
        return None
    try:
        index = IngestIndex.load(folder / INDEX_FILE)
        table: pa.Table = read_table(folder / SAMPLES_FILE, SAMPLES)
    except ContractError as error:
        logger.warning("The earlier result in %s cannot be reused: %s", folder, error)
        return None
    return Earlier({row["sample_id"]: row for row in table.to_pylist()}, index)


def inspect_files(files: Sequence[SourceFile], config: IngestConfig, earlier: Earlier | None) -> list[Inspection]:
    """Hash and probe files in parallel.

    Args:
        files: Media files.
        config: Limits of duration and frame rate.
        earlier: What an earlier run found; unchanged files are not read again.

    Returns:
        One inspection a file, in the same order.
    """
    found: list[Inspection] = []
    # Hashing and decoding happen outside the interpreter lock, so threads are enough and nothing needs copying.
    with ThreadPoolExecutor(max_workers=min(32, 2 * (os.cpu_count() or 1))) as pool:
        work = _in_batches(pool, lambda file: _inspect(file, config, earlier), files)
        try:
            found.extend(track(work, len(files), "ingest", "files"))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # on Ctrl-C, wait only for the files in hand
            raise
    return found


def _in_batches(
    pool: ThreadPoolExecutor, function: Callable[[SourceFile], Inspection], files: Sequence[SourceFile]
) -> Iterator[Inspection]:
    """Map in the order of the files with a bounded queue, so that memory stays flat and Ctrl-C waits for little."""
    rest = iter(files)
    while batch := list(islice(rest, BATCH)):
        yield from pool.map(function, batch)


def _inspect(file: SourceFile, config: IngestConfig, earlier: Earlier | None) -> Inspection:
    try:
        status = file.path.stat()
    except OSError as error:
        return Inspection(0, 0, None, None, f"unreadable: {error.strerror}")
    known = earlier.inspection(file, status) if earlier else None
    found = known or _read(file.path, status)
    if found.facts is None:
        return found
    try:
        check_facts(found.facts, config)
    except MediaError as error:
        return Inspection(found.size_bytes, found.modified_ns, found.sha256, found.facts, str(error))
    return found


def _read(path: Path, status: os.stat_result) -> Inspection:
    facts, reason = None, None
    try:
        facts = read_facts(path)
    except MediaError as error:
        reason = str(error)
    try:
        # A file that cannot be opened has no hash; neither has a pipe, which would be waited for.
        digest = None if reason and reason.startswith("unreadable") else sha256_file(path)
    except OSError as error:
        digest, facts, reason = None, None, f"unreadable: {error.strerror}"
    return Inspection(status.st_size, status.st_mtime_ns, digest, facts, reason)
