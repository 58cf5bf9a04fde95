"""Looking into files: hash and probe each once, many at a time, and never again while the file is unchanged."""

from __future__ import annotations

import io
import logging
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa

from unmask.config import IngestConfig, SplitFractions
from unmask.data.near_duplicates import Marks
from unmask.data.sources import Source, SourceFile
from unmask.errors import ContractError, MediaError, StorageError
from unmask.media.examination import examine
from unmask.media.fingerprint import THUMB_BYTES, PictureMark
from unmask.media.probe import MediaFacts, check_facts
from unmask.objects import MediaFiles, ObjectStore
from unmask.progress import track
from unmask.schemas import SAMPLES, Column, Document, TableSpec, read_table, sha256_file, sha256_json

logger = logging.getLogger(__name__)

# Raise when the probe comes to other facts about the same bytes: files are then looked at again.
PROBE_VERSION = 2
BATCH = 1024
KEPT_EVERY_S = 30.0
INDEX_FILE = "ingest.json"
FILES_FILE = "files.parquet"
SAMPLES_FILE = "samples.parquet"
ORIGINAL_FILE = "original.parquet"  # the samples as they came, where `samples.parquet` describes normalised files
PAIRS_FILE = "near_duplicates.parquet"
REMEMBERED = (SAMPLES_FILE, FILES_FILE, PAIRS_FILE, INDEX_FILE)
LONG_AGO = (1980, 1, 1, 0, 0, 0)  # so that the same files make the same archive

FILES = TableSpec(
    "files",
    (
        Column("sample_id", pa.string(), "as in samples"),
        Column("version", pa.string(), "of the bytes, as the place where they lie states it"),
        Column("defect", pa.string(), "why the file cannot be read, as `code: sentence`; null when it can", True),
        Column("hashes", pa.list_(pa.uint64()), "of the picture, or of key frames"),
        Column("thumbs", pa.binary(), "of the same, 432 bytes each"),
        Column("words", pa.binary(), "of a recording, 4 bytes each, little endian"),
    ),
    key=("sample_id",),
)
PAIRS = TableSpec(
    "near duplicates",
    (
        Column("first", pa.string(), "sample_id of one"),
        Column("second", pa.string(), "sample_id of the other, the greater one"),
        Column("likeness", pa.float32(), "1 for the same", minimum=0, maximum=1.001),
    ),
    key=("first", "second"),
)
NOTHING = Marks((), np.zeros(0, np.uint32))


class IngestIndex(Document):
    """``ingest.json``: under which conditions the files were looked at and split.

    Attributes:
        probe_version: Of the probe that filled the table.
        seed: Of the splits.
        fractions: Of the splits.
        places: Source name to where it lay.
        near_duplicates: Whether files were compared.
    """

    probe_version: int
    seed: int
    fractions: SplitFractions
    places: dict[str, str]
    near_duplicates: bool


@dataclass(frozen=True)
class Inspection:
    """What was found in a file.

    Attributes:
        sha256: Hash of its bytes; None when they cannot be read.
        facts: From its headers; None when they cannot be read.
        defect: Why it cannot be read, as ``code: sentence``; None when it can.
        reason: Why it cannot be used: the defect, or a limit that it breaks; None when it can.
        peak_dbfs: Highest level of its sound; None without sound.
        marks: By what it is known again.
    """

    sha256: str | None
    facts: MediaFacts | None
    defect: str | None
    reason: str | None
    peak_dbfs: float | None = None
    marks: Marks = NOTHING


@dataclass(frozen=True)
class Earlier:
    """What an earlier run left.

    Attributes:
        rows: Sample id to its row of the samples table.
        files: Sample id to its row of the files table.
        index: Beside them.
        pairs: Two sample ids that are alike, to how much.
    """

    rows: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]
    index: IngestIndex
    pairs: dict[tuple[str, str], float]

    def splits(self, seed: int, fractions: SplitFractions) -> dict[str, str]:
        """Give the split of each sample; none if seed or fractions were other ones, because these ask for others."""
        if (seed, fractions) != (self.index.seed, self.index.fractions):
            return {}
        return {sample_id: row["split"] for sample_id, row in self.rows.items() if row["split"] is not None}

    def inspection(self, file: SourceFile, place: str) -> Inspection | None:
        """Give what was found in a file before, if it is the same file and was not changed since."""
        row, seen = self.rows.get(file.sample_id), self.files.get(file.sample_id)
        same = (
            row is not None
            and seen is not None
            and self.index.probe_version == PROBE_VERSION
            and self.index.places.get(file.source) == place
            and (row["size_bytes"], seen["version"]) == (file.size_bytes, file.version)
        )
        if not same or row is None or seen is None or row["sha256"] is None:
            return None
        return inspection_of(row, seen)


def inspection_of(row: dict[str, Any], seen: dict[str, Any]) -> Inspection:
    """Read what was found in a file, before it is held against limits.

    Args:
        row: With its columns of the samples table.
        seen: With its columns of the files table.
    """
    if seen["defect"] is not None:
        return Inspection(row["sha256"], None, seen["defect"], seen["defect"])
    facts = MediaFacts(**{name: row[name] for name in MediaFacts.__dataclass_fields__})
    return Inspection(row["sha256"], facts, None, None, row["peak_dbfs"], marks_of(seen))


def marks_of(seen: dict[str, Any]) -> Marks:
    """Read the marks of a row of the files table."""
    thumbs = seen["thumbs"]
    pictures = tuple(
        PictureMark(value, thumbs[i * THUMB_BYTES : (i + 1) * THUMB_BYTES]) for i, value in enumerate(seen["hashes"])
    )
    return Marks(pictures, np.frombuffer(seen["words"], "<u4"))


def files_table(files: Sequence[SourceFile], inspections: Sequence[Inspection]) -> pa.Table:
    """Build the table by which the next run knows unchanged files."""
    marks = [inspection.marks for inspection in inspections]
    return pa.table(
        {
            "sample_id": pa.array([file.sample_id for file in files], pa.string()),
            "version": pa.array([file.version for file in files], pa.string()),
            "defect": pa.array([inspection.defect for inspection in inspections], pa.string()),
            "hashes": pa.array([[p.hash for p in of.pictures] for of in marks], pa.list_(pa.uint64())),
            "thumbs": pa.array([b"".join(p.thumb for p in of.pictures) for of in marks], pa.binary()),
            "words": pa.array([of.words.astype("<u4").tobytes() for of in marks], pa.binary()),
        }
    )


def remembered_key(sources: Sequence[Source]) -> str:
    """Name the object of a store that holds the latest result of some sources."""
    return f"ingest/{sha256_json(sorted(source.name for source in sources))[:16]}.zip"


def remember(folder: Path, store: ObjectStore, key: str) -> None:
    """Keep what the next run needs, as one object, so that it is replaced as a whole or not at all.

    Args:
        folder: That `unmask ingest` wrote.
        store: Where to.
        key: Under which name.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in REMEMBERED:
            archive.writestr(zipfile.ZipInfo(name, LONG_AGO), _as_it_came(folder, name).read_bytes())
    store.write(key, packed.getvalue())


def recall(store: ObjectStore, key: str) -> Earlier | None:
    """Read what `remember` kept; None if there is nothing, or nothing that can be understood."""
    if store.stat(key) is None:
        return None
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        try:
            with zipfile.ZipFile(io.BytesIO(store.read(key))) as archive:
                for name in REMEMBERED:
                    (folder / name).write_bytes(archive.read(name))
        except (zipfile.BadZipFile, KeyError) as error:
            logger.warning("The earlier result in %s cannot be reused: %s", store.address(key), error)
            return None
        return read_earlier(folder)


def _as_it_came(folder: Path, name: str) -> Path:
    """Give a file of a result; for the samples, those of the files before they were normalised."""
    original = folder / ORIGINAL_FILE
    return original if name == SAMPLES_FILE and original.is_file() else folder / name


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
        rows = read_table(_as_it_came(folder, SAMPLES_FILE), SAMPLES).to_pylist()
        files = read_table(folder / FILES_FILE, FILES).to_pylist()
        pairs = read_table(folder / PAIRS_FILE, PAIRS).to_pylist()
    except ContractError as error:
        logger.warning("The earlier result in %s cannot be reused: %s", folder, error)
        return None
    return Earlier(
        {row["sample_id"]: row for row in rows},
        {row["sample_id"]: row for row in files},
        index,
        {(row["first"], row["second"]): row["likeness"] for row in pairs},
    )


Keep = Callable[[Mapping[SourceFile, Inspection]], None]


def inspect_files(
    files: Sequence[SourceFile],
    places: dict[str, str],
    config: IngestConfig,
    media: MediaFiles,
    earlier: Earlier | None,
    elsewhere: Mapping[str, Inspection] | None = None,
    keep: Keep | None = None,
) -> tuple[list[Inspection], set[str]]:
    """Hash and probe files in parallel.

    Args:
        files: Media files.
        places: Source name to where it lies.
        config: Limits of duration and frame rate.
        media: Gives the bytes.
        earlier: What an earlier run found; unchanged files are not read again.
        elsewhere: Sample id to what another machine, or a run that was killed, found in a file; it is not read here.
        keep: Called every half minute with what was found since, so that a run that is killed loses no more.

    Returns:
        One inspection a file, in the same order, and the ids of those that were read now, here or elsewhere.
    """
    elsewhere = elsewhere or {}
    known = {
        f.sample_id: found for f in files if earlier and (found := earlier.inspection(f, places.get(f.source, "")))
    }
    new = [file for file in files if file.sample_id not in known]
    known |= {file.sample_id: elsewhere[file.sample_id] for file in new if file.sample_id in elsewhere}
    known |= _read_and_keep([file for file in new if file.sample_id not in known], media, keep)
    return [_judged(known[file.sample_id], config) for file in files], {file.sample_id for file in new}


def _read_and_keep(files: Sequence[SourceFile], media: MediaFiles, keep: Keep | None) -> dict[str, Inspection]:
    found: dict[str, Inspection] = {}
    unkept: dict[SourceFile, Inspection] = {}
    kept_at = time.monotonic()
    for file, inspection in zip(files, _read_all(files, media), strict=True):
        found[file.sample_id] = unkept[file] = inspection
        if keep and time.monotonic() - kept_at > KEPT_EVERY_S:
            keep(unkept)
            unkept, kept_at = {}, time.monotonic()
    return found


def _read_all(files: Sequence[SourceFile], media: MediaFiles) -> Iterator[Inspection]:
    # Hashing and decoding happen outside the interpreter lock, so threads are enough and nothing needs copying.
    with ThreadPoolExecutor(max_workers=min(32, 2 * (os.cpu_count() or 1))) as pool:
        work = _in_batches(pool, lambda file: _read(file, media), files)
        try:
            yield from track(work, len(files), "ingest", "files")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # on Ctrl-C, wait only for the files in hand
            raise


def _in_batches(
    pool: ThreadPoolExecutor, function: Callable[[SourceFile], Inspection], files: Sequence[SourceFile]
) -> Iterator[Inspection]:
    """Map in the order of the files with a bounded queue, so that memory stays flat and Ctrl-C waits for little."""
    rest = iter(files)
    while batch := list(islice(rest, BATCH)):
        yield from pool.map(function, batch)


def _judged(found: Inspection, config: IngestConfig) -> Inspection:
    """Hold the facts of a file against the limits, which may be other ones than in an earlier run."""
    if found.facts is None:
        return found
    try:
        check_facts(found.facts, config)
    except MediaError as error:
        return replace(found, reason=str(error))
    return found


def _read(file: SourceFile, media: MediaFiles) -> Inspection:
    try:
        with media.local(file.uri) as path:
            return _look_into(path)
    except StorageError as error:
        return _unusable(None, f"unreadable: {error.problem}")


def _look_into(path: Path) -> Inspection:
    found, defect = None, None
    try:
        found = examine(path)
    except MediaError as error:
        defect = str(error)
    try:
        # A file that cannot be opened has no hash; neither has a pipe, which would be waited for.
        digest = None if defect and defect.startswith("unreadable") else sha256_file(path)
    except OSError as error:
        return _unusable(None, f"unreadable: {error.strerror}")
    if found is None:
        return _unusable(digest, defect or "")
    return Inspection(digest, found.facts, None, None, found.peak_dbfs, Marks(found.pictures, found.words))


def _unusable(digest: str | None, defect: str) -> Inspection:
    return Inspection(digest, None, defect, defect)
