"""Labelled data for the next retraining: kept uploads whose truth users told, as a folder that `ingest` reads."""

from __future__ import annotations

import csv
import shutil
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from unmask.errors import InputError, MediaError
from unmask.media.probe import MODALITY_OF_SUFFIX, read_facts
from unmask.schemas import new_directory
from unmask.serving.store import FeedbackStore

# One common suffix a container; `ingest` believes the content, but warns of names that promise something else.
_SUFFIXES = {
    "mov": ".mp4",
    "matroska": ".mkv",
    "avi": ".avi",
    "flv": ".flv",
    "mpegts": ".ts",
    "mpeg": ".mpg",
    "asf": ".wmv",
    "jpeg_pipe": ".jpg",
    "png_pipe": ".png",
    "webp_pipe": ".webp",
    "bmp_pipe": ".bmp",
    "tiff_pipe": ".tiff",
    "gif": ".gif",
}


@dataclass(frozen=True)
class Export:
    """What was exported.

    Attributes:
        counts: real and fake to number of files.
        left_out: Reason to number of judgements.
    """

    counts: dict[str, int]
    left_out: dict[str, int]


def export_labelled(store: FeedbackStore, kept: Path, out: Path, *, verified_only: bool = True) -> Export:
    """Write ``real/`` and ``fake/`` with the kept uploads, and ``labels.csv`` on where each label comes from.

    Args:
        store: With judgements and feedback.
        kept: Folder of kept uploads.
        out: Folder to write.
        verified_only: Leave out labels that nobody checked.

    Returns:
        Counts.

    Raises:
        InputError: There is nothing to export.
    """
    chosen, left_out = [], Counter[str]()
    for judged in store.judged(told_only=True):
        record = judged.record
        if not record.answered or judged.label is None:
            continue
        if record.upload is None:
            left_out["not kept: its sender did not agree"] += 1
        elif verified_only and not judged.verified:
            left_out["nobody checked it"] += 1
        elif not (kept / record.upload).is_file():
            left_out["its file is gone"] += 1
        else:
            chosen.append(judged)
    if not chosen:
        reasons = "; ".join(f"{count} {reason}" for reason, count in left_out.items()) or "nobody gave feedback"
        raise InputError(f"There is nothing to export: {reasons}.", "Serve with serve.keep_uploads=true and ask users.")
    counts = Counter[str]()
    with new_directory(out) as folder, (folder / "labels.csv").open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["file", "label", "verified", "model_version", "verdict", "probability", "analysed_at"])
        for judged in chosen:
            record, label = judged.record, judged.label
            assert label is not None
            source = kept / str(record.upload)
            name = f"{label}/{record.upload}{_suffix(source)}"
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source, folder / name)
            counts[label] += 1
            writer.writerow(
                [name, label, judged.verified, record.version, record.verdict, record.probability, record.at]
            )
    return Export(dict(counts), dict(left_out))


def _suffix(path: Path) -> str:
    try:
        facts = read_facts(path)
    except MediaError:
        return ""
    for name in facts.container.split(","):
        if name in _SUFFIXES:
            return _SUFFIXES[name]
    suffixes = [suffix for suffix, modality in MODALITY_OF_SUFFIX.items() if modality == facts.modality]
    return suffixes[0]
