"""Progress of long work: a bar on a terminal, plain lines in a container or a log file."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

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
