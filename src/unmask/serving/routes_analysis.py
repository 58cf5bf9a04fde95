"""Routes that judge files."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Literal

from fastapi import APIRouter, Response
from pydantic import Field
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from unmask.schemas import Document
from unmask.serving.analyst import Upload
from unmask.serving.answers import Analysis
from unmask.serving.jobs import JobInfo
from unmask.serving.problems import Problem, RefusedError
from unmask.serving.services import Caller, Services, Shared
from unmask.serving.uploads import client_of, deleted_after, files_of, form_body, may_keep, read_form, shown_name

router = APIRouter(tags=["analysis"])


class BatchItem(Document):
    """One file of a batch.

    Attributes:
        file: Its name.
        result: The answer; null if there is none.
        problem: Why not.
    """

    file: str
    result: Analysis | None = None
    problem: Problem | None = None


class BatchAnswer(Document):
    """A batch, in the order of its files."""

    items: list[BatchItem]


class FrameAnswer(Document):
    """The short answer about one picture.

    Attributes:
        prediction: real, fake, uncertain, or not scored.
        is_deepfake: Whether the prediction is fake; null when there is none.
        confidence: Of the prediction: P(fake) for fake, its complement for real; null when there is none.
        probability: Calibrated P(fake).
        threshold: Fake from this probability on.
        reason: Why there is no prediction.
        model_version: That answered.
        processing_seconds: Time to answer.
        analysis_id: For feedback.
    """

    prediction: Literal["real", "fake", "uncertain", "not scored"]
    is_deepfake: bool | None
    confidence: float | None = Field(ge=0, le=1)
    probability: float | None = Field(ge=0, le=1)
    threshold: float
    reason: str | None
    model_version: str
    processing_seconds: float
    analysis_id: str


@router.post(
    "/v1/analyze", summary="Judge an image, a video or a sound", openapi_extra=form_body("file"), operation_id="analyze"
)
async def analyze(request: Request, shared: Shared, caller: Caller) -> Analysis:
    """Decode the file once, ask all detectors, measure all features, and answer with the evidence.

    What the model cannot judge is answered 422 with the reason `not_measurable`, never with a made-up number. A file
    without a face is answered with the verdict `not scored`.
    """
    async with _uploads(request, shared, caller, ["file", "image", "media", "video", "audio"], 1) as uploads:
        return await shared.analyst.analyse(uploads[0], shared.analyst.direct)


@router.post(
    "/inference/analyze-frame",
    summary="Judge one picture, with a short answer",
    openapi_extra=form_body("image"),
    operation_id="analyze_frame",
)
async def analyze_frame(request: Request, shared: Shared, caller: Caller) -> FrameAnswer:
    """The short form for programs that only ask about single frames."""
    async with _uploads(request, shared, caller, ["image", "file"], 1) as uploads:
        analysis = await shared.analyst.analyse(uploads[0], shared.analyst.direct)
    p = analysis.probability
    decided = analysis.verdict in ("real", "fake")
    return FrameAnswer(
        prediction=analysis.verdict,
        is_deepfake=analysis.verdict == "fake" if decided else None,
        confidence=(p if analysis.verdict == "fake" else 1 - p) if decided and p is not None else None,
        probability=p,
        threshold=analysis.threshold,
        reason=analysis.reason,
        model_version=analysis.model_version,
        processing_seconds=analysis.seconds,
        analysis_id=analysis.id,
    )


@router.post(
    "/v1/analyze/batch",
    summary="Judge several files",
    openapi_extra=form_body("files", many=True),
    operation_id="analyze_batch",
)
async def analyze_batch(request: Request, shared: Shared, caller: Caller) -> BatchAnswer:
    """Each file gets its answer or its problem; one bad file does not spoil the others."""

    async def item(upload: Upload) -> BatchItem:
        try:
            return BatchItem(file=upload.name, result=await shared.analyst.analyse(upload, shared.analyst.direct))
        except RefusedError as error:
            request_id = request.scope["state"]["request_id"]
            return BatchItem(file=upload.name, problem=error.problem(request_id))

    async with _uploads(request, shared, caller, ["files", "file"], shared.config.max_batch_files) as uploads:
        return BatchAnswer(items=list(await asyncio.gather(*map(item, uploads))))


@router.post(
    "/v1/jobs",
    status_code=HTTPStatus.ACCEPTED,
    summary="Judge a long video later",
    openapi_extra=form_body("file"),
    operation_id="start_job",
)
async def start_job(request: Request, response: Response, shared: Shared, caller: Caller) -> JobInfo:
    """Answers at once with the id of the job; ask for its progress and result there."""
    form = await read_form(request, 1, shared.config.upload_timeout_s)
    try:
        part = files_of(form, ["file", "image", "media", "video", "audio"])[0]
        upload = await _upload(part, form, shared, caller, request)
    finally:
        await form.close()
    job = shared.jobs.start(upload, lambda: upload.path.unlink(missing_ok=True))
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


@router.get("/v1/jobs/{job_id}", summary="Ask how far a job is", operation_id="job")
async def job(job_id: str, shared: Shared, caller: Caller) -> JobInfo:
    """Progress while it runs, then the result or the problem; forgotten after a while."""
    return shared.jobs.find(job_id, caller)


@router.delete("/v1/jobs/{job_id}", status_code=HTTPStatus.NO_CONTENT, summary="End a job", operation_id="cancel_job")
async def cancel_job(job_id: str, shared: Shared, caller: Caller) -> None:
    """Stops it, deletes its file, and forgets its result."""
    await shared.jobs.cancel(job_id, caller)


@router.get("/v1/analyses/{analysis_id}", summary="Read an answer again", operation_id="analysis")
async def analysis(analysis_id: str, shared: Shared, caller: Caller) -> Analysis:
    """Answers are kept in memory for some minutes."""
    return shared.analyst.results.find(analysis_id, caller).analysis


@router.get(
    "/v1/analyses/{analysis_id}/faces/{index}",
    summary="See a face crop of an answer",
    operation_id="face",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def face(analysis_id: str, index: int, shared: Shared, caller: Caller) -> Response:
    """As the detectors saw it."""
    return Response(shared.analyst.crop(analysis_id, index, caller)[1], media_type="image/jpeg")


@router.get(
    "/v1/analyses/{analysis_id}/faces/{index}/heatmap",
    summary="See which parts of a face speak for a fake",
    operation_id="heatmap",
    response_class=Response,
    responses={200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}}},
)
async def heatmap(analysis_id: str, index: int, shared: Shared, caller: Caller) -> Response:
    """Each part of the crop is hidden in turn, and the detectors are asked again; computed when asked for."""
    return Response(await shared.analyst.heatmap(analysis_id, index, caller), media_type="image/jpeg")


@asynccontextmanager
async def _uploads(
    request: Request, shared: Services, caller: str, fields: list[str], most: int
) -> AsyncIterator[list[Upload]]:
    """Save the files of a form and delete them at the end, whatever happens."""
    form = await read_form(request, most, shared.config.upload_timeout_s)
    uploads: list[Upload] = []
    try:
        try:
            for part in files_of(form, fields):
                uploads.append(await _upload(part, form, shared, caller, request))
        finally:
            await form.close()
        yield uploads
    finally:
        with deleted_after([upload.path for upload in uploads]):
            pass


async def _upload(part: UploadFile, form: FormData, shared: Services, caller: str, request: Request) -> Upload:
    # Without a word on who asks, the address decides: better than a coin, because a person gets one version.
    address = request.client.host if request.client is not None else ""
    client = client_of(form) or f"{caller}@{address}"
    keep = may_keep(form)
    return Upload(await shared.scratch.save(part), shown_name(part), caller, client, keep)
