"""What a run has found in files so far, kept as it goes, so that a killed one loses half a minute and not hours."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa

from unmask.data.inspection import FILES, PROBE_VERSION, Inspection, files_table, inspection_of, remembered_key
from unmask.data.sources import Source, SourceFile
from unmask.errors import ContractError
from unmask.media.probe import MediaFacts
from unmask.objects import FolderStore, ObjectStore
from unmask.schemas import SAMPLES, TableSpec, read_table, sha256_json, write_table

logger = logging.getLogger(__name__)

FOUND = ("sha256", "peak_dbfs", *MediaFacts.__dataclass_fields__)
INSPECTED = TableSpec(
    "inspected files", (*FILES.columns, *(c for c in SAMPLES.columns if c.name in FOUND)), key=("sample_id",)
)


def inspected_table(files: Sequence[SourceFile], inspections: Sequence[Inspection]) -> pa.Table:
    """Write what was found in files, before it is held against limits, with all by which the files are known again."""
    table = files_table(files, inspections)
    known = [found.facts.columns() if found.facts else {} for found in inspections]
    for file, found, row in zip(files, inspections, known, strict=True):
        # The size is that of the listing, by which `ingest` tells whether the file is still the same.
        row.update(sha256=found.sha256, peak_dbfs=found.peak_dbfs, size_bytes=file.size_bytes)
    for column in INSPECTED.columns[len(FILES.columns) :]:
        table = table.append_column(column.name, pa.array([row.get(column.name) for row in known], column.type))
    return table


class Unfinished:
    """What runs over some sources found and have not yet made a table of.

    Args:
        store: Keeps it; left out, a hidden folder beside the output does.
        sources: Sources of the run.
        out: Folder that the run will write.
    """

    def __init__(self, store: ObjectStore | None, sources: Sequence[Source], out: Path) -> None:
        beside = out.parent / f".{out.name}.unfinished"
        self._beside = None if store else beside
        self._store = store or FolderStore(beside)
        places = {source.name: source.files.uri for source in sources}
        # Another place or another probe means other files: what was kept for these is not looked at.
        self._keys: set[str] = set()
        self._prefix = f"{remembered_key(sources)}.unfinished/{sha256_json([places, PROBE_VERSION])[:16]}/"

    def found(self, files: Sequence[SourceFile]) -> dict[str, Inspection]:
        """Give what killed runs found in files that are unchanged since, by sample id."""
        now = {file.sample_id: (file.size_bytes, file.version) for file in files}
        known: dict[str, Inspection] = {}
        for stored in self._store.objects(self._prefix):
            rows = [row for row in self._rows(stored.key) if row["sample_id"] in now]
            if rows:
                self._keys.add(stored.key)
            for row in rows:
                if now[row["sample_id"]] == (row["size_bytes"], row["version"]) and row["sha256"] is not None:
                    known[row["sample_id"]] = inspection_of(row, row)
        if known:
            logger.info("%d files are not read again: an earlier run, which did not end, looked into them.", len(known))
        return known

    def keep(self, found: Mapping[SourceFile, Inspection]) -> None:
        """Keep what was found in some more files."""
        key = f"{self._prefix}{next(iter(found)).sample_id}.parquet"
        with TemporaryDirectory() as temporary:
            part = Path(temporary) / "part.parquet"
            write_table(part, inspected_table([*found], [*found.values()]), INSPECTED)
            self._store.upload(part, key)
        self._keys.add(key)

    def forget(self) -> None:
        """Remove what is in the table by now; other shards of the same sources keep theirs."""
        for key in self._keys:
            self._store.delete(key)
        if self._beside:
            shutil.rmtree(self._beside, ignore_errors=True)

    def _rows(self, key: str) -> list[dict[str, Any]]:
        with TemporaryDirectory() as temporary:
            part = Path(temporary) / "part.parquet"
            self._store.download(key, part)
            try:
                rows: list[dict[str, Any]] = read_table(part, INSPECTED).to_pylist()
            except ContractError as error:
                logger.warning("%s cannot be reused: %s", self._store.address(key), error)
                return []
        return rows
