"""One promotion at a time: a lock that lives in the registry itself, so that it holds across machines.

The registry has one operation that exactly one of two competitors can succeed in: making a registered model of a
given name. The lock is such a model; it exists only while a promotion runs. Its holder changes a tag every few
seconds. Who waits and sees no change for a while knows that the holder has died; no clocks are compared.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unmask.errors import InputError

logger = logging.getLogger(__name__)

OWNER, BEAT = "unmask.lock.owner", "unmask.lock.beat"
BEAT_S = 5.0
DEAD_AFTER_S = 60.0
POLL_S = 0.5


@dataclass(frozen=True)
class Lock:
    """A held lock.

    Attributes:
        client: MLflow's client.
        name: Of the registered model that is the lock.
        token: Names its holder.
    """

    client: Any
    name: str
    token: str

    def check(self) -> None:
        """Make sure that the lock is still held.

        Raises:
            InputError: Somebody has removed it.
        """
        state = _state(self.client, self.name)
        if state is None or state[0] != self.token:
            raise InputError(
                f"The lock {self.name} was removed while a promotion ran.", "Let other promotions end; then try again."
            )


@contextlib.contextmanager
def promotion_lock(
    client: Any, model: str, timeout_s: float, *, dead_after_s: float = DEAD_AFTER_S, beat_s: float = BEAT_S
) -> Iterator[Lock]:
    """Hold the lock of a registered model.

    Args:
        client: MLflow's client.
        model: Name of the registered model that is to be changed.
        timeout_s: How long to wait for another holder.
        dead_after_s: A holder that has given no sign for so long has died.
        beat_s: How often to give a sign.

    Yields:
        The lock.

    Raises:
        InputError: Another promotion holds it for longer than the time-out.
    """
    lock = Lock(client, f"{model}.promotion-lock", uuid.uuid4().hex)
    _acquire(lock, timeout_s, dead_after_s)
    done = threading.Event()
    thread = threading.Thread(target=_beat, args=(lock, done, beat_s), name="promotion-lock", daemon=True)
    thread.start()
    try:
        yield lock
    finally:
        done.set()
        thread.join()
        _release(lock)


def _acquire(lock: Lock, timeout_s: float, dead_after_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    seen: tuple[str, str] | None = None
    since = time.monotonic()
    told = False
    while not _try_create(lock.client, lock.name, lock.token):
        now = time.monotonic()
        state = _state(lock.client, lock.name)
        if state != seen:
            seen, since = state, now
        elif state is not None and now - since > dead_after_s:
            _break(lock.client, lock.name, state, dead_after_s)
            continue
        if now > deadline:
            raise InputError(
                f"Another promotion has held {lock.name} for {timeout_s:.0f} s.",
                "Wait for it to end; or, if none runs, delete that registered model.",
            )
        if not told:
            logger.info("promote: waiting for another promotion to end")
            told = True
        time.sleep(POLL_S)


def _try_create(client: Any, name: str, token: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(
            name, tags={OWNER: token, BEAT: "0"}, description="Exists only while a promotion of `unmask` runs."
        )
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":
            return False
        raise
    return True


def _state(client: Any, name: str) -> tuple[str, str] | None:
    """Return holder and last sign; None when there is no lock."""
    from mlflow.exceptions import MlflowException

    try:
        tags = client.get_registered_model(name).tags
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return str(tags.get(OWNER, "")), str(tags.get(BEAT, ""))


def _break(client: Any, name: str, state: tuple[str, str], dead_after_s: float) -> None:
    """Remove the lock of a dead holder; a second lock keeps two waiters from removing each other's fresh one."""
    breaking = f"{name}.breaking"
    if not _try_create(client, breaking, uuid.uuid4().hex):
        time.sleep(min(dead_after_s, POLL_S))
        return
    try:
        if _state(client, name) == state:
            logger.warning("promote: the holder of %s gave no sign for %.0f s; its lock is removed", name, dead_after_s)
            _delete(client, name)
    finally:
        _delete(client, breaking)


def _delete(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.delete_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _beat(lock: Lock, done: threading.Event, beat_s: float) -> None:
    from mlflow.exceptions import MlflowException

    count = 0
    while not done.wait(beat_s):
        count += 1
        try:
            lock.client.set_registered_model_tag(lock.name, BEAT, str(count))
        except MlflowException as error:
            # One missed sign does no harm; the promotion itself checks the lock before it moves an alias.
            logger.debug("promote: no sign of life could be given: %s", error)


def _release(lock: Lock) -> None:
    from mlflow.exceptions import MlflowException

    try:
        state = _state(lock.client, lock.name)
        if state is not None and state[0] == lock.token:
            _delete(lock.client, lock.name)
    except MlflowException as error:
        logger.warning("promote: %s could not be removed: %s", lock.name, error)
