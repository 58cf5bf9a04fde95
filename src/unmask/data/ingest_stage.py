"""The stage `ingest`: folders of media become a checked table of samples with groups and splits."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from unmask.config import IngestConfig
from unmask.data.audit import MetadataAudit, audit_metadata
from unmask.data.conventions import identity_keys
from unmask.data.findings import SHOWN, in_words, warnings_about
from unmask.data.groups import group_samples
from unmask.data.inspection import (
    INDEX_FILE,
    PROBE_VERSION,
    SAMPLES_FILE,
    IngestIndex,
    Inspection,
    inspect_files,
    read_earlier,
    uri_of,
)
from unmask.data.sources import Listing, SourceFile, list_sources
from unmask.data.splits import assign_splits
from unmask.errors import InputError
from unmask.schemas import (
    SAMPLES,
    DatasetInfo,
    StageOutcome,
    new_directory,
    sha256_json,
    write_table,
)
from unmask.schemas.tables import SPLITS

LABEL_NAMES = {0: "real", 1: "fake"}


def run_ingest(
    sources: Sequence[tuple[str, Path]],
    out: Path,
    config: IngestConfig,
    seed: int,
    store: Path | None = None,
) -> StageOutcome:
    """Find, check, group and split media.

    Writes ``samples.parquet`` (one row a file, unusable ones with a reason), ``dataset.json`` and ``ingest.json``
    (what the next run needs to read only new files). If ``out`` holds an earlier result, unchanged files are not read
    again, and samples keep their split as long as seed and fractions are the same.

    Args:
        sources: Name and folder of each source, with ``real/`` and ``fake/`` below it.
        out: Folder to write.
        config: Of this stage.
        seed: Of splits and audit.
        store: Folder that keeps the latest result of these sources between runs, so that one run builds on the other
            even when each has its own ``out``, as pipeline runs have.

    Returns:
        Counts, the AUC of the metadata audit, and sentences for the user.

    Raises:
        InputError: The sources cannot be split: empty, one class only, too many failed files, too few groups.
    """
    listing = list_sources(sources)
    remembered = store / "ingest" / sha256_json(sorted(name for name, _ in sources))[:16] if store else None
    previous = read_earlier(remembered if remembered and remembered.is_dir() else out)
    inspections = inspect_files(listing.files, config, previous)
    _check_failures(listing.files, inspections, config.max_failed_share)
    frame = _rows(listing.files, inspections)
    usable = frame[frame["status"] == "ok"]
    _check_classes(usable, frame)
    kept = previous.splits(seed, config.fractions) if previous else {}
    result = assign_splits(usable, config.fractions, seed, kept)
    frame["split"] = frame["group_id"].map(result.split).where(frame["status"] == "ok", None)
    usable = frame[frame["status"] == "ok"]
    audit = audit_metadata(usable, config.metadata_auc_limit, np.random.default_rng(seed))
    warnings = [*warnings_about(usable, listing, result.moved), *audit.warnings]
    info = _describe(frame, sources, audit, warnings)
    index = IngestIndex(
        probe_version=PROBE_VERSION,
        seed=seed,
        fractions=config.fractions,
        modified_ns={f.sample_id: i.modified_ns for f, i in zip(listing.files, inspections, strict=True)},
        containers={f.sample_id: i.facts.container for f, i in zip(listing.files, inspections, strict=True) if i.facts},
    )
    with new_directory(out) as folder:
        write_table(folder / SAMPLES_FILE, _table(frame), SAMPLES)
        info.save(folder / "dataset.json")
        index.save(folder / INDEX_FILE)
    if remembered:
        with new_directory(remembered) as folder:
            shutil.copytree(out, folder, dirs_exist_ok=True)
    return _outcome(frame, info, listing)


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


def _rows(files: Sequence[SourceFile], inspections: Sequence[Inspection]) -> pd.DataFrame:
    """Build the samples table without splits; grouping is by name for all files, by content for usable ones."""
    keys = identity_keys(files)
    content = [None if i.reason else i.sha256 for i in inspections]
    groups = group_samples([keys[file.sample_id] for file in files], content)
    columns: dict[str, list[Any]] = {column.name: [] for column in SAMPLES.columns}
    for file, inspection, group in zip(files, inspections, groups, strict=True):
        row: dict[str, Any] = {
            "sample_id": file.sample_id,
            "uri": uri_of(file.path),
            "label": file.label,
            "source": file.source,
            "manipulation": file.manipulation,
            "compression": file.compression,
            "group_id": group,
            "sha256": inspection.sha256,
            "size_bytes": inspection.size_bytes,
            "status": "failed" if inspection.reason else "ok",
            "reason": inspection.reason,
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
    frame: pd.DataFrame, sources: Sequence[tuple[str, Path]], audit: MetadataAudit, warnings: list[str]
) -> DatasetInfo:
    usable = frame[frame["status"] == "ok"]
    counts = {}
    for split in SPLITS:
        labels = usable.loc[usable["split"] == split, "label"]
        counts[split] = {name: int((labels == label).sum()) for label, name in LABEL_NAMES.items()}
        counts[split]["unknown"] = int(labels.isna().sum())
    failed = Counter(reason.split(":", 1)[0] for reason in frame["reason"].dropna())
    return DatasetInfo(
        name="+".join(name for name, _ in sources),
        version=_version(frame),
        counts=counts,
        failed=dict(sorted(failed.items())),
        groups={split: int(usable.loc[usable["split"] == split, "group_id"].nunique()) for split in SPLITS},
        metadata_audit_auc=audit.auc,
        warnings=warnings,
        sources={name: uri_of(path) for name, path in sources},
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
    if n_failed:
        messages.insert(1, f"{n_failed} files cannot be used: {in_words(info.failed)}.")
    if listing.ignored:
        messages.append(f"Passed over: {in_words(listing.ignored)}.")
    return StageOutcome(metrics=metrics, messages=(*messages, *(f"Warning: {text}" for text in info.warnings)))
