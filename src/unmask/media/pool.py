"""A pool of worker processes that outlives a crashed or hung decoder.

Every job runs in a process of its own kind: a plain `python -m unmask.media.worker` that reads one JSON line a job
and answers with one, and with empty lines meanwhile if the job tells that it advances. A worker that dies or stands
still for too long is replaced, and its job answers ``crashed`` or ``timeout``.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import IO, Any, Self

from unmask.errors import UnmaskError

logger = logging.getLogger(__name__)

# One thread a worker: the workers themselves fill the cores.
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMEXPR_NUM_THREADS",
)
START_TIMEOUT_S = 600.0  # for importing what the job needs: seconds, and minutes where a machine is overloaded
LAST_WORDS_BYTES = 300


@dataclass(frozen=True)
class Answer:
    """What became of a job.

    Attributes:
        index: Position of the job.
        error: ``crashed`` or ``timeout`` if the worker did not answer, else None.
        detail: What was seen then.
        value: What the worker answered, else None.
    """

    index: int
    error: str | None = None
    detail: str = ""
    value: Any = None


def available_cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    stderr: IO[bytes]
    job: int | None = None
    deadline: float = field(default=0.0)
    received: bytes = b""
    ready: bool = False

    def last_words(self) -> str:
        """The end of what the worker wrote to its error stream."""
        self.stderr.seek(0, os.SEEK_END)
        self.stderr.seek(max(0, self.stderr.tell() - LAST_WORDS_BYTES))
        lines = self.stderr.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip() if lines else ""

    def end(self) -> None:
        """Kill the worker and reap it."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.stderr):
            if stream is not None:
                stream.close()


class WorkerPool:
    """Runs jobs in worker processes.

    Args:
        target: ``module:function`` that every worker calls with a job and whose answer it sends back; both JSON.
        workers: Number of processes; 0 is one a core.
        timeout_s: A job that takes longer, or longer than this since its last `worker.still_alive`, is given up.
    """

    def __init__(self, target: str, workers: int, timeout_s: float) -> None:
        self._target = target
        self._n = workers or available_cores()
        self._timeout_s = timeout_s
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        while self._workers:
            self._drop(self._workers[-1])
        self._selector.close()

    @property
    def size(self) -> int:
        """Number of processes."""
        return self._n

    def run(self, jobs: Iterable[Any]) -> Iterator[Answer]:
        """Run jobs.

        Args:
            jobs: JSON values; the next one is taken when a process is free for it.

        Yields:
            One answer a job, in the order in which they get done.

        Raises:
            UnmaskError: No worker can be started at all.
        """
        source = enumerate(jobs)
        waiting: deque[tuple[int, Any]] = deque()
        while True:
            n_busy = sum(worker.job is not None for worker in self._workers)
            waiting.extend(islice(source, max(0, self._n - n_busy - len(waiting))))
            if not waiting and not n_busy:
                return
            while len(self._workers) < min(self._n, n_busy + len(waiting)):
                self._start()
            for worker in list(self._workers):
                if worker.ready and worker.job is None and waiting:
                    self._hand_out(worker, waiting)
            yield from self._collect()

    def _start(self) -> None:
        environment = os.environ | dict.fromkeys(THREAD_VARIABLES, "1")
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker, closed by _Worker.end
        process = subprocess.Popen(
            [sys.executable, "-m", "unmask.media.worker", self._target, str(self._timeout_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=environment,
        )
        worker = _Worker(process, stderr, deadline=time.monotonic() + START_TIMEOUT_S)
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        self._selector.register(process.stdout, selectors.EVENT_READ, worker)
        self._workers.append(worker)

    def _hand_out(self, worker: _Worker, waiting: deque[tuple[int, Any]]) -> None:
        index, job = waiting.popleft()
        worker.job = index
        worker.deadline = time.monotonic() + self._timeout_s
        assert worker.process.stdin is not None
        try:
            worker.process.stdin.write(json.dumps(job).encode() + b"\n")
            worker.process.stdin.flush()
        except BrokenPipeError:  # it died while idle
            waiting.appendleft((index, job))
            self._drop(worker)

    def _collect(self) -> Iterator[Answer]:
        """Wait until a worker answers, dies, or runs out of time."""
        now = time.monotonic()
        busy = [worker for worker in self._workers if worker.job is not None or not worker.ready]
        wait_s = max(0.0, min((worker.deadline for worker in busy), default=now) - now)
        for key, _ in self._selector.select(wait_s):
            yield from self._read(key.data)
        now = time.monotonic()
        for worker in [w for w in self._workers if w.deadline <= now and (w.job is not None or not w.ready)]:
            if worker.job is None:
                self._refuse_to_start(worker)
            index = worker.job
            self._drop(worker)
            assert index is not None
            yield Answer(index, "timeout", f"nothing advanced for {self._timeout_s:g} s")

    def _read(self, worker: _Worker) -> Iterator[Answer]:
        assert worker.process.stdout is not None
        chunk = worker.process.stdout.read()
        if chunk:
            worker.received += chunk
            while b"\n" in worker.received:
                line, _, worker.received = worker.received.partition(b"\n")
                if not line:  # a sign of life
                    worker.deadline = time.monotonic() + self._timeout_s
                    continue
                index, worker.job = worker.job, None
                if index is None:
                    worker.ready = True
                else:
                    yield Answer(index, value=json.loads(line))
        elif chunk == b"":  # the worker has gone
            index, code = worker.job, worker.process.wait()
            if index is None and not worker.ready:
                self._refuse_to_start(worker)
            words = worker.last_words()
            self._drop(worker)
            if index is not None:
                yield Answer(
                    index, "crashed", f"the worker ended with {_describe(code)}" + (f" ({words})" if words else "")
                )

    def _refuse_to_start(self, worker: _Worker) -> None:
        words = worker.last_words()
        raise UnmaskError(
            f"A worker process does not start ({words or 'no message'}).",
            f"Run `{sys.executable} -m unmask.media.worker {self._target} 10` to see why.",
        )

    def _drop(self, worker: _Worker) -> None:
        self._workers.remove(worker)
        self._selector.unregister(worker.process.stdout)  # type: ignore[arg-type]
        worker.end()


def _describe(code: int) -> str:
    if code < 0:
        try:
            return f"signal {signal.Signals(-code).name}"
        except ValueError:
            return f"signal {-code}"
    return f"exit code {code}"
