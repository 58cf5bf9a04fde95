"""Fetching of remote media ahead of the workers that decode them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from unmask.errors import StorageError
from unmask.features.store import Failure
from unmask.objects import MediaFiles

Row = dict[str, Any]
THREADS = 4
ABSENT = Path("absent")  # a job for a file that could not be fetched: the worker finds nothing there


class Fetched:
    """Files of samples, fetched a few ahead of where they are wanted; at most so many lie here at a time.

    Args:
        media: Gives the files.
        rows: The samples.
        n_ahead: How many are fetched before they are wanted.
        threads: Fetch them.
    """

    def __init__(self, media: MediaFiles, rows: Sequence[Row], n_ahead: int, threads: ThreadPoolExecutor) -> None:
        self._media = media
        self._rows = rows
        self._n_ahead = max(1, n_ahead)
        self._threads = threads
        self._open: dict[int, ExitStack] = {}
        self._failures: dict[int, Failure] = {}

    def __iter__(self) -> Iterator[tuple[Row, Path]]:
        """Give each sample and its file, in order."""
        underway: deque[Future[Path]] = deque()
        begun = 0
        for row in self._rows:
            while begun < len(self._rows) and len(underway) < self._n_ahead:
                underway.append(self._threads.submit(self._fetch, begun))
                begun += 1
            yield row, underway.popleft().result()

    def _fetch(self, index: int) -> Path:
        stack = ExitStack()
        try:
            path = stack.enter_context(self._media.local(self._rows[index]["uri"]))
        except StorageError as error:
            self._failures[index] = Failure("not_fetched", str(error))
            return ABSENT
        self._open[index] = stack
        return path

    def release(self, index: int) -> Failure | None:
        """Let go of a file that is no longer needed.

        Returns:
            Why it could not be fetched, if so.
        """
        stack = self._open.pop(index, None)
        if stack is not None:
            stack.close()
        return self._failures.pop(index, None)

    def close(self) -> None:
        """Let go of everything."""
        for index in list(self._open):
            self.release(index)


class Fetcher:
    """Fetches media ahead.

    Args:
        media: Gives the files.
    """

    def __init__(self, media: MediaFiles) -> None:
        self._media = media

    @contextmanager
    def ahead(self, rows: Sequence[Row], n_ahead: int) -> Iterator[Fetched]:
        """Fetch the files of samples ahead while the block lasts.

        Args:
            rows: The samples.
            n_ahead: How many are fetched before they are wanted.
        """
        with ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as threads:
            fetched = Fetched(self._media, rows, n_ahead, threads)
            try:
                yield fetched
            finally:
                threads.shutdown(cancel_futures=True)
                fetched.close()
