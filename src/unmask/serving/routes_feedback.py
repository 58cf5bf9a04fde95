"""Routes for what users say of verdicts, and for how the versions are doing."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import Annotated, Literal, Self

from fastapi import APIRouter, Body
from pydantic import ConfigDict, Field, model_validator

from unmask.fusion.rules import FeedbackCount, count_feedback, feedback_factors
from unmask.schemas import Document
from unmask.serving.monitoring import Monitoring, report
from unmask.serving.problems import RefusedError
from unmask.serving.services import Caller, Shared
from unmask.serving.store import FeedbackStore, Label

router = APIRouter(tags=["feedback"])

OPPOSITE: dict[str, Label] = {"real": "fake", "fake": "real"}


class Feedback(Document):
    """What a user says of an answer: the truth, or only whether the verdict was right.

    Attributes:
        analysis_id: Of the answer.
        label: The truth, if it is known.
        right: Whether the verdict was right.
        verified: Whether this was checked, and is not a feeling; only checked material counts in the rates.
    """

    model_config = ConfigDict(strict=True)  # "no" is not taken for false: JSON has words for both
    analysis_id: str = Field(min_length=1, max_length=64)
    label: Literal["real", "fake"] | None = None
    right: bool | None = None
    verified: bool = False

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.label is None and self.right is None:
            raise ValueError("say the label, or whether the verdict was right")
        return self


class FeedbackAnswer(Document):
    """What was recorded.

    Attributes:
        analysis_id: Of the answer.
        label: The truth, as it was understood.
        right: Whether the verdict was right.
    """

    analysis_id: str
    label: Literal["real", "fake"]
    right: bool


EXAMPLE = {"analysis_id": "0Pq1v8tLr7mZc2aXn5bQdWsE", "right": False, "verified": True}


@router.post("/v1/feedback", summary="Say whether a verdict was right", operation_id="feedback")
async def feedback(
    said: Annotated[Feedback, Body(openapi_examples={"wrong": {"value": EXAMPLE}})], shared: Shared, caller: Caller
) -> FeedbackAnswer:
    """Recorded with verdict, version and features; saying it again replaces what was said before."""
    record = await asyncio.to_thread(shared.store.answered, said.analysis_id)
    if record is None or record.caller != caller:
        raise RefusedError(HTTPStatus.NOT_FOUND, "unknown_analysis", "There is no such analysis.")
    label: Label | None = said.label
    if label is None:
        if record.verdict not in OPPOSITE:
            raise RefusedError(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "no_verdict",
                f"The answer was '{record.verdict}', which is neither right nor wrong.",
                "Say the label: real or fake.",
            )
        label = OPPOSITE[OPPOSITE[record.verdict]] if said.right else OPPOSITE[record.verdict]
    await asyncio.to_thread(shared.store.say, said.analysis_id, caller, label, said.verified)
    right = record.verdict == label
    shared.telemetry.feedback.labels(record.version, "yes" if right else "no").inc()
    return FeedbackAnswer(analysis_id=said.analysis_id, label=label, right=right)


@router.get("/v1/monitoring", summary="See how the versions are doing", operation_id="monitoring_figures")
async def monitoring(shared: Shared) -> Monitoring:
    """Rates on material whose truth is known, rules, and drift, per version, with intervals."""
    return await asyncio.to_thread(_report, shared.store, shared.config.drift_window_days)


def _report(store: FeedbackStore, window_days: float) -> Monitoring:
    judged = store.judged()
    counts: dict[str, dict[str, FeedbackCount]] = {}
    for each in judged:
        if each.label is not None:
            so_far = counts.get(each.record.version, {})
            counts[each.record.version] = count_feedback(so_far, each.record.pushes.items(), int(each.label == "fake"))
    weights = {version: feedback_factors(each) for version, each in counts.items()}
    return report(judged, weights, time.time(), window_days)
