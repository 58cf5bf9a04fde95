"""A worker process of `WorkerPool`: reads jobs as JSON lines, answers each with one.

Run by the pool as ``python -m unmask.media.worker module:function timeout_s``.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

GRACE_S = 30  # beyond the timeout; the pool kills first, the alarm is for when the pool is gone
SIGN_EVERY_S = 0.5


class _SignOfLife:
    """Tells the pool, now and then, that a job goes on; without a pool it does nothing."""

    def __init__(self) -> None:
        self._stream: Any = None
        self._alarm_s = 0
        self._last_s = 0.0

    def begin(self, stream: Any, alarm_s: int) -> None:
        """Give signs on a stream from now on, and put off the alarm with each."""
        self._stream, self._alarm_s = stream, alarm_s

    def __call__(self) -> None:
        """Give a sign, if the last one is long enough ago."""
        now = time.monotonic()
        if self._stream is not None and now - self._last_s >= SIGN_EVERY_S:
            self._last_s = now
            signal.alarm(self._alarm_s)
            _write(self._stream, "\n")


still_alive = _SignOfLife()
"""Called by a job whenever it has advanced: then only a job that stands still is given up."""


def main(target: str, timeout_s: float) -> None:
    """Answer jobs until the input ends.

    Args:
        target: ``module:function``.
        timeout_s: Of one job, or of one step of a job that calls `still_alive`.
    """
    # Native libraries may print: only answers go to the pipe, everything else to the error stream.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool decides when to stop
    module, _, name = target.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    alarm_s = math.ceil(timeout_s) + GRACE_S
    still_alive.begin(answers, alarm_s)
    _send(answers, "ready")
    for line in sys.stdin:
        # The default action of the alarm ends the process even inside a decoder that never returns.
        signal.alarm(alarm_s)
        result = function(json.loads(line))
        signal.alarm(0)
        _send(answers, result)


def _send(stream: Any, value: Any) -> None:
    _write(stream, json.dumps(value) + "\n")


def _write(stream: Any, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:  # the pool is gone
        os._exit(0)


if __name__ == "__main__":
    from unmask.media import worker  # jobs know the module by this name, and not the one that is run

    worker.main(sys.argv[1], float(sys.argv[2]))
