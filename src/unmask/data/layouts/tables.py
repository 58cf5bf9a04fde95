"""Labels in a file beside the media: ``metadata.json`` (ours and DFDC's), CSV and Parquet."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from unmask.data.layouts.contents import Contents, keys, label_of
from unmask.data.layouts.folders import LABELS, in_folder, named_manipulations
from unmask.data.sources import SPLIT_OF_NAME, SourceFile
from unmask.errors import InputError
from unmask.objects import StoredObject

METADATA_FILE = "metadata.json"
# What a column may be called; the first that is there is taken.
COLUMN_NAMES = {
    "path": (
        *("path", "uri", "file", "filename", "file_name", "filepath", "file_path"),
        *("name", "video", "image", "audio"),
    ),
    "label": ("label", "target", "class", "is_fake", "key"),
    "identity": ("identity", "person", "speaker", "speaker_id", "subject", "actor"),
    "group": ("group", "group_id"),
    "split": ("split", "subset", "partition", "set"),
    "manipulation": ("manipulation", "method", "attack", "generator"),
    "source": ("source", "dataset", "origin"),
    "original": ("original",),
}
SHOWN = 3


def columns_of(names: Iterable[str]) -> dict[str, str]:
    """Find the columns that mean something: meaning to the name of the column."""
    by_lower = {str(name).strip().lower(): str(name) for name in reversed(list(names))}
    found = {}
    for meaning, candidates in COLUMN_NAMES.items():
        name = next((by_lower[candidate] for candidate in candidates if candidate in by_lower), None)
        if name is not None:
            found[meaning] = name
    return found


class Metadata:
    """``metadata.json`` files: file name to ``{"label": …}``, as DFDC (Dolhansky et al., 2020) has in each part."""

    name = "metadata"

    def recognises(self, contents: Contents) -> bool:
        """There is a ``metadata.json`` of that shape."""
        return any(self._entries(contents, key) for key in contents.sides(METADATA_FILE.__eq__))

    def files(self, contents: Contents) -> Iterable[SourceFile]:
        """Describe what the files list, and what lies below ``real/`` and ``fake/`` besides."""
        rows = Rows(contents)
        for key in contents.sides(METADATA_FILE.__eq__):
            entries = self._entries(contents, key)
            related = any("original" in entry for entry in entries.values())
            for name, entry in entries.items():
                original = {"original": entry.get("original")} if related else {}
                rows.add(key, f"entry {name}", {**entry, **original, "path": name})
        return rows.files()

    @staticmethod
    def _entries(contents: Contents, key: str) -> dict[str, dict[str, Any]]:
        content = contents.json(key)
        if not isinstance(content, dict) or not content:
            return {}
        fits = all(isinstance(entry, dict) and "label" in entry for entry in content.values())
        return content if fits else {}


class Table:
    """A CSV, TSV or Parquet file with at least columns for path and label."""

    name = "table"

    def recognises(self, contents: Contents) -> bool:
        """There is a table with these columns."""
        return any({"path", "label"} <= set(columns_of(self._names(contents, key))) for key in self._tables(contents))

    def files(self, contents: Contents) -> Iterable[SourceFile]:
        """Describe what the tables list, and what lies below ``real/`` and ``fake/`` besides."""
        rows = Rows(contents)
        for key in self._tables(contents):
            columns = columns_of(self._names(contents, key))
            if not {"path", "label"} <= set(columns):
                continue
            table = read_rows(contents.read(key), key, contents.place(key))
            named = table[list(columns.values())].set_axis(list(columns), axis=1)
            for number, row in enumerate(named.to_dict("records")):
                rows.add(key, f"row {number}", {str(k): None if pd.isna(v) else v for k, v in row.items()})
        return rows.files()

    @staticmethod
    def _tables(contents: Contents) -> list[str]:
        return contents.sides(lambda name: PurePosixPath(name).suffix.lower() in (".csv", ".tsv", ".parquet"))

    @staticmethod
    def _names(contents: Contents, key: str) -> list[str]:
        try:
            if key.lower().endswith(".parquet"):
                return list(pq.read_schema(io.BytesIO(contents.read(key))).names)
            first = contents.text(key).split("\n", 1)[0]
        except pa.ArrowInvalid:
            return []
        return [part.strip().strip('"') for part in re.split(r"[,;\t]", first)]


def read_rows(content: bytes, name: str, place: str) -> pd.DataFrame:
    """Read a CSV, TSV or Parquet file; the separator of a text table is found out.

    Args:
        content: Of the file.
        name: Of the file; its suffix tells the format.
        place: Named in the error.

    Raises:
        InputError: It cannot be read.
    """
    try:
        if name.lower().endswith(".parquet"):
            table: pd.DataFrame = pq.read_table(io.BytesIO(content)).to_pandas()
            return table
        first = content[:65536].decode("utf-8-sig", "replace").split("\n", 1)[0]
        separator = max(",;\t", key=first.count)
        return pd.read_csv(io.BytesIO(content), sep=separator, dtype=str, encoding="utf-8-sig", keep_default_na=True)
    except (ValueError, pa.ArrowInvalid, UnicodeDecodeError) as error:
        raise InputError(f"{place} is not a readable table ({error}).", "Save it as CSV or Parquet again.") from error


class Rows:
    """Collects what lists say about media files."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._files: dict[str, SourceFile] = {}
        self._missing: list[str] = []
        self._contradicting: list[str] = []

    def add(self, key: str, where: str, row: Mapping[str, Any]) -> None:
        """Take one row of a list.

        Args:
            key: Of the list.
            where: In it; named in errors.
            row: ``path``, ``label`` and what else is known, in the words of `COLUMN_NAMES`.
        """
        contents = self._contents
        stored = contents.find(str(row.get("path") or ""), key)
        if stored is None:
            self._missing.append(str(row.get("path")))
            return
        label = label_of(row["label"], f"{contents.place(key)}: {where}")
        by_folder = in_folder(contents, stored)
        if by_folder is not None and by_folder.label != label:
            self._contradicting.append(stored.key)
        described = self._described(stored, label, row)
        self._files[stored.key] = replace(described, folders=by_folder.folders) if by_folder else described

    def _described(self, stored: StoredObject, label: int, row: Mapping[str, Any]) -> SourceFile:
        space = self._contents.source.name
        related = keys(f"{space}:identity", _words(row.get("identity")))
        related |= keys(f"{space}:group", _words(row.get("group")))
        if "original" in row:  # DFDC: fakes name the real that they were made from
            related |= keys(space, [PurePosixPath(str(row["original"] or stored.key)).stem])
        origin = str(row.get("source") or "")
        kind = row.get("manipulation")
        if kind is None and label == 1 and origin.lower() not in ("", "fake", "real"):
            kind = origin
        known: dict[str, Any] = {"keys": related, "manipulation": str(kind) if kind and label == 1 else None}
        split = SPLIT_OF_NAME.get(str(row.get("split") or "").lower())
        if split:
            known["official_split"] = split
        if origin and origin.lower() not in ("fake", "real"):
            known["part"] = origin
        return self._contents.file(stored, label, **known)

    def files(self) -> list[SourceFile]:
        """Give what was collected, and what only folders label, in order; tells the user what does not fit."""
        contents = self._contents
        for stored in contents.media:
            if stored.key not in self._files and (file := in_folder(contents, stored)):
                self._files[stored.key] = file
        labelled = [file for file in self._files.values() if LABELS.keys() & set(file.relative.lower().split("/"))]
        self._files |= {file.relative: file for file in named_manipulations(labelled)}
        if self._missing:
            contents.remarks.append(
                f"{len(self._missing)} rows of the list of {contents.source.name} name files that are not there "
                f"(for example {', '.join(self._missing[:SHOWN])})."
            )
        if self._contradicting:
            contents.remarks.append(
                f"{len(self._contradicting)} files of {contents.source.name} have one label in the list and another by "
                f"folder (for example {', '.join(self._contradicting[:SHOWN])}); the list was believed."
            )
        return [self._files[key] for key in sorted(self._files)]


def _words(value: Any) -> list[str]:
    """Read one or several names: ``anna`` or ``anna;bert``."""
    return [part.strip() for part in str(value).split(";") if part.strip()] if value is not None else []
