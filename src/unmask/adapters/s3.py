"""An object store in a bucket of an S3-compatible server, on the `minio` client.

A server that is away for half a minute is waited for; what cannot be helped by waiting (credentials, buckets,
certificates) fails at once, with what to do about it. Bytes carry their SHA-256 as metadata, and are checked against
it on the way back.
"""

from __future__ import annotations

import hashlib
import logging
import os
import random
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedRandom, BytesIO
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Any, BinaryIO, Self
from urllib.parse import urlsplit

import certifi
import urllib3
from minio import Minio
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3.connectionpool import ConnectionPool
from urllib3.util import Retry, Timeout

from unmask.adapters.download import short_reason
from unmask.config import StorageConfig
from unmask.errors import InputError, StorageError
from unmask.objects import StoredObject
from unmask.schemas.files import sha256_file, write_atomically

logger = logging.getLogger(__name__)

ENDPOINT_VARIABLE = "AWS_ENDPOINT_URL_S3"
KEY_VARIABLE = "AWS_ACCESS_KEY_ID"
SECRET_VARIABLE = "AWS_SECRET_ACCESS_KEY"
TOKEN_VARIABLE = "AWS_SESSION_TOKEN"
PASSING_STATUS = (429, 500, 502, 503, 504)
LONGEST_WAIT_S = 30.0
CONNECT_TIMEOUT_S = 10.0
CONNECTIONS = 32
PART_BYTES = 16 * 2**20
MAX_PARTS = 10_000
CHUNK_BYTES = 2**20
HASH_METADATA = "sha256"
HASH_HEADER = f"x-amz-meta-{HASH_METADATA}"
ENCRYPTION_HEADER = "x-amz-server-side-encryption"
MD5_LENGTH = 32
MISSING = frozenset({"NoSuchKey", "ResourceNotFound"})
WRONG_CREDENTIALS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidTokenId", "ExpiredToken"})
Headers = dict[str, str | list[str] | tuple[str]]
WRONG_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "Redirect"})


class PatientRetry(Retry):
    """Tries again after 1, 2, 4 … seconds, and says so; a certificate does not get better by waiting."""

    def get_backoff_time(self) -> float:
        """Seconds to wait before the next try, with up to a quarter more, so that many clients do not come at once."""
        tries = len(self.history)
        return min(LONGEST_WAIT_S, 2.0 ** (tries - 1)) * random.uniform(1.0, 1.25) if tries else 0.0

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: urllib3.BaseHTTPResponse | None = None,
        error: Exception | None = None,
        _pool: ConnectionPool | None = None,
        _stacktrace: TracebackType | None = None,
    ) -> Self:
        """Count a failed try.

        Raises:
            Exception: The error itself when another try cannot help; ``MaxRetryError`` when there is none left.
        """
        if error is not None and _is_about_certificates(error):
            raise error
        following = super().increment(method, url, response, error, _pool, _stacktrace)
        reason = f"status {response.status}" if response else short_reason(error)
        place = f"{_pool.scheme}://{_pool.host}:{_pool.port}" if _pool else "The server"
        logger.warning("%s: %s; trying again, %s more times after that.", place, reason, following.total)
        return following


def _is_about_certificates(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return True
        reason = getattr(error, "reason", None)
        inner = reason if isinstance(reason, BaseException) else error.__cause__
        if inner is None and error.args and isinstance(error.args[0], BaseException):
            inner = error.args[0]
        error = inner
    return False


@dataclass
class Transfer:
    """An object on its way from the server.

    Attributes:
        stream: Where its bytes go.
        begun: Whether the server has described it; the attributes below mean nothing before.
        size: Its length in bytes.
        etag: Of this state of the object.
        algorithm: Of the hash that is known; None if none is.
        digest: That hash, in hexadecimal.
    """

    stream: BytesIO | BufferedRandom
    begun: bool = False
    size: int = 0
    etag: str = ""
    algorithm: str | None = None
    digest: str = ""

    def begin(self, response: urllib3.BaseHTTPResponse) -> None:
        """Take from the first answer what the object is."""
        if self.begun:
            return
        headers = response.headers
        self.begun = True
        self.size = int(headers["content-length"])
        self.etag = headers.get("etag", "").strip('"')
        if HASH_HEADER in headers:
            self.algorithm, self.digest = "sha256", headers[HASH_HEADER]
        elif len(self.etag) == MD5_LENGTH and ENCRYPTION_HEADER not in headers:
            # Objects that others stored in one piece have the MD5 of their bytes as ETag.
            self.algorithm, self.digest = "md5", self.etag

    def check(self, address: str) -> None:
        """Compare what came with what the server described.

        Raises:
            StorageError: They differ.
        """
        size = self.stream.tell()
        problem = f"{size} of {self.size} bytes" if size != self.size else ""
        if self.algorithm is not None and not problem:
            algorithm = self.algorithm
            self.stream.seek(0)
            found = hashlib.file_digest(self.stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()
            problem = f"{algorithm} {found} instead of {self.digest}" if found != self.digest else ""
        if problem:
            raise StorageError(
                f"{address} gave other bytes than were stored: {problem}.",
                "Run again; if it stays so, the object is damaged: replace it.",
            )


@dataclass(frozen=True)
class Place:
    """What ``s3://bucket/prefix`` names.

    Attributes:
        bucket: Name of the bucket.
        key: What follows it, without slashes at its ends; empty for the whole bucket.
    """

    bucket: str
    key: str

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read ``s3://bucket/key``.

        Raises:
            InputError: It is something else.
        """
        parts = urlsplit(text)
        if parts.scheme != "s3" or not parts.netloc or "@" in parts.netloc:
            raise InputError(f"{text!r} is not an address of a bucket.", "Write it as s3://bucket/prefix.")
        rest = text.split("//", 1)[1]
        bucket, _, key = rest.partition("/")
        return cls(bucket, key.strip("/"))


def find_endpoint(config: StorageConfig) -> str:
    """Find the address of the server in the settings or the environment.

    Raises:
        StorageError: It is missing or malformed.
    """
    endpoint = config.endpoint or os.environ.get(ENDPOINT_VARIABLE, "")
    if not endpoint:
        raise StorageError(
            "No address of an object store was given.",
            f"Set storage.endpoint, or {ENDPOINT_VARIABLE} in the environment, e.g. https://minio.example:9000.",
        )
    parts = urlsplit(endpoint)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise StorageError(
            f"{endpoint!r} is not an address of an object store.", "Write it as https://host:port, without a path."
        )
    return endpoint


def connect(endpoint: str, config: StorageConfig) -> Minio:
    """Make a client with the credentials in the environment; nothing is sent yet.

    Args:
        endpoint: Address of the server.
        config: Region, certificates, patience.

    Raises:
        StorageError: Credentials are missing, or the certificates cannot be read.
    """
    key, secret = os.environ.get(KEY_VARIABLE, ""), os.environ.get(SECRET_VARIABLE, "")
    lacking = [name for name, value in ((KEY_VARIABLE, key), (SECRET_VARIABLE, secret)) if not value]
    if lacking:
        raise StorageError(
            f"No credentials for {endpoint}: {' and '.join(lacking)} not set in the environment.",
            f"Set {KEY_VARIABLE} and {SECRET_VARIABLE}; on a cluster they come from the secret of the object store.",
        )
    parts = urlsplit(endpoint)
    secure = parts.scheme == "https"
    client = Minio(
        parts.netloc,
        access_key=key,
        secret_key=secret,
        session_token=os.environ.get(TOKEN_VARIABLE) or None,
        secure=secure,
        region=config.region,
        http_client=_pool(config, _certificates(config) if secure else None),
    )
    if config.path_style:
        client.disable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    else:
        client.enable_virtual_style_endpoint()  # type: ignore[no-untyped-call]
    return client


def _certificates(config: StorageConfig) -> ssl.SSLContext:
    """Trust the system's certificates, those of certifi (a slim container has no others), and the given ones."""
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    if config.ca_file is not None:
        try:
            context.load_verify_locations(config.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise StorageError(
                f"storage.ca_file {config.ca_file} cannot be used ({error}).", "Give a file of PEM certificates."
            ) from error
    return context


def _pool(config: StorageConfig, context: ssl.SSLContext | None) -> urllib3.PoolManager:
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # it would say the same once more
    retry = PatientRetry(
        total=config.attempts - 1,
        status_forcelist=PASSING_STATUS,
        # Every call here can be repeated: the same bytes go to the same key.
        allowed_methods=None,
        raise_on_status=False,
        # MinIO asks for a minute while it starts, and is ready after one or two seconds.
        respect_retry_after_header=False,
    )
    timeout = Timeout(connect=min(CONNECT_TIMEOUT_S, config.timeout_s), read=config.timeout_s)
    secured: dict[str, Any] = {"ssl_context": context} if context else {}
    return urllib3.PoolManager(maxsize=CONNECTIONS, timeout=timeout, retries=retry, **secured)


class S3Store:
    """Objects of a bucket below a prefix.

    Args:
        endpoint: Address of the server.
        place: Bucket and prefix.
        config: Region, certificates, patience.

    Raises:
        StorageError: Credentials are missing, or the certificates cannot be read.
    """

    def __init__(self, endpoint: str, place: Place, config: StorageConfig) -> None:
        self._endpoint = endpoint
        self._client = connect(endpoint, config)
        self._bucket = place.bucket
        self._prefix = f"{place.key}/" if place.key else ""
        self._attempts = config.attempts

    @property
    def uri(self) -> str:
        """Address of the prefix, without a slash at its end."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def address(self, key: str) -> str:
        """Full address of an object."""
        return f"s3://{self._bucket}/{self._name(key)}"

    def check(self) -> None:
        """Ask the server once, so that a wrong endpoint, key or bucket shows before any work is done.

        Raises:
            StorageError: The server cannot be reached, refuses the credentials, or has no such bucket.
        """
        with self._explained("opened", self.uri):
            next(iter(self._client.list_objects(self._bucket, prefix=self._prefix)), None)

    def stat(self, key: str) -> StoredObject | None:
        """Describe an object; None if there is none."""
        with self._explained("looked at", self.address(key)):
            found = self._stat(self._name(key))
            return None if found is None else StoredObject(key, found.size, found.etag)

    def read(self, key: str) -> bytes:
        """Return the bytes of an object, checked."""
        content = BytesIO()
        self._fetch(self._name(key), content)
        return content.getvalue()

    def write(self, key: str, content: bytes) -> None:
        """Store bytes under a key."""
        digest = hashlib.sha256(content).hexdigest()
        with self._explained("written", self.address(key)):
            self._put(self._name(key), BytesIO(content), len(content), digest)

    def download(self, key: str, path: Path) -> None:
        """Copy an object to a file; a transfer that breaks off goes on where it stopped."""
        self.fetch(self._name(key), path)

    def fetch(self, name: str, path: Path) -> None:
        """Copy an object to a file, by its full name within the bucket.

        Args:
            name: Of the object, prefix included; it need not be one that `write` would take.
            path: The file to write.

        Raises:
            StorageError: There is no such object, or its bytes do not come whole.
        """
        try:
            with write_atomically(path) as temporary, temporary.open("w+b") as stream:
                self._fetch(name, stream)
        except OSError as error:
            raise StorageError(f"{path} cannot be written ({error}).", "Check space and permissions.") from error

    def upload(self, path: Path, key: str) -> None:
        """Store the bytes of a file under a key, in parts if it is large.

        Raises:
            StorageError: It cannot be read or stored, or changed meanwhile.
        """
        try:
            before = path.stat()
            digest = sha256_file(path)
            with path.open("rb") as stream, self._explained("written", self.address(key)):
                self._put(self._name(key), stream, before.st_size, digest)
            after = path.stat()
        except OSError as error:
            raise StorageError(f"{path} cannot be read ({error}).", "Check the path.") from error
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            self.delete(key)
            raise StorageError(f"{path} changed while it was stored.", "Run again when nothing writes to it.")

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """List the objects whose key starts with a prefix, in order of key; markers of empty folders are left out."""
        with self._explained("listed", f"{self.uri}/{prefix}"):
            for found in self._client.list_objects(self._bucket, prefix=self._prefix + prefix, recursive=True):
                if not found.is_dir and not found.object_name.endswith("/"):
                    yield StoredObject(found.object_name[len(self._prefix) :], found.size, found.etag)

    def delete(self, key: str) -> None:
        """Remove an object."""
        with self._explained("removed", self.address(key)):
            self._client.remove_object(self._bucket, self._name(key))

    def _name(self, key: str) -> str:
        parts = PurePosixPath(key)
        if not key or parts.is_absolute() or ".." in parts.parts or key.endswith("/"):
            raise InputError(f"{key!r} is not a key of a store.", "Use a relative path without '..'.")
        return self._prefix + parts.as_posix()

    def _stat(self, name: str) -> Any:
        try:
            return self._client.stat_object(self._bucket, name)
        except S3Error as error:
            if error.code in MISSING:
                return None
            raise

    def _put(self, name: str, stream: BinaryIO, size: int, digest: str) -> None:
        """Send bytes; the server checks each part against the hash that goes with it."""
        part_size = max(PART_BYTES, -(-size // MAX_PARTS))
        part_size += -part_size % 2**20
        metadata: Headers = {HASH_METADATA: digest}
        try:
            self._client.put_object(self._bucket, name, stream, size, metadata=metadata, part_size=part_size)
        except S3Error as error:
            # The answer to the last call was lost, and its repetition found the upload already finished.
            found = self._stat(name) if error.code == "NoSuchUpload" else None
            if found is None or (found.size, found.metadata.get(HASH_HEADER)) != (size, digest):
                raise

    def _fetch(self, name: str, target: BytesIO | BufferedRandom) -> None:
        """Copy an object to a stream; a transfer that breaks off goes on where it stopped."""
        address = f"s3://{self._bucket}/{name}"
        transfer = Transfer(target)
        with self._explained("read", address):
            for left in reversed(range(self._attempts)):
                try:
                    self._receive(name, transfer)
                    break
                except urllib3.exceptions.MaxRetryError:
                    raise  # the client has waited long enough
                except urllib3.exceptions.HTTPError as error:
                    if not left:
                        raise
                    at = f"{target.tell()} of {transfer.size} bytes"
                    logger.warning("%s broke off at %s (%s); going on from there.", address, at, error)
        transfer.check(address)

    def _receive(self, name: str, transfer: Transfer) -> None:
        """Append what is still missing of an object."""
        offset = transfer.stream.tell()
        if transfer.begun and offset >= transfer.size:
            return
        unchanged: Headers = {"If-Match": f'"{transfer.etag}"'} if transfer.begun else {}
        response = self._client.get_object(self._bucket, name, offset=offset, request_headers=unchanged)
        try:
            transfer.begin(response)
            for chunk in response.stream(CHUNK_BYTES):
                transfer.stream.write(chunk)
        except BaseException:
            response.close()  # what was not read must not be taken for the next answer
            raise
        finally:
            response.release_conn()

    @contextmanager
    def _explained(self, done: str, what: str) -> Iterator[None]:
        """Turn errors of the client into ones that a user can act on."""
        try:
            yield
        except (MinioException, urllib3.exceptions.HTTPError, ValueError) as error:
            raise self._in_words(error, done, what) from error

    def _in_words(self, error: Exception, done: str, what: str) -> StorageError:
        endpoint = self._endpoint
        problem = f"{what} cannot be {done}: "
        if isinstance(error, S3Error):
            return StorageError(problem + f"{endpoint} says {error.code}: {error.message}", self._advice(error))
        if isinstance(error, ServerError | InvalidResponseError):
            return StorageError(
                problem + f"{endpoint} does not answer as an object store does ({error}).",
                "Check that storage.endpoint is the address of the S3 interface, not of a web page or proxy.",
            )
        if _is_about_certificates(error):
            return StorageError(
                problem + f"the certificate of {endpoint} is not trusted.",
                "Give its issuer's certificate as storage.ca_file.",
            )
        if isinstance(error, ValueError):
            return StorageError(problem + f"{error}.", "Check the name of the bucket and storage.region.")
        reason = short_reason(error)
        return StorageError(
            problem + f"{endpoint} does not answer ({reason}) after {self._attempts} tries.",
            f"Check storage.endpoint or {ENDPOINT_VARIABLE}, and whether the server runs.",
        )

    def _advice(self, error: S3Error) -> str:
        code = error.code
        if code in WRONG_CREDENTIALS:
            return f"Check {KEY_VARIABLE} and {SECRET_VARIABLE}."
        if code == "AccessDenied":
            return f"Check {KEY_VARIABLE} and {SECRET_VARIABLE}, and what they may do in bucket {self._bucket}."
        if code == "NoSuchBucket":
            return f"Make bucket {self._bucket} first, or correct its name."
        if code in WRONG_REGION:
            return "Set storage.region to the region of the bucket."
        if code == "RequestTimeTooSkewed":
            return "Set the clock of this machine right."
        if code == "PreconditionFailed":
            return "The object was replaced while it was read; run again."
        return "See the log of the server."
