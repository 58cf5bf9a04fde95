"""What people do with registered versions: make one champion, go back to the one before, see what happened."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unmask.adapters.tracking import Server, check_aliases, connected
from unmask.adapters.tracking_history import (
    Move,
    champion_of,
    current_user,
    move_champion,
    previous_champion,
    reconcile,
)
from unmask.adapters.tracking_lock import promotion_lock
from unmask.config import PromoteConfig
from unmask.errors import InputError


@dataclass(frozen=True)
class Listed:
    """A registered version in a list.

    Attributes:
        version: Its number.
        aliases: Those that point to it.
        gate: passed, on trial or failed; empty when unmask did not decide about it.
        decision: One or two sentences.
        created_ms: When it was registered, in milliseconds since 1970.
    """

    version: str
    aliases: tuple[str, ...]
    gate: str
    decision: str
    created_ms: int


def promote_version(
    version: str,
    tracking_uri: str,
    config: PromoteConfig,
    *,
    why: str,
    by: str = "",
    overrule: bool = False,
) -> Move | None:
    """Make a registered version the champion, because a person wants it.

    Args:
        version: Its number.
        tracking_uri: MLflow server, or ``sqlite:///`` and the path of a database.
        config: Name of the model, aliases.
        why: The reason; kept in the history.
        by: Who; the user of this process when empty.
        overrule: Also if the gate did not pass it, or has compared it with another champion than that of today; a
            reason is needed then.

    Returns:
        The move; None when it is the champion already.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: The aliases cannot work.
        InputError: There is no such version, the gate did not pass it, or the server does not answer.
    """
    check_aliases(config)
    with _changing(tracking_uri, config) as server:
        found = server.version(config.registered_model, None, version)
        champion, moves = reconcile(server.client, config.registered_model, config.champion_alias)
        if champion == version:
            return None
        _check_gate(found, champion, why, overrule)
        reason = why or found.tags.get("unmask.decision", "")
        move = move_champion(
            server.client,
            config.registered_model,
            config.champion_alias,
            version,
            action="promote",
            by=by or current_user(),
            why=f"against the gate: {reason}" if overrule and not _passed(found, champion) else reason,
            moves=moves,
        )
        if champion_of(server.client, config.registered_model, config.alias) == version:
            server.client.delete_registered_model_alias(config.registered_model, config.alias)
        return move


def _passed(found: Any, champion: str) -> bool:
    """Whether the gate passed a version against the champion of today."""
    tags = found.tags
    return bool(tags.get("unmask.gate") == "passed" and tags.get("unmask.decided_against") == (champion or "none"))


def _check_gate(found: Any, champion: str, why: str, overrule: bool) -> None:
    if found.status != "READY":
        raise InputError(f"Version {found.version} is {found.status}.", "Wait until it is ready, or take another one.")
    if _passed(found, champion):
        return
    if overrule:
        if not why:
            raise InputError("--overrule needs a reason.", "Say why with --why; it is kept in the history.")
        return
    gate, against = found.tags.get("unmask.gate"), found.tags.get("unmask.decided_against")
    if gate == "passed":
        problem = (
            f"Version {found.version} passed against champion {against}, but the champion is {champion or 'none'}."
        )
        raise InputError(problem, "Promote its run again, so that it is compared; or give --overrule and --why.")
    decision = found.tags.get("unmask.decision", "unmask has not decided about it.")
    raise InputError(
        f"The gate did not pass version {found.version}: {decision}",
        "Read decision.html of its run. To promote it all the same, give --overrule and --why.",
    )


def rollback(tracking_uri: str, config: PromoteConfig, *, why: str, by: str = "") -> Move:
    """Return to the previous champion.

    Args:
        tracking_uri: MLflow server, or ``sqlite:///`` and the path of a database.
        config: Name of the model, alias of the champion.
        why: The reason; kept in the history.
        by: Who; the user of this process when empty.

    Returns:
        The move.

    Raises:
        MissingExtraError: MLflow is not installed.
        InputError: There is nothing to go back to, or the server does not answer.
    """
    model = config.registered_model
    with _changing(tracking_uri, config) as server:
        champion, moves = reconcile(server.client, model, config.champion_alias)
        versions = server.client.search_model_versions(f"name = '{model}'")
        target = previous_champion(moves, [str(each.version) for each in versions if each.status == "READY"])
        if target is None:
            had = f"version {champion} is the first champion" if champion else "there never was a champion"
            raise InputError(
                f"There is no champion of {model} to go back to: {had}.",
                f"Promote another version, or remove the alias {config.champion_alias} in MLflow.",
            )
        return move_champion(
            server.client,
            model,
            config.champion_alias,
            target,
            action="rollback",
            by=by or current_user(),
            why=why or f"rollback from version {champion or 'none'}",
            moves=moves,
        )


def list_versions(tracking_uri: str, config: PromoteConfig) -> tuple[list[Listed], list[Move]]:
    """List the versions of a model and the history of its champion.

    Args:
        tracking_uri: MLflow server, or ``sqlite:///`` and the path of a database.
        config: Name of the model, alias of the champion.

    Returns:
        Versions, newest first, and moves, oldest first. A move by hand that was not noticed before is noted now.

    Raises:
        MissingExtraError: MLflow is not installed.
        InputError: There is no such model, or the server does not answer.
    """
    model = config.registered_model
    with _changing(tracking_uri, config) as server:
        _, moves = reconcile(server.client, model, config.champion_alias)
        aliases = server.client.get_registered_model(model).aliases
        versions = server.client.search_model_versions(f"name = '{model}'")
        listed = [
            Listed(
                version=str(each.version),
                aliases=tuple(sorted(name for name, number in aliases.items() if str(number) == str(each.version))),
                gate=each.tags.get("unmask.gate", ""),
                decision=each.tags.get("unmask.decision", ""),
                created_ms=int(each.creation_timestamp),
            )
            for each in sorted(versions, key=lambda each: -int(each.version))
        ]
    return listed, moves


@contextlib.contextmanager
def _changing(tracking_uri: str, config: PromoteConfig) -> Iterator[Server]:
    """Connect, make sure that the model is there, and keep other promotions out."""
    with connected(tracking_uri) as server:
        names = {each.name for each in server.client.search_registered_models()}
        if config.registered_model not in names:
            there = ", ".join(sorted(names)) or "none"
            raise InputError(
                f"No model {config.registered_model} is registered at {tracking_uri}.", f"Registered models: {there}."
            )
        with promotion_lock(server.client, config.registered_model, config.lock_timeout_s):
            yield server
