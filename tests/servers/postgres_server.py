"""A real PostgreSQL server on loopback, for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from servers.minio_server import free_port


def _program(name: str) -> str:
    """Find a program of the server; Debian keeps them out of the PATH."""
    found = shutil.which(name) or next((str(path) for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        pytest.skip("PostgreSQL is not installed")
    return found


@contextmanager
def running_postgres(user: str = "unmask", password: str = "secret-of-tests") -> Iterator[str]:
    """Run a server with one database, named after its user, that asks for a password.

    Args:
        user: Owner.
        password: Of the owner.

    Yields:
        HOST:PORT.
    """
    if os.getuid() == 0 and not any(entry.pw_name == "postgres" for entry in pwd.getpwall()):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    initdb, pg_ctl = _program("initdb"), _program("pg_ctl")
    # Not in pytest's folder, which nobody but its owner may enter: the server never runs as root.
    with tempfile.TemporaryDirectory(prefix="unmask-postgres-") as name:
        home = Path(name)
        (home / "password").write_text(password)
        become: dict[str, Any] = {}
        if os.getuid() == 0:
            shutil.chown(home, "postgres")
            shutil.chown(home / "password", "postgres")
            become = {"user": "postgres"}
        port = free_port()
        quiet: dict[str, Any] = {"check": True, "stdout": subprocess.DEVNULL, "cwd": home}
        owner = ["-U", user, "-A", "scram-sha-256", "--pwfile", str(home / "password")]
        options = f"-p {port} -k {home} -c listen_addresses=127.0.0.1 -c fsync=off"
        try:
            subprocess.run([initdb, "-D", str(home / "db"), "-N", *owner], **quiet, **become)
        except PermissionError as error:
            pytest.skip(f"PostgreSQL cannot run as another user here: {error}")
        subprocess.run(
            [pg_ctl, "-D", str(home / "db"), "-w", "-l", str(home / "log"), "-o", options, "start"], **quiet, **become
        )
        try:
            login = {"env": {**os.environ, "PGPASSWORD": password}, **quiet}
            subprocess.run([_program("createdb"), "-h", "127.0.0.1", "-p", str(port), "-U", user, user], **login)
            yield f"127.0.0.1:{port}"
        finally:
            subprocess.run([pg_ctl, "-D", str(home / "db"), "-m", "immediate", "stop"], **quiet, **become)
