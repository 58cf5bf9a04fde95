"""Training as a stage: real trainings on made crops, killed, resumed, and fed with wrong data."""

import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import sklearn.metrics
import torch

from unmask import detectors
from unmask.config import TrainConfig, TrainOverrides
from unmask.errors import ConfigError, InputError, LeakError
from unmask.media.preprocessing import decode_crop
from unmask.metrics import roc_auc
from unmask.objects import FolderStore
from unmask.schemas import FACES, FRAME_SCORES, DetectorInfo, read_table
from unmask.training import trainer as trainer_module
from unmask.training.augment import Augmentation
from unmask.training.checkpoint import Checkpoints
from unmask.training.examples import example_sheet
from unmask.training.loader import CropLoader, index_crops
from unmask.training.step import Stepper
from unmask.training.train_stage import labelled_crops, run_train
from unmask.training.trainer import Trainer


def train(made, out: Path, config: TrainConfig, *, name: str = "meso4", seed: int = 1, store: Path | None = None):
    kept = FolderStore(store) if store else None
    return run_train(name, made.dataset, made.faces, made.features, out, config, seed, kept)


def result(folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, float]], pd.DataFrame]:
    info = DetectorInfo.load(folder / "detector.json")
    curve = [point.model_dump(exclude={"seconds"}) for point in info.curve]
    weights = safetensors.torch.load_file(folder / "weights.safetensors")
    return weights, curve, read_table(folder / "scores.parquet", FRAME_SCORES).to_pandas()


def assert_equal_results(a: Path, b: Path) -> None:
    (weights_a, curve_a, scores_a), (weights_b, curve_b, scores_b) = result(a), result(b)
    assert curve_a == curve_b
    pd.testing.assert_frame_equal(scores_a, scores_b, check_exact=True)
    assert all(torch.equal(weights_a[name], weights_b[name]) for name in weights_a)


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory) -> tuple[Path, TrainConfig]:
    """An undisturbed training that the others are compared with."""
    out = tmp_path_factory.mktemp("trained") / "meso4"
    config = TrainConfig(
        epochs=3, batch_size=16, train_frames_per_video=4, eval_frames_per_video=3, input_size_px=64, threads=1
    )
    train(made, out, config)
    return out, config


def test_stage_writes_weights_info_and_scores_of_all_splits(made, trained):
    out, config = trained
    detector, info = detectors.load_detector(out)
    scores = read_table(out / "scores.parquet", FRAME_SCORES).to_pandas()
    assert scores.groupby("split")["sample_id"].nunique().to_dict() == {"train": 8, "val": 4, "calib": 4, "test": 4}
    assert (scores.groupby("sample_id").size() == config.eval_frames_per_video).all()
    crops = read_table(made.faces, FACES).to_pandas().merge(scores, on=["sample_id", "face_index", "frame_index"])
    again = detectors.score_images(detector, [decode_crop(jpeg) for jpeg in crops["jpeg"]])
    np.testing.assert_allclose(crops["logit"], again, atol=1e-5)
    assert info.config["seed"] == 1
    assert info.config["epochs"] == 3
    assert info.extractor_version == "1"
    assert info.versions["torch"] == version("torch")
    val = scores[scores["split"] == "val"].groupby("sample_id").agg({"label": "first", "logit": "mean"})
    assert info.val_auc.value == pytest.approx(roc_auc(val["label"], val["logit"]))
    assert info.curve[info.best_epoch - 1].val_auc == info.val_auc.value


def test_training_learns(make_faces, quick, tmp_path):
    made = make_faces(tmp_path, {"train": 16, "val": 4, "calib": 6, "test": 6})
    config = quick.model_copy(update={"epochs": 6, "batch_size": 8, "augment": False})
    train(made, tmp_path / "out", config, name="timm:test_resnet")
    scores = read_table(tmp_path / "out" / "scores.parquet", FRAME_SCORES).to_pandas()
    videos = scores.groupby("sample_id").agg({"label": "first", "logit": "mean", "split": "first"})
    held_out = videos[videos["split"].isin(["calib", "test"])]
    assert roc_auc(held_out["label"], held_out["logit"]) >= 0.95


def test_same_seed_same_bytes_and_another_seed_others(made, trained, tmp_path):
    out, config = trained
    train(made, tmp_path / "same", config)
    assert_equal_results(out, tmp_path / "same")
    train(made, tmp_path / "other", config, seed=2)
    assert not torch.equal(result(out)[0]["head.1.weight"], result(tmp_path / "other")[0]["head.1.weight"])


def test_test_and_calib_labels_influence_nothing(make_faces, trained, tmp_path):
    """Labels of test and calib turned round and the same pictures: every weight is the same to the last bit."""
    out, config = trained
    turned = make_faces(tmp_path, relabel=lambda split, label: 1 - label if split in ("test", "calib") else label)
    train(turned, tmp_path / "out", config)
    weights, other = result(out)[0], result(tmp_path / "out")[0]
    assert all(torch.equal(weights[name], other[name]) for name in weights)
    assert result(out)[1] == result(tmp_path / "out")[1]


def test_val_labels_do_choose_the_checkpoint(make_faces, trained, tmp_path):
    _, config = trained
    turned = make_faces(tmp_path, relabel=lambda split, label: 1 - label if split == "val" else label)
    train(turned, tmp_path / "out", config)
    curve = DetectorInfo.load(tmp_path / "out" / "detector.json").curve
    best = max(curve, key=lambda point: (point.val_auc, -point.val_loss))
    assert DetectorInfo.load(tmp_path / "out" / "detector.json").best_epoch == best.epoch


class Killed(BaseException):
    """Stands for the power cut: nothing in the trainer catches it."""


@pytest.mark.parametrize("stop_at_step", [1, 3, 5])
def test_resume_within_and_between_epochs_equals_an_undisturbed_run(made, trained, tmp_path, monkeypatch, stop_at_step):
    """Two batches an epoch, a checkpoint after each: stopped in the first, at the end, and in the last epoch."""
    out, config = trained
    monkeypatch.setattr(trainer_module, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setitem(Trainer.__init__.__kwdefaults__, "checkpoint_every_s", 0.0)
    steps = 0
    real_step = Stepper.step

    def step_and_die(self, *arguments):
        nonlocal steps
        if steps == stop_at_step:
            raise Killed
        steps += 1
        return real_step(self, *arguments)

    monkeypatch.setattr(Stepper, "step", step_and_die)
    with pytest.raises(Killed):
        train(made, tmp_path / "out", config, store=tmp_path / "store")
    assert not (tmp_path / "out").exists()
    counted = []
    monkeypatch.setattr(Stepper, "step", lambda *args: (counted.append(1), real_step(*args))[1])
    train(made, tmp_path / "out", config, store=tmp_path / "store")
    assert len(counted) == 6 - stop_at_step, "no step is done twice"
    assert_equal_results(out, tmp_path / "out")


@pytest.mark.slow
def test_kill_9_and_run_again_equals_an_undisturbed_run(made, tmp_path):
    script = (
        "import sys; from pathlib import Path; from unmask.config import TrainConfig;"
        "from unmask.training.train_stage import run_train;"
        "config = TrainConfig.model_validate_json(sys.argv[6]);"
        "from unmask.objects import FolderStore;"
        "run_train('meso4', *map(Path, sys.argv[1:5]), config, 1, FolderStore(Path(sys.argv[5])))"
    )
    config = TrainConfig(
        epochs=40,
        batch_size=8,
        train_frames_per_video=6,
        eval_frames_per_video=3,
        input_size_px=64,
        threads=1,
        early_stopping_patience=8,
    )
    arguments = [
        made.dataset,
        made.faces,
        made.features,
        tmp_path / "killed",
        tmp_path / "store",
        config.model_dump_json(),
    ]
    process = subprocess.Popen([sys.executable, "-c", script, *map(str, arguments)], env=os.environ.copy())
    try:
        deadline = time.monotonic() + 400  # a busy machine takes minutes to start a process
        while not list((tmp_path / "store").glob("checkpoints/*/last.safetensors")):
            assert process.poll() is None, "the training ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "killed").exists()
    train(made, tmp_path / "killed", config, store=tmp_path / "store")
    train(made, tmp_path / "undisturbed", config)
    assert_equal_results(tmp_path / "killed", tmp_path / "undisturbed")


def test_finished_training_is_not_done_again(made, trained, tmp_path, monkeypatch):
    out, config = trained
    train(made, tmp_path / "first", config, store=tmp_path / "store")
    monkeypatch.setattr(Stepper, "step", lambda *_: pytest.fail("a step was taken"))
    train(made, tmp_path / "second", config, store=tmp_path / "store")
    assert_equal_results(out, tmp_path / "second")
    assert len(list((tmp_path / "store").glob("checkpoints/*/best-*.safetensors"))) == 1


def test_broken_checkpoint_is_said_and_training_starts_anew(made, trained, tmp_path, caplog):
    out, config = trained
    train(made, tmp_path / "first", config, store=tmp_path / "store")
    (checkpoint,) = (tmp_path / "store").glob("checkpoints/*/last.safetensors")
    checkpoint.write_bytes(b"half a file")
    train(made, tmp_path / "second", config, store=tmp_path / "store")
    assert "is not a checkpoint" in caplog.text
    assert_equal_results(out, tmp_path / "second")


def test_other_settings_do_not_take_over_a_checkpoint(made, trained, tmp_path):
    _, config = trained
    for changed, seed in ((config, 1), (config.model_copy(update={"epochs": 1}), 1), (config, 2)):
        train(made, tmp_path / "out", changed, seed=seed, store=tmp_path / "store")
    assert len(list((tmp_path / "store").glob("checkpoints/*"))) == 3


def test_augmentation_touches_train_and_nothing_else(made, trained, tmp_path, monkeypatch):
    _, config = trained
    seen: set[bytes] = set()
    real = Augmentation.__call__

    def spy(self, image, rng, **options):
        seen.add(image.tobytes())
        return real(self, image, rng, **options)

    monkeypatch.setattr(Augmentation, "__call__", spy)
    train(made, tmp_path / "out", config)
    crops = read_table(made.faces, FACES).to_pandas()
    of_split = {split: {decode_crop(j).tobytes() for j in rows["jpeg"]} for split, rows in crops.groupby("split")}
    assert seen
    assert seen <= of_split["train"]
    assert not seen & (of_split["val"] | of_split["calib"] | of_split["test"])
    seen.clear()
    train(made, tmp_path / "out", config.model_copy(update={"augment": False}))
    assert not seen


@pytest.mark.parametrize("place", ["train", "val"])
def test_trainer_refuses_rows_of_another_split(made, quick, place):
    index = index_crops(made.faces)
    detector = detectors.build("meso4", input_size_px=64)
    loaders = {
        split: CropLoader(index.select((index.frame["split"] == split).to_numpy()), detector.preprocessing)
        for split in ("train", "val", "test")
    }
    given = {"train": loaders["train"], "val": loaders["val"], place: loaders["test"]}
    with pytest.raises(LeakError, match="test"):
        Trainer(detector, given["train"], given["val"], quick, 1, torch.device("cpu"), Checkpoints(None))


@pytest.mark.parametrize("missing", ["train", "val"])
def test_no_rows_to_train_or_choose_on_is_refused_with_numbers(make_faces, quick, tmp_path, missing):
    splits = {"train": 4, "val": 2, "calib": 2, "test": 2, missing: 0}
    listed = ", ".join(f"{split} {count}" for split, count in splits.items())
    with pytest.raises(InputError, match=rf"is in {missing} .*{listed}"):
        train(make_faces(tmp_path, splits), tmp_path / "out", quick)


def test_one_class_in_train_is_refused(make_faces, quick, tmp_path):
    made = make_faces(tmp_path, relabel=lambda split, label: 1 if split == "train" else label)
    with pytest.raises(InputError, match="All 8 samples with faces in train are fake"):
        train(made, tmp_path / "out", quick)


def test_one_class_in_val_is_judged_by_loss(make_faces, quick, tmp_path):
    made = make_faces(tmp_path, relabel=lambda split, label: 1 if split == "val" else label)
    outcome = train(made, tmp_path / "out", quick)
    info = DetectorInfo.load(tmp_path / "out" / "detector.json")
    assert info.val_auc.value is None
    assert info.best_epoch == min(info.curve, key=lambda point: point.val_loss).epoch
    assert any("one class" in message for message in outcome.messages)


def test_rows_without_a_label_are_left_out(make_faces, quick, tmp_path):
    made = make_faces(tmp_path, relabel=lambda split, label: None if split == "calib" else label)
    assert set(labelled_crops(made.faces).frame["split"]) == {"train", "val", "test"}
    train(made, tmp_path / "out", quick)
    assert "calib" not in set(read_table(tmp_path / "out" / "scores.parquet", FRAME_SCORES).column("split").to_pylist())


def test_crops_of_another_data_set_version_are_refused(make_faces, quick, tmp_path):
    made = make_faces(tmp_path)
    document = made.dataset / "dataset.json"
    document.write_text(document.read_text().replace("d" * 64, "e" * 64))
    with pytest.raises(InputError, match="Run `unmask extract`"):
        train(made, tmp_path / "out", quick)


def test_early_stopping_and_overrides(made, quick, tmp_path):
    config = quick.model_copy(
        update={
            "early_stopping_patience": 1,
            "learning_rate": 1e-12,
            "models": {"meso4": TrainOverrides(epochs=30, batch_size=8)},
        }
    )
    train(made, tmp_path / "out", config)
    info = DetectorInfo.load(tmp_path / "out" / "detector.json")
    assert info.config["batch_size"] == 8
    assert len(info.curve) < 30
    assert info.best_epoch == len(info.curve) - 1


def test_divergence_is_an_error_with_a_fix(made, quick, tmp_path):
    config = quick.model_copy(update={"learning_rate": 1e30, "optimizer": "sgd", "warmup_share": 0.0})
    with pytest.raises(InputError, match=r"diverged.*Lower train\.learning_rate"):
        train(made, tmp_path / "out", config)


@pytest.mark.parametrize("device", ["cuda:7", "abacus"])
def test_unknown_device_is_refused(made, quick, tmp_path, device):
    with pytest.raises(ConfigError, match=device):
        train(made, tmp_path / "out", quick.model_copy(update={"device": device}))


def test_global_torch_state_is_left_alone(made, quick, tmp_path):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    train(made, tmp_path / "out", quick.model_copy(update={"epochs": 1}))
    assert torch.equal(before, torch.get_rng_state())


def test_a_timm_backbone_trains(made, quick, tmp_path):
    train(made, tmp_path / "out", quick.model_copy(update={"epochs": 1}), name="timm:test_resnet")
    detector, info = detectors.load_detector(tmp_path / "out")
    assert info.architecture == detector.architecture == "timm:test_resnet"


def test_the_part_of_the_crop_that_is_seen_travels_with_the_weights(made, quick, tmp_path):
    train(made, tmp_path / "out", quick.model_copy(update={"epochs": 1, "input_crop": 0.75}))
    detector, info = detectors.load_detector(tmp_path / "out")
    assert info.preprocessing.crop == detector.preprocessing.crop == 0.75
    scores = read_table(tmp_path / "out" / "scores.parquet", FRAME_SCORES).to_pandas()
    crops = read_table(made.faces, FACES).to_pandas().merge(scores, on=["sample_id", "face_index", "frame_index"])
    again = detectors.score_images(detector, [decode_crop(jpeg) for jpeg in crops["jpeg"]])
    np.testing.assert_allclose(crops["logit"], again, atol=1e-5)


def test_the_sheet_shows_val_crops_and_the_document_what_they_were_called(made, trained):
    out, _ = trained
    info = DetectorInfo.load(out / "detector.json")
    scores = read_table(out / "scores.parquet", FRAME_SCORES).to_pandas().query("split == 'val'")
    called = scores.groupby("sample_id").agg(label=("label", "first"), logit=("logit", "mean"))
    expected = sklearn.metrics.confusion_matrix(called["label"], called["logit"] >= 0, labels=[0, 1])
    assert np.array_equal(info.val_confusion, expected)
    assert info.resources["crops_per_s"] > 0
    assert info.resources["peak_memory_mb"] > 50
    sheet = decode_crop((out / "examples.jpg").read_bytes())
    assert sheet.shape[1] == 6 * 144
    assert sheet.shape[0] % (144 + 22) == 0
    crops = read_table(made.faces, FACES).to_pandas().query("split == 'val'")
    first = sheet[:144, :144].astype(float)
    nearest = min(
        float(np.abs(cv2.resize(decode_crop(jpeg), (144, 144)).astype(float) - first).mean()) for jpeg in crops["jpeg"]
    )
    assert nearest < 6


def test_the_sheet_refuses_test_crops(made, trained):
    out, _ = trained
    scores = read_table(out / "scores.parquet", FRAME_SCORES).to_pandas()
    loader = CropLoader(index_crops(made.faces), detectors.build("meso4").preprocessing)
    with pytest.raises(LeakError, match="test"):
        example_sheet(loader, scores)
