"""Whether an address is only for this machine."""

from __future__ import annotations

import ipaddress

from unmask.errors import InputError
from unmask.serving.keys import Keys

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address.

    Args:
        host: Address or name to listen on.

    Returns:
        False for names other than localhost: what they stand for is not in our hands.
    """
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, keys: Keys, allowed_without_keys: bool) -> None:
    """Refuse to let everybody on a network ask without a key.

    Raises:
        InputError: The address can be reached by others, and no keys are required.
    """
    if is_loopback(host) or keys.required or allowed_without_keys:
        return
    raise InputError(
        f"Listening on {host} without API keys would let everybody who can reach it ask, and read all answers.",
        "Make a key (`unmask serve-key NAME --keys FILE`) and give --keys FILE; behind a gateway that asks for keys "
        "itself, give --without-keys.",
    )


def allowed_hosts(host: str, further: tuple[str, ...]) -> tuple[str, ...]:
    """Names under which the server answers; empty for all.

    Args:
        host: Address that it listens on.
        further: Names that were given.

    Returns:
        On loopback, its names only, so that a page elsewhere cannot reach the server by a name of its own.
    """
    if further:
        return (*further, *LOOPBACK_NAMES)
    return (*LOOPBACK_NAMES, host) if is_loopback(host) else ()
