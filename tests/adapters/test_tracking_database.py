"""A database file for MLflow is there whole or not at all, however the process that makes it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("mlflow")

from unmask.adapters.tracking import connected
from unmask.errors import InputError

MAKE = "import sys; from unmask.adapters.tracking import connected\nwith connected(sys.argv[1]): print('ready')"


def starting(uri: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", MAKE, uri], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "deeper" / "mlflow.db"


def bytes_in(folder: Path) -> int:
    sizes = 0
    for path in folder.glob("*") if folder.is_dir() else ():
        try:
            sizes += path.stat().st_size
        except FileNotFoundError:  # a journal comes and goes
            continue
    return sizes


@pytest.mark.parametrize("written", [1, 200_000, 400_000])
def test_killed_while_the_tables_are_made_the_next_one_makes_them(database: Path, written: int) -> None:
    process = starting(f"sqlite:///{database}")
    try:
        while bytes_in(database.parent) < written and process.poll() is None:
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()

    with connected(f"sqlite:///{database}") as server:
        assert [experiment.name for experiment in server.client.search_experiments()] == ["Default"]

    assert {path.name for path in database.parent.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


def test_three_at_once_share_one(database: Path) -> None:
    processes = [starting(f"sqlite:///{database}") for _ in range(3)]

    outputs = [process.communicate(timeout=300) for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0], outputs
    assert {path.name for path in database.parent.iterdir()} == {"mlflow.db", ".mlflow.db.lock"}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(InputError, match="cannot be made"), connected(f"sqlite:///{tmp_path}/file/mlflow.db"):
        pass
