"""Progress of long work: a bar on a terminal, plain lines in a container or a log file."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Self, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
LINE_EVERY_S = 10.0


def track(items: Iterable[Item], total: int, what: str, unit: str = "it") -> Iterator[Item]:
    """Pass items through and show how far the work is.

    Args:
        items: What is worked on.
        total: How many there are.
        what: Name of the work, for example ``extract``.
        unit: Name of one item.

    Yields:
        The items.
    """
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, unit=unit, file=sys.stderr)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= LINE_EVERY_S and done < total:
            rate = done / (now - start)
            logger.info("%s: %d of %d %s, %.2g/s, %.0f s left", what, done, total, unit, rate, (total - done) / rate)
            last = now
    logger.info("%s: %d %s in %.1f s", what, total, unit, time.monotonic() - start)


class Meter:
    """Shows how far work is that comes in pieces of unknown number, such as bytes; many threads may report to it.

    Args:
        what: Name of the work, for example ``download``.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._lock = threading.Lock()
        self._total = self._done = 0
        self._start = self._last = time.monotonic()
        self._bar = (
            tqdm(total=0, desc=what, unit="B", unit_scale=True, file=sys.stderr) if sys.stderr.isatty() else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._done:
            logger.info("%s: %s in %.1f s", self._what, in_bytes(self._done), time.monotonic() - self._start)

    def expect(self, n_bytes: int) -> None:
        """Learn of so many more bytes to come; a negative number takes some back."""
        with self._lock:
            self._total += n_bytes
            if self._bar is not None:
                self._bar.total = self._total
                self._bar.refresh()

    def advance(self, n_bytes: int) -> None:
        """Count bytes that have come."""
        with self._lock:
            self._done += n_bytes
            if self._bar is not None:
                self._bar.update(n_bytes)
                return
            now = time.monotonic()
            if now - self._last < LINE_EVERY_S:
                return
            self._last = now
            rate = max(1.0, self._done / (now - self._start))
            left_s = max(0, self._total - self._done) / rate
        done, total, speed = in_bytes(self._done), in_bytes(self._total), in_bytes(rate)
        logger.info("%s: %s of %s, %s/s, %.0f s left", self._what, done, total, speed, left_s)


def in_bytes(n_bytes: float) -> str:
    """Write a number of bytes for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(n_bytes) < 1024:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1024
    return f"{n_bytes:.1f} TiB"
