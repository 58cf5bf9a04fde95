"""Measuring a file for a bundle: the part of scoring that touches its bytes, apart from the part that judges.

It needs neither the bundle nor ONNX Runtime, so a server can do it in a process of its own that starts quickly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask.config import ExtractConfig, IngestConfig
from unmask.errors import MediaError
from unmask.features import Measurement, measure
from unmask.media.probe import MediaFacts, probe

# A file is answered even if ingest would not have trained on it; that it is short or slow becomes a warning.
ANY_LENGTH = IngestConfig(min_duration_s=0, min_fps=0)


@dataclass(frozen=True)
class Examined:
    """A file after its one decoding: all that a bundle needs to judge it.

    Attributes:
        facts: What the container says.
        measurement: Features, face crops and windows of sound.
    """

    facts: MediaFacts
    measurement: Measurement


class UnmeasurableError(MediaError):
    """A file that is media, but could not be measured.

    Args:
        error: Why.
        facts: What its container says.
    """

    def __init__(self, error: MediaError, facts: MediaFacts) -> None:
        super().__init__(error.code, error.detail)
        self.facts = facts


def examine(
    path: Path,
    extract: ExtractConfig,
    *,
    threads: int = 1,
    watch: Callable[[int, int], None] | None = None,
    before: Callable[[Any], None] | None = None,
) -> Examined:
    """Decode and measure a file, once.

    Args:
        path: A local image, video or audio file.
        extract: How it is measured; of the bundle that will judge it.
        threads: Of the decoder; the result does not depend on it.
        watch: Called with frames seen and frames expected while a video is measured.
        before: Called with the open file before anything is decoded; what it raises ends the examination.

    Returns:
        What was measured.

    Raises:
        UnmeasurableError: It is media, but too little of it decodes, or it shows no face.
        MediaError: It is not media, or nothing of it decodes.
    """
    facts = probe(path, ANY_LENGTH, before)
    try:
        return Examined(facts, measure(path, facts.modality, extract, threads=threads, watch=watch))
    except MediaError as error:
        raise UnmeasurableError(error, facts) from error
