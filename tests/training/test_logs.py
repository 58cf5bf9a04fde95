"""Logs of a training while it runs: what MLflow and TensorBoard hold, and a tracking server that is away."""

import os
import threading
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unmask.adapters.live_run import LiveRun
from unmask.adapters.tracking import Server
from unmask.config import TrainConfig
from unmask.media.preprocessing import decode_crop
from unmask.objects import FolderStore
from unmask.schemas import DetectorInfo
from unmask.training import trainer as trainer_room
from unmask.training.events import StepPoint, TrainingLog, TrainingStart
from unmask.training.examples import confusion_sheet
from unmask.training.system import Meter, watched
from unmask.training.train_stage import run_train

START = TrainingStart("meso4", "checkpoints/abc", {"epochs": 3, "seed": 1}, "d" * 64, resumed=False)


@pytest.fixture(autouse=True)
def _settings_of_mlflow_are_left_alone():
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")}
    yield
    assert {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")} == before


@pytest.fixture
def uri(tmp_path) -> str:
    return f"sqlite:///{tmp_path}/tracking/mlflow.db"


def train(made, out: Path, config: TrainConfig, log: TrainingLog, store: Path | None = None) -> DetectorInfo:
    kept = FolderStore(store) if store else None
    run_train("meso4", made.dataset, made.faces, made.features, out, config, 1, kept, log)
    return DetectorInfo.load(out / "detector.json")


def history(client, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_a_run_holds_settings_steps_epochs_machine_examples_and_confusion(made, quick, uri, tmp_path):
    info = train(made, tmp_path / "out", quick, LiveRun(uri, "live"))
    client = mlflow.MlflowClient(tracking_uri=uri)
    run = client.get_run(info.tracking_run)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "meso4"
    assert run.data.params["train.batch_size"] == "16"
    assert run.data.params["train.seed"] == "1"
    assert run.data.params["n_parameters"] == str(info.n_parameters)
    assert run.data.tags["unmask.dataset_version"] == info.dataset_version
    for name in ("train/loss", "val/auc", "train/learning_rate"):
        expected = [(point.epoch, point.figures()[name]) for point in info.curve]
        assert history(client, info.tracking_run, name) == expected
    steps = history(client, info.tracking_run, "step/loss")
    assert [step for step, _ in steps] == list(range(1, 3 * 2 + 1))  # 32 crops in two batches, three epochs
    of_first_epoch = np.mean([loss for _, loss in steps[:2]])
    assert of_first_epoch == pytest.approx(info.curve[0].train_loss)
    assert all(norm > 0 for _, norm in history(client, info.tracking_run, "step/gradient_norm"))
    assert run.data.metrics["system/system_memory_usage_megabytes"] > 50
    assert run.data.metrics["best/val_auc"] == info.val_auc.value
    kept = Path(client.download_artifacts(info.tracking_run, "", str(tmp_path)))
    assert {path.name for path in kept.iterdir() if path.suffix in (".jpg", ".json")} >= {
        "examples.jpg", "confusion.jpg", "detector.json",
    }  # fmt: skip
    assert (kept / "examples.jpg").read_bytes() == (tmp_path / "out" / "examples.jpg").read_bytes()


def test_a_training_that_goes_on_goes_on_in_its_run(made, quick, uri, tmp_path, monkeypatch):
    real = trainer_room.Trainer._finish_epoch

    def killed_after_the_first(self, state):
        real(self, state)
        if state.epoch == 2:
            self._checkpoint(state)
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer_room.Trainer, "_finish_epoch", killed_after_the_first)
    with pytest.raises(KeyboardInterrupt):
        train(made, tmp_path / "out", quick, LiveRun(uri, "live"), tmp_path / "store")
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("live").experiment_id
    (broken,) = client.search_runs([experiment])
    assert broken.info.status == "FAILED"
    monkeypatch.undo()
    info = train(made, tmp_path / "out", quick, LiveRun(uri, "live"), tmp_path / "store")
    assert info.tracking_run == broken.info.run_id
    assert len(client.search_runs([experiment])) == 1
    assert client.get_run(info.tracking_run).info.status == "FINISHED"
    assert [step for step, _ in history(client, info.tracking_run, "step/loss")] == [1, 2, 3, 4, 5, 6]
    assert [epoch for epoch, _ in history(client, info.tracking_run, "val/auc")] == [1, 2, 3]


def test_a_server_that_is_away_does_not_stop_a_training(made, quick, tmp_path, caplog):
    nowhere = LiveRun("http://127.0.0.1:9", "live", patience_s=0.2, send_every_s=0.05)
    info = train(made, tmp_path / "out", quick, nowhere)
    assert info.tracking_run is None
    assert len(info.curve) == 3
    assert "the training goes on" in caplog.text
    assert "was not logged" in caplog.text


class Recorder:
    """A client that is away until told otherwise."""

    def __init__(self) -> None:
        self.away = threading.Event()
        self.away.set()
        self.asked = threading.Event()
        self.figures: list[tuple[str, int, float]] = []
        self.terminated: list[str] = []

    def answer(self) -> None:
        self.asked.set()
        if self.away.is_set():
            raise ConnectionError("nobody there")

    def get_experiment_by_name(self, name):
        self.answer()
        return type("Experiment", (), {"lifecycle_stage": "active", "experiment_id": "1"})()

    def create_run(self, experiment, run_name, tags):
        self.answer()
        return type("Run", (), {"info": type("Info", (), {"run_id": "r1"})()})()

    def log_batch(self, run_id, metrics=(), params=()):
        self.answer()
        self.figures += [(metric.key, metric.step, metric.value) for metric in metrics]

    def set_terminated(self, run_id, status):
        self.answer()
        self.terminated.append(status)


def test_what_happened_while_the_server_was_away_is_sent_when_it_is_back(monkeypatch):
    client = Recorder()
    log = LiveRun("http://127.0.0.1:9", "live", send_every_s=0.01)
    monkeypatch.setattr(type(log._server), "__enter__", lambda self: Server(mlflow, client, "http://127.0.0.1:9"))
    monkeypatch.setattr("unmask.adapters.live_run.FIRST_PAUSE_S", 0.01)
    log.begin(START)
    for step in range(1, 2502):  # more than fits into one request
        log.step(StepPoint(step, 1 / step, 1e-3, 2.0))
    assert client.asked.wait(20)
    client.away.clear()
    log.close(failed=False)
    assert [figure for figure in client.figures if figure[0] == "step/loss"] == [
        ("step/loss", step, 1 / step) for step in range(1, 2502)
    ]
    assert client.terminated == ["FINISHED"]


def test_tensorboard_holds_steps_weights_gradients_and_pictures(made, quick, tmp_path):
    config = quick.model_copy(update={"tensorboard": str(tmp_path / "logs")})
    info = train(made, tmp_path / "out", config, TrainingLog())
    (folder,) = (tmp_path / "logs").iterdir()
    events = EventAccumulator(str(folder), size_guidance={"images": 0, "histograms": 0})
    events.Reload()
    tags = events.Tags()
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4, 5, 6]
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx([point.train_loss for point in info.curve])
    assert "system/system_memory_usage_megabytes" in tags["scalars"]
    assert set(tags["images"]) == {"examples", "confusion"}
    assert {"weights/head.1.weight", "gradients/head.1.weight"} <= set(tags["histograms"])
    assert "settings/text_summary" in tags["tensors"]


def test_long_trainings_tell_few_steps(made, quick, monkeypatch, tmp_path):
    monkeypatch.setattr(trainer_room, "MOST_STEPS_TOLD", 2)
    told: list[int] = []

    class Log(TrainingLog):
        def step(self, point: StepPoint) -> None:
            told.append(point.step)

    train(made, tmp_path / "out", quick, Log())
    assert told == [3, 6]


def test_the_confusion_matrix_is_drawn():
    sheet = decode_crop(confusion_sheet(((12, 3), (4, 21))))
    assert sheet.shape == (144, 432, 3)
    assert sheet.min() < 60
    red = (sheet[..., 0].astype(int) - sheet[..., 1]) > 80
    assert red[48:96, 288:].any()  # the 3 reals that are called fake
    assert not red[48:96, 144:288].any()  # the 12 that are not


def test_the_machine_is_measured_in_between_and_at_the_end():
    seen: list[dict[str, float]] = []
    twice = threading.Event()

    def tell(figures):
        seen.append(dict(figures))
        if len(seen) == 2:
            twice.set()

    with watched(tell, every_s=0.02):
        assert twice.wait(20)
    assert len(seen) >= 3
    assert all(figures["system/system_memory_usage_megabytes"] > 10 for figures in seen)
    meter = Meter()
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert meter.measure()["system/cpu_utilization_percentage"] > 1
