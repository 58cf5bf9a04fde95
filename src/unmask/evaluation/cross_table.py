"""The cross-dataset matrices as text, Markdown, HTML and rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import pandas as pd

from unmask.schemas import CROSS_DATASET, CrossCell, CrossDatasetInfo, Estimate

UNDEFINED = "–"
CALIBRATION = ("brier", "ece", "ece_if_calibrated", "calibration_slope", "calibration_intercept")
CALIBRATION_TITLES = ("Brier", "ECE", "ECE if calibrated", "slope (1 is right)", "intercept (0 is right)")
NOTE = (
    "ROC AUC on test with 95 % intervals by group. * nothing of the column took part in training and calibration. "
    "A manipulation is tested against all reals of test."
)


def cross_rows(info: CrossDatasetInfo) -> pd.DataFrame:
    """List every figure.

    Args:
        info: What was found.

    Returns:
        Rows of CROSS_DATASET.
    """
    rows = []
    for cell in info.cells:
        figures = dict(cell.figures)
        if cell.change is not None:
            figures["roc_auc_change"] = cell.change
        for metric, one in figures.items():
            about = cell.model_dump(include={"detector", "trained_on", "tested_on", "unseen"})
            counts = cell.model_dump(include={"n_reals", "n_fakes", "n_groups"})
            estimate = {"value": one.value, "low": one.low, "high": one.high, "n": one.n}
            rows.append({**about, "metric": metric, **estimate, **counts})
    return pd.DataFrame(rows, columns=[column.name for column in CROSS_DATASET.columns])


def cross_text(info: CrossDatasetInfo) -> str:
    """Write the matrices for a terminal."""
    blocks = []
    for title, header, rows in _tables(info):
        table = [header, *rows]
        widths = [max(len(row[column]) for row in table) for column in range(len(header))]
        lines = [
            "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table
        ]
        blocks.append("\n".join([title, *lines]))
    return "\n\n".join([*blocks, NOTE])


def cross_markdown(info: CrossDatasetInfo) -> str:
    """Write summary and matrices as Markdown."""
    lines = ["# Cross-dataset", "", *(f"- {_plain(sentence)}" for sentence in info.summary), ""]
    for title, header, rows in _tables(info):
        lines += [f"## {_plain(title)}", "", _line(header), _line(["---"] * len(header)), *map(_line, rows), ""]
    lines += [NOTE, "", *(f"- {_plain(text)}" for text in _left_out(info))]
    return "\n".join(lines).rstrip() + "\n"


def cross_html(info: CrossDatasetInfo) -> str:
    """Write summary and matrices as a section of HTML that refers to nothing outside.

    The table cells of what was not seen have the class ``unseen``.
    """
    parts = ['<section id="cross-dataset">', "<h2>Cross-dataset</h2>"]
    parts += [f"<p>{escape(sentence)}</p>" for sentence in info.summary]
    for title, header, rows in _tables(info):
        head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
        parts += [f"<h3>{escape(title)}</h3>", '<div class="scroll"><table>', f"<thead><tr>{head}</tr></thead><tbody>"]
        for first, *others in rows:
            cells = "".join(
                f'<td class="{"unseen" if text.endswith("*") else "seen"}">{escape(text)}</td>' for text in others
            )
            parts.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
        parts.append("</tbody></table></div>")
    parts.append(f"<p>{escape(NOTE)}</p>")
    left_out = _left_out(info)
    if left_out:
        parts += ["<ul>", *(f"<li>{escape(text)}</li>" for text in left_out), "</ul>"]
    return "\n".join([*parts, "</section>"]) + "\n"


Table = tuple[str, list[str], list[list[str]]]


def _tables(info: CrossDatasetInfo) -> list[Table]:
    tables: list[Table] = []
    for detector in info.detectors:
        cells = {(cell.trained_on, cell.tested_on): cell for cell in info.cells if cell.detector == detector}
        for axis, columns in (("source", info.sources), ("manipulation", info.manipulations)):
            relevant = [name for name in info.trainings if name == "all" or f"{axis}=" in name]
            rows = [name for name in relevant if any((name, column) in cells for column in columns)]
            if columns and rows:
                tables += [
                    _matrix(detector, axis, rows, columns, cells),
                    _changes(detector, axis, rows, columns, cells),
                ]
        if info.sources:
            tables.append(_calibration(detector, info, cells))
    return [table for table in tables if table[2]]


Cells = dict[tuple[str, str], CrossCell]


def _matrix(detector: str, axis: str, rows: Sequence[str], columns: Sequence[str], cells: Cells) -> Table:
    header = ["trained on", *(f"{_short(column)} {_counts(column, cells)}" for column in columns)]
    body = [[_short(name), *(_auc(cells.get((name, column))) for column in columns)] for name in rows]
    return f"{detector}: ROC AUC by {axis}", header, body


def _changes(detector: str, axis: str, rows: Sequence[str], columns: Sequence[str], cells: Cells) -> Table:
    body = []
    for name in rows:
        for column in columns:
            cell = cells.get((name, column))
            if cell is not None and cell.unseen and cell.change is not None and cell.change.value is not None:
                p_value = UNDEFINED if cell.p_value is None else f"{cell.p_value:.2g}"
                body.append([_short(name), _short(column), _figure(cell.change, signed=True), p_value])
    header = ["trained on", "tested on", "ROC AUC against trained on all", "p (Holm)"]
    return f"{detector}: what not having seen a {axis} costs", header, body


def _calibration(detector: str, info: CrossDatasetInfo, cells: Cells) -> Table:
    body = []
    for name in info.trainings:
        for column in info.sources:
            cell = cells.get((name, column))
            if cell is not None:
                tested = _short(column) + (" *" if cell.unseen else "")
                body.append([_short(name), tested, *(_figure(cell.figures[metric]) for metric in CALIBRATION)])
    return f"{detector}: calibration from source to source", ["trained on", "tested on", *CALIBRATION_TITLES], body


def _counts(column: str, cells: Cells) -> str:
    cell = next(cell for (_, tested_on), cell in cells.items() if tested_on == column)
    groups = "1 group" if cell.n_groups == 1 else f"{cell.n_groups} groups"
    return f"({cell.n_reals} real, {cell.n_fakes} fake, {groups})"


def _auc(cell: CrossCell | None) -> str:
    if cell is None:
        return UNDEFINED
    return _figure(cell.figures["roc_auc"]) + (" *" if cell.unseen else "")


def _figure(one: Estimate, *, signed: bool = False) -> str:
    if one.value is None:
        return UNDEFINED
    form = "+.3f" if signed else ".3f"
    if one.low is None or one.high is None:
        return f"{one.value:{form}}"
    return f"{one.value:{form}} [{one.low:{form}}, {one.high:{form}}]"


def _short(name: str) -> str:
    for axis in ("source=", "manipulation="):
        name = name.replace(axis, "")
    return name.replace("not ", "all but ", 1) if name.startswith("not ") else name


def _left_out(info: CrossDatasetInfo) -> list[str]:
    skipped = [f"Not trained: {name}. {reason}" for name, reason in info.skipped.items()]
    return skipped + [f"No AUC on {_short(name)}: {reason}." for name, reason in info.unmeasured.items()]


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(_plain(text) for text in texts) + " |"


def _plain(text: str) -> str:
    """Keep a name from breaking Markdown."""
    for character in "\\|*_`<":
        text = text.replace(character, f"\\{character}")
    return " ".join(text.split())
