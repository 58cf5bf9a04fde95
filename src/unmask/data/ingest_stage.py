"""The stage `ingest`: folders of media become a checked table of samples with groups and splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from unmask.config import IngestConfig
from unmask.data.audit import audit_metadata, audit_sources
from unmask.data.balance import LABEL_NAMES, balance_of
from unmask.data.conventions import identity_keys
from unmask.data.findings import SHOWN, in_words, warnings_about
from unmask.data.groups import group_samples
from unmask.data.inspected_parts import read_parts
from unmask.data.inspection import (
    FILES,
    FILES_FILE,
    INDEX_FILE,
    ORIGINAL_FILE,
    PAIRS,
    PAIRS_FILE,
    PROBE_VERSION,
    SAMPLES_FILE,
    Earlier,
    IngestIndex,
    Inspection,
    files_table,
    inspect_files,
    read_earlier,
    recall,
    remember,
    remembered_key,
)
from unmask.data.likeness import Likeness, likeness_of, pairs_table
from unmask.data.listing import list_sources
from unmask.data.media_store import keep_media
from unmask.data.normalise import normalise
from unmask.data.sources import Listing, Source, SourceFile
from unmask.data.splits import SplitResult, assign_splits
from unmask.data.summary import summary
from unmask.data.unfinished import Unfinished
from unmask.errors import InputError
from unmask.objects import LocalMedia, MediaFiles, ObjectStore
from unmask.schemas import (
    SAMPLES,
    DatasetInfo,
    StageOutcome,
    new_directory,
    sha256_json,
    write_table,
)
from unmask.schemas.tables import SPLITS

SUMMARY_FILE = "summary.md"


def run_ingest(
    sources: Sequence[Source],
    out: Path,
    config: IngestConfig,
    seed: int,
    store: ObjectStore | None = None,
    *,
    media: MediaFiles | None = None,
    media_store: ObjectStore | None = None,
    normalised: ObjectStore | None = None,
    parts: Sequence[Path] = (),
) -> StageOutcome:
    """Find, check, group and split media.

    Writes ``samples.parquet`` (one row a file, unusable ones with a reason), ``dataset.json``, ``summary.md``,
    ``near_duplicates.parquet``, and ``files.parquet`` and ``ingest.json`` (what the next run needs to read only new
    files). If ``out`` holds an earlier result, unchanged files are not read again, and samples keep their split as long
    as seed and fractions are the same.

    Args:
        sources: Media with labels.
        out: Folder to write.
        config: Of this stage.
        seed: Of splits and audit.
        store: Keeps the latest result of these sources between runs, so that one run builds on the other even when
            each has its own ``out``, as pipeline runs have.
        media: Gives the bytes of the sources as files; files on this machine when left out.
        media_store: Where the bytes of usable files end, each once under its hash; the table then refers to these.
            They stay where they are when left out.
        normalised: Where usable files go in one common format, if they are to be normalised; the table then describes
            and refers to these, with the groups and splits of the originals.
        parts: Folders that `unmask inspect` wrote, one for each shard: what is in the files is taken from them, and
            no file is opened to inspect it. The result is the same.

    Returns:
        Counts, the AUC of the metadata audit, and sentences for the user.

    Raises:
        InputError: The sources cannot be split: empty, one class only, too many failed files, too few groups. Or the
            parts do not fit together or to the sources.
        StorageError: A store cannot be reached.
    """
    media = media or LocalMedia()
    listing = list_sources(sources, config.layouts)
    places = {source.name: source.files.uri for source in sources}
    previous = (recall(store, remembered_key(sources)) if store else None) or read_earlier(out)
    unfinished = Unfinished(store, sources, out)
    elsewhere = read_parts(parts, places, listing.files) if parts else unfinished.found(listing.files)
    inspections, read_now = inspect_files(listing.files, places, config, media, previous, elsewhere, unfinished.keep)
    _check_failures(listing.files, inspections, config.max_failed_share)
    likeness = (
        likeness_of(listing.files, inspections, read_now, previous) if config.near_duplicates else Likeness([], [])
    )
    kept = None if normalised else media_store
    uris = keep_media(listing.files, inspections, media, kept)
    frame = _rows(listing.files, inspections, uris, likeness, config)
    result = _split(frame, listing, config, seed, previous)
    info = _describe(frame, places, listing, likeness, config, seed, result)
    index = IngestIndex(
        probe_version=PROBE_VERSION,
        seed=seed,
        fractions=config.fractions,
        places=places,
        near_duplicates=config.near_duplicates,
    )
    original, before, formats = frame, info, None
    if normalised:
        files, found, formats = normalise(listing.files, inspections, media, normalised)
        frame = _rows(files, found, [file.uri for file in files], likeness, config)
        frame["group_id"] = original["group_id"]
        frame["split"] = original["split"].where(frame["status"] == "ok", None)
        info = _describe(frame, places, listing, likeness, config, seed, result)
    with new_directory(out) as folder:
        write_table(folder / SAMPLES_FILE, _table(frame), SAMPLES)
        if formats:
            write_table(folder / ORIGINAL_FILE, _table(original), SAMPLES)
            formats.save(folder / "normalised.json")
        write_table(folder / FILES_FILE, files_table(listing.files, inspections), FILES)
        write_table(folder / PAIRS_FILE, pairs_table(listing.files, likeness.pairs), PAIRS)
        info.save(folder / "dataset.json")
        (folder / SUMMARY_FILE).write_text(summary(info, frame), encoding="utf-8")
        index.save(folder / INDEX_FILE)
    if store:
        remember(out, store, remembered_key(sources))
    unfinished.forget()
    outcome = _outcome(frame, info, listing)
    if formats is None:
        return outcome
    note = f"Files were brought to one format; before that, metadata alone reached AUC {before.metadata_audit_auc}."
    return replace(outcome, messages=(*outcome.messages, note))


def _split(
    frame: pd.DataFrame, listing: Listing, config: IngestConfig, seed: int, previous: Earlier | None
) -> SplitResult:
    """Fill the column ``split``."""
    usable = frame[frame["status"] == "ok"]
    _check_classes(usable, frame)
    kept = previous.splits(seed, config.fractions) if previous else {}
    honour = config.official_splits == "honour"
    official = {f.sample_id: f.official_split for f in listing.files if f.official_split} if honour else {}
    result = assign_splits(usable, config.fractions, seed, kept, official)
    frame["split"] = frame["group_id"].map(result.split).where(frame["status"] == "ok", None)
    return result


def _check_failures(files: Sequence[SourceFile], inspections: Sequence[Inspection], limit: float) -> None:
    failed = [(file, i.reason) for file, i in zip(files, inspections, strict=True) if i.reason]
    if len(failed) <= limit * len(files):
        return
    codes = Counter(reason.split(":", 1)[0] for _, reason in failed)
    examples = "; ".join(f"{file.relative} ({reason})" for file, reason in failed[:SHOWN])
    raise InputError(
        f"{len(failed)} of {len(files)} files cannot be used, more than the allowed share of {limit:g}: "
        f"{in_words(codes)}. For example {examples}.",
        "Mend or remove them; limits are ingest.min_duration_s, ingest.min_fps and ingest.max_failed_share.",
    )


def _rows(
    files: Sequence[SourceFile],
    inspections: Sequence[Inspection],
    uris: Sequence[str],
    likeness: Likeness,
    config: IngestConfig,
) -> pd.DataFrame:
    """Build the samples table without splits; grouping is by name for all files, by content for usable ones."""
    keys = identity_keys(files, config.relate)
    content = [None if i.reason else i.sha256 for i in inspections]
    alike = ((pair.first, pair.second) for pair in likeness.joined)
    groups = group_samples([keys[file.sample_id] for file in files], content, alike)
    columns: dict[str, list[Any]] = {column.name: [] for column in SAMPLES.columns}
    for file, inspection, uri, group in zip(files, inspections, uris, groups, strict=True):
        row: dict[str, Any] = {
            "sample_id": file.sample_id,
            "uri": uri,
            "label": file.label,
            "source": f"{file.source}/{file.part}" if file.part else file.source,
            "manipulation": file.manipulation,
            "compression": file.compression,
            "group_id": group,
            "sha256": inspection.sha256,
            "size_bytes": file.size_bytes,
            "status": "failed" if inspection.reason else "ok",
            "reason": inspection.reason,
            "peak_dbfs": inspection.peak_dbfs,
            **(inspection.facts.columns() if inspection.facts else {}),
        }
        for name, values in columns.items():
            values.append(row.get(name))
    return pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()})


def _table(frame: pd.DataFrame) -> pa.Table:
    fields = [pa.array(frame[c.name], c.type, from_pandas=True) for c in SAMPLES.columns]
    return pa.table(fields, names=[c.name for c in SAMPLES.columns])


def _check_classes(usable: pd.DataFrame, frame: pd.DataFrame) -> None:
    counts = usable["label"].value_counts()
    lacking = [name for label, name in LABEL_NAMES.items() if not counts.get(label, 0)]
    if not lacking:
        return
    found = ", ".join(
        f"{int((frame['label'] == label).sum())} files in {name}/ of which {int(counts.get(label, 0))} are usable"
        for label, name in LABEL_NAMES.items()
    )
    reasons = Counter(str(reason).split(":", 1)[0] for reason in frame["reason"].dropna())
    raise InputError(
        f"No usable {' and no usable '.join(lacking)} media: {found}"
        + (f" (failed: {in_words(reasons)})." if reasons else "."),
        f"A detector learns from both classes: put {' and '.join(lacking)} media into "
        f"{' and '.join(f'{name}/' for name in lacking)} below a source folder.",
    )


def _describe(
    frame: pd.DataFrame,
    places: dict[str, str],
    listing: Listing,
    likeness: Likeness,
    config: IngestConfig,
    seed: int,
    result: SplitResult,
) -> DatasetInfo:
    usable = frame[frame["status"] == "ok"]
    rng = np.random.default_rng(seed)
    audit = audit_metadata(usable, config.metadata_auc_limit, rng)
    by_source = audit_sources(usable, audit, config.metadata_auc_limit, rng)
    warnings = warnings_about(usable, listing, result, config.official_splits, likeness)
    counts = {}
    for split in SPLITS:
        labels = usable.loc[usable["split"] == split, "label"]
        counts[split] = {name: int((labels == label).sum()) for label, name in LABEL_NAMES.items()}
        counts[split]["unknown"] = int(labels.isna().sum())
    failed = Counter(reason.split(":", 1)[0] for reason in frame["reason"].dropna())
    across = sum(listing.files[pair.first].label != listing.files[pair.second].label for pair in likeness.pairs)
    sizes = usable["group_id"].value_counts()
    return DatasetInfo(
        name="+".join(places),
        version=_version(frame),
        counts=counts,
        failed=dict(sorted(failed.items())),
        groups={split: int(usable.loc[usable["split"] == split, "group_id"].nunique()) for split in SPLITS},
        metadata_audit_auc=audit.auc,
        warnings=[*warnings, *audit.warnings, *by_source.warnings],
        sources=places,
        layouts=listing.layouts,
        metadata_audit_fields=audit.fields,
        metadata_audit_by_source=by_source.auc,
        near_duplicates=len(likeness.pairs),
        near_duplicates_across_labels=across,
        largest_groups={str(name): int(n) for name, n in sizes[sizes > 1].sort_index().nlargest(SHOWN).items()},
        balance=balance_of(usable),
    )


def _version(frame: pd.DataFrame) -> str:
    """Hash what training depends on; where the files lie is not part of it."""
    columns = frame.sort_values("sample_id")[["sample_id", "sha256", "label", "group_id", "split", "status"]]
    plain = columns.astype(object).where(columns.notna(), None)
    return sha256_json(plain.to_numpy().tolist())


def _outcome(frame: pd.DataFrame, info: DatasetInfo, listing: Listing) -> StageOutcome:
    usable = frame[frame["status"] == "ok"]
    n_failed = len(frame) - len(usable)
    metrics: dict[str, float] = {
        "files": len(frame),
        "failed": n_failed,
        "real": int((usable["label"] == 0).sum()),
        "fake": int((usable["label"] == 1).sum()),
        "groups": int(usable["group_id"].nunique()),
        **{f"{split}_files": sum(info.counts[split].values()) for split in SPLITS},
    }
    metrics["near_duplicate_pairs"] = info.near_duplicates
    if info.balance:
        metrics["imbalance_ratio"] = info.balance.ratio
    if info.metadata_audit_auc.value is not None:
        metrics["metadata_auc"] = info.metadata_audit_auc.value
    splits = ", ".join(
        f"{split} {counts['real']} + {counts['fake']} in {info.groups[split]}" for split, counts in info.counts.items()
    )
    messages = [
        f"{int(metrics['real'])} real and {int(metrics['fake'])} fake files in {int(metrics['groups'])} groups; "
        f"real + fake in groups: {splits}.",
        f"Classifier on file metadata only: AUC {info.metadata_audit_auc}; 0.5 is what it should be.",
    ]
    if len(info.metadata_audit_by_source) > 1:
        messages += [f"  within {name}: AUC {auc}" for name, auc in info.metadata_audit_by_source.items()]
    if info.near_duplicates:
        messages.append(
            f"{info.near_duplicates} pairs of files are alike though their bytes differ, "
            f"{info.near_duplicates_across_labels} of them a real and a fake; listed in {PAIRS_FILE}."
        )
    if info.balance:
        messages.append(info.balance.advice)
    if n_failed:
        messages.insert(1, f"{n_failed} files cannot be used: {in_words(info.failed)}.")
    if listing.ignored:
        messages.append(f"Passed over: {in_words(listing.ignored)}.")
    return StageOutcome(metrics=metrics, messages=(*messages, *(f"Warning: {text}" for text in info.warnings)))
