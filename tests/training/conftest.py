"""Crops made by code: smooth random pictures with sensor noise; fakes carry the grid of an up-sampled centre."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import simplejpeg

from unmask.config import TrainConfig
from unmask.schemas import FACES, DatasetInfo, Estimate, ExtractionInfo, write_table

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))  # drawn faces

SPLITS = {"train": 8, "val": 4, "calib": 4, "test": 4}
VERSION = "d" * 64


def draw_crop(rng: np.random.Generator, label: int, size_px: int) -> np.ndarray:
    coarse = rng.uniform(40, 215, (4, 4, 3)).astype(np.float32)
    image = cv2.resize(coarse, (size_px, size_px), interpolation=cv2.INTER_CUBIC)
    image += rng.normal(0, 6, image.shape).astype(np.float32)
    if label:
        a, b = size_px // 4, 3 * size_px // 4
        half = cv2.resize(image[a:b, a:b], None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        image[a:b, a:b] = cv2.resize(half, (b - a, b - a), interpolation=cv2.INTER_NEAREST)
    return np.clip(image, 0, 255).astype(np.uint8)


@dataclass(frozen=True)
class Made:
    """Folders as `ingest` and `extract` leave them."""

    dataset: Path
    faces: Path
    features: Path


@pytest.fixture(scope="session")
def make_faces() -> Callable[..., Made]:
    """Make a data set of crops below a folder; half of the samples of each split are fake."""

    def make(
        root: Path,
        splits: dict[str, int] = SPLITS,
        *,
        frames: int = 6,
        size_px: int = 64,
        seed: int = 0,
        relabel: Callable[[str, int], int | None] = lambda split, label: label,
        rows_per_part: int = 40,
    ) -> Made:
        rng = np.random.default_rng(seed)
        rows = []
        for split, count in splits.items():
            for number in range(count):
                for frame_index in range(frames):
                    image = draw_crop(rng, number % 2, size_px)
                    rows.append(
                        {
                            "sample_id": f"{split}{number:03d}".ljust(16, "0"),
                            "face_index": 0,
                            "frame_index": frame_index * 5,
                            "time_s": frame_index / 5,
                            "label": relabel(split, number % 2),
                            "group_id": f"{split}-{number // 2}",
                            "split": split,
                            **dict.fromkeys(("x0_px", "y0_px"), 0.0),
                            **dict.fromkeys(("x1_px", "y1_px"), float(size_px)),
                            "confidence": 0.9,
                            "yaw_deg": None,
                            "jpeg": simplejpeg.encode_jpeg(image, quality=95, colorsubsampling="444"),
                        }
                    )
        frame = pd.DataFrame(rows)
        for part, start in enumerate(range(0, len(frame), rows_per_part)):
            write_table(root / "faces" / f"part-{part:04d}.parquet", frame[start : start + rows_per_part], FACES)
        DatasetInfo(
            name="made",
            version=VERSION,
            counts={},
            failed={},
            groups={},
            metadata_audit_auc=Estimate(value=None, n=0),
            sources={},
        ).save(root / "dataset" / "dataset.json")
        ExtractionInfo(
            extractor_version="1",
            dataset_version=VERSION,
            n_ok=sum(splits.values()),
            n_failed=0,
            n_reused=0,
            failed={},
            n_crops=len(frame),
            health=[],
        ).save(root / "features" / "extraction.json")
        return Made(root / "dataset", root / "faces", root / "features")

    return make


@pytest.fixture(scope="session")
def made(make_faces: Callable[..., Made], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The usual data set; nobody writes into it."""
    return make_faces(tmp_path_factory.mktemp("made"))


@pytest.fixture
def quick() -> TrainConfig:
    """Settings that train meso4 on the made crops in a second or two."""
    return TrainConfig(
        epochs=3, batch_size=16, train_frames_per_video=4, eval_frames_per_video=3, input_size_px=64, threads=1
    )
