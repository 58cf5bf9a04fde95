"""Finding the media of a source: what lies where, and what folders and names say about it.

A source is a folder with ``real/`` and ``fake/`` somewhere below it; the names are understood in any case. The first
folder below ``fake/`` names the manipulation, unless it is a mere layer of storage (``c23``, ``videos``) or also occurs
below ``real/`` (then it names a person, a speaker or a channel).
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import PurePosixPath

from unmask.errors import InputError
from unmask.media.probe import expected_modality
from unmask.objects import ObjectStore, StoredObject

LABELS = {"real": 0, "fake": 1}
# Folders that only sort storage; they say nothing about identity or manipulation.
OFFICIAL_SPLITS = frozenset({"train", "val", "valid", "validation", "dev", "test", "eval"})
STORAGE_FOLDERS = OFFICIAL_SPLITS | {
    *("videos", "video", "images", "image", "frames", "audio", "wav", "clips", "media", "data"),
    *("raw", "hq", "lq", "original", "youtube"),
}
UNFINISHED_SUFFIXES = frozenset({".tmp", ".crdownload", ".part", ".partial", ".download"})
OUTSIDE = "media outside real/ and fake/"
SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini"})


@dataclass(frozen=True)
class Source:
    """Media of one origin.

    Attributes:
        name: Stands in every row and in the ids of the samples.
        files: Where they lie.
    """

    name: str
    files: ObjectStore


@dataclass(frozen=True)
class SourceFile:
    """A media file of a source, known by name only.

    Attributes:
        source: Name of the source.
        uri: Where it lies.
        relative: Path below the source, with forward slashes.
        label: 0 real, 1 fake.
        folders: Folders between ``real/`` or ``fake/`` and the file.
        compression: c0, c23, c40, where a folder says so.
        manipulation: First of these folders that names a way to forge; None for reals.
        size_bytes: Its size.
        version: Changes when its bytes change.
    """

    source: str
    uri: str
    relative: str
    label: int
    folders: tuple[str, ...]
    compression: str | None
    manipulation: str | None = None
    size_bytes: int = 0
    version: str = ""

    @cached_property
    def sample_id(self) -> str:
        """Hash of source and path within it, 16 hexadecimal characters; moving the source does not change it."""
        return hashlib.sha256(f"{self.source}\0{self.relative}".encode()).hexdigest()[:16]

    @property
    def stem(self) -> str:
        """Name without suffix."""
        return PurePosixPath(self.relative).stem


@dataclass
class Listing:
    """What lies in the sources.

    Attributes:
        files: Media files with a label, source by source, in order of their paths.
        ignored: Why files were passed over, with how many.
        official_splits: Names of sources that come with folders train, val or test.
    """

    files: list[SourceFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    official_splits: set[str] = field(default_factory=set)


def list_sources(sources: Sequence[Source]) -> Listing:
    """List the media files of several sources.

    Args:
        sources: At least one.

    Returns:
        Files, and what was passed over.

    Raises:
        InputError: A name is given twice, or no labelled media lie in a source.
        StorageError: A source cannot be listed.
    """
    if not sources:
        raise InputError("No source was given.", "Name at least one folder with real/ and fake/ below it.")
    names = Counter(source.name for source in sources)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise InputError(f"Sources share a name: {', '.join(twice)}.", "Give each its own: --source NAME=FOLDER.")
    listing = Listing()
    for source in sources:
        _list_source(source, listing)
    return listing


def _list_source(source: Source, listing: Listing) -> None:
    files: list[SourceFile] = []
    unlabelled = 0
    for stored in source.files.objects():
        reason = _ignore_reason(stored.key)
        if reason:
            listing.ignored[reason] += 1
            continue
        file = _describe(source, stored)
        if file is None:
            unlabelled += 1
            continue
        files.append(file)
        if OFFICIAL_SPLITS & {part.lower() for part in file.relative.split("/")[:-1]}:
            listing.official_splits.add(source.name)
    if unlabelled:
        listing.ignored[OUTSIDE] += unlabelled
    if not files:
        raise InputError(
            f"Source {source.name}: no labelled media below {source.files.uri} ({unlabelled} media files lie outside "
            f"real/ and fake/).",
            "Put real media into real/ and forged media into fake/ below the folder; a folder below fake/ may name "
            "the manipulation.",
        )
    listing.files += _name_manipulations(files)


def _ignore_reason(key: str) -> str | None:
    *folders, name = key.lower().split("/")
    suffix = PurePosixPath(name).suffix
    hidden = name.startswith((".", "~")) or any(folder.startswith(".") for folder in folders)
    if hidden or name in SYSTEM_FILES or suffix in UNFINISHED_SUFFIXES:
        return "hidden, system or unfinished files"
    if expected_modality(name) is None:
        return f"no media suffix ({suffix or 'none'})"
    return None


def _describe(source: Source, stored: StoredObject) -> SourceFile | None:
    folders = tuple(stored.key.split("/")[:-1])
    place = next((i for i, part in enumerate(folders) if part.lower() in LABELS), None)
    if place is None:
        return None
    root = source.files.uri.rstrip("/").rpartition("/")[2]
    return SourceFile(
        source=source.name,
        uri=source.files.address(stored.key),
        relative=stored.key,
        label=LABELS[folders[place].lower()],
        folders=folders[place + 1 :],
        compression=_compression([*reversed(folders), root, source.name]),
        size_bytes=stored.size_bytes,
        version=stored.version,
    )


def _name_manipulations(files: Sequence[SourceFile]) -> list[SourceFile]:
    of_reals = {part for file in files if file.label == 0 for part in file.folders}
    named = []
    for file in files:
        meant = [part for part in file.folders if not is_storage(part) and part not in of_reals]
        named.append(replace(file, manipulation=meant[0]) if file.label == 1 and meant else file)
    return named


def is_storage(folder: str) -> bool:
    """Tell whether a folder only sorts storage (splits, kinds of file, compression)."""
    return folder.lower() in STORAGE_FOLDERS or re.fullmatch(r"c\d{1,2}", folder.lower()) is not None


def _compression(names: Sequence[str]) -> str | None:
    """Read the compression from folder names, the innermost first; FaceForensics++ calls uncompressed c0 or raw."""
    for name in names:
        if name.lower() == "raw":
            return "c0"
        for token in re.split(r"[^a-z0-9]+", name.lower()):
            if re.fullmatch(r"c(0|23|40)", token):
                return token
    return None
