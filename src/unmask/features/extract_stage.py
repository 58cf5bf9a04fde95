"""`unmask extract`: features and face crops of every sample, in parallel, resumable by content."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from unmask.config import ExtractConfig
from unmask.errors import InputError, MediaError
from unmask.features.catalogue import CATALOGUE, EXTRACTOR_VERSION
from unmask.features.health import feature_health
from unmask.features.measure import Measurement, measure
from unmask.features.naturalness import model_file
from unmask.features.store import Failure, FeatureStore, save_result
from unmask.media.faces import MODEL_SHA256, model_path
from unmask.media.pool import WorkerPool
from unmask.progress import track
from unmask.schemas import (
    FACES,
    FEATURES,
    SAMPLES,
    DatasetInfo,
    ExtractionInfo,
    StageOutcome,
    new_directory,
    read_table,
    write_table,
)

logger = logging.getLogger(__name__)

PART_ROWS = 4096  # crops a part of the table faces; a multiple of its row groups
JOB = "unmask.features.extract_stage:extract_one"


@dataclass(frozen=True)
class _Sample:
    """A row of ``samples`` as far as extraction needs it, and what became of it."""

    row: dict[str, Any]
    failure: Failure | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


def run_extract(
    dataset: Path, out_faces: Path, out_features: Path, config: ExtractConfig, store: Path | None = None
) -> StageOutcome:
    """Measure every sample of a data set.

    Args:
        dataset: Folder that `unmask ingest` wrote.
        out_faces: Folder for the crops, ``part-*.parquet`` (table ``faces``).
        out_features: Folder for ``features.parquet`` and ``extraction.json``.
        config: How to measure, and when to stop.
        store: Folder of the feature store. What lies there for the same bytes, extractor and settings is not
            measured again, so a killed run loses only the samples in hand. None keeps nothing.

    Returns:
        Counts for the log and for tracking.

    Raises:
        InputError: Too many samples fail, a sample is not on this machine, or the networks are not installed.
        ContractError: The data set is missing or broken.
    """
    for name in MODEL_SHA256:
        model_path(name)
    model_file()
    rows = read_table(dataset / "samples.parquet", SAMPLES).to_pylist()
    version = DatasetInfo.load(dataset / "dataset.json").version
    _refuse_remote(rows)
    with _store(store, config, out_features) as features:
        samples, n_reused = _measure_all(rows, config, features)
        _refuse_too_many_failures(samples, rows, config)
        n_crops = _write_faces(out_faces, samples, features)
        info = _write_features(out_features, samples, features, version, n_reused, n_crops)
    return _outcome(info)


def extract_one(job: dict[str, Any]) -> list[str] | None:
    """Measure one file and write the result to the store; called in a worker process.

    Args:
        job: ``path``, ``modality``, ``size_bytes``, ``config`` and ``out``.

    Returns:
        None, or code and detail of a failure (which is stored as well).
    """
    import cv2

    cv2.setNumThreads(1)
    path = Path(job["path"])
    result: Measurement | Failure
    try:
        _refuse_changed(path, job["size_bytes"])
        result = measure(path, job["modality"], ExtractConfig.model_validate(job["config"]))
    except MediaError as error:
        if error.code == "changed":  # says nothing about the bytes that the store is asked for
            return [error.code, error.detail]
        result = Failure(error.code, error.detail)
    save_result(Path(job["out"]), result)
    return [result.code, result.detail] if isinstance(result, Failure) else None


def _refuse_changed(path: Path, size_bytes: int) -> None:
    try:
        found = path.stat().st_size
    except OSError as error:
        raise MediaError("changed", f"cannot be read any more ({error.strerror})") from error
    if found != size_bytes:
        raise MediaError("changed", f"had {size_bytes} bytes in ingest and has {found} now; run ingest again")


def _refuse_remote(rows: Sequence[dict[str, Any]]) -> None:
    remote = [row["uri"] for row in rows if row["status"] == "ok" and "://" in row["uri"]]
    if remote:
        raise InputError(
            f"{len(remote)} samples are not on this machine (the first is {remote[0]}).",
            "Copy them to a folder and ingest that.",
        )


@contextmanager
def _store(store: Path | None, config: ExtractConfig, out: Path) -> Iterator[FeatureStore]:
    if store is not None:
        yield FeatureStore(store, config)
        return
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".extract-", dir=out.parent) as folder:
        yield FeatureStore(Path(folder), config)


def _measure_all(
    rows: Sequence[dict[str, Any]], config: ExtractConfig, store: FeatureStore
) -> tuple[list[_Sample], int]:
    """Measure what is not in the store yet.

    Returns:
        One sample a row, and how many were in the store.
    """
    wanted = [row for row in rows if row["status"] == "ok"]
    missing: dict[tuple[str, str], dict[str, Any]] = {}
    n_reused = 0
    for row in wanted:
        key = (row["sha256"], row["modality"])
        if key not in missing and store.load(*key) is not None:
            n_reused += 1
        else:
            missing[key] = row
    if n_reused:
        logger.info("extract: %d of %d samples are in the store", n_reused, len(wanted))
    lost = _run_jobs(missing, len(wanted), config, store)
    return [_settle(row, lost, store) for row in rows], n_reused


def _run_jobs(
    missing: dict[tuple[str, str], dict[str, Any]], n_wanted: int, config: ExtractConfig, store: FeatureStore
) -> dict[tuple[str, str], Failure]:
    """Measure files in worker processes.

    Returns:
        Failures that the store does not hold: crashed, timed out, changed.
    """
    keys = list(missing)
    jobs = [
        {
            "path": missing[key]["uri"],
            "modality": missing[key]["modality"],
            "size_bytes": missing[key]["size_bytes"],
            "config": config.model_dump(mode="json"),
            "out": str(store.path(*key)),
        }
        for key in keys
    ]
    lost: dict[tuple[str, str], Failure] = {}
    n_failed = 0
    with WorkerPool(JOB, config.workers, config.timeout_s) as pool:
        for answer in track(pool.run(jobs), len(jobs), "extract", "files"):
            key = keys[answer.index]
            if answer.error is None and answer.value is None:
                continue
            failure = Failure(answer.error, answer.detail) if answer.error else Failure(*answer.value)
            logger.warning("extract: %s failed: %s", missing[key]["uri"], failure)
            lost[key] = failure
            n_failed += 1
            if n_failed > config.max_failed_share * n_wanted and n_failed >= 10:
                break  # hopeless: the caller says so
    return lost


def _settle(row: dict[str, Any], lost: dict[tuple[str, str], Failure], store: FeatureStore) -> _Sample:
    if row["status"] != "ok":
        code, _, detail = (row["reason"] or "failed").partition(": ")
        return _Sample(row, Failure(code, detail))
    key = (row["sha256"], row["modality"])
    if key in lost:
        return _Sample(row, lost[key])
    result = store.load(*key)
    if result is None:
        return _Sample(row, Failure("crashed", "the worker left no result"))
    return _Sample(row, result if isinstance(result, Failure) else None)


def _refuse_too_many_failures(
    samples: Sequence[_Sample], rows: Sequence[dict[str, Any]], config: ExtractConfig
) -> None:
    wanted = [sample for sample in samples if sample.row["status"] == "ok"]
    failed = [sample for sample in wanted if sample.failure is not None]
    if not wanted:
        raise InputError(f"None of {len(rows)} samples passed ingest.", "See the column reason of samples.parquet.")
    if len(failed) <= config.max_failed_share * len(wanted):
        return
    counts = Counter(sample.failure.code for sample in failed if sample.failure)
    first = failed[0]
    raise InputError(
        f"{len(failed)} of {len(wanted)} samples failed ({_listing(counts)}), more than the limit of "
        f"{config.max_failed_share:.0%}; the first is {first.row['uri']}: {first.failure}.",
        "Mend or remove those files, or raise extract.max_failed_share.",
    )


def _listing(counts: Counter[str] | dict[str, int]) -> str:
    return ", ".join(f"{code} {count}" for code, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _measurement(sample: _Sample, store: FeatureStore) -> Measurement | None:
    if not sample.ok:
        return None
    result = store.load(sample.row["sha256"], sample.row["modality"])
    return result if isinstance(result, Measurement) else None


def _write_faces(out: Path, samples: Iterable[_Sample], store: FeatureStore) -> int:
    """Write the crops in parts, in the order of the samples; only one part is held in memory."""
    written, pending = 0, list[dict[str, Any]]()
    with new_directory(out) as folder:
        for sample in samples:
            measurement = _measurement(sample, store)
            if measurement is not None:
                pending += _face_rows(sample, measurement)
            while len(pending) >= PART_ROWS:
                written = _write_part(folder, pending[:PART_ROWS], written)
                pending = pending[PART_ROWS:]
        if pending or not written:
            written = _write_part(folder, pending, written)
    return written


def _write_part(folder: Path, rows: list[dict[str, Any]], written: int) -> int:
    table = pa.Table.from_pylist(rows, schema=FACES.arrow_schema())
    write_table(folder / f"part-{written // PART_ROWS:05d}.parquet", table, FACES)
    return written + len(rows)


def _face_rows(sample: _Sample, measurement: Measurement) -> list[dict[str, Any]]:
    identity = {name: sample.row[name] for name in ("sample_id", "label", "group_id", "split")}
    return [identity | crop.__dict__ for crop in measurement.crops]


def _write_features(
    out: Path, samples: Sequence[_Sample], store: FeatureStore, version: str, n_reused: int, n_crops: int
) -> ExtractionInfo:
    rows = [_feature_row(sample, _measurement(sample, store)) for sample in samples]
    frame = pd.DataFrame(rows).assign(modality=[sample.row["modality"] for sample in samples])
    failed = Counter(sample.failure.code for sample in samples if sample.failure)
    info = ExtractionInfo(
        extractor_version=EXTRACTOR_VERSION,
        dataset_version=version,
        n_ok=sum(sample.ok for sample in samples),
        n_failed=sum(not sample.ok for sample in samples),
        n_reused=n_reused,
        failed=dict(sorted(failed.items())),
        n_crops=n_crops,
        health=feature_health(frame),
    )
    with new_directory(out) as folder:
        table = pa.Table.from_pylist(rows, schema=FEATURES.arrow_schema(list(CATALOGUE)))
        write_table(folder / "features.parquet", table, FEATURES)
        info.save(folder / "extraction.json")
    return info


def _feature_row(sample: _Sample, measurement: Measurement | None) -> dict[str, Any]:
    row = {name: sample.row[name] for name in ("sample_id", "label", "group_id", "split")}
    row |= {
        "status": "ok" if measurement else "failed",
        "reason": None if measurement else str(sample.failure),
        "n_frames_expected": measurement.n_frames_expected if measurement else None,
        "n_frames_decoded": measurement.n_frames_decoded if measurement else None,
        "face_share": measurement.face_share if measurement else None,
        "n_crops": len(measurement.crops) if measurement else 0,
        "extractor_version": EXTRACTOR_VERSION,
        "null_reasons": list(measurement.null_reasons.items()) if measurement else [],
    }
    return row | (measurement.features if measurement else dict.fromkeys(CATALOGUE))


def _outcome(info: ExtractionInfo) -> StageOutcome:
    metrics = {
        "samples_ok": float(info.n_ok),
        "samples_failed": float(info.n_failed),
        "samples_reused": float(info.n_reused),
        "crops": float(info.n_crops),
    }
    messages = [f"{info.n_ok} samples measured ({info.n_reused} taken from the store), {info.n_crops} face crops."]
    if info.failed:
        messages.append(f"{info.n_failed} samples failed: {_listing(info.failed)}.")
    for health in info.health:
        if health.level != "ok":
            messages += [f"{health.name} ({health.level}): {problem}" for problem in health.problems]
    return StageOutcome(metrics=metrics, messages=tuple(messages))
