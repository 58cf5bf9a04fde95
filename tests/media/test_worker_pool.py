"""The pool answers every job once, whatever its workers do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unmask.errors import UnmaskError
from unmask.media.pool import WorkerPool


@pytest.fixture(autouse=True)
def _jobs_can_be_imported(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def run(jobs, workers=2, timeout_s=20.0, target="pool_jobs:work"):
    with WorkerPool(target, workers, timeout_s) as pool:
        answers = list(pool.run(jobs))
        processes = [worker.process for worker in pool._workers]
    assert sorted(answer.index for answer in answers) == list(range(len(jobs)))
    assert all(process.poll() is not None for process in processes)  # none is left behind
    return {answer.index: answer for answer in answers}


def test_every_job_is_answered():
    answers = run([{"n": n} for n in range(20)])
    assert all(answer.error is None and answer.value == {"n": index} for index, answer in answers.items())


def test_no_jobs_no_workers():
    assert run([]) == {}


def test_a_crashed_worker_costs_its_job_only():
    answers = run([{"n": 0}, {"exit": 3}, {"n": 2}, {"kill": 1}, {"raise": "no such codec"}, {"n": 5}])
    assert {index: answer.error for index, answer in answers.items()} == {
        0: None,
        1: "crashed",
        2: None,
        3: "crashed",
        4: "crashed",
        5: None,
    }
    assert "exit code 3" in answers[1].detail
    assert "SIGKILL" in answers[3].detail
    assert "no such codec" in answers[4].detail


def test_a_hung_worker_is_given_up_and_the_others_go_on():
    start = time.monotonic()
    answers = run([{"sleep": 600}, *({"n": n} for n in range(6))], timeout_s=1.5)
    assert answers[0].error == "timeout"
    assert "1.5 s" in answers[0].detail
    assert all(answers[index].value is not None for index in range(1, 7))
    assert time.monotonic() - start < 60


def test_a_long_job_that_advances_is_not_given_up():
    answers = run([{"steps": 5}, {"sleep": 600}], timeout_s=2)
    assert answers[0].value == {"steps": 5}  # 3.5 s
    assert answers[1].error == "timeout"


def test_a_single_worker_is_replaced():
    answers = run([{"exit": 1}, {"sleep": 600}, {"n": 2}], workers=1, timeout_s=1.5)
    assert [answers[index].error for index in range(3)] == ["crashed", "timeout", None]


def test_what_a_library_prints_is_no_answer():
    assert run([{"print": "hello"}])[0].value == {"print": "hello"}


def test_a_worker_has_one_thread():
    assert run([{"threads": 0}])[0].value == "1"


def test_workers_are_used_again():
    pids = {answer.value for answer in run([{"pid": n} for n in range(12)]).values()}
    assert len(pids) <= 2
    assert os.getpid() not in pids


def test_a_worker_that_cannot_start_says_why():
    with pytest.raises(UnmaskError, match=r"no_such_module"):
        run([{"n": 0}], target="no_such_module:work")


def test_workers_end_when_their_pool_is_killed():
    script = (
        "from unmask.media.pool import WorkerPool\n"
        "pool = WorkerPool('pool_jobs:work', 1, 20)\n"
        "for answer in pool.run([{'pid': 0}, {'sleep': 600}]):\n"
        "    print(answer.value, flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, signal.SIGKILL)  # busy with the sleep; a fresh one starts
        parent.stdout.readline()
        parent.kill()
    # An idle worker sees the end of its input; the killed one is gone anyway.
    idle = subprocess.run([sys.executable, "-m", "unmask.media.worker", "pool_jobs:work", "5"], input=b"", timeout=60)
    assert idle.returncode == 0
