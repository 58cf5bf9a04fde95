"""Inspection shared by several machines: each looks into one shard of the files, and `ingest` takes what they found.

Only what needs the bytes is done in shards: hash, probe and marks. Groups, near-duplicates and splits need all files at
once and cost little, so they are left to the one `ingest` that follows; its result is the same as without shards.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from unmask.config import IngestConfig
from unmask.data.findings import SHOWN, in_words
from unmask.data.inspection import (
    PROBE_VERSION,
    Inspection,
    inspect_files,
    inspection_of,
    recall,
    remembered_key,
)
from unmask.data.listing import list_sources
from unmask.data.media_store import keep_media
from unmask.data.sources import Source, SourceFile
from unmask.data.unfinished import INSPECTED, Unfinished, inspected_table
from unmask.errors import InputError
from unmask.objects import LocalMedia, MediaFiles, ObjectStore
from unmask.schemas import Document, Shard, StageOutcome, new_directory, read_table, write_table

PART_FILE = "inspected.parquet"
PART_INDEX = "part.json"
AGAIN = "Run `unmask inspect` anew for every shard 1/n to n/n, with the sources and settings of this ingest."


class PartIndex(Document):
    """``part.json``: which part of what was looked at, and how.

    Attributes:
        probe_version: Of the probe that filled the table.
        shard: From 1 to ``shards``.
        shards: How many parts there are.
        places: Source name to where it lay.
    """

    probe_version: int
    shard: int
    shards: int
    places: dict[str, str]


def run_inspect(
    sources: Sequence[Source],
    out: Path,
    config: IngestConfig,
    shard: Shard,
    store: ObjectStore | None = None,
    *,
    media: MediaFiles | None = None,
    media_store: ObjectStore | None = None,
) -> StageOutcome:
    """Look into one part of the files of some sources.

    Writes ``inspected.parquet`` (one row a file of the part, also for what cannot be read) and ``part.json``.

    Args:
        sources: Media with labels; the same for each part.
        out: Folder to write.
        config: Of `unmask ingest`.
        shard: Which files: by the hash of source and path, so that it does not depend on what else is there.
        store: Holds the latest result of these sources; files that are unchanged since are not read again.
        media: Gives the bytes of the sources as files; files on this machine when left out.
        media_store: Where the bytes of usable files of this part end, each once under its hash.

    Returns:
        Counts.

    Raises:
        InputError: No labelled media lie in a source.
        StorageError: A store cannot be reached.
    """
    media = media or LocalMedia()
    files = [file for file in list_sources(sources, config.layouts).files if shard.has(file.sample_id)]
    places = {source.name: source.files.uri for source in sources}
    earlier = recall(store, remembered_key(sources)) if store else None
    unfinished = Unfinished(store, sources, out)
    inspections, read_now = inspect_files(
        files, places, config, media, earlier, unfinished.found(files), unfinished.keep
    )
    keep_media(files, inspections, media, media_store)
    index = PartIndex(probe_version=PROBE_VERSION, shard=shard.number, shards=shard.of, places=places)
    with new_directory(out) as folder:
        write_table(folder / PART_FILE, inspected_table(files, inspections), INSPECTED)
        index.save(folder / PART_INDEX)
    unfinished.forget()
    failed = Counter(found.reason.split(":", 1)[0] for found in inspections if found.reason)
    counts = {"files": len(files), "read": len(read_now), "failed": failed.total()}
    message = f"Shard {shard}: {len(files)} files, {len(read_now)} of them read now."
    if failed:
        message += f" {failed.total()} cannot be used: {in_words(failed)}."
    return StageOutcome(metrics={name: float(value) for name, value in counts.items()}, messages=(message,))


def read_parts(
    folders: Sequence[Path], places: Mapping[str, str], files: Sequence[SourceFile]
) -> dict[str, Inspection]:
    """Read what was found in all parts.

    Args:
        folders: That `unmask inspect` wrote, one for each shard, in any order.
        places: Source name to where it lies.
        files: That are there now.

    Returns:
        Sample id to what was found in the file, before it is held against limits.

    Raises:
        InputError: A part is missing or double, the parts were made from other sources or by another version, or the
            files are other ones now.
        ContractError: A folder is missing or broken.
    """
    indices = [PartIndex.load(folder / PART_INDEX) for folder in folders]
    _refuse_strangers(folders, indices, places)
    _refuse_gaps(folders, indices)
    now = {file.sample_id: (file.size_bytes, file.version) for file in files}
    found: dict[str, Inspection] = {}
    then: dict[str, tuple[int, str]] = {}
    for folder in folders:
        for row in read_table(folder / PART_FILE, INSPECTED).to_pylist():
            then[row["sample_id"]] = row["size_bytes"], row["version"]
            found[row["sample_id"]] = inspection_of(row, row)
    _refuse_changes(now, then)
    return found


def _refuse_strangers(folders: Sequence[Path], indices: Sequence[PartIndex], places: Mapping[str, str]) -> None:
    for folder, index in zip(folders, indices, strict=True):
        if index.probe_version != PROBE_VERSION:
            raise InputError(
                f"{folder} was made by version {index.probe_version} of the probe; this is version {PROBE_VERSION}.",
                AGAIN,
            )
        if index.places != dict(places):
            raise InputError(f"{folder} was made from {_listed(index.places)}, not from {_listed(places)}.", AGAIN)


def _listed(places: Mapping[str, str]) -> str:
    return ", ".join(f"{name}={place}" for name, place in sorted(places.items()))


def _refuse_gaps(folders: Sequence[Path], indices: Sequence[PartIndex]) -> None:
    divisions = sorted({index.shards for index in indices})
    if len(divisions) > 1:
        raise InputError(f"The parts are of unlike divisions: 1/n with n = {', '.join(map(str, divisions))}.", AGAIN)
    (n,) = divisions
    times = Counter(index.shard for index in indices)
    double = [f"{Shard(number, n)} ({count} times)" for number, count in sorted(times.items()) if count > 1]
    missing = [str(Shard(number, n)) for number in range(1, n + 1) if number not in times]
    if not double and not missing:
        return
    problems = [f"{len(missing)} of {n} shards are missing: {_some(missing)}"] if missing else []
    problems += [f"{len(double)} of {n} shards are given more than once: {_some(double)}"] if double else []
    raise InputError(f"{len(folders)} parts were given. {'; '.join(problems)}.", "Give each shard 1/n to n/n once.")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _refuse_changes(now: Mapping[str, tuple[int, str]], then: Mapping[str, tuple[int, str]]) -> None:
    new, gone = now.keys() - then.keys(), then.keys() - now.keys()
    changed = sum(then[sample_id] != state for sample_id, state in now.items() if sample_id in then)
    if new or gone or changed:
        raise InputError(
            f"The sources are not as they were inspected: of {len(now)} files, {len(new)} are in no part and {changed} "
            f"changed since; {len(gone)} inspected ones are not listed any more.",
            AGAIN,
        )
