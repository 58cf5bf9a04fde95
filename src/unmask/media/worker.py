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
from collections.abc import Callable
from typing import Any

GRACE_S = 30  # beyond the timeout; the pool kills first, the alarm is for when the pool is gone


def main(target: str, timeout_s: float) -> None:
    """Answer jobs until the input ends.

    Args:
        target: ``module:function``.
        timeout_s: Of one job.
    """
    # Native libraries may print: only answers go to the pipe, everything else to the error stream.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the pool decides when to stop
    module, _, name = target.partition(":")
    function: Callable[[Any], Any] = getattr(importlib.import_module(module), name)
    _send(answers, "ready")
    for line in sys.stdin:
        # The default action of the alarm ends the process even inside a decoder that never returns.
        signal.alarm(math.ceil(timeout_s) + GRACE_S)
        result = function(json.loads(line))
        signal.alarm(0)
        _send(answers, result)


def _send(stream: Any, value: Any) -> None:
    try:
        stream.write(json.dumps(value) + "\n")
        stream.flush()
    except BrokenPipeError:  # the pool is gone
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]))
