"""Sources of media and what is known of a file before it is opened."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from unmask.objects import ObjectStore

# What published data sets call their parts, in the words of our splits; they have no calib.
SPLIT_OF_NAME = {
    "train": "train",
    "training": "train",
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("calib", "calibration"), "calib"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
# Folders that only sort storage; they say nothing about identity or manipulation.
STORAGE_FOLDERS = frozenset(SPLIT_OF_NAME) | {
    *("videos", "video", "images", "image", "frames", "audio", "wav", "clips", "media", "data"),
    *("raw", "hq", "lq", "original", "youtube"),
}


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
    """A media file of a source, known by name and by what lies beside it only.

    Attributes:
        source: Name of the source.
        uri: Where it lies.
        relative: Path below the source, with forward slashes.
        label: 0 real, 1 fake.
        folders: Folders between ``real/`` or ``fake/`` and the file.
        compression: c0, c23, c40, where a folder says so.
        manipulation: How it was forged; None for reals and where nothing says so.
        size_bytes: Its size.
        version: Changes when its bytes change.
        part: Part of the source that it belongs to, where a table says so.
        keys: Videos, recordings and people that it was made from, where the layout or a table tells; else empty.
        target_keys: Those of them that it shows apart from the face or voice that was put in; empty: all of them.
        official_split: Split that the publishers of the data gave it; None where they gave none.
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
    part: str | None = None
    keys: frozenset[str] = frozenset()
    target_keys: frozenset[str] = frozenset()
    official_split: str | None = None

    @cached_property
    def sample_id(self) -> str:
        """Hash of source and path within it, 16 hexadecimal characters; moving the source does not change it."""
        return hashlib.sha256(f"{self.source}\0{self.relative}".encode()).hexdigest()[:16]

    @property
    def stem(self) -> str:
        """Name without suffix."""
        name = self.relative.rpartition("/")[2]
        return name.rpartition(".")[0] or name


@dataclass
class Listing:
    """What lies in the sources.

    Attributes:
        files: Media files with a label, source by source, in order of their paths.
        ignored: Why files were passed over, with how many.
        official_splits: Names of sources that come with a division of their own.
        layouts: Source name to the layout that it was read by.
        remarks: What the user should know about the sources, in sentences.
    """

    files: list[SourceFile] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)
    official_splits: set[str] = field(default_factory=set)
    layouts: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def is_storage(folder: str) -> bool:
    """Tell whether a folder only sorts storage (splits, kinds of file, compression)."""
    return folder.lower() in STORAGE_FOLDERS or re.fullmatch(r"c\d{1,2}", folder.lower()) is not None


def compression_of(names: Sequence[str]) -> str | None:
    """Read the compression from folder names, the innermost first; FaceForensics++ calls uncompressed c0 or raw."""
    for name in names:
        if name.lower() == "raw":
            return "c0"
        for token in re.split(r"[^a-z0-9]+", name.lower()):
            if re.fullmatch(r"c(0|23|40)", token):
                return token
    return None
