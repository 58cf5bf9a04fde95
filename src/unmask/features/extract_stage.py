"""`unmask extract`: features, face crops and windows of sound of every sample, in parallel, resumable by content."""

from __future__ import annotations

import logging
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from unmask.config import ExtractConfig
from unmask.errors import MediaError
from unmask.features.fetching import Fetcher
from unmask.features.measure import Measurement, measure
from unmask.features.naturalness import model_file
from unmask.features.results import (
    Row,
    crop_rows,
    feature_row,
    outcome_of,
    refuse_critical,
    refuse_many_failures,
    window_rows,
    write_faces,
    write_features,
)
from unmask.features.store import Failure, FeatureStore, save_result
from unmask.features.subset import few_of_each
from unmask.media.faces import MODEL_SHA256, model_path
from unmask.media.pool import WorkerPool
from unmask.media.worker import still_alive
from unmask.objects import FolderStore, LocalMedia, MediaFiles, ObjectStore
from unmask.progress import track
from unmask.schemas import SAMPLES, DatasetInfo, Shard, StageOutcome, read_table

logger = logging.getLogger(__name__)

JOB = "unmask.features.extract_stage:extract_one"
MAX_MORE_CROPS = 4  # times; of the rarer class, if asked
Key = tuple[str, str]


def run_extract(
    dataset: Path,
    out_faces: Path,
    out_features: Path,
    config: ExtractConfig,
    store: ObjectStore | None = None,
    media: MediaFiles | None = None,
    *,
    limit: int | None = None,
    shard: Shard | None = None,
    resume: bool = True,
) -> StageOutcome:
    """Measure the samples of a data set.

    Args:
        dataset: Folder that `unmask ingest` wrote.
        out_faces: Folder for the crops, ``part-*.parquet`` (table ``faces``), and for the sound,
            ``windows/part-*.parquet`` (table ``windows``).
        out_features: Folder for ``features.parquet``, ``extraction.json`` and ``health.html``.
        config: How to measure, and when to stop.
        store: The feature store. What lies there for the same bytes, extractor and settings is not measured again,
            so a killed run loses only the samples in hand. None keeps nothing.
        media: Gives the files; None is for files on this machine.
        limit: Measure only so many samples, evenly from splits and classes; None is all.
        shard: Measure only this part of the data set, to be merged with the others later.
        resume: Whether to believe what lies in the store; else everything is measured again and replaced there.

    Returns:
        Counts for the log and for tracking.

    Raises:
        InputError: Too many samples fail, a feature is unusable without a reason in the material, a sample is not on
            this machine, or the networks are not installed.
        ContractError: The data set is missing or broken.
        StorageError: The feature store does not answer.
    """
    for name in MODEL_SHA256:
        model_path(name)
    model_file()
    everything = read_table(dataset / "samples.parquet", SAMPLES).to_pylist()
    version = DatasetInfo.load(dataset / "dataset.json").version
    samples = [row for row in everything if shard is None or shard.holds(row)]
    samples = samples if limit is None else few_of_each(samples, limit)
    with _stores(store, config, everything, out_features) as stores:
        fetcher = Fetcher(media or LocalMedia())
        rows, n_reused = _measure_all(samples, config, stores, fetcher, resume)
        if shard is None:
            refuse_many_failures(rows, samples, config)
        write_faces(out_faces, _crops(rows, samples, stores))
        info = write_features(out_features, rows, [row["modality"] for row in samples], version, n_reused)
    if shard is None:
        refuse_critical(info.health, config)
    return outcome_of(info)


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
        config = ExtractConfig.model_validate(job["config"])
        result = measure(path, job["modality"], config, watch=lambda _seen, _expected: still_alive())
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


class _Stores:
    """The feature store, seen with the settings that fit each sample.

    Args:
        store: Where results lie.
        config: Settings of extraction.
        samples: The whole data set; tells which class is the rarer one in training.
        scratch: Folder for copies of objects.
    """

    def __init__(self, store: ObjectStore, config: ExtractConfig, samples: Sequence[Row], scratch: Path) -> None:
        self._usual = config
        self._rare, factor = _rare_class(samples) if config.more_crops_of_rare_class else (None, 1.0)
        n_crops = min(round(config.crops_per_video * factor), 1000)
        self._more = config.model_copy(update={"crops_per_video": n_crops})
        self._places = {c.crops_per_video: FeatureStore(store, c, scratch) for c in (self._usual, self._more)}

    def config(self, row: Row) -> ExtractConfig:
        """Settings for a sample."""
        rare = self._rare is not None and row["split"] == "train" and row["label"] == self._rare
        return self._more if rare else self._usual

    def of(self, row: Row) -> FeatureStore:
        """Where the result of a sample lies."""
        return self._places[self.config(row).crops_per_video]

    def load(self, row: Row) -> Measurement | Failure | None:
        """Read the result of a sample, if there is one."""
        return self.of(row).load(row["sha256"], row["modality"])


def _rare_class(samples: Sequence[Row]) -> tuple[int | None, float]:
    """Label of the class with fewer training videos, and how many times fewer, up to a limit."""
    counts = Counter(row["label"] for row in samples if row["split"] == "train" and row["modality"] == "video")
    if not counts[0] or not counts[1] or counts[0] == counts[1]:
        return None, 1.0
    rare = 0 if counts[0] < counts[1] else 1
    return rare, min(counts[1 - rare] / counts[rare], MAX_MORE_CROPS)


@contextmanager
def _stores(store: ObjectStore | None, config: ExtractConfig, samples: Sequence[Row], out: Path) -> Iterator[_Stores]:
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".extract-", dir=out.parent) as folder:
        yield _Stores(store or FolderStore(Path(folder)), config, samples, Path(folder))


def _measure_all(
    samples: Sequence[Row], config: ExtractConfig, stores: _Stores, fetcher: Fetcher, resume: bool
) -> tuple[list[Row], int]:
    """Measure what is not in the store yet.

    Returns:
        One row of the table ``features`` a sample, and how many samples were in the store.
    """
    wanted = [row for row in samples if row["status"] == "ok"]
    missing: dict[Key, Row] = {}
    n_reused = 0
    for row in wanted:
        if resume and _key(row) not in missing and stores.load(row) is not None:
            n_reused += 1
        else:
            missing[_key(row)] = row
    if n_reused:
        logger.info("extract: %d of %d samples are in the store", n_reused, len(wanted))
    lost = _run_jobs(list(missing.values()), len(wanted), config, stores, fetcher)
    return [_settle(row, lost, stores) for row in samples], n_reused


def _key(row: Row) -> Key:
    return row["sha256"], row["modality"]


def _run_jobs(
    missing: Sequence[Row], n_wanted: int, config: ExtractConfig, stores: _Stores, fetcher: Fetcher
) -> dict[Key, Failure]:
    """Measure files in worker processes; remote ones are fetched ahead.

    Returns:
        Failures that the store does not hold: crashed, timed out, changed, not fetched.
    """
    lost: dict[Key, Failure] = {}
    n_failed = 0
    with WorkerPool(JOB, config.workers, config.timeout_s) as pool, fetcher.ahead(missing, 2 * pool.size) as files:
        jobs = (_job(row, path, stores) for row, path in files)
        for answer in track(pool.run(jobs), len(missing), "extract", "files"):
            row = missing[answer.index]
            unfetched = files.release(answer.index)
            stores.of(row).keep(*_key(row))
            failure = unfetched or (Failure(answer.error, answer.detail) if answer.error else None)
            if failure is None and answer.value is None:
                continue
            failure = failure or Failure(*answer.value)
            logger.warning("extract: %s failed: %s", row["uri"], failure)
            lost[_key(row)] = failure
            n_failed += 1
            if n_failed > config.max_failed_share * n_wanted and n_failed >= 10:
                break  # hopeless: the caller says so
    return lost


def _job(row: Row, path: Path, stores: _Stores) -> dict[str, Any]:
    return {
        "path": str(path),
        "modality": row["modality"],
        "size_bytes": row["size_bytes"],
        "config": stores.config(row).model_dump(mode="json"),
        "out": str(stores.of(row).path(*_key(row))),
    }


def _settle(row: Row, lost: dict[Key, Failure], stores: _Stores) -> Row:
    if row["status"] != "ok":
        code, _, detail = (row["reason"] or "failed").partition(": ")
        return feature_row(row, Failure(code, detail), None)
    result = lost.get(_key(row)) or stores.load(row) or Failure("crashed", "the worker left no result")
    return feature_row(row, result, None) if isinstance(result, Failure) else feature_row(row, None, result)


def _crops(rows: Sequence[Row], samples: Sequence[Row], stores: _Stores) -> Iterator[Row]:
    """Rows of the tables ``faces`` and ``windows``, in the order of the samples; one sample is held in memory."""
    for row, sample in zip(rows, samples, strict=True):
        result = stores.load(sample) if row["n_crops"] or row["n_windows"] else None
        if isinstance(result, Measurement):
            yield from crop_rows(sample, result)
            yield from window_rows(sample, result)
            stores.of(sample).forget(*_key(sample))
