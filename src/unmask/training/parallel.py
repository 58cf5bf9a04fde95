"""Several processes that train one detector together: who is who, and how they exchange what they know."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor

from unmask.config import TrainConfig

WAIT = timedelta(minutes=30)


@dataclass(frozen=True)
class Group:
    """The processes of one training (DDP, Li et al. 2020).

    Attributes:
        rank: Number of this process, from 0.
        size: Number of processes.
        local_rank: Number of this process on its node, which is the number of its GPU.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks."""
        return self.rank == 0

    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Give the part of some rows that is this process's."""
        return rows[self.rank :: self.size]

    def gather(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Put what every process computed of its `share` back into the order of all rows.

        Args:
            values: Of this process's rows.

        Returns:
            Values of all rows, the same in every process.
        """
        if self.size == 1:
            return values
        parts: list[NDArray[np.float64]] = [values] * self.size
        dist.all_gather_object(parts, values)
        together = np.empty(sum(map(len, parts)), np.float64)
        for rank, part in enumerate(parts):
            together[rank :: self.size] = part
        return together

    def sum(self, value: Tensor) -> float:
        """Add a number over all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return float(value)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()


ALONE = Group()


@contextmanager
def joined() -> Iterator[Group]:
    """Join the processes that ``torchrun`` started, for the block; alone without it.

    Yields:
        The group: NCCL where each process has a GPU, gloo otherwise.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=WAIT)
    try:
        yield Group(dist.get_rank(), size, int(os.environ.get("LOCAL_RANK", "0")))
    finally:
        dist.destroy_process_group()


def processes_wanted(config: TrainConfig) -> int:
    """Say how many processes a training on this machine should have.

    Args:
        config: ``processes`` and ``device``.

    Returns:
        1 inside a process that was started for this already.
    """
    if "WORLD_SIZE" in os.environ:
        return 1
    if config.processes:
        return config.processes
    return max(1, torch.cuda.device_count()) if config.device in ("auto", "cuda") else 1


def is_follower() -> bool:
    """Whether this process trains along with another one, which writes and reports."""
    return int(os.environ.get("RANK", "0")) > 0


def start_processes(number: int, command: Sequence[str]) -> int:
    """Run a Python module in several processes that find each other.

    Args:
        number: Of processes.
        command: Module and its arguments.

    Returns:
        The exit status.
    """
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={number}"]
    return subprocess.run([*launcher, "-m", *command], check=False).returncode
