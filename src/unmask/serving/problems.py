"""What the server answers when it cannot answer: one form for every error (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import Field

from unmask.errors import MediaError
from unmask.schemas import Document

MEDIA_TYPE = "application/problem+json"
# What is wrong with a file, by code; everything else is a file that cannot be processed.
_STATUS_OF_CODE = {
    "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "too_long": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "unsupported": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    "wrong_type": HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
}
_ADVICE = {
    "too_large": "Send a smaller picture or clip.",
    "too_long": "Send a shorter clip, or send it as a job (POST /v1/jobs).",
    "unsupported": "Send a JPEG, PNG, WebP, MP4, MOV, MKV, WebM, AVI, WAV, MP3 or FLAC file.",
    "timeout": "Send a shorter or smaller clip, or send it as a job (POST /v1/jobs).",
    "not_measurable": "Send an image or a video that shows a face.",
}


class Problem(Document):
    """Why there is no answer.

    Attributes:
        type: Always ``about:blank``; the code tells problems apart.
        title: Of the HTTP status.
        status: The HTTP status.
        code: One word for programs, for example ``busy`` or ``truncated``.
        detail: A sentence for people.
        fix: What to do about it; may be empty.
        request_id: Also in the server's log.
    """

    type: str = "about:blank"
    title: str
    status: int = Field(ge=400, le=599)
    code: str
    detail: str
    fix: str = ""
    request_id: str = ""


class RefusedError(Exception):
    """A request that is answered with a problem.

    Args:
        status: HTTP status.
        code: One word.
        detail: A sentence.
        fix: What to do about it.
        headers: Of the answer.
    """

    def __init__(
        self, status: int, code: str, detail: str, fix: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.fix = fix or _ADVICE.get(code, "")
        self.headers = headers or {}

    def problem(self, request_id: str = "") -> Problem:
        """The body of the answer."""
        title = HTTPStatus(self.status).phrase
        return Problem(
            title=title, status=self.status, code=self.code, detail=self.detail, fix=self.fix, request_id=request_id
        )

    def response(self, request_id: str = "") -> JSONResponse:
        """The whole answer."""
        content: Any = self.problem(request_id).model_dump(mode="json")
        return JSONResponse(content, self.status, self.headers, MEDIA_TYPE)


def refused_media(error: MediaError) -> RefusedError:
    """Turn what is wrong with a file into an answer."""
    status = _STATUS_OF_CODE.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY)
    return RefusedError(status, error.code, error.detail, "" if error.code in _ADVICE else "Check that the file plays.")


def busy(what: str, retry_after_s: int) -> RefusedError:
    """The answer of a server that has enough to do."""
    return RefusedError(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "busy",
        f"{what} Nothing was read of this request.",
        f"Try again in {retry_after_s} s.",
        {"Retry-After": str(retry_after_s)},
    )
