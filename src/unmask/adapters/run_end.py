"""How a run of the scheduled pipeline ended, and what is worth saying about it."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self

from unmask.adapters.notifications import Message
from unmask.adapters.reference import waiting_challenger
from unmask.config import PromoteConfig
from unmask.errors import InputError, UnmaskError

logger = logging.getLogger(__name__)
Event = Literal["failure", "challenger", "success"]


@dataclass(frozen=True)
class RunEnd:
    """The end of a run.

    Attributes:
        succeeded: Whether every step did.
        state: The word of Kubeflow.
        error: Why not; empty if it did.
        name: Of the run.
        created_ms: When it was created, in milliseconds since 1970; None if unknown.
        link: To its page; empty without an address of the UI.
    """

    succeeded: bool
    state: str
    error: str
    name: str
    created_ms: float | None
    link: str

    @classmethod
    def from_kubeflow(cls, status: str, name: str, run_id: str, created: str, ui_url: str) -> Self:
        """Read what Kubeflow hands to an exit task.

        Args:
            status: The final status as JSON.
            name: Of the run.
            run_id: Of the run.
            created: RFC 3339; a placeholder that was not filled in counts as unknown.
            ui_url: Address of the UI; may be empty.

        Raises:
            InputError: The status is something else.
        """
        try:
            value = json.loads(status)
            state = str(value["state"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise InputError(
                f"--status is not the final status of a run ({status[:80]!r}).", "The pipeline fills it in."
            ) from error
        try:
            moment: float | None = datetime.fromisoformat(created).timestamp() * 1000
        except ValueError:
            moment = None
        link = f"{ui_url.rstrip('/')}/#/runs/details/{run_id}" if ui_url and run_id else ""
        message = str((value.get("error") or {}).get("message") or "")
        return cls(state in ("SUCCEEDED", "SKIPPED"), state, message, name or "unmask", moment, link)


def describe(end: RunEnd, tracking_uri: str, promote: PromoteConfig) -> tuple[Event, Message]:
    """Put the end of a run into words.

    Args:
        end: How it ended.
        tracking_uri: MLflow server or ``sqlite:///`` URI; empty does not ask for a challenger.
        promote: Names model and aliases.

    Returns:
        The event and the message about it.
    """
    if not end.succeeded:
        why = f" Kubeflow says: {end.error}" if end.error else ""
        text = f"The run {end.name} ended as {end.state}.{why}\nThe log of the step that failed says why."
        return "failure", Message(f"Run failed: {end.name}", text, end.link, "bad")
    version = None
    if tracking_uri and end.created_ms is not None:
        try:
            version = waiting_challenger(promote.registered_model, tracking_uri, promote, end.created_ms)
        except UnmaskError as error:  # the message about the run matters more
            logger.warning("The registry cannot be asked for a challenger: %s", error)
    if version is not None:
        text = (
            f"The run {end.name} registered {promote.registered_model} version {version}; it has the alias "
            f"{promote.alias} and waits for a person.\nLook at its evidence in MLflow ({tracking_uri}), then give it "
            f"the alias {promote.champion_alias}, or leave it."
        )
        return "challenger", Message(
            f"Challenger waiting: {promote.registered_model} version {version}", text, end.link, "attention"
        )
    text = (
        f"The run {end.name} succeeded and left no new version that waits.\nEither the data asked for no training (the "
        "step decide-retraining says why), or the gate let nothing pass (the step promote says why)."
    )
    return "success", Message(f"Run succeeded: {end.name}", text, end.link, "good")
