"""``summary.md``: what a person wants to see of a data set before training on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pandas as pd

from unmask.schemas import DatasetInfo, Estimate
from unmask.schemas.tables import SPLITS

SHOWN_FIELDS = 6
SHOWN_FAILURES = 10


def summary(info: DatasetInfo, samples: pd.DataFrame) -> str:
    """Write the page.

    Args:
        info: What `unmask ingest` found.
        samples: Rows of the samples table.

    Returns:
        Markdown.
    """
    parts = [f"# Data set {info.name}", f"Version `{info.version[:16]}`."]
    if info.warnings:
        parts += ["## What to know first", "\n".join(f"- {_safe(text)}" for text in info.warnings)]
    rows = [(split, info.groups[split], *(info.counts[split][name] for name in ("real", "fake"))) for split in SPLITS]
    parts += ["## Splits", _table(("split", "groups", "real", "fake"), rows), *_balance(info)]
    parts += _audit(info)
    parts += _likeness(info)
    parts += _failures(info, samples)
    return "\n\n".join(parts) + "\n"


def _balance(info: DatasetInfo) -> list[str]:
    if info.balance is None:
        return []
    sources = [(name, counts["real"], counts["fake"]) for name, counts in info.balance.by_source.items()]
    parts = [_safe(info.balance.advice), "## Sources", _table(("source", "real", "fake"), sources)]
    if info.balance.by_manipulation:
        parts += ["## Manipulations", _table(("manipulation", "fakes"), info.balance.by_manipulation.items())]
    return parts


def _audit(info: DatasetInfo) -> list[str]:
    rows = [("all", _interval(info.metadata_audit_auc))]
    if len(info.metadata_audit_by_source) > 1:
        rows += [(name, _interval(auc)) for name, auc in info.metadata_audit_by_source.items()]
    fields = [(name, f"{auc:.3f}") for name, auc in list(info.metadata_audit_fields.items())[:SHOWN_FIELDS]]
    return [
        "## What the files give away",
        "AUC of a classifier that sees only file metadata, on groups that it has not seen; 0.5 is what it should be.",
        _table(("source", "AUC"), rows),
        *([_table(("field alone", "AUC"), fields)] if fields else []),
    ]


def _interval(auc: Estimate) -> str:
    return str(auc)


def _likeness(info: DatasetInfo) -> list[str]:
    groups = [(name, count) for name, count in info.largest_groups.items()]
    return [
        "## Groups",
        f"{info.near_duplicates} pairs of files are alike though their bytes differ, "
        f"{info.near_duplicates_across_labels} of them a real and a fake.",
        *([_table(("largest groups", "files"), groups)] if groups else []),
    ]


def _failures(info: DatasetInfo, samples: pd.DataFrame) -> list[str]:
    if not info.failed:
        return []
    failed = samples[samples["status"] == "failed"].head(SHOWN_FAILURES)
    examples = [(uri, reason) for uri, reason in zip(failed["uri"], failed["reason"], strict=True)]
    return [
        "## Files that cannot be used",
        _table(("reason", "files"), info.failed.items()),
        _table(("file", "reason"), examples),
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_safe(cell) for cell in line) + " |" for line in lines)


def _safe(cell: object) -> str:
    """Keep names of files from being read as markup."""
    text = str(cell).replace("\n", " ")
    for character in "\\|<>`*_[]":
        text = text.replace(character, f"\\{character}")
    return text
