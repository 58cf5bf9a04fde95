"""Fetching sources that lie elsewhere: archives behind HTTP(S), Kaggle, the FaceForensics++ server.

What is fetched ends as a folder below the downloads folder. Each archive is fetched, unpacked, moved into that folder
and noted; then its bytes are removed. A run that is killed goes on with what is not noted yet.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from unmask.adapters.download import Downloader, Remote
from unmask.adapters.faceforensics import faceforensics_files
from unmask.adapters.kaggle import kaggle_archive, kaggle_name
from unmask.config import DownloadConfig
from unmask.data.addresses import ArchiveAddress, FaceForensicsAddress, FetchedAddress, KaggleAddress, Part
from unmask.data.archives import unpack
from unmask.errors import ContractError, InputError, StorageError
from unmask.schemas import Document, sha256_file, sha256_json

logger = logging.getLogger(__name__)

NOTE = "acquired.json"
MEDIA = "media"
JOIN_BYTES = 2**22
MARKER = ".unmask"  # by which a finished folder of ours is known


class Acquired(Document):
    """``acquired.json``: what a folder of downloads holds.

    Attributes:
        unpacked: Address of each archive that is in, without what may be secret, to its SHA-256.
        files: How many files came out of them.
    """

    unpacked: dict[str, str]
    files: int


def fetch_source(address: FetchedAddress, downloads: Path, config: DownloadConfig) -> Path:
    """Fetch a source and unpack it; what is there already is not fetched again.

    Args:
        address: As `unmask.data.addresses.parse_source` read it.
        downloads: Folder below which fetched sources are kept, each in a folder of its own.
        config: Patience and limits.

    Returns:
        The folder with the media; it is whole.

    Raises:
        InputError: An archive is damaged, or holds what is refused.
        StorageError: A file does not come whole, or credentials are missing.
    """
    folder = downloads / f"{address.name}-{_fingerprint(address)}"
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if isinstance(address, FaceForensicsAddress):
            downloader = Downloader(config)
            downloader.fetch_all(faceforensics_files(address, folder / MEDIA, downloader), address.name)
        else:
            _fill(ArchiveFolder(folder, config), address, folder, config)
    return folder / MEDIA


def _fingerprint(address: FetchedAddress) -> str:
    """Tell sources of one name apart; a hash that is added later to an address does not make it another one."""
    known = [part.url for part in address.parts] if isinstance(address, ArchiveAddress) else repr(address)
    return sha256_json(known)[:8]


def _fill(
    archives: ArchiveFolder, address: ArchiveAddress | KaggleAddress, folder: Path, config: DownloadConfig
) -> None:
    if isinstance(address, ArchiveAddress):
        remotes = [_remote(part, folder / f"archive-{number}") for number, part in enumerate(address.parts, 1)]
        archives.fill(remotes, address.joined)
    elif not archives.holds(kaggle_name(address)):  # else Kaggle need not even be asked
        archives.fill([kaggle_archive(address, folder / "archive-1.zip", config)], joined=False)


def _remote(part: Part, path: Path) -> Remote:
    return Remote(part.url, path.with_name(f"{path.name}-{part.file_name}"[-120:]), part.sha256)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time fill a folder."""
    with (folder / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Another run fills %s; waiting for it.", folder)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class ArchiveFolder:
    """A folder into which archives are fetched and unpacked.

    Args:
        folder: Of one source.
        config: Patience and limits.
    """

    def __init__(self, folder: Path, config: DownloadConfig) -> None:
        self._folder = folder
        self._media = folder / MEDIA
        self._config = config
        self._note = self._load()

    def fill(self, archives: Sequence[Remote], joined: bool) -> None:
        """Fetch and unpack what is not there yet.

        Args:
            archives: Each an archive, or in order the pieces of one.
            joined: Whether they are pieces of one.

        Raises:
            InputError: An archive is damaged, or holds what is refused.
            StorageError: A file does not come whole.
        """
        for rest in self._folder.glob(".unpacked.*"):  # of a run that was killed
            shutil.rmtree(rest, ignore_errors=True)
        missing = [remote for remote in archives if not self.holds(remote.identity, remote.sha256)]
        if not missing:
            logger.info("%s is there already.", self._folder)
            return
        Downloader(self._config).fetch_all(missing, self._folder.name)
        if joined:
            self._unpack(self._join(archives), archives)
        else:
            for remote in missing:
                self._unpack(remote.path, [remote])

    def holds(self, identity: str, sha256: str | None = None) -> bool:
        """Tell whether an archive, with this hash if one is known, was unpacked here."""
        digest = self._note.unpacked.get(identity)
        return digest is not None and sha256 in (None, digest)

    def _load(self) -> Acquired:
        try:
            return Acquired.load(self._folder / NOTE)
        except ContractError:
            return Acquired(unpacked={}, files=0)

    def _join(self, pieces: Sequence[Remote]) -> Path:
        whole = self._folder / "archive-joined"
        try:
            with whole.open("wb") as out:
                for piece in pieces:
                    with piece.path.open("rb") as stream:
                        shutil.copyfileobj(stream, out, JOIN_BYTES)
        except OSError as error:
            raise StorageError(f"{whole} cannot be written ({error}).", "Check space and permissions.") from error
        return whole

    def _unpack(self, archive: Path, remotes: Sequence[Remote]) -> None:
        """Unpack an archive, move its files to the others, note it, and remove its bytes."""
        fresh = self._folder / "unpacked"
        name = remotes[0].shown + (f" and {len(remotes) - 1} more" if len(remotes) > 1 else "")
        hashes = {remote.identity: sha256_file(remote.path) for remote in remotes}
        found = unpack(archive, fresh, self._config, name)
        if found.nested:
            logger.warning("%s: %d archives inside it stay packed.", name, found.nested)
        self._merge(fresh, name)
        note = Acquired(unpacked={**self._note.unpacked, **hashes}, files=self._note.files + found.files)
        note.save(self._folder / NOTE)
        self._note = note
        for path in {archive, *(remote.path for remote in remotes)}:
            path.unlink(missing_ok=True)
        shutil.rmtree(fresh)

    def _merge(self, fresh: Path, name: str) -> None:
        """Move files to those of other archives; the same file again is no harm, another one of that name is."""
        for folder, _, files in os.walk(fresh):
            target = self._media / Path(folder).relative_to(fresh)
            try:
                target.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError) as error:
                raise self._clash(name, target) from error
            for file in set(files) - {MARKER}:
                source, there = Path(folder) / file, target / file
                if there.is_dir() or (there.exists() and sha256_file(there) != sha256_file(source)):
                    raise self._clash(name, there)
                os.replace(source, there)

    def _clash(self, name: str, place: Path) -> InputError:
        return InputError(
            f"{name} holds {place.relative_to(self._media)}, and so does another part, with other bytes.",
            "Give the parts as sources of their own.",
        )
