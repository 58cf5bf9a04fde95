"""Where and how a training computes: device, precision, threads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from unmask.config import TrainConfig
from unmask.errors import ConfigError

CGROUP_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def resolve_device(name: str, local_rank: int = 0) -> torch.device:
    """Turn a device name into a device.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:<number>``.
        local_rank: Number of this process among those of one training; the n-th takes the n-th GPU.

    Returns:
        The device; ``auto`` is a GPU, or the CPU where there is none.

    Raises:
        ConfigError: The name is unknown or there is no such device.
    """
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return torch.device("cuda", local_rank)
    if name == "auto":
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"train.device {name!r} is not a device.", "Use auto, cpu, cuda or cuda:1.") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"train.device {name!r} is not supported.", "Use auto, cpu, cuda or cuda:1.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"train.device is {name!r}, but PyTorch sees {found} GPUs.", "Use auto or cpu.")
    return device


def describe_device(device: torch.device) -> str:
    """Name the device for people, for example ``cpu: x86_64, 2 threads``."""
    if device.type == "cuda":
        return f"{device}: {torch.cuda.get_device_name(device)}"
    return f"cpu: {platform.machine()}, {torch.get_num_threads()} threads"


def autocast_type(precision: str, device: torch.device) -> torch.dtype | None:
    """Choose the type in which forward and backward passes run.

    Args:
        precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``; auto means bf16 on a GPU that has it, fp16 on an older
            GPU, and full precision on a CPU.
        device: Where they run.

    Returns:
        The type, or None for full precision.
    """
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def available_cores() -> int:
    """Count the CPU cores that this process may use, with the quota of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    try:
        quota, period = CGROUP_CPU_QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, round(int(quota) / int(period))))
    except (OSError, ValueError):
        return cores


@contextmanager
def reproducible(config: TrainConfig, seed: int) -> Iterator[int]:
    """Set threads and torch's generators for the block, and put both back afterwards.

    Args:
        config: ``threads`` of it.
        seed: For weights and dropout.

    Yields:
        Number of threads.
    """
    before = torch.get_num_threads()
    threads = config.threads or available_cores()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield threads
    finally:
        torch.set_num_threads(before)
