"""How busy this process keeps the machine: sampled beside a training, for its logs."""

from __future__ import annotations

import logging
import os
import resource
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from unmask.training.device import available_cores

logger = logging.getLogger(__name__)
PROC = Path("/proc/self")
EVERY_S = 10.0
NVIDIA_SMI = "nvidia-smi"
GPU_QUERY = ("--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits")
TIMEOUT_S = 5.0


def cpu_seconds() -> float:
    """CPU time of this process and its finished children so far, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def resident_mb() -> float:
    """Memory of this process in MiB, now; where the system does not say, the largest so far."""
    try:
        pages = int((PROC / "statm").read_text(encoding="ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except (OSError, ValueError, IndexError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def gpu_figures() -> dict[str, float]:
    """Utilisation in percent and used memory in MiB of each NVIDIA GPU of the machine; empty without any.

    The driver's own program is asked, because it is there wherever a GPU is.
    """
    program = shutil.which(NVIDIA_SMI)
    if program is None:
        return {}
    try:
        asked = subprocess.run([program, *GPU_QUERY], capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
        rows = [[float(value) for value in line.split(",")] for line in asked.stdout.splitlines() if line.strip()]
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}
    figures: dict[str, float] = {}
    for number, (busy, used_mb) in enumerate(rows):
        figures |= {
            f"system/gpu_{number}_utilization_percentage": busy,
            f"system/gpu_{number}_memory_usage_megabytes": used_mb,
        }
    return figures


class Meter:
    """Measures the use of the machine since the last time it was asked."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), cpu_seconds()

    def measure(self) -> dict[str, float]:
        """Measure.

        Returns:
            With the names that MLflow's page shows among its system metrics: share of this process's cores in percent,
            its memory, and those of the GPUs.
        """
        wall, cpu = time.monotonic(), cpu_seconds()
        busy = 100 * (cpu - self._cpu) / max(wall - self._wall, 1e-3) / available_cores()
        self._wall, self._cpu = wall, cpu
        return {
            "system/cpu_utilization_percentage": busy,
            "system/system_memory_usage_megabytes": resident_mb(),
            **gpu_figures(),
        }


@contextmanager
def watched(tell: Callable[[Mapping[str, float]], None], every_s: float = EVERY_S) -> Iterator[None]:
    """Measure now and then for the length of a block, and once at its end.

    Args:
        tell: Is given each measurement, from a thread of its own.
        every_s: Time between two.
    """
    meter = Meter()
    over = threading.Event()

    def sample() -> None:
        while not over.wait(every_s):
            tell(meter.measure())

    thread = threading.Thread(target=sample, name="system", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        tell(meter.measure())
