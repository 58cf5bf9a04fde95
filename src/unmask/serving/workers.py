"""A pool of decoding processes for a server: each answers one upload at a time and is replaced when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask.config import ExtractConfig
from unmask.deployment.examine import Examined, UnmeasurableError
from unmask.errors import MediaError, UnmaskError
from unmask.media.pool import THREAD_VARIABLES
from unmask.media.probe import MediaFacts
from unmask.serving.decoder import from_json

logger = logging.getLogger(__name__)

START_TIMEOUT_S = 300.0  # for importing what decoding needs, on a very busy machine
LONGEST_LINE_BYTES = 256 << 20  # crops of a few faces are some megabytes
# A worker that was killed from outside takes an innocent upload with it: that one is tried once more. An upload that
# kills two workers is the cause.
ATTEMPTS = 2


@dataclass(frozen=True)
class MediaLimits:
    """What is refused by its headers.

    Attributes:
        max_image_pixels: Width times height of an image.
        max_video_pixels: Width times height of a video.
        max_duration_s: Of a video or sound.
        timeout_s: Longest measuring.
    """

    max_image_pixels: int
    max_video_pixels: int
    max_duration_s: float
    timeout_s: float


class _GoneError(Exception):
    """The worker ended in the middle of a job."""


class _Decoder:
    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, memory_mib: int) -> _Decoder:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "unmask.serving.decoder",
            str(memory_mib),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # What libraries print about a file may hold words of its metadata: it is not for any log.
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | dict.fromkeys(THREAD_VARIABLES, "1"),
            limit=LONGEST_LINE_BYTES,
        )
        decoder = cls(process)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await decoder.read()
        except (TimeoutError, _GoneError) as error:
            await decoder.end()
            raise UnmaskError(
                "A decoding process does not start.",
                f"Run `{sys.executable} -m unmask.serving.decoder {memory_mib}` to see why.",
            ) from error
        except BaseException:
            await decoder.end()
            raise
        return decoder

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        if not line:
            raise _GoneError
        message: dict[str, Any] = json.loads(line)
        return message

    async def write(self, job: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(job).encode() + b"\n")
            await self.process.stdin.drain()
        except (BrokenPipeError, ConnectionResetError) as error:
            raise _GoneError from error

    async def end(self) -> None:
        self.kill()
        await self.process.wait()

    def kill(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()


class DecoderPool:
    """Measures uploads in processes of their own.

    Args:
        n: Number of processes.
        memory_mib: Address space of each.
        threads: Of the decoder within a process.
        on_restart: Told why a process had to be replaced: crashed, timeout or cancelled.
    """

    def __init__(self, n: int, memory_mib: int, threads: int, on_restart: Callable[[str], None] | None = None) -> None:
        self._n = n
        self._memory_mib = memory_mib
        self._threads = threads
        self._on_restart = on_restart or (lambda _: None)
        self._idle: asyncio.Queue[_Decoder | None] = asyncio.Queue()
        self._all: set[_Decoder] = set()

    async def start(self) -> None:
        """Start all processes, so that the first upload does not wait for imports.

        Raises:
            UnmaskError: One does not start.
        """
        for decoder in await asyncio.gather(*(self._new() for _ in range(self._n))):
            self._idle.put_nowait(decoder)

    async def stop(self) -> None:
        """Kill and reap all processes."""
        await asyncio.gather(*(decoder.end() for decoder in list(self._all)))
        self._all.clear()

    @property
    def pids(self) -> list[int]:
        """Process numbers of the living workers."""
        return [decoder.process.pid for decoder in self._all if decoder.alive]

    async def measure(
        self,
        path: Path,
        extract: ExtractConfig,
        limits: MediaLimits,
        progress: Callable[[float], None] | None = None,
    ) -> Examined:
        """Measure a file in the next free process.

        Args:
            path: The file.
            extract: How.
            limits: What is refused, and after how long it is given up.
            progress: Told the share that is done: 0 when a process takes the file, then up to 1.

        Returns:
            What was measured.

        Raises:
            MediaError: It cannot be measured; ``timeout`` or ``crashed`` when its process had to be replaced.
        """
        job = {
            "path": str(path),
            "extract": extract.model_dump(mode="json"),
            "limits": {
                "max_image_pixels": limits.max_image_pixels,
                "max_video_pixels": limits.max_video_pixels,
                "max_duration_s": limits.max_duration_s,
            },
            "timeout_s": limits.timeout_s,
            "threads": self._threads,
        }
        for _ in range(ATTEMPTS):
            try:
                answer = await self._ask(job, limits.timeout_s, progress)
            except _GoneError:
                continue
            if "result" in answer:
                return from_json(answer["result"])
            error = MediaError(answer["error"]["code"], answer["error"]["detail"])
            facts = answer["error"].get("facts")
            raise UnmeasurableError(error, MediaFacts(**facts)) if facts else error
        raise MediaError("crashed", f"the decoder died {ATTEMPTS} times on this file")

    async def _new(self) -> _Decoder:
        decoder = await _Decoder.start(self._memory_mib)
        self._all.add(decoder)
        return decoder

    async def _ask(
        self, job: dict[str, Any], timeout_s: float, progress: Callable[[float], None] | None
    ) -> dict[str, Any]:
        decoder = await self._idle.get()
        healthy = False
        reason = "crashed"
        try:
            if decoder is None or not decoder.alive:
                if decoder is not None:
                    await self._discard(decoder, reason)
                decoder = await self._new()
            if progress is not None:
                progress(0.0)
            async with asyncio.timeout(timeout_s):
                await decoder.write(job)
                while True:
                    answer = await decoder.read()
                    if "progress" not in answer:
                        healthy = True
                        return answer
                    if progress is not None:
                        progress(answer["progress"])
        except TimeoutError as error:
            reason = "timeout"
            raise MediaError("timeout", f"not measured within {timeout_s:g} s") from error
        except asyncio.CancelledError:
            reason = "cancelled"
            raise
        finally:
            if healthy:
                self._idle.put_nowait(decoder)
            else:
                # The place goes back at once, and whoever takes it next starts the new process: a slow start must not
                # hold up an answer.
                self._idle.put_nowait(None)
                if decoder is not None:
                    decoder.kill()
                    await asyncio.shield(self._discard(decoder, reason))

    async def _discard(self, decoder: _Decoder, reason: str) -> None:
        if decoder in self._all:
            self._all.discard(decoder)
            self._on_restart(reason)
            logger.warning("A decoding process was replaced (%s).", reason)
        await decoder.end()
