"""API keys: made once, stored as hashes, each with its own rate."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from pydantic import Field

from unmask.errors import InputError
from unmask.schemas import Document

PREFIX = "unmask_"
ANONYMOUS = "anonymous"


class KeyEntry(Document):
    """One key.

    Attributes:
        name: Of whoever holds it; appears in logs and records.
        sha256: Of the key. A key has 256 random bits, so that a plain hash cannot be searched.
        requests_per_minute: Its rate; null for the server's usual one.
    """

    name: str = Field(min_length=1, max_length=80, pattern=r"^[\w.@-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    requests_per_minute: float | None = Field(default=None, gt=0)


class KeyFile(Document):
    """The file of keys."""

    keys: list[KeyEntry]


class Keys:
    """The keys that a server accepts.

    Args:
        entries: Of the file; none means that everybody on this machine may ask.
    """

    def __init__(self, entries: list[KeyEntry]) -> None:
        self._entries = entries

    @property
    def required(self) -> bool:
        """Whether a request needs a key."""
        return bool(self._entries)

    def find(self, key: str) -> KeyEntry | None:
        """Find the entry of a key, in a time that does not tell how much of it was right."""
        digest = hash_key(key)
        matching = [entry for entry in self._entries if hmac.compare_digest(entry.sha256, digest)]
        return matching[0] if matching else None


def hash_key(key: str) -> str:
    """SHA-256 of a key, in hexadecimal."""
    return hashlib.sha256(key.encode()).hexdigest()


def load_keys(path: Path) -> Keys:
    """Read a file of keys.

    Raises:
        ContractError: It is missing or broken.
        InputError: It holds no key.
    """
    entries = KeyFile.load(path).keys
    if not entries:
        raise InputError(f"{path} holds no key.", f"Run `unmask serve-key NAME --keys {path}`.")
    return Keys(entries)


def add_key(path: Path, name: str, requests_per_minute: float | None) -> str:
    """Make a key and add its hash to a file.

    Args:
        path: The file; made if there is none.
        name: Of whoever will hold it.
        requests_per_minute: Its rate; None for the usual one.

    Returns:
        The key itself, which is stored nowhere.

    Raises:
        InputError: The name is taken.
    """
    entries = KeyFile.load(path).keys if path.exists() else []
    if any(entry.name == name for entry in entries):
        raise InputError(f"{path} has a key {name} already.", "Choose another name, or remove its entry first.")
    key = PREFIX + secrets.token_urlsafe(32)
    entry = KeyEntry(name=name, sha256=hash_key(key), requests_per_minute=requests_per_minute)
    KeyFile(keys=[*entries, entry]).save(path)
    path.chmod(0o600)
    return key


class RateLimiter:
    """Token buckets by name: a minute's worth may come at once, then it goes at the steady rate.

    Args:
        per_minute: The usual rate.
        clock: Seconds, never going back.
    """

    LARGEST = 10_000

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute = per_minute
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}

    def wait_s(self, name: str, per_minute: float | None = None) -> float:
        """Take one token.

        Args:
            name: Of the key.
            per_minute: Its rate; None for the usual one.

        Returns:
            0 if it may go ahead; else seconds until it may.
        """
        rate = per_minute or self._per_minute
        now = self._clock()
        tokens, since = self._buckets.pop(name, (max(rate, 1.0), now))
        tokens = min(max(rate, 1.0), tokens + (now - since) * rate / 60)
        allowed = tokens >= 1
        self._buckets[name] = (tokens - 1 if allowed else tokens, now)
        while len(self._buckets) > self.LARGEST:
            self._buckets.pop(next(iter(self._buckets)))
        return 0.0 if allowed else math.ceil((1 - tokens) * 60 / rate)
