"""Two trainings side by side: what was set differently, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unmask.schemas import DetectorInfo

ABSENT = "–"


@dataclass(frozen=True)
class RunFacts:
    """What is compared of a run.

    Attributes:
        name: For people.
        settings: Setting to value; nested ones with dots.
        figures: Figure to value, as text with its interval where there is one.
    """

    name: str
    settings: Mapping[str, Any]
    figures: Mapping[str, str]


def facts_of_folder(folder: Path) -> RunFacts:
    """Read a folder that `train` wrote.

    Args:
        folder: Holds ``detector.json``.

    Returns:
        Its facts.

    Raises:
        ContractError: There is no such document.
    """
    info = DetectorInfo.load(folder / "detector.json")
    best = info.curve[info.best_epoch - 1]
    figures = {
        "video AUC on val": str(info.val_auc),
        "val loss": ABSENT if best.val_loss is None else f"{best.val_loss:.4f}",
        "train loss": f"{best.train_loss:.4f}",
        "best epoch": f"{info.best_epoch} of {len(info.curve)}",
        "parameters": f"{info.n_parameters:,}",
        "time": f"{info.train_seconds:.1f} s on {info.device}",
    }
    settings = {"detector": info.name, "dataset": info.dataset_version[:12], **flattened(info.config)}
    return RunFacts(str(folder), settings, figures)


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Write nested settings with dots between their names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def render_comparison(a: RunFacts, b: RunFacts) -> str:
    """Show two runs as a table: settings that differ, then all figures.

    Args:
        a: One run.
        b: The other.

    Returns:
        Text with aligned columns.
    """
    names = dict.fromkeys([*a.settings, *b.settings])
    different = [n for n in names if str(a.settings.get(n, ABSENT)) != str(b.settings.get(n, ABSENT))]
    figures = list(dict.fromkeys([*a.figures, *b.figures]))
    rows = [("", "A", "B"), ("run", a.name, b.name)]
    rows += [(name, str(a.settings.get(name, ABSENT)), str(b.settings.get(name, ABSENT))) for name in different]
    if not different:
        rows.append(("settings", "the same", "the same"))
    rows += [(name, a.figures.get(name, ABSENT), b.figures.get(name, ABSENT)) for name in figures]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    if a.settings.get("dataset") != b.settings.get("dataset"):
        lines.append("The runs saw different data sets: their figures cannot be compared.")
    return "\n".join(lines)
