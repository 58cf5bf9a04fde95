"""`unmask merge-extract`: the shards of an extraction become what one run over everything would have written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from unmask.config import ExtractConfig
from unmask.errors import InputError
from unmask.features.results import (
    Row,
    outcome_of,
    refuse_critical,
    refuse_many_failures,
    write_faces,
    write_features,
)
from unmask.schemas import (
    FEATURES,
    SAMPLES,
    WINDOWS_FOLDER,
    DatasetInfo,
    ExtractionInfo,
    StageOutcome,
    read_table,
)

BATCH_ROWS = 256


def run_merge(
    dataset: Path,
    faces: Sequence[Path],
    features: Sequence[Path],
    out_faces: Path,
    out_features: Path,
    config: ExtractConfig,
) -> StageOutcome:
    """Merge the shards of an extraction.

    Args:
        dataset: Folder that `unmask ingest` wrote; gives the order of the rows.
        faces: Crops of each shard.
        features: Features of each shard, in the same order.
        out_faces: Folder for the crops.
        out_features: Folder for the features.
        config: When to stop.

    Returns:
        Counts for the log and for tracking.

    Raises:
        InputError: A sample is in no shard or in several, the shards are of another data set or extractor, or too many
            samples failed.
        ContractError: A folder is missing or broken.
    """
    if not features or len(faces) != len(features):
        raise InputError(
            f"{len(faces)} folders of faces and {len(features)} of features were given.", "Give both of every shard."
        )
    samples = read_table(dataset / "samples.parquet", SAMPLES).to_pylist()
    version = DatasetInfo.load(dataset / "dataset.json").version
    infos = [ExtractionInfo.load(folder / "extraction.json") for folder in features]
    _refuse_strangers(infos, version)
    tables = [read_table(folder / "features.parquet", FEATURES).to_pylist() for folder in features]
    place = _places(tables)
    _refuse_gaps(place, samples)
    rows = [_tidied(tables[place[sample["sample_id"]][0]][place[sample["sample_id"]][1]]) for sample in samples]
    refuse_many_failures(rows, samples, config)
    write_faces(out_faces, _crops(rows, faces, {name: shard for name, (shard, _) in place.items()}))
    n_reused = sum(info.n_reused for info in infos)
    info = write_features(out_features, rows, [row["modality"] for row in samples], version, n_reused)
    refuse_critical(info.health, config)
    return outcome_of(info)


def _refuse_strangers(infos: Sequence[ExtractionInfo], version: str) -> None:
    if any(info.dataset_version != version for info in infos):
        raise InputError("A shard was made from another data set.", "Run extract on every shard of this data set.")
    if len({info.extractor_version for info in infos}) > 1:
        raise InputError("The shards come from unlike extractors.", "Run extract on every shard with one version.")


def _places(tables: Sequence[list[Row]]) -> dict[str, tuple[int, int]]:
    """Sample to shard and row."""
    place: dict[str, tuple[int, int]] = {}
    for shard, table in enumerate(tables):
        for number, row in enumerate(table):
            if row["sample_id"] in place:
                raise InputError(f"Sample {row['sample_id']} is in two shards.", "Give each shard i/n once.")
            place[row["sample_id"]] = shard, number
    return place


def _refuse_gaps(place: Mapping[str, object], samples: Sequence[Row]) -> None:
    absent = [sample["sample_id"] for sample in samples if sample["sample_id"] not in place]
    if absent or len(place) > len(samples):
        raise InputError(
            f"{len(absent)} of {len(samples)} samples are in no shard, and "
            f"{len(place) + len(absent) - len(samples)} rows are of no sample.",
            "Give every shard 1/n to n/n of this data set.",
        )


def _tidied(row: Row) -> Row:
    """A row as it was before it was written: Parquet gives maps as lists of pairs."""
    return row | {"null_reasons": list(dict(row["null_reasons"] or ()).items())}


def _crops(rows: Sequence[Row], faces: Sequence[Path], shard_of: Mapping[str, int]) -> Iterator[Row]:
    """Rows of ``faces`` and ``windows`` in the order of the samples; each shard has its own in that order already."""
    crops = [_stream(folder) for folder in faces]
    windows = [_stream(folder / WINDOWS_FOLDER) for folder in faces]
    for row in rows:
        shard = shard_of[row["sample_id"]]
        yield from _next_of(row["sample_id"], crops[shard], row["n_crops"])
        yield from _next_of(row["sample_id"], windows[shard], row["n_windows"] or 0)


def _next_of(sample_id: str, stream: Iterator[Row], n: int) -> Iterator[Row]:
    """Take the rows of a sample from a stream that must have them next."""
    for _ in range(n):
        row = next(stream, None)
        if row is None or row["sample_id"] != sample_id:
            raise InputError(
                f"The crops or sounds of {sample_id} do not fit its features.", "Run extract on that shard again."
            )
        yield row


def _stream(folder: Path) -> Iterator[dict[str, Any]]:
    for part in sorted(folder.glob("part-*.parquet")):
        with pq.ParquetFile(part) as file:
            for batch in file.iter_batches(BATCH_ROWS):
                yield from batch.to_pylist()
