"""A training logged to MLflow while it runs, from a thread of its own: a server that is away stops no training."""

from __future__ import annotations

import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from unmask.adapters.tracking import BackgroundServer, Server
from unmask.adapters.tracking_content import detector_metrics, detector_parameters, git_commit, training_parameters
from unmask.detectors import Detector
from unmask.schemas import DetectorInfo, TrainingCurvePoint
from unmask.training.events import StepPoint, TrainingLog, TrainingStart, step_figures

logger = logging.getLogger(__name__)

TRAINING_TAG = "unmask.training"
# What a server takes at once.
MOST_METRICS, MOST_PARAMETERS = 1000, 100
SEND_EVERY_S = 2.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
# At the end of a training so much time is given to a server that is away.
PATIENCE_S = 60.0
# A request that is refused like this is refused again however often it is sent.
REFUSED = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "BAD_REQUEST"}
# Name, value, time in ms, step.
Figure = tuple[str, float, int, int]
Job = Callable[[Server, str], None]


class LiveRun(TrainingLog):
    """Logs a training to one MLflow run while it goes on.

    Whoever trains only puts things into a queue. A thread sends them, waits longer and longer while the server is
    away, and keeps everything until it is back.

    Args:
        uri: MLflow server, or ``sqlite:///`` and the path of a database.
        experiment: Its name; made if it is not there.
        patience_s: At the end, how long a server that is away is waited for.
        send_every_s: Time between two sendings.

    Raises:
        InputError: The URI names no server.
        MissingExtraError: MLflow is not installed.
    """

    def __init__(
        self, uri: str, experiment: str, *, patience_s: float = PATIENCE_S, send_every_s: float = SEND_EVERY_S
    ) -> None:
        self._server = BackgroundServer(uri)
        self._experiment = experiment
        self._patience_s = patience_s
        self._send_every_s = send_every_s
        self._jobs: deque[Job] = deque()
        self._figures: deque[Figure] = deque()
        self._asked = threading.Event()
        self._over = threading.Event()
        self._status = "FINISHED"
        self._start: TrainingStart | None = None
        self._step = 0
        self._run_id: str | None = None
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)

    @property
    def run_id(self) -> str | None:
        """See the base: waits for the first answer of the server, or until it is clear that there is none."""
        self._asked.wait(self._patience_s)
        return self._run_id

    def begin(self, start: TrainingStart) -> None:
        """See the base: a training that goes on, goes on in its run."""
        self._start = start
        self._thread.start()

    def step(self, point: StepPoint) -> None:
        """See the base."""
        self._step = point.step
        self._add(step_figures(point), point.step)

    def epoch(self, point: TrainingCurvePoint, detector: Detector) -> None:
        """See the base."""
        self._add(point.figures(), point.epoch)

    def system(self, figures: Mapping[str, float]) -> None:
        """See the base."""
        self._add(figures, self._step)

    def end(self, info: DetectorInfo, pictures: Mapping[str, bytes]) -> None:
        """See the base."""
        self._add(detector_metrics(info), info.best_epoch)
        self._jobs.append(lambda server, run_id: _log_result(server, run_id, info, pictures))

    def close(self, *, failed: bool) -> None:
        """See the base: waits until everything is sent, for a while if the server is away."""
        self._status = "FAILED" if failed else "FINISHED"
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _add(self, figures: Mapping[str, float], step: int) -> None:
        now_ms = int(time.time() * 1000)
        self._figures.extend((name, value, now_ms, step) for name, value in figures.items())

    # --- the thread ---

    def _work(self) -> None:
        pause, deadline = FIRST_PAUSE_S, float("inf")
        while True:
            over = self._over.is_set()
            if over and deadline == float("inf"):
                deadline = time.monotonic() + self._patience_s
            try:
                self._send(last=over)
                self._asked.set()
                if over:
                    return
                pause = FIRST_PAUSE_S
                self._over.wait(self._send_every_s)
            except Exception as error:  # whatever a server or the way to it does, the training goes on
                self._asked.set()
                if time.monotonic() >= deadline:
                    logger.warning("MLflow does not answer: the last part of the training was not logged (%s)", error)
                    return
                if pause == FIRST_PAUSE_S:
                    what = " ".join(str(error).split())[:200]
                    logger.warning(
                        "MLflow does not take the log; the training goes on, and it is tried again: %s", what
                    )
                if over:
                    time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
                else:
                    self._over.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _send(self, *, last: bool) -> None:
        with self._server as server:
            if self._run_id is None:
                self._run_id = self._find(server) or self._create(server)
            run_id = self._run_id
            while self._figures:
                some = _entities(self._figures[i] for i in range(min(MOST_METRICS, len(self._figures))))
                _unless_refused(server.client.log_batch, run_id, metrics=some)
                for _ in some:  # only now: what was not sent is sent again
                    self._figures.popleft()
            while self._jobs:
                _unless_refused(self._jobs[0], server, run_id)
                self._jobs.popleft()
            if last:
                _unless_refused(server.client.set_terminated, run_id, self._status)

    def _find(self, server: Server) -> str | None:
        """Find the run of a training that goes on, and open it again."""
        start = self._started
        if not start.resumed:
            return None
        found = server.client.search_runs(
            [server.experiment(self._experiment)], f"tags.`{TRAINING_TAG}` = '{start.key}'", max_results=1
        )
        if not found:
            return None
        run_id = str(found[0].info.run_id)
        server.client.update_run(run_id, status="RUNNING")
        return run_id

    def _create(self, server: Server) -> str:
        start = self._started
        tags = {
            TRAINING_TAG: start.key,
            "unmask.dataset_version": start.dataset_version,
            "unmask.git_commit": git_commit(),
        }
        experiment = server.experiment(self._experiment)
        run_id = str(server.client.create_run(experiment, run_name=start.name, tags=tags).info.run_id)
        parameters = training_parameters(start.settings)
        self._jobs.appendleft(lambda server, run_id: _log_parameters(server, run_id, parameters))
        logger.info("%s: logged to MLflow as run %s", start.name, run_id)
        return run_id

    @property
    def _started(self) -> TrainingStart:
        assert self._start is not None  # the thread starts with it
        return self._start


def _unless_refused(call: Callable[..., object], *arguments: object, **named: object) -> None:
    """Ask the server for something that may be refused for good; that is said, and the rest goes on."""
    from mlflow.exceptions import MlflowException

    try:
        call(*arguments, **named)
    except MlflowException as error:
        if error.error_code not in REFUSED:
            raise
        logger.warning("MLflow refused a part of the log: %s", " ".join(str(error.message).split())[:300])


def _entities(figures: Iterable[Figure]) -> list[Any]:
    from mlflow.entities import Metric

    return [Metric(*figure) for figure in figures]


def _log_parameters(server: Server, run_id: str, parameters: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    entities = [Param(key, value) for key, value in parameters.items()]
    for first in range(0, len(entities), MOST_PARAMETERS):
        server.client.log_batch(run_id, params=entities[first : first + MOST_PARAMETERS])


def _log_result(server: Server, run_id: str, info: DetectorInfo, pictures: Mapping[str, bytes]) -> None:
    _log_parameters(server, run_id, detector_parameters(info))
    with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
        for name, content in pictures.items():
            (Path(temporary) / name).write_bytes(content)
        info.model_copy(update={"tracking_run": run_id}).save(Path(temporary) / "detector.json")
        server.client.log_artifacts(run_id, temporary)
