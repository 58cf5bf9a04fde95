"""A data set as ingest would write it, of files that ingest might have refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unmask.schemas import SAMPLES, DatasetInfo, Estimate, sha256_file, write_table


def dataset(folder: Path, files: list[Path]) -> Path:
    """A hand-made table of samples, with one that failed in ingest."""
    rows = []
    for index, path in enumerate(files):
        modality = {".png": "image", ".wav": "audio"}.get(path.suffix, "video")
        rows.append(
            {
                "sample_id": f"{index:016x}",
                "uri": str(path),
                "modality": modality,
                "label": (0, 1, None)[index % 3],
                "source": "made",
                "group_id": f"g{index // 2}",
                "split": ("train", "val", "calib", "test")[index % 4],
                "sha256": sha256_file(path),
                "size_bytes": path.stat().st_size,
                "status": "ok",
            }
        )
    rows.append(
        {
            "sample_id": "f" * 16,
            "uri": str(folder / "gone.mp4"),
            "source": "made",
            "size_bytes": 0,
            "status": "failed",
            "reason": "empty_file: the file has 0 bytes",
        }
    )
    frame = pd.DataFrame(rows).reindex(columns=[column.name for column in SAMPLES.columns])
    write_table(folder / "samples.parquet", frame.astype(object).where(frame.notna(), None), SAMPLES)
    DatasetInfo(
        name="made",
        version="v" * 8,
        counts={},
        failed={},
        groups={},
        metadata_audit_auc=Estimate(value=None, n=0),
        sources={"made": "here"},
    ).save(folder / "dataset.json")
    return folder
