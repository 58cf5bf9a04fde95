"""Ensemble scores and features that are drawn, so that it is known what fusion should find."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from unmask.ensemble.apply import sigmoid
from unmask.schemas import (
    FEATURES,
    SAMPLES,
    VIDEO_SCORES,
    DatasetInfo,
    EnsembleInfo,
    Estimate,
    ExtractionInfo,
    write_table,
)

TEMPERATURE = 0.8
FEATURE_NAMES = ["temp.flow_oddity", "temp.rppg", "art.edge", "quality.blur"]


def calib_rows(
    n: int, seed: int, *, signal: float = 1.0, feature: float = 0.0, base_rate: float = 0.5, missing: float = 0.0
) -> pd.DataFrame:
    """Rows whose ensemble logit is right by construction; the first feature adds what the ensemble does not know."""
    rng = np.random.default_rng(seed)
    label = (rng.permutation(n) < base_rate * n).astype(int)
    sign = 2 * label - 1
    logit = TEMPERATURE * 2 * signal * (signal * sign + rng.standard_normal(n))
    columns = {name: rng.standard_normal(n) for name in FEATURE_NAMES}
    columns["temp.flow_oddity"] += feature * sign
    for name in ("temp.rppg", "art.edge"):
        columns[name] = np.where(rng.random(n) < missing, np.nan, columns[name])
    keys = {"sample_id": [f"{k:016x}" for k in range(n)], "label": label, "group_id": [f"g{k // 2}" for k in range(n)]}
    return pd.DataFrame(keys | {"split": "calib", "logit": logit} | columns)


@pytest.fixture
def draw() -> Callable[..., pd.DataFrame]:
    return calib_rows


Build = Callable[..., tuple[Path, Path, Path]]


def _write_dataset(folder: Path, rows: pd.DataFrame, version: str) -> None:
    samples = rows[["sample_id", "label", "group_id", "split"]].assign(
        uri="/media/x.mp4", modality="video", source="drawn", size_bytes=1, status="ok"
    )
    write_table(folder / "samples.parquet", samples.reindex(columns=[c.name for c in SAMPLES.columns]), SAMPLES)
    nothing = Estimate(value=None, n=0)
    DatasetInfo(
        name="drawn", version=version, counts={}, failed={}, groups={}, metadata_audit_auc=nothing, sources={}
    ).save(folder / "dataset.json")


def _write_ensemble(folder: Path, rows: pd.DataFrame) -> None:
    there = rows["logit"].notna()
    reason = pd.Series(None, index=rows.index, dtype=object).mask(~there, "no_score: no detector scored this sample")
    scores = rows[["sample_id", "label", "group_id", "split", "logit"]].assign(
        probability=sigmoid(rows["logit"] / TEMPERATURE), agreement=np.where(there, 1.0, np.nan), reason=reason
    )
    write_table(folder / "scores.parquet", scores, VIDEO_SCORES)
    EnsembleInfo(
        detectors=["a"], temperatures=[1.0], weights=[1.0], temperature=TEMPERATURE, method="single", decision="",
        candidates={}, agreement_threshold=0.8,
    ).save(folder / "ensemble.json")  # fmt: skip


def _write_features(folder: Path, rows: pd.DataFrame, version: str, failed: dict[str, str]) -> None:
    bad = rows["sample_id"].isin(failed)
    table = rows[["sample_id", "label", "group_id", "split"]].assign(
        status=np.where(bad, "failed", "ok"), reason=rows["sample_id"].map(failed).astype(object).where(bad, None),
        n_frames_expected=10, n_frames_decoded=10, face_share=1.0, n_crops=8, extractor_version="1", null_reasons=None,
    )  # fmt: skip
    table["null_reasons"] = [[] for _ in range(len(table))]
    values = rows[FEATURE_NAMES].mask(bad)
    write_table(folder / "features.parquet", pd.concat([table, values], axis=1), FEATURES)
    ExtractionInfo(
        extractor_version="1", dataset_version=version, n_ok=0, n_failed=0, n_reused=0, failed={}, n_crops=0, health=[]
    ).save(folder / "extraction.json")


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Write the folders that `unmask fuse` reads: half of the groups calib, half test."""

    def make(
        rows: pd.DataFrame,
        into: str = "a",
        failed: dict[str, str] | None = None,
        feature_version: str = "v1",
        absent: frozenset[str] = frozenset(),
    ) -> tuple[Path, Path, Path]:
        root = tmp_path / into
        _write_dataset(root / "data", rows, "v1")
        _write_ensemble(root / "ensemble", rows)
        present = rows[~rows["sample_id"].isin(absent)].reset_index(drop=True)
        _write_features(root / "features", present, feature_version, failed or {})
        return root / "data", root / "ensemble", root / "features"

    return make
