"""Files over HTTP(S): resumed, checked, never half.

A file grows under a temporary name, with a note beside it that says which state of which file it is. It gets its own
name only when its length is what the server stated and its hash, if one is known, is right.
"""

from __future__ import annotations

import functools
import hashlib
import logging
import os
import random
import re
import shutil
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import urllib3
from urllib3.util import Retry, Timeout

from unmask import __version__
from unmask.config import DownloadConfig
from unmask.errors import ContractError, StorageError
from unmask.progress import Meter, in_bytes
from unmask.schemas import Document

logger = logging.getLogger(__name__)

CHUNK_BYTES = 2**20
CONNECT_TIMEOUT_S = 10.0
LONGEST_WAIT_S = 60.0
REDIRECTS = 10
RESERVE_BYTES = 2**28
PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
ADVICE = {
    401: "Check the token or password.",
    403: "Check the address, the token, and whether the terms of the data were accepted on their page.",
    404: "Check the address.",
    410: "It was taken away; look for a new address.",
}


@dataclass(frozen=True)
class Remote:
    """A file to fetch.

    Attributes:
        url: Where it lies.
        path: Where it goes.
        sha256: Of its bytes; None when it is not known, then only the length is checked.
        headers: Sent with each request, for example credentials; never sent on to another host.
        advice: Status to what a user can do about it, where the server's owner has more to say than HTTP does.
        name: Stands for the file where its address is another one each time; empty where the address does.
    """

    url: str
    path: Path
    sha256: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    advice: Mapping[int, str] = field(default_factory=dict)
    name: str = ""

    @property
    def shown(self) -> str:
        """The address without what may be secret in it."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}{parts.path}"

    @property
    def identity(self) -> str:
        """The name, or `shown` with a hash of the whole address, which may name the file only in its query."""
        return self.name or f"{self.shown} ({hashlib.sha256(self.url.encode()).hexdigest()[:12]})"


class PartialNote(Document):
    """What an unfinished file is a part of.

    Attributes:
        url: Identity of the file.
        validator: Strong ETag or date of the state that was begun; empty when the server states none.
        size_bytes: Of the whole; None when the server does not say.
    """

    url: str
    validator: str
    size_bytes: int | None


class _Again(Exception):  # noqa: N818  # it is a wish, not an error
    """Another try may help."""


class Downloader:
    """Fetches files, several at a time.

    Args:
        config: Patience and number of connections.
    """

    def __init__(self, config: DownloadConfig) -> None:
        self._config = config
        self._stop = threading.Event()
        self._pool = urllib3.PoolManager(
            maxsize=config.connections,
            ssl_context=_trusted(),
            timeout=Timeout(connect=min(CONNECT_TIMEOUT_S, config.timeout_s), read=config.timeout_s),
            retries=Retry(total=None, connect=0, read=0, status=0, other=0, redirect=REDIRECTS, raise_on_redirect=True),
            headers={"User-Agent": f"unmask/{__version__}", "Accept-Encoding": "identity"},
        )

    def fetch_all(self, remotes: Sequence[Remote], what: str) -> None:
        """Fetch files that are not there yet; those that were begun go on.

        Args:
            remotes: Files, each with its own path.
            what: Name of the work, for the progress display.

        Raises:
            StorageError: A file does not come, not whole, or not as it must be. Finished ones stay.
        """
        self._stop.clear()
        wanted = [remote for remote in remotes if not remote.path.exists()]
        with Meter(what) as meter, ThreadPoolExecutor(max_workers=self._config.connections) as pool:
            futures = [pool.submit(self._fetch, remote, meter) for remote in wanted]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                self._stop.set()  # what has come stays on disk
                pool.shutdown(wait=True, cancel_futures=True)
                raise

    def read(self, remote: Remote, limit_bytes: int) -> bytes:
        """Fetch a small file into memory.

        Raises:
            StorageError: It does not come, or is larger than the limit.
        """
        self.fetch_all([remote], remote.path.name)
        try:
            if remote.path.stat().st_size > limit_bytes:
                raise StorageError(f"{remote.shown} is larger than {in_bytes(limit_bytes)}.", "Check the address.")
            return remote.path.read_bytes()
        finally:
            remote.path.unlink()

    def _fetch(self, remote: Remote, meter: Meter) -> None:
        transfer = _Transfer(remote, meter)
        tries, furthest = 0, transfer.offset
        while True:
            try:
                self._receive(transfer)
                transfer.finish()
                return
            except (urllib3.exceptions.HTTPError, _Again) as error:
                if _is_about_certificates(error):
                    raise StorageError(
                        f"{remote.shown}: the certificate of the server is not trusted.",
                        "Check the address; name your own certificates in SSL_CERT_FILE.",
                    ) from error
                # A server that always sends from the start, and never to the end, makes no progress.
                tries = 1 if transfer.offset > furthest else tries + 1
                furthest = max(furthest, transfer.offset)
                if tries >= self._config.attempts:
                    raise transfer.failed(short_reason(error), tries) from error
                wait_s = min(LONGEST_WAIT_S, 2.0 ** (tries - 1)) * random.uniform(1.0, 1.25)
                logger.warning("%s: %s; trying again in %.0f s.", remote.shown, short_reason(error), wait_s)
                if self._stop.wait(wait_s):
                    raise transfer.failed("stopped", tries) from error

    def _receive(self, transfer: _Transfer) -> None:
        if transfer.complete:
            return
        remote = transfer.remote
        headers = {**self._pool.headers, **remote.headers, **transfer.range_headers()}
        response = self._pool.urlopen("GET", remote.url, headers=headers, preload_content=False)
        try:
            if response.status in PASSING_STATUS:
                raise _Again(f"the server answers with status {response.status}")
            if response.status == 416:
                transfer.restart()
                raise _Again("the server has no bytes from there on")
            if response.status not in (200, 206):
                raise _refusal(remote, response.status)
            transfer.begin(response)
            with transfer.opened() as stream:
                for chunk in response.stream(CHUNK_BYTES, decode_content=False):
                    transfer.write(stream, chunk)
                    if self._stop.is_set():
                        raise transfer.failed("stopped", 1)
        finally:
            response.close()
        if transfer.size is not None and transfer.offset < transfer.size:
            raise _Again(f"the connection ended at {transfer.offset} of {transfer.size} bytes")
        transfer.ended = True


class _Transfer:
    """One file on its way, and what is on disk of it."""

    def __init__(self, remote: Remote, meter: Meter) -> None:
        self.remote = remote
        self._meter = meter
        self._part = remote.path.with_name(f".{remote.path.name}.part.tmp")
        self._note = remote.path.with_name(f".{remote.path.name}.note.tmp")
        self._validator = ""
        self._wrong_hashes = 0
        self.size: int | None = None
        self.offset = 0
        self.ended = False
        self._pick_up()

    @property
    def complete(self) -> bool:
        """Whether all bytes that the server stated are there."""
        return self.ended or (self.size is not None and self.offset == self.size and self._note.exists())

    def _pick_up(self) -> None:
        """Go on with what an earlier run left, if it is of the same file."""
        self.remote.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            note = PartialNote.load(self._note)
            length = self._part.stat().st_size
        except (ContractError, OSError):
            return
        resumable = bool(note.validator) or self.remote.sha256 is not None
        if (
            note.url != self.remote.identity
            or not resumable
            or (note.size_bytes is not None and length > note.size_bytes)
        ):
            return
        self._validator, self.size, self.offset = note.validator, note.size_bytes, length
        self._meter.expect((self.size or length) - length)
        logger.info("%s goes on at %s.", self.remote.shown, in_bytes(length))

    def range_headers(self) -> dict[str, str]:
        """Ask for the rest only, and for the whole if the file changed meanwhile or cannot be told from another."""
        if self.offset and not (self._validator or self.remote.sha256):
            self.restart()  # nothing would show that the rest belongs to another state of the file
        if not self.offset:
            return {}
        condition = {"If-Range": self._validator} if self._validator else {}
        return {"Range": f"bytes={self.offset}-", **condition}

    def begin(self, response: urllib3.BaseHTTPResponse) -> None:
        """Look at what the server is about to send, and start anew if it is not the rest of what is there."""
        size, start = _announced(response)
        validator = _validator(response)
        changed = self._validator and validator and validator != self._validator
        if response.status == 206 and (start != self.offset or changed or (self.size or size) != size):
            self.restart()
            raise _Again("the server sends another part than was asked for")
        if response.status == 200 and self.offset:
            logger.info("%s: the server sends it from the start again.", self.remote.shown)
            self.restart()
        if size is None and self.remote.sha256 is None and not _is_chunked(response):
            raise StorageError(
                f"{self.remote.shown}: the server does not say how long it is, so a cut-off file would pass for whole.",
                "Give its hash: …#sha256=HASH.",
            )
        if self.size is None and size is not None:
            self._meter.expect(size - self.offset)
        self.size, self._validator = size, validator
        self._check_room()
        PartialNote(url=self.remote.identity, validator=validator, size_bytes=size).save(self._note)

    def _check_room(self) -> None:
        free = shutil.disk_usage(self.remote.path.parent).free - RESERVE_BYTES
        if self.size is not None and self.size - self.offset > free:
            raise StorageError(
                f"{self.remote.shown} does not fit: {in_bytes(self.size - self.offset)} are to come, "
                f"{in_bytes(max(0, free))} are free.",
                "Make room, or choose another folder with download.folder.",
            )

    @contextmanager
    def opened(self) -> Iterator[Any]:
        """Give the unfinished file, positioned where the next bytes go."""
        try:
            with self._part.open("r+b" if self.offset else "wb") as stream:
                stream.seek(self.offset)
                stream.truncate()
                yield stream
        except OSError as error:
            raise StorageError(f"{self._part} cannot be written ({error}).", "Check space and permissions.") from error

    def write(self, stream: Any, chunk: bytes) -> None:
        """Append bytes."""
        stream.write(chunk)
        self.offset += len(chunk)
        self._meter.advance(len(chunk))

    def restart(self) -> None:
        """Forget what is there."""
        if self.size is not None:
            self._meter.expect(-max(0, self.size - self.offset))
        self._note.unlink(missing_ok=True)
        self._part.unlink(missing_ok=True)
        self.offset, self.size, self._validator, self.ended = 0, None, "", False

    def finish(self) -> None:
        """Check the hash and give the file its name.

        Raises:
            _Again: The hash is wrong for the first time; bytes may have been damaged on the way.
            StorageError: The hash is wrong again.
        """
        with self._part.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if self.remote.sha256 is not None and digest != self.remote.sha256:
            self._wrong_hashes += 1
            size = self.offset
            self.restart()
            if self._wrong_hashes == 1:
                raise _Again(f"its SHA-256 is {digest} instead of {self.remote.sha256}")
            raise StorageError(
                f"{self.remote.shown} is not the file that was asked for: twice its {size} bytes had another SHA-256, "
                f"last {digest} instead of {self.remote.sha256}.",
                "Check the hash with its owner; the bytes that came were thrown away.",
            )
        os.replace(self._part, self.remote.path)
        self._note.unlink(missing_ok=True)
        if self.remote.sha256 is None:
            logger.info("%s has SHA-256 %s; add #sha256=… to pin it.", self.remote.shown, digest)

    def failed(self, reason: str, tries: int) -> StorageError:
        """Make the error of a file that does not come."""
        size = f" of {self.size}" if self.size is not None else ""
        return StorageError(
            f"{self.remote.shown} cannot be fetched: {reason}; {self.offset}{size} bytes are here after {tries} tries.",
            "Run again to go on from there; download.attempts and download.timeout_s say how patient to be.",
        )


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Trust the system's certificates and those of certifi; a slim container has no others."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    return context


def _refusal(remote: Remote, status: int) -> StorageError:
    advice = remote.advice.get(status) or ADVICE.get(status, "Check the address.")
    return StorageError(f"{remote.shown} cannot be fetched: the server answers with status {status}.", advice)


def _announced(response: urllib3.BaseHTTPResponse) -> tuple[int | None, int]:
    """Read the size of the whole file, None if unstated, and where the bytes that come begin."""
    length = response.headers.get("content-length", "")
    if response.status == 200:
        return (int(length) if length.isdecimal() else None), 0
    found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("content-range", "").strip())
    if found is None:
        return None, -1
    return (None if found[3] == "*" else int(found[3])), int(found[1])


def _validator(response: urllib3.BaseHTTPResponse) -> str:
    etag = response.headers.get("etag", "")
    return etag if etag.startswith('"') else response.headers.get("last-modified", "")


def _is_chunked(response: urllib3.BaseHTTPResponse) -> bool:
    return "chunked" in response.headers.get("transfer-encoding", "").lower()


def _is_about_certificates(error: BaseException) -> bool:
    return isinstance(error, urllib3.exceptions.MaxRetryError) and "CERTIFICATE_VERIFY_FAILED" in str(error.reason)


def short_reason(error: Exception | None) -> str:
    """Say in short why a try failed, without the object that messages of urllib3 begin with."""
    text = str(getattr(error, "reason", None) or error)
    return re.sub(r"^.*?(>|\)): |Failed to establish a new connection: ", "", text)
