"""Jobs: long videos that are answered later, with their progress."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal

from pydantic import Field

from unmask.schemas import Document
from unmask.serving.analyst import Analyst, Upload
from unmask.serving.answers import Analysis
from unmask.serving.problems import Problem, RefusedError, busy

logger = logging.getLogger(__name__)

Status = Literal["waiting", "running", "done", "failed"]


class JobInfo(Document):
    """A job.

    Attributes:
        id: Ask for it at ``/v1/jobs/{id}``.
        status: waiting, running, done or failed.
        progress: Share of the video that is measured.
        result: The answer, when it is done.
        problem: Why there is none, when it failed.
    """

    id: str
    status: Status
    progress: float = Field(ge=0, le=1)
    result: Analysis | None = None
    problem: Problem | None = None


@dataclass
class _Job:
    job_id: str
    caller: str
    status: Status = "waiting"
    progress: float = 0.0
    result: Analysis | None = None
    problem: Problem | None = None
    ended: float | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Jobs:
    """Runs jobs beside direct requests, never with all processes at once.

    Args:
        analyst: Answers.
        at_once: Jobs that run at the same time.
        largest: Jobs waiting or running.
        keep_s: How long an ended job can be asked for.
    """

    def __init__(self, analyst: Analyst, at_once: int, largest: int, keep_s: float) -> None:
        self._analyst = analyst
        self._slots = asyncio.Semaphore(at_once)
        self._largest = largest
        self._keep_s = keep_s
        self._jobs: OrderedDict[str, _Job] = OrderedDict()

    def start(self, upload: Upload, delete: Callable[[], None]) -> JobInfo:
        """Take a job.

        Args:
            upload: The file.
            delete: Called when the file is no longer needed, whatever happens.

        Raises:
            RefusedError: 503, there are enough jobs.
        """
        self._forget()
        if sum(job.ended is None for job in self._jobs.values()) >= self._largest:
            delete()
            raise busy(f"{self._largest} jobs are waiting or running.", 10)
        job = _Job(secrets.token_urlsafe(18), upload.caller)
        self._jobs[job.job_id] = job
        job.task = asyncio.create_task(self._run(job, upload, delete))
        return _info(job)

    def find(self, job_id: str, caller: str) -> JobInfo:
        """Tell how far a job is.

        Raises:
            RefusedError: 404, it is unknown, forgotten, or somebody else's.
        """
        return _info(self._find(job_id, caller))

    async def cancel(self, job_id: str, caller: str) -> None:
        """End a job and forget it; its process is killed.

        Raises:
            RefusedError: 404, it is unknown, forgotten, or somebody else's.
        """
        job = self._find(job_id, caller)
        if job.task is not None:
            job.task.cancel()
            await asyncio.gather(job.task, return_exceptions=True)
        self._jobs.pop(job_id, None)

    async def close(self) -> None:
        """End all jobs."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def counts(self) -> dict[str, int]:
        """Status to number of jobs."""
        self._forget()
        return dict(Counter(job.status for job in self._jobs.values()))

    def _find(self, job_id: str, caller: str) -> _Job:
        self._forget()
        job = self._jobs.get(job_id)
        if job is None or job.caller != caller:
            raise RefusedError(HTTPStatus.NOT_FOUND, "unknown_job", "There is no such job, or it is long over.")
        return job

    def _forget(self) -> None:
        oldest = time.monotonic() - max(self._keep_s, 60)
        for job_id in [key for key, job in self._jobs.items() if job.ended is not None and job.ended < oldest]:
            del self._jobs[job_id]

    async def _run(self, job: _Job, upload: Upload, delete: Callable[[], None]) -> None:
        def watch(share: float) -> None:
            job.progress = share

        try:
            async with self._slots:
                job.status = "running"
                job.result = await self._analyst.analyse(upload, self._analyst.patient, watch)
                job.status, job.progress = "done", 1.0
        except RefusedError as error:
            job.status, job.problem = "failed", error.problem(job.job_id)
        except Exception:
            logger.exception("A job failed.", extra={"fields": {"job": job.job_id}})
            internal = RefusedError(500, "internal", "Something went wrong here.", "Tell whoever runs this server.")
            job.status, job.problem = "failed", internal.problem(job.job_id)
        finally:
            job.ended = time.monotonic()
            delete()


def _info(job: _Job) -> JobInfo:
    return JobInfo(id=job.job_id, status=job.status, progress=job.progress, result=job.result, problem=job.problem)
