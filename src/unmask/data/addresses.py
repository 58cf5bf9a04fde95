"""What ``--source`` may say, read into typed addresses before anything is fetched.

``[NAME=]FOLDER``, ``NAME=s3://bucket/prefix``, ``NAME=https://host/set.zip#sha256=…`` (several parts as a list or as
``part{1..7}.zip``), ``NAME=kaggle:owner/dataset``, ``NAME=kaggle-competition:name`` and
``NAME=faceforensics:c23?manipulations=Deepfakes+FaceSwap&videos=100``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from unmask.data.archives import is_archive_name
from unmask.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
FETCHED = re.compile(r"(?:([^=/:]*)=)?((?:[a-z][a-z0-9-]*://|kaggle:|kaggle-competition:|faceforensics:).*)", re.DOTALL)
RANGE = re.compile(r"\{(\d{1,4})\.\.(\d{1,4})\}")
SHA256 = re.compile(r"[0-9a-f]{64}")
SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
MAX_PARTS = 1000
MANIPULATIONS = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter", "DeepFakeDetection")
USUAL_MANIPULATIONS = MANIPULATIONS[:4]
Compression = Literal["raw", "c23", "c40"]
SYNTAX = (
    "Write [NAME=]FOLDER, NAME=s3://bucket/prefix, NAME=https://host/set.zip#sha256=HASH, NAME=kaggle:owner/dataset, "
    "NAME=kaggle-competition:name or NAME=faceforensics:c23; `unmask sources` lists known data sets."
)


@dataclass(frozen=True)
class FolderAddress:
    """A folder on this machine."""

    name: str
    path: Path


@dataclass(frozen=True)
class BucketAddress:
    """Objects below a prefix of a bucket."""

    name: str
    uri: str


@dataclass(frozen=True)
class Part:
    """One file behind an address.

    Attributes:
        url: Where it lies.
        sha256: Of its bytes; None when the user does not know it.
    """

    url: str
    sha256: str | None

    @property
    def file_name(self) -> str:
        """Last part of the path, without what leads out of a folder."""
        return unquote(PurePosixPath(urlsplit(self.url).path).name).replace("/", "_")


@dataclass(frozen=True)
class ArchiveAddress:
    """An archive behind HTTP(S), in one or several parts.

    Attributes:
        name: Of the source.
        parts: Each an archive of its own, or in order the pieces of one.
        joined: Whether they are pieces of one.
    """

    name: str
    parts: tuple[Part, ...]
    joined: bool


@dataclass(frozen=True)
class KaggleAddress:
    """Data on Kaggle.

    Attributes:
        name: Of the source.
        kind: A data set, or the data of a competition.
        slug: ``owner/dataset`` or the name of the competition.
        version: Of the data set; None for the latest.
    """

    name: str
    kind: Literal["dataset", "competition"]
    slug: str
    version: int | None = None


@dataclass(frozen=True)
class FaceForensicsAddress:
    """A part of FaceForensics++ on its own server.

    Attributes:
        name: Of the source.
        compression: raw, c23 or c40.
        manipulations: Which forgeries, besides the originals.
        videos: Originals at most, and forgeries of each manipulation at most; None for all.
    """

    name: str
    compression: Compression
    manipulations: tuple[str, ...]
    videos: int | None


FetchedAddress = ArchiveAddress | KaggleAddress | FaceForensicsAddress
Address = FolderAddress | BucketAddress | FetchedAddress


def parse_source(text: str) -> Address:
    """Read one ``--source``.

    Args:
        text: As the user wrote it.

    Returns:
        A typed address; whether a folder exists has been looked at, everything else has not.

    Raises:
        InputError: It cannot be understood, or there is no such folder.
    """
    fetched = FETCHED.fullmatch(text)
    if fetched is None:
        return _folder(text)
    name, rest = fetched[1] or "", fetched[2]
    scheme = rest.partition(":")[0]
    if scheme == "s3":
        return _bucket(name, rest)
    if scheme in ("http", "https"):
        return _archive(name, rest)
    if scheme in ("kaggle", "kaggle-competition"):
        return _kaggle(name, rest)
    if scheme == "faceforensics":
        return _faceforensics(name, rest)
    raise InputError(f"Source {text!r}: {scheme}:// is not known.", SYNTAX)


def _folder(text: str) -> FolderAddress:
    name, folder = "", Path(text)
    if not folder.is_dir():  # a folder may hold an equals sign in its name
        name, equals, rest = text.partition("=")
        name, folder = (name, Path(rest).expanduser()) if equals else ("", folder.expanduser())
    if not folder.is_dir():
        raise InputError(f"Source {name or text}: there is no folder {folder}.", f"Check the path. {SYNTAX}")
    return FolderAddress(name or folder.resolve().name, folder)


def _checked_name(given: str, otherwise: str, text: str) -> str:
    """Take the given name or derive one; it becomes part of ids and of folder names."""
    name = given or re.sub(r"[^A-Za-z0-9._-]+", "-", otherwise).strip("-.")[:64]
    if not NAME.fullmatch(name):
        raise InputError(
            f"Source {text!r}: {name!r} is not a name.", "Put one in front, of letters, digits, '.', '_', '-': NAME=…"
        )
    return name


def _bucket(given: str, text: str) -> BucketAddress:
    bucket, _, key = text.removeprefix("s3://").strip("/").partition("/")
    if not bucket:
        raise InputError(f"Source {text!r} names no bucket.", "Write NAME=s3://bucket/prefix.")
    return BucketAddress(_checked_name(given, key.rpartition("/")[2] or bucket, text), text.rstrip("/"))


def _archive(given: str, text: str) -> ArchiveAddress:
    parts = [part for piece in re.split(r",(?=https?://)", text) for part in _parts(piece)]
    if len(parts) > MAX_PARTS:
        raise InputError(f"Source {text!r} has {len(parts)} parts, the limit is {MAX_PARTS}.", "Check the range.")
    if len({part.url for part in parts}) < len(parts):
        raise InputError(f"Source {text!r} names a part twice.", "Name each once.")
    names = [part.file_name for part in parts]
    whole = [is_archive_name(name) for name in names]
    pieces = [not whole[i] and is_archive_name(names[i].rpartition(".")[0]) for i in range(len(names))]
    if any(re.search(r"\.z\d\d$", name, re.IGNORECASE) for name in names):
        raise InputError(
            f"Source {text!r} is a zip in spanned parts (.z01), which cannot be read as they are.",
            "Join them with `zip -s 0 set.zip --out whole.zip` and give the folder that it unpacks to.",
        )
    if any(whole) and any(pieces):
        raise InputError(f"Source {text!r} mixes whole archives and pieces of one.", "Give them as two sources.")
    first = names[0].partition(".")[0] or urlsplit(parts[0].url).hostname or ""
    return ArchiveAddress(
        _checked_name(given, RANGE.sub("", first), text), tuple(parts), len(parts) > 1 and all(pieces)
    )


def _parts(text: str) -> list[Part]:
    """Read one address; ``{1..7}`` stands for seven, and as many hashes may follow, with commas between."""
    url, _, fragment = text.partition("#")
    url = url.strip().rstrip(",")
    if not urlsplit(url).hostname:
        raise InputError(f"Source {text!r} names no host.", "Write https://host/path/set.zip.")
    urls = _expanded(url)
    hashes: list[str | None] = [None] * len(urls)
    if fragment:
        key, _, values = fragment.partition("=")
        listed = [value.strip().lower() for value in values.split(",") if value.strip()]
        if key != "sha256" or not all(SHA256.fullmatch(value) for value in listed):
            raise InputError(
                f"Source {text!r}: what follows # is not a hash.", "Write #sha256= and 64 hexadecimal characters."
            )
        if len(listed) != len(urls):
            raise InputError(
                f"Source {text!r}: {len(listed)} hashes for {len(urls)} parts.", "Give one a part, with commas between."
            )
        hashes = [*listed]
    return [Part(one, digest) for one, digest in zip(urls, hashes, strict=True)]


def _expanded(url: str) -> list[str]:
    found = RANGE.search(url)
    if found is None:
        return [url]
    first, last = int(found[1]), int(found[2])
    if last < first:
        raise InputError(f"Source {url!r}: the range {found[0]} runs backwards.", "Write the smaller number first.")
    if last - first >= MAX_PARTS:
        raise InputError(f"Source {url!r}: the range {found[0]} has more than {MAX_PARTS} parts.", "Check the range.")
    width = len(found[1]) if found[1].startswith("0") else 0
    numbers = [str(number).zfill(width) for number in range(first, last + 1)]
    return [one for number in numbers for one in _expanded(url[: found.start()] + number + url[found.end() :])]


def _kaggle(given: str, text: str) -> KaggleAddress:
    scheme, _, slug = text.partition(":")
    slug, _, version = slug.partition("@")
    pieces = slug.split("/")
    wanted = 2 if scheme == "kaggle" else 1
    if len(pieces) != wanted or not all(SLUG.fullmatch(piece) for piece in pieces):
        form = "kaggle:owner/dataset" if wanted == 2 else "kaggle-competition:name"
        raise InputError(f"Source {text!r} is not an address on Kaggle.", f"Write {form}, as in the page's address.")
    if version and (not version.isdecimal() or wanted == 1):
        raise InputError(
            f"Source {text!r}: {version!r} is no version.", "Write kaggle:owner/dataset@3, or leave it out."
        )
    kind: Literal["dataset", "competition"] = "dataset" if wanted == 2 else "competition"
    return KaggleAddress(_checked_name(given, pieces[-1], text), kind, slug, int(version) if version else None)


def _faceforensics(given: str, text: str) -> FaceForensicsAddress:
    compression, _, query = text.partition(":")[2].partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = sorted(set(options) - {"manipulations", "videos"})
    if compression not in ("raw", "c23", "c40") or unknown:
        raise InputError(
            f"Source {text!r} is not a part of FaceForensics++ ({', '.join(unknown) or compression or 'nothing'}).",
            "Write faceforensics:c23?manipulations=Deepfakes+FaceSwap&videos=100; compressions are raw, c23, c40.",
        )
    wanted = tuple(options["manipulations"].split()) if "manipulations" in options else USUAL_MANIPULATIONS
    strange = [name for name in wanted if name not in MANIPULATIONS]
    if strange or not wanted:
        raise InputError(
            f"Source {text!r}: no manipulation {', '.join(strange) or 'given'}.",
            f"There are {', '.join(MANIPULATIONS)}.",
        )
    videos = options.get("videos")
    if videos is not None and (not videos.isdecimal() or not int(videos)):
        raise InputError(f"Source {text!r}: videos={videos} is not a number.", "Write videos=100, or leave it out.")
    level: Compression = "raw" if compression == "raw" else "c23" if compression == "c23" else "c40"
    return FaceForensicsAddress(
        _checked_name(given, "faceforensics", text), level, wanted, int(videos) if videos else None
    )
