"""What workers are made to do in the tests of the pool."""

import os
import signal
import sys
import time

from unmask.media.worker import still_alive


def work(job):
    match job:
        case {"exit": code}:
            os._exit(code)
        case {"kill": _}:
            os.kill(os.getpid(), signal.SIGKILL)
        case {"sleep": seconds}:
            time.sleep(seconds)
        case {"steps": n}:
            for _ in range(n):
                time.sleep(0.7)
                still_alive()
        case {"raise": text}:
            raise RuntimeError(text)
        case {"print": text}:
            sys.stdout.write(text)
            sys.stdout.flush()
            os.write(1, b"from below\n")
        case {"threads": _}:
            return os.environ["OMP_NUM_THREADS"]
        case {"pid": _}:
            return os.getpid()
    return job
