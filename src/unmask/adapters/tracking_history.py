"""Which version was champion when, and why: kept in tags of the registered model, read back for a rollback.

Anybody may move an alias in the MLflow page, which leaves no trace there. So each time unmask looks, it first compares
the alias with the end of its history, and writes down what happened in between.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from unmask.errors import InputError
from unmask.schemas import PromotionDecision

PREFIX = "unmask.history."
# MLflow's limit for the value of a tag of a registered model is 5000; long reasons are cut.
MAX_REASON = 2000
Action = Literal["promote", "rollback", "by hand", "removed by hand"]


@dataclass(frozen=True)
class Move:
    """One change of the champion.

    Attributes:
        at: UTC, ISO 8601; of a move by hand, when it was noticed.
        by: Who.
        action: What happened.
        before: Champion until then; empty when there was none.
        after: Champion from then on; empty when the alias was removed.
        why: The reason.
    """

    at: str
    by: str
    action: Action
    before: str
    after: str
    why: str


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def current_user() -> str:
    """Name who runs this process, for the history."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container whose user has no name
        return "unknown user"


def champion_of(client: Any, model: str, alias: str) -> str:
    """Return the version that carries an alias.

    Args:
        client: MLflow's client.
        model: Registered model.
        alias: For example ``champion``.

    Returns:
        The version; empty when there is no such model, alias or version.
    """
    from mlflow.exceptions import MlflowException

    try:
        return str(client.get_model_version_by_alias(model, alias).version)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return ""
        raise


def read_history(client: Any, model: str) -> list[Move]:
    """Read the moves of a registered model, oldest first; what unmask did not write is passed over.

    Args:
        client: MLflow's client.
        model: Registered model; there must be one.

    Returns:
        The moves.
    """
    tags = client.get_registered_model(model).tags
    moves = []
    for key in sorted(key for key in tags if key.startswith(PREFIX)):
        try:
            moves.append(Move(**json.loads(tags[key])))
        except (ValueError, TypeError):
            continue
    return moves


def reconcile(client: Any, model: str, alias: str) -> tuple[str, list[Move]]:
    """Bring the history up to what the registry says, and return both.

    Args:
        client: MLflow's client.
        model: Registered model; there must be one.
        alias: Of the champion.

    Returns:
        The champion, empty when there is none, and the moves up to it.
    """
    champion, moves = champion_of(client, model, alias), read_history(client, model)
    last = moves[-1].after if moves else ""
    if champion != last:
        action: Action = "by hand" if champion else "removed by hand"
        why = "the alias was moved outside of unmask; noticed at this time"
        move = Move(now(), "unknown", action, last, champion, why)
        _append(client, model, move, len(moves))
        moves.append(move)
    return champion, moves


def move_champion(
    client: Any, model: str, alias: str, version: str, *, action: Action, by: str, why: str, moves: Sequence[Move]
) -> Move:
    """Point the champion's alias to a version, write it down, and look whether it stayed.

    Args:
        client: MLflow's client.
        model: Registered model.
        alias: Of the champion.
        version: That becomes champion.
        action: What this is.
        by: Who does it.
        why: The reason.
        moves: The history up to now, from `reconcile`.

    Returns:
        The move.

    Raises:
        InputError: The alias points elsewhere right after it was set.
    """
    before = moves[-1].after if moves else ""
    client.set_registered_model_alias(model, alias, version)
    found = champion_of(client, model, alias)
    if found != version:
        raise InputError(
            f"The alias {alias} was set to version {version} and points to {found or 'nothing'}.",
            "Somebody else moved it at the same time; look at the MLflow page and decide again.",
        )
    move = Move(now(), by, action, before, version, " ".join(why.split())[:MAX_REASON])
    _append(client, model, move, len(moves))
    for key, value in (("at", move.at), ("by", move.by), ("why", move.why), ("from", move.before or "none")):
        client.set_model_version_tag(model, version, f"unmask.champion.{key}", value)
    return move


def _append(client: Any, model: str, move: Move, position: int) -> None:
    client.set_registered_model_tag(model, f"{PREFIX}{position:05d}", json.dumps(asdict(move), ensure_ascii=False))


def champions_behind(moves: Sequence[Move]) -> list[str]:
    """Work out to which versions one can go back.

    A promotion puts a version on the pile. A rollback, or a move by hand to a version of the pile, takes off what
    lies above it: who went back from 3 to 2 does not want 3 when going back once more.

    Args:
        moves: The history, oldest first.

    Returns:
        The pile; its last entry is the champion, or the last champion when there is none now.
    """
    pile: list[str] = []
    for move in moves:
        if not move.after:
            continue
        if move.action != "promote" and move.after in pile:
            del pile[len(pile) - pile[::-1].index(move.after) :]
        elif not pile or pile[-1] != move.after:
            pile.append(move.after)
    return pile


def previous_champion(moves: Sequence[Move], existing: Sequence[str]) -> str | None:
    """Find the version that a rollback returns to.

    Args:
        moves: The history, up to date.
        existing: Versions that are there and can be loaded.

    Returns:
        The version, or None when there is none to go back to.
    """
    pile = champions_behind(moves)
    has_champion = bool(moves and moves[-1].after)
    behind = pile[:-1] if has_champion else pile
    current = moves[-1].after if moves else ""
    return next((each for each in reversed(behind) if each in existing and each != current), None)


def gate_verdict(decision: PromotionDecision) -> str:
    """Sum a decision up in one word, for a tag: passed, on trial or failed."""
    if decision.ready:
        return "passed"
    return "on trial" if all(each.passed for each in decision.criteria if each.needed_for == "trial") else "failed"
