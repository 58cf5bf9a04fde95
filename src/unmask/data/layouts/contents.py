"""What a layout sees of a source: the media, the files beside them, and how both are read."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from unmask.data.sources import Source, SourceFile, compression_of
from unmask.errors import InputError
from unmask.media.probe import expected_modality
from unmask.objects import StoredObject

UNFINISHED_SUFFIXES = frozenset({".tmp", ".crdownload", ".part", ".partial", ".download"})
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})
REAL_WORDS = frozenset({"real", "0", "false", "bonafide", "bona-fide", "bona_fide", "genuine", "original", "authentic"})
FAKE_WORDS = frozenset({"fake", "1", "true", "spoof", "deepfake", "synthetic", "generated", "manipulated", "forged"})
MAX_SIDE_BYTES = 512 * 2**20  # of a table or protocol


@dataclass
class Contents:
    """Files of a source.

    Attributes:
        source: The source.
        media: Files whose suffix promises media.
        side: Key to every other file that is neither hidden nor unfinished.
        ignored: Why files were passed over, with how many.
        remarks: What the user should know, in sentences; layouts add to it.
    """

    source: Source
    media: list[StoredObject]
    side: dict[str, StoredObject]
    ignored: Counter[str] = field(default_factory=Counter)
    remarks: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, source: Source) -> Contents:
        """List a source.

        Raises:
            StorageError: It cannot be listed.
        """
        found = cls(source, [], {})
        for stored in source.files.objects():
            *folders, name = stored.key.lower().split("/")
            suffix = f".{name.rpartition('.')[2]}"
            hidden = name.startswith((".", "~")) or any(folder.startswith(".") for folder in folders)
            if hidden or name in SYSTEM_FILES or suffix in UNFINISHED_SUFFIXES:
                found.ignored["hidden, system or unfinished files"] += 1
            elif expected_modality(name) is None:
                found.side[stored.key] = stored
            else:
                found.media.append(stored)
        return found

    @cached_property
    def folders(self) -> frozenset[str]:
        """Names of all folders above media."""
        above = {stored.key.rpartition("/")[0] for stored in self.media}
        return frozenset(part for path in above for part in path.split("/") if part)

    @cached_property
    def by_name(self) -> dict[str, list[StoredObject]]:
        """File name to the media of that name."""
        found: dict[str, list[StoredObject]] = {}
        for stored in self.media:
            found.setdefault(stored.key.rpartition("/")[2], []).append(stored)
        return found

    @cached_property
    def by_key(self) -> dict[str, StoredObject]:
        """Key to media."""
        return {stored.key: stored for stored in self.media}

    def sides(self, matches: Callable[[str], object]) -> list[str]:
        """Give the keys of files beside the media whose name matches."""
        return [key for key in self.side if matches(key.rpartition("/")[2])]

    def read(self, key: str) -> bytes:
        """Read a file beside the media.

        Raises:
            InputError: It is far larger than any list of files.
            StorageError: It cannot be read.
        """
        if self.side[key].size_bytes > MAX_SIDE_BYTES:
            raise InputError(f"{self.place(key)} is too large for a list of files.", "Remove it from the source.")
        return self.source.files.read(key)

    def text(self, key: str) -> str:
        """Read a text file beside the media."""
        return self.read(key).decode("utf-8-sig", "replace")

    def json(self, key: str) -> Any:
        """Read a JSON file beside the media; None if it is not JSON."""
        try:
            return json.loads(self.text(key))
        except ValueError:
            return None

    def place(self, key: str) -> str:
        """Name a file for the user."""
        return self.source.files.address(key)

    def find(self, listed: str, beside: str) -> StoredObject | None:
        """Find the file that a list means: beside the list, below the source, or the only one of that name."""
        path = listed.replace("\\", "/").removeprefix("./").strip()
        folder = beside.rpartition("/")[0]
        for key in (f"{folder}/{path}" if folder else path, path):
            if key in self.by_key:
                return self.by_key[key]
        same = self.by_name.get(path.rpartition("/")[2], [])
        return same[0] if len(same) == 1 else None

    def file(self, stored: StoredObject, label: int, **known: Any) -> SourceFile:
        """Describe a media file; ``known`` are fields of `SourceFile`."""
        folders = tuple(stored.key.split("/")[:-1])
        root = self.source.files.uri.rstrip("/").rpartition("/")[2]
        fields: dict[str, Any] = {
            "folders": folders,
            "compression": compression_of([*reversed(folders), root, self.source.name]),
            **known,
        }
        return SourceFile(
            source=self.source.name,
            uri=self.source.files.address(stored.key),
            relative=stored.key,
            label=label,
            size_bytes=stored.size_bytes,
            version=stored.version,
            **fields,
        )


class Layout(Protocol):
    """A way to arrange a data set."""

    @property
    def name(self) -> str:
        """As in the configuration."""

    def recognises(self, contents: Contents) -> bool:
        """Tell whether a source is arranged so."""

    def files(self, contents: Contents) -> Iterable[SourceFile]:
        """Describe the media that have a label; the others are passed over.

        Raises:
            InputError: A list beside the media cannot be understood; names it and the place in it.
        """


def label_of(value: object, where: str) -> int:
    """Read a label as people write it.

    Args:
        value: 0, 1, real, fake, bonafide, spoof, …
        where: Named in the error.

    Raises:
        InputError: It is none of these.
    """
    word = str(value).strip().lower()
    word = word.removesuffix(".0")
    if word in REAL_WORDS:
        return 0
    if word in FAKE_WORDS:
        return 1
    raise InputError(f"{where}: label {value!r} is neither real nor fake.", "Write 0 or real, 1 or fake.")


def keys(space: str, names: Sequence[str]) -> frozenset[str]:
    """Name videos, recordings or people within a data set."""
    return frozenset(f"{space}:{name}" for name in names)
