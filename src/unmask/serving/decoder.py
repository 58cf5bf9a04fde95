"""The process that decodes uploads: reads jobs as JSON lines, answers with progress lines and one result a job.

Run by `DecoderPool` as ``python -m unmask.serving.decoder MEMORY_MIB``. Everything that a stranger's bytes touch
before they are numbers and freshly encoded crops happens here, in a process that may crash, hang or be killed.
"""

from __future__ import annotations

import base64
import contextlib
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import simplejpeg

from unmask.config import ExtractConfig
from unmask.deployment.examine import Examined, UnmeasurableError, examine
from unmask.errors import MediaError
from unmask.features import Crop, Measurement, Window
from unmask.media.faces import networks
from unmask.media.probe import MediaFacts

GRACE_S = 30  # beyond the time-out; the pool kills first, the alarm is for when the pool is gone
PROGRESS_EVERY_S = 0.2
MAX_FPS = 240
LARGEST_OUTPUT_BYTES = 1 << 20  # a worker writes nothing but messages of libraries


def main(memory_mib: int) -> None:
    """Answer jobs until the input ends.

    Args:
        memory_mib: Address space that this process may use.
    """
    # Native libraries may print: only answers go to the pipe, everything else to the error stream.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the server decides when to stop
    _warm_up()
    resource.setrlimit(resource.RLIMIT_AS, (memory_mib << 20, memory_mib << 20))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_OUTPUT_BYTES, LARGEST_OUTPUT_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _send(answers, {"ready": True})
    for line in sys.stdin:
        job = json.loads(line)
        # The default action of the alarm ends the process even inside a decoder that never returns.
        signal.alarm(math.ceil(job["timeout_s"]) + GRACE_S)
        _send(answers, _answer(job, answers))
        signal.alarm(0)


def _warm_up() -> None:
    """Measure a drawn picture, so that the first upload does not wait for what is loaded on first use."""
    networks()
    rng = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile(suffix=".jpg") as stream:
        noise = rng.integers(0, 255, (256, 256, 3), np.uint8)
        stream.write(simplejpeg.encode_jpeg(noise, quality=90))
        stream.flush()
        with contextlib.suppress(MediaError):
            examine(Path(stream.name), ExtractConfig(min_face_share=0))


def _answer(job: dict[str, Any], answers: TextIO) -> dict[str, Any]:
    path = Path(job["path"])
    try:
        examined = examine(
            path,
            ExtractConfig.model_validate(job["extract"]),
            threads=job["threads"],
            watch=_watch(answers, job["limits"]["max_duration_s"]),
            before=lambda container: check_limits(container, job["limits"]),
        )
        return {"result": to_json(examined)}
    except UnmeasurableError as error:
        return {"error": {"code": error.code, "detail": error.detail, "facts": asdict(error.facts)}}
    except MediaError as error:
        return {"error": {"code": error.code, "detail": error.detail.replace(path.name, "the file")}}
    except MemoryError:
        return {"error": {"code": "too_large", "detail": "decoding needs more memory than a worker may use"}}


def check_limits(container: Any, limits: dict[str, float]) -> None:
    """Check size and length by the headers, before anything is decoded.

    Args:
        container: The open upload.
        limits: ``max_image_pixels``, ``max_video_pixels``, ``max_duration_s``.

    Raises:
        MediaError: ``too_large`` or ``too_long``.
    """
    # A stream whose coding nobody knows has no size; decoding it is refused right afterwards.
    pictures = [stream for stream in container.streams.video if stream.codec_context is not None]
    width, height = (pictures[0].width, pictures[0].height) if pictures else (0, 0)
    duration_s = (container.duration or 0) / 1e6
    # Still pictures have their own containers; what is unsure gets the larger limit and is decoded once.
    still = container.format.name.endswith("_pipe") or duration_s == 0
    largest = limits["max_image_pixels" if still else "max_video_pixels"]
    if width * height > largest:
        raise MediaError("too_large", f"{width} x {height} pixels; the limit is {largest:.0f} pixels")
    if duration_s > limits["max_duration_s"]:
        raise MediaError("too_long", f"{duration_s:.0f} s; the limit is {limits['max_duration_s']:g} s")


def _watch(answers: TextIO, max_duration_s: float) -> Callable[[int, int], None]:
    """Report progress now and then, and stop a film whose headers hid its length."""
    last_s = time.monotonic()

    def watch(seen: int, expected: int) -> None:
        nonlocal last_s
        if seen > max_duration_s * MAX_FPS:
            raise MediaError("too_long", f"more than {seen - 1} frames; the limit is {max_duration_s:g} s")
        now = time.monotonic()
        if now - last_s >= PROGRESS_EVERY_S:
            last_s = now
            _send(answers, {"progress": min(1.0, seen / max(expected, 1))})

    return watch


def to_json(examined: Examined) -> dict[str, Any]:
    """Turn what was measured into JSON values; floats survive it bit for bit."""
    measurement = {field.name: getattr(examined.measurement, field.name) for field in fields(Measurement)}
    crops = [
        {
            **{field.name: getattr(crop, field.name) for field in fields(Crop)},
            "jpeg": base64.b64encode(crop.jpeg).decode(),
        }
        for crop in examined.measurement.crops
    ]
    windows = [
        {**window.__dict__, "pcm": base64.b64encode(window.pcm).decode()} for window in examined.measurement.windows
    ]
    return {"facts": asdict(examined.facts), "measurement": {**measurement, "crops": crops, "windows": windows}}


def from_json(value: dict[str, Any]) -> Examined:
    """Read what `to_json` wrote."""
    crops = [Crop(**{**crop, "jpeg": base64.b64decode(crop["jpeg"])}) for crop in value["measurement"]["crops"]]
    windows = [Window(**{**one, "pcm": base64.b64decode(one["pcm"])}) for one in value["measurement"]["windows"]]
    measurement = Measurement(**{**value["measurement"], "crops": crops, "windows": windows})
    return Examined(MediaFacts(**value["facts"]), measurement)


def _send(stream: TextIO, value: dict[str, Any]) -> None:
    try:
        stream.write(json.dumps(value) + "\n")
        stream.flush()
    except BrokenPipeError:  # the server is gone
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
