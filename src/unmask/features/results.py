"""The tables that extraction writes: what became of each sample, its crops, its features."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from unmask.config import ExtractConfig
from unmask.errors import InputError
from unmask.features.catalogue import CATALOGUE, EXTRACTOR_VERSION
from unmask.features.health import feature_health
from unmask.features.health_page import health_page
from unmask.features.measure import Measurement
from unmask.features.store import Failure
from unmask.schemas import (
    FACES,
    FEATURES,
    WINDOWS,
    WINDOWS_FOLDER,
    ExtractionInfo,
    FeatureHealth,
    StageOutcome,
    TableSpec,
    new_directory,
    write_atomically,
    write_table,
)

PART_ROWS = 4096  # crops a part of the table faces; a multiple of its row groups
PART_WINDOWS = 512  # windows a part: 66 MB
IDENTITY = ("sample_id", "label", "group_id", "split")
Row = dict[str, Any]


def crop_rows(row: Row, measurement: Measurement) -> list[Row]:
    """Rows of the table ``faces`` for one sample."""
    identity = {name: row[name] for name in IDENTITY}
    return [identity | crop.__dict__ for crop in measurement.crops]


def window_rows(row: Row, measurement: Measurement) -> list[Row]:
    """Rows of the table ``windows`` for one sample."""
    identity = {name: row[name] for name in IDENTITY}
    return [identity | window.__dict__ for window in measurement.windows]


def write_faces(out: Path, rows: Iterable[Row]) -> None:
    """Write the table ``faces`` in parts, and ``windows`` in a folder beside them; a part of each is held in memory.

    Args:
        out: Folder to write.
        rows: Of either table, in the order of the samples.
    """
    with new_directory(out) as folder:
        (folder / WINDOWS_FOLDER).mkdir()
        faces, windows = _Parts(folder, FACES, PART_ROWS), _Parts(folder / WINDOWS_FOLDER, WINDOWS, PART_WINDOWS)
        for row in rows:
            (windows if "pcm" in row else faces).add(row)
        faces.finish()
        windows.finish()


class _Parts:
    """Writes a table part by part.

    Args:
        folder: Where to.
        spec: Of the table.
        n_rows: Of a part.
    """

    def __init__(self, folder: Path, spec: TableSpec, n_rows: int) -> None:
        self._folder, self._spec, self._n_rows = folder, spec, n_rows
        self._pending: list[Row] = []
        self._n_parts = 0

    def add(self, row: Row) -> None:
        """Take a row; write a part when it is full."""
        self._pending.append(row)
        if len(self._pending) == self._n_rows:
            self._write()

    def finish(self) -> None:
        """Write what is left; a table without rows is one empty part."""
        if self._pending or not self._n_parts:
            self._write()

    def _write(self) -> None:
        table = pa.Table.from_pylist(self._pending, schema=self._spec.arrow_schema())
        write_table(self._folder / f"part-{self._n_parts:05d}.parquet", table, self._spec)
        self._pending, self._n_parts = [], self._n_parts + 1


def feature_row(row: Row, failure: Failure | None, measurement: Measurement | None) -> Row:
    """Row of the table ``features`` for one sample."""
    found = {name: row[name] for name in IDENTITY} | {
        "status": "ok" if measurement else "failed",
        "reason": None if measurement else str(failure),
        "n_frames_expected": measurement.n_frames_expected if measurement else None,
        "n_frames_decoded": measurement.n_frames_decoded if measurement else None,
        "face_share": measurement.face_share if measurement else None,
        "n_crops": len(measurement.crops) if measurement else 0,
        "extractor_version": EXTRACTOR_VERSION,
        "null_reasons": list(measurement.null_reasons.items()) if measurement else [],
        "n_windows": len(measurement.windows) if measurement else 0,
        "no_sound_reason": measurement.no_sound_reason if measurement else None,
    }
    return found | (measurement.features if measurement else dict.fromkeys(CATALOGUE))


def write_features(
    out: Path, rows: Sequence[Row], modalities: Sequence[str | None], version: str, n_reused: int
) -> ExtractionInfo:
    """Write the table ``features``, ``extraction.json`` with the health of the features, and its page.

    Args:
        out: Folder to write.
        rows: Of the table.
        modalities: Of each row.
        version: Of the data set.
        n_reused: How many were not measured anew.

    Returns:
        What was written into ``extraction.json``.
    """
    schema = FEATURES.arrow_schema(list(CATALOGUE))
    frame = pd.DataFrame(
        [row | {"modality": kind} for row, kind in zip(rows, modalities, strict=True)],
        columns=[*schema.names, "modality"],
    )
    failed = Counter(_code(row["reason"] or "failed") for row in rows if row["status"] != "ok")
    unheard = Counter(_code(row["no_sound_reason"]) for row in rows if row["no_sound_reason"])
    info = ExtractionInfo(
        extractor_version=EXTRACTOR_VERSION,
        dataset_version=version,
        n_ok=sum(row["status"] == "ok" for row in rows),
        n_failed=sum(row["status"] != "ok" for row in rows),
        n_reused=n_reused,
        failed=dict(sorted(failed.items())),
        n_crops=sum(row["n_crops"] for row in rows),
        health=feature_health(frame),
        n_windows=sum(row["n_windows"] or 0 for row in rows),
        without_sound=dict(sorted(unheard.items())),
    )
    with new_directory(out) as folder:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        write_table(folder / "features.parquet", table, FEATURES)
        info.save(folder / "extraction.json")
        with write_atomically(folder / "health.html") as page:
            page.write_text(health_page(info.health, frame), encoding="utf-8")
    return info


def _code(reason: str) -> str:
    return reason.partition(": ")[0]


def refuse_many_failures(rows: Sequence[Row], samples: Sequence[Row], config: ExtractConfig) -> None:
    """Stop when too many samples failed.

    Args:
        rows: Of the table ``features``.
        samples: Of the table ``samples``, in the same order.
        config: Holds the limit.

    Raises:
        InputError: Too many failed, or none passed ingest.
    """
    wanted = [(row, sample) for row, sample in zip(rows, samples, strict=True) if sample["status"] == "ok"]
    if not wanted:
        raise InputError(f"None of {len(samples)} samples passed ingest.", "See the column reason of samples.parquet.")
    failed = [(row["reason"], sample["uri"]) for row, sample in wanted if row["status"] != "ok"]
    if len(failed) <= config.max_failed_share * len(wanted):
        return
    counts = Counter(reason.partition(": ")[0] for reason, _ in failed)
    raise InputError(
        f"{len(failed)} of {len(wanted)} samples failed ({listing(counts)}), more than the limit of "
        f"{config.max_failed_share:.0%}; the first is {failed[0][1]}: {failed[0][0]}.",
        "Mend or remove those files, or raise extract.max_failed_share.",
    )


def refuse_critical(health: Sequence[FeatureHealth], config: ExtractConfig) -> None:
    """Stop before training when a feature is unusable for no reason that lies in the material.

    Raises:
        InputError: The health of a feature is critical, and the configuration does not allow it.
    """
    critical = [entry for entry in health if entry.level == "critical"]
    if critical and config.stop_on_critical:
        raise InputError(
            " ".join(f"{entry.name}: {' '.join(entry.problems)}" for entry in critical),
            "See health.html beside the features; set extract.stop_on_critical to false to go on without them.",
        )


def listing(counts: Counter[str] | dict[str, int]) -> str:
    """Name codes and counts, the most frequent first."""
    return ", ".join(f"{code} {count}" for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def outcome_of(info: ExtractionInfo) -> StageOutcome:
    """Sum up for the log and for tracking."""
    metrics = {
        "samples_ok": float(info.n_ok),
        "samples_failed": float(info.n_failed),
        "samples_reused": float(info.n_reused),
        "crops": float(info.n_crops),
        "windows": float(info.n_windows),
    }
    messages = [
        f"{info.n_ok} samples measured ({info.n_reused} taken from the store), {info.n_crops} face crops, "
        f"{info.n_windows} windows of sound."
    ]
    if info.n_windows and info.without_sound:
        messages.append(f"Without sound: {listing(info.without_sound)}.")
    if info.failed:
        messages.append(f"{info.n_failed} samples failed: {listing(info.failed)}.")
    for health in info.health:
        if health.level != "ok":
            messages += [f"{health.name} ({health.level}): {problem}" for problem in health.problems]
    return StageOutcome(metrics=metrics, messages=tuple(messages))
