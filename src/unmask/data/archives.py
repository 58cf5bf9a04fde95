"""Unpacking archives that come from elsewhere: zip and tar, without trusting anything that they say.

An archive is unpacked whole or not at all. Names that lead out of the folder, links, devices, encrypted entries,
entries that share a name, cut-off archives and archives that swell beyond the limits are refused, each with the entry
and the reason. Archives inside an archive stay packed.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import pyarrow as pa

from unmask.config import DownloadConfig
from unmask.errors import InputError, StorageError
from unmask.schemas.files import new_directory

CHUNK_BYTES = 2**20
BUFFER_BYTES = 2**16
# Small archives of text may shrink a lot; what they swell to does no harm.
HARMLESS_BYTES = 64 * 2**20
# Headers of one entry (long names, attributes); a tar may claim any length for them.
MAX_HEADER_BYTES = 2**20
TAR_BLOCK = 512
TAR_MAGIC_OFFSET = 257
MAX_NAME_BYTES = 255
RESERVE_BYTES = 2**28
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tbz2", ".tar.zst", ".tzst")
ENCRYPTED = 1
WHOLE = "Fetch it again, or ask its owner for a whole one."
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


@dataclass(frozen=True)
class Unpacked:
    """What came out of an archive.

    Attributes:
        files: How many.
        size_bytes: Of all of them.
        nested: Archives among them; they were left packed.
    """

    files: int
    size_bytes: int
    nested: int


def unpack(archive: Path, folder: Path, limits: DownloadConfig, name: str = "") -> Unpacked:
    """Unpack an archive into a new folder.

    Args:
        archive: A zip, or a tar, plain or compressed with gzip, xz, bzip2 or Zstandard; told apart by content.
        folder: To make; appears only when everything was unpacked and every checksum held.
        limits: Of bytes, ratio and number of files.
        name: Of the archive in messages; that of the file when left out.

    Returns:
        Counts.

    Raises:
        InputError: It is no archive that we read, is damaged or cut off, or holds what is refused.
        StorageError: The folder cannot be written.
    """
    name = name or archive.name
    compression = _tar_compression(archive)
    try:
        with new_directory(folder) as temporary:
            target = _Target(temporary, name, archive.stat().st_size, limits)
            if compression is None:
                _unpack_zip(archive, target)
            else:
                with _open_tar(archive, compression) as stream:
                    _unpack_tar(stream, target)
            return Unpacked(target.files, target.size_bytes, target.nested)
    except DAMAGE as error:
        raise InputError(f"{name} cannot be unpacked: it is damaged or cut off ({error}).", WHOLE) from error
    except OSError as error:
        if error.errno is None:  # so bz2 and Zstandard report damage
            raise InputError(f"{name} cannot be unpacked: it is damaged or cut off ({error}).", WHOLE) from error
        raise StorageError(f"{name} cannot be unpacked ({error}).", "Check space and permissions.") from error
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(f"{name} cannot be unpacked: {error}.", "Pack it again as a plain zip or tar.gz.") from error


def is_archive_name(name: str) -> bool:
    """Tell whether a file name has the suffix of an archive that `unpack` reads."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


_MAGIC = ((b"\x1f\x8b", "gzip"), (b"\xfd7zXZ\x00", "xz"), (b"BZh", "bzip2"), (b"\x28\xb5\x2f\xfd", "zstandard"))


def _tar_compression(archive: Path) -> str | None:
    """Tell by its first bytes how a tar is compressed, ``none`` for a plain one; None for a zip."""
    with archive.open("rb") as stream:
        head = stream.read(TAR_BLOCK)
    if head.startswith(ZIP_MAGIC):
        return None
    for magic, compression in _MAGIC:
        if head.startswith(magic):
            return compression
    if head[TAR_MAGIC_OFFSET:].startswith(b"ustar"):
        return "none"
    raise InputError(
        f"{archive.name} is neither a zip nor a tar (it begins with {head[:8].hex(' ') or 'nothing'}).",
        "Check the address: a page that asks for a login is often sent instead of the file.",
    )


@contextmanager
def _open_tar(archive: Path, compression: str) -> Iterator[IO[bytes]]:
    """Give the unpacked bytes of a tar; the checksum of the compression is compared at their end."""
    with ExitStack() as stack:
        stream: Any
        if compression == "gzip":
            stream = stack.enter_context(gzip.open(archive))
        elif compression == "xz":
            stream = stack.enter_context(lzma.open(archive))
        elif compression == "bzip2":
            stream = stack.enter_context(bz2.open(archive))
        elif compression == "zstandard":
            packed = stack.enter_context(pa.OSFile(str(archive)))
            stream = stack.enter_context(pa.CompressedInputStream(packed, "zstd"))
        else:
            stream = stack.enter_context(archive.open("rb"))
        yield stream


class _Target:
    """The folder that is filled, with the limits that hold for it."""

    def __init__(self, folder: Path, name: str, packed_bytes: int, limits: DownloadConfig) -> None:
        self.folder = folder
        self.name = name
        self.files = self.size_bytes = self.nested = 0
        self._limits = limits
        self._made = {folder}
        ratio_bytes = max(HARMLESS_BYTES, int(packed_bytes * limits.max_unpacked_ratio))
        self.max_bytes = min(ratio_bytes, int(limits.max_unpacked_gib * 2**30))
        self._free_bytes = shutil.disk_usage(folder).free - RESERVE_BYTES

    def refuse(self, entry: str, why: str) -> InputError:
        """Make the error that refuses the archive for one of its entries."""
        shown = repr(entry if len(entry) < 200 else entry[:200] + "…")
        return InputError(
            f"{self.name} is refused: entry {shown} {why}.", "Get it from its owner, or unpack and check it by hand."
        )

    def check_total(self, total_bytes: int) -> None:
        """Refuse what is too large, before or while it is unpacked.

        Raises:
            InputError: It is larger than the limits or than the disk.
        """
        if total_bytes > self.max_bytes:
            raise InputError(
                f"{self.name} is refused: it unpacks to {total_bytes / 2**20:.0f} MiB or more, the limit is "
                f"{self.max_bytes / 2**20:.0f} MiB.",
                "If it is meant to be so, raise download.max_unpacked_ratio or download.max_unpacked_gib.",
            )
        if total_bytes > self._free_bytes:
            raise InputError(
                f"{self.name} does not fit: it unpacks to {total_bytes / 2**30:.1f} GiB, and "
                f"{max(0, self._free_bytes) / 2**30:.1f} GiB are free.",
                "Make room, or choose another folder with download.folder.",
            )

    def add(self, entry: str, stream: IO[bytes], size: int) -> None:
        """Write one file.

        Args:
            entry: Its name in the archive.
            stream: Its bytes.
            size: How many there must be.
        """
        self.files += 1
        if self.files > self._limits.max_unpacked_files:
            raise InputError(
                f"{self.name} is refused: it has more than {self._limits.max_unpacked_files} files.",
                "If it is meant to be so, raise download.max_unpacked_files.",
            )
        self.check_total(self.size_bytes + size)
        path = self.path(entry)
        self._make(path.parent, entry)
        try:
            # "x": two entries with one name, or with names that this disk takes for the same, are never merged.
            with path.open("xb") as out:
                written = self._copy(stream, out)
        except FileExistsError as error:
            raise self.refuse(entry, "has the name of another entry") from error
        if written != size:
            raise self.refuse(entry, f"has {written} bytes instead of the {size} that the archive states")
        self.nested += is_archive_name(entry)

    def make_folder(self, entry: str) -> None:
        """Make a folder that the archive names."""
        self._make(self.path(entry), entry)

    def path(self, entry: str) -> Path:
        """Find where an entry goes.

        Raises:
            InputError: Its name leads out of the folder, or is no name.
        """
        text = entry.replace("\\", "/")  # as Windows programs write them
        parts = [part for part in text.split("/") if part not in ("", ".")]
        if text.startswith("/") or re.match(r"[A-Za-z]:", text):
            raise self.refuse(entry, "has an absolute path")
        if ".." in parts:
            raise self.refuse(entry, "leads out of the folder")
        if not parts or any(ord(char) < 32 for char in text):
            raise self.refuse(entry, "has no proper name")
        if any(len(part.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES for part in parts):
            raise self.refuse(entry, f"has a name of more than {MAX_NAME_BYTES} bytes")
        return self.folder.joinpath(*parts)

    def _make(self, folder: Path, entry: str) -> None:
        if folder in self._made:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refuse(entry, "lies below another entry that is a file") from error
        self._made.add(folder)

    def _copy(self, stream: IO[bytes], out: BinaryIO) -> int:
        written = 0
        while chunk := stream.read(CHUNK_BYTES):
            out.write(chunk)
            written += len(chunk)
            self.size_bytes += len(chunk)
            self.check_total(self.size_bytes)
        return written


def _unpack_zip(archive: Path, target: _Target) -> None:
    with zipfile.ZipFile(archive) as opened:
        entries = opened.infolist()
        target.check_total(sum(entry.file_size for entry in entries))
        for entry in entries:
            if entry.flag_bits & ENCRYPTED:
                raise target.refuse(entry.filename, "is encrypted")
            mode = entry.external_attr >> 16
            if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise target.refuse(entry.filename, f"is a {_kind(mode)}, not a file")
            if entry.is_dir():
                target.make_folder(entry.filename)
                continue
            with opened.open(entry) as stream:
                target.add(entry.filename, stream, entry.file_size)


def _kind(mode: int) -> str:
    return "link" if stat.S_ISLNK(mode) else "device or pipe"


def _unpack_tar(raw: IO[bytes], target: _Target) -> None:
    stream = _CountedStream(raw, target)
    with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|", errorlevel=2, bufsize=BUFFER_BYTES) as opened:
        while (entry := opened.next()) is not None:
            stream.begin_content()
            if entry.isdir():
                if entry.name.strip("./"):
                    target.make_folder(entry.name)
            elif entry.issym() or entry.islnk():
                raise target.refuse(entry.name, f"is a link to {entry.linkname!r}, not a file")
            elif not entry.isreg() or entry.issparse():
                raise target.refuse(entry.name, "is a device, a pipe or a file with holes")
            else:
                target.add(entry.name, _content(opened, entry), entry.size)
            opened.members.clear()  # type: ignore[attr-defined]  # it would remember every entry
            stream.begin_header()
        # The library takes anything that it does not understand for the end.
        stream.finish(opened.offset)


def _content(opened: tarfile.TarFile, entry: tarfile.TarInfo) -> IO[bytes]:
    content = opened.extractfile(entry)
    if content is None:
        raise tarfile.ReadError(f"{entry.name} has no content")
    return content


class _CountedStream:
    """The unpacked bytes of a tar, counted; it also sees whether the end of the archive was there."""

    def __init__(self, raw: IO[bytes], target: _Target) -> None:
        self._raw = raw
        self._target = target
        self._read = 0
        self._budget: int | None = MAX_HEADER_BYTES
        self._recent = b""

    def begin_header(self) -> None:
        """From here on, only the headers of one entry may come."""
        self._budget = MAX_HEADER_BYTES

    def begin_content(self) -> None:
        """From here on, the bytes of a file may come."""
        self._budget = None

    def read(self, size: int) -> bytes:
        """Give up to so many bytes."""
        data = self._raw.read(size)
        self._read += len(data)
        self._recent = (self._recent + data)[-2 * BUFFER_BYTES :]
        if self._budget is not None:
            self._budget -= len(data)
            if self._budget < 0:
                raise self._target.refuse("(headers)", f"has headers of more than {MAX_HEADER_BYTES} bytes")
        return data

    def finish(self, offset: int) -> None:
        """Check that the archive ends where it says, and read on to where the checksum of the compression is compared.

        Args:
            offset: Where the end was found; a block of zeros must stand there, and nothing but zeros may follow.

        Raises:
            tarfile.ReadError: The archive stops before its end, or something follows it.
        """
        start = offset - (self._read - len(self._recent))
        end = self._recent[max(0, start) :]
        if len(end) < TAR_BLOCK or end[:TAR_BLOCK].strip(b"\0"):
            raise tarfile.ReadError("there is no end of the archive where one must be")
        while end:
            if end.strip(b"\0"):
                raise tarfile.ReadError("something follows the end of the archive")
            self._target.check_total(self._read)
            end = self._raw.read(CHUNK_BYTES)
            self._read += len(end)
