"""A data set and trained folders whose logits are drawn, not learnt, so that the right answer is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmask.schemas import (
    FRAME_SCORES,
    SAMPLES,
    DatasetInfo,
    DetectorInfo,
    Estimate,
    Preprocessing,
    write_table,
)

SPLITS = np.array(["train", "val", "calib", "test"])


def make_samples(n: int, groups: int, rng: np.random.Generator) -> pd.DataFrame:
    group = np.arange(n) % groups
    split = SPLITS[group % 4]
    return pd.DataFrame(
        {
            "sample_id": [f"{k:016x}" for k in range(n)],
            "uri": [f"/media/{k}.mp4" for k in range(n)],
            "modality": "video",
            "label": rng.integers(0, 2, n),
            "source": "drawn",
            "group_id": [f"g{k}" for k in group],
            "split": split,
            "size_bytes": 1000,
            "status": "ok",
        }
    )


def write_dataset(folder: Path, samples: pd.DataFrame, version: str = "v1") -> Path:
    full = samples.reindex(columns=[column.name for column in SAMPLES.columns])
    write_table(folder / "samples.parquet", full, SAMPLES)
    nothing = Estimate(value=None, n=0)
    DatasetInfo(
        name="drawn", version=version, counts={}, failed={}, groups={}, metadata_audit_auc=nothing, sources={}
    ).save(folder / "dataset.json")
    return folder


def write_detector(folder: Path, name: str, scored: pd.DataFrame, version: str = "v1", frames: int = 3) -> Path:
    """``scored`` has sample_id, label, group_id, split and logit; the frames scatter around the logit."""
    DetectorInfo(
        name=name,
        architecture="drawn",
        n_parameters=1,
        preprocessing=Preprocessing(size_px=64, mean=(0, 0, 0), std=(1, 1, 1)),
        aggregation="mean_logit",
        config={},
        curve=[],
        best_epoch=1,
        val_auc=Estimate(value=None, n=0),
        dataset_version=version,
        extractor_version="1",
        weights_sha256="0",
        versions={},
        device="cpu",
        train_seconds=0.0,
    ).save(folder / "detector.json")
    offsets = np.arange(frames) - (frames - 1) / 2
    rows = scored.loc[scored.index.repeat(frames), ["sample_id", "label", "group_id", "split", "logit"]]
    rows = rows.assign(
        face_index=0,
        frame_index=np.tile(np.arange(frames), len(scored)),
        logit=rows["logit"].to_numpy() + np.tile(offsets, len(scored)),
    )
    write_table(folder / "scores.parquet", rows[[column.name for column in FRAME_SCORES.columns]], FRAME_SCORES)
    return folder


Build = Callable[..., tuple[Path, list[Path], pd.DataFrame]]


@pytest.fixture
def dataset_writer() -> Callable[..., Path]:
    return write_dataset


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def make(
        logits: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]],
        n: int = 400,
        groups: int = 200,
        seed: int = 0,
        into: str = "a",
        edit: Callable[[pd.DataFrame], pd.DataFrame] | None = None,
        drop: dict[str, set[str]] | None = None,
    ) -> tuple[Path, list[Path], pd.DataFrame]:
        rng = np.random.default_rng(seed)
        samples = make_samples(n, groups, rng)
        drawn = {name: draw(samples["label"].to_numpy(), rng) for name, draw in logits.items()}
        if edit is not None:
            samples = edit(samples)
        root = tmp_path / into
        trained = []
        for name, logit in drawn.items():
            scored = samples.assign(logit=logit)
            scored = scored[scored["split"].notna() & ~scored["sample_id"].isin((drop or {}).get(name, set()))]
            trained.append(write_detector(root / name, name, scored))
        return write_dataset(root / "data", samples), trained, samples

    return make
