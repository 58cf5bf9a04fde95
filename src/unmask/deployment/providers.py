"""Where ONNX Runtime computes: on a GPU where one serves, else on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import onnxruntime

from unmask.errors import ConfigError

logger = logging.getLogger(__name__)

CPU = "CPUExecutionProvider"
PROVIDERS = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider", "cpu": CPU}


def choose_providers(wanted: Sequence[str]) -> list[str]:
    """Choose among the providers that this ONNX Runtime was built with.

    Args:
        wanted: In order of preference: tensorrt, cuda, cpu.

    Returns:
        ONNX Runtime's names of those that are there, the CPU last, which computes what the others cannot. What is
        wanted and not there is told in a warning.

    Raises:
        ConfigError: There is no provider of that name.
    """
    unknown = [name for name in wanted if name not in PROVIDERS]
    if unknown:
        raise ConfigError(f"There is no provider {', '.join(unknown)}.", f"Name some of {', '.join(PROVIDERS)}.")
    there = set(onnxruntime.get_available_providers())
    missing = [name for name in wanted if PROVIDERS[name] not in there]
    if missing:
        logger.warning(
            "%s: not in this build of ONNX Runtime, so detectors run on %s; a GPU needs the package onnxruntime-gpu",
            ", ".join(missing),
            ", ".join(name for name in wanted if name not in missing) or "cpu",
        )
    chosen = [PROVIDERS[name] for name in dict.fromkeys(wanted) if PROVIDERS[name] in there and name != "cpu"]
    return [*chosen, CPU]
