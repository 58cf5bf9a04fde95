"""A student learns what the teacher says, also where the label says otherwise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import simplejpeg
from release_parts import DATASET_VERSION, write_parts

from unmask.config import DistillConfig, TrainConfig
from unmask.deployment.distil_stage import DistillationInfo, TaughtView, run_distill
from unmask.detectors import load_detector
from unmask.errors import InputError, LeakError
from unmask.schemas import FACES, FRAME_SCORES, VIDEO_SCORES, DatasetInfo, ExtractionInfo, read_table, write_table

SPLITS = {"train": 24, "val": 12, "calib": 4, "test": 4}
CONFIG = DistillConfig(student="meso4", teacher_share=1.0)
TRAINING = TrainConfig(
    epochs=4, batch_size=8, augment=False, train_frames_per_video=2, eval_frames_per_video=2, input_size_px=64,
    learning_rate=3e-3, label_smoothing=0.0, early_stopping_patience=9, device="cpu", threads=1, models={},
)  # fmt: skip


def crop(bright: bool, rng: np.random.Generator) -> bytes:
    shade = rng.uniform(0.6, 0.9) if bright else rng.uniform(0.1, 0.4)
    noise = rng.normal(0, 12, (64, 64, 3))
    image = np.clip(255 * shade + cv2.GaussianBlur(noise, (5, 5), 1), 0, 255).astype(np.uint8)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labels of train say nothing about brightness; the teacher and the other splits go by it."""
    root = tmp_path_factory.mktemp("run")
    write_parts(root)
    rng = np.random.default_rng(6)
    faces, words = [], []
    for index, split in enumerate(np.repeat(list(SPLITS), list(SPLITS.values()))):
        bright = bool(index % 2)
        label = int(index % 4 < 2) if split == "train" else int(bright)
        key = {"sample_id": f"{index:016x}", "label": label, "group_id": f"g{index}", "split": split}
        probability = 0.95 if bright else 0.05
        words.append({**key, "logit": 1.0, "probability": probability, "agreement": 1.0, "reason": None})
        for frame in range(2):
            box = {"x0_px": 0.0, "y0_px": 0.0, "x1_px": 64.0, "y1_px": 64.0, "confidence": 1.0, "yaw_deg": None}
            place = {"face_index": 0, "frame_index": frame, "time_s": frame / 25}
            faces.append({**key, **place, **box, "jpeg": crop(bright, rng)})
    write_table(root / "faces" / "part-00000.parquet", pd.DataFrame(faces), FACES)
    write_table(root / "ensemble" / "scores.parquet", pd.DataFrame(words), VIDEO_SCORES)
    assert DatasetInfo.load(root / "dataset" / "dataset.json").version == DATASET_VERSION
    assert ExtractionInfo.load(root / "features" / "extraction.json").dataset_version == DATASET_VERSION
    return root


def distil(root: Path, out: Path, config: DistillConfig = CONFIG) -> DistillationInfo:
    run_distill(root / "dataset", root / "faces", root / "features", root / "ensemble", out, config, TRAINING, seed=1)
    return DistillationInfo.load(out / "distillation.json")


def test_the_student_follows_the_teacher_and_not_the_label(folders: Path, tmp_path: Path) -> None:
    info = distil(folders, tmp_path / "student")
    assert info.teacher_auc.value == 1.0
    # The labels of train alone cannot teach this.
    assert info.student_auc.value is not None
    assert info.student_auc.value > 0.9
    assert info.good_enough == (info.loss.value is not None and info.loss.value <= CONFIG.max_auc_loss)
    detector, document = load_detector(tmp_path / "student")
    assert document.name == "student-meso4"
    assert detector.n_parameters == info.n_parameters
    scores = read_table(tmp_path / "student" / "scores.parquet", FRAME_SCORES).to_pandas()
    assert set(scores["split"]) == set(SPLITS)
    train = scores[scores["split"] == "train"]
    bright = train["sample_id"].map(lambda name: int(name, 16) % 2 == 1)
    assert train.loc[bright, "logit"].mean() > train.loc[~bright, "logit"].mean() + 0.5


def test_same_input_same_bytes(folders: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        distil(folders, tmp_path / name)
    first, second = ((tmp_path / name / "weights.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second


def test_a_silent_teacher_is_refused(folders: Path, tmp_path: Path) -> None:
    table = read_table(folders / "ensemble" / "scores.parquet", VIDEO_SCORES).to_pandas()
    other = tmp_path / "ensemble"
    write_table(other / "scores.parquet", table.assign(probability=None, logit=None, reason="x: y"), VIDEO_SCORES)
    with pytest.raises(InputError, match="no probability for any sample of train"):
        run_distill(
            folders / "dataset", folders / "faces", folders / "features", other, tmp_path / "out", CONFIG, TRAINING, 1
        )
    assert not (tmp_path / "out").exists()


def test_a_fake_that_was_blended_now_keeps_its_own_label() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    view = TaughtView(targets=np.array([0.2, 0.8]))
    assert view(image, 0.0, 1)[1] == 0.8
    assert view(image, 0.0, 3)[1] == 0.8  # drawn again: its row, and the length of the index

    class Blender:
        def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # type: ignore[type-arg]
            return image

    blended = TaughtView(blender=Blender(), blend_chance=1.0, targets=np.array([0.2]))  # type: ignore[arg-type]
    assert blended(image, 0.0, 0)[1] == 1.0


def test_only_train_is_taught(folders: Path) -> None:
    from unmask.deployment.distil_stage import _teach

    class Holder:
        class train:  # noqa: N801
            class index:  # noqa: N801
                frame = pd.DataFrame({"sample_id": ["a"], "label": [0], "split": ["test"]})

    with pytest.raises(LeakError, match="1 of test"):
        _teach(Holder(), TRAINING, pd.DataFrame({"sample_id": [], "probability": []}), 1.0)  # type: ignore[arg-type]
