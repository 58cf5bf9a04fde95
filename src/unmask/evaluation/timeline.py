"""A picture of what the features of clips are measured from, over time."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from unmask.config import ExtractConfig
from unmask.errors import MissingExtraError
from unmask.features import CATALOGUE, Measurement
from unmask.features.timeline import Curve, curves_of
from unmask.schemas import write_atomically

PANEL_HEIGHT_IN, COLUMN_WIDTH_IN = 1.25, 6.2


def plot_timeline(paths: Sequence[Path], out: Path, config: ExtractConfig) -> None:
    """Draw clips beside one another, each a column of curves over a table of its features.

    Args:
        paths: Videos.
        out: PNG to write.
        config: As in extraction.

    Raises:
        MediaError: A clip cannot be measured.
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("The picture of the features", "analysis") from error
    measured = [curves_of(path, config) for path in paths]
    titles = list(dict.fromkeys(curve.title for curves, _ in measured for curve in curves))
    limits = {title: _limits([c for curves, _ in measured for c in curves if c.title == title]) for title in titles}
    figure = Figure(
        figsize=(COLUMN_WIDTH_IN * len(paths), PANEL_HEIGHT_IN * len(titles) + 4.2), layout="constrained", dpi=100
    )
    grid = figure.add_gridspec(len(titles) + 1, len(paths), height_ratios=[1.0] * len(titles) + [3.4])
    for column, (path, (curves, found)) in enumerate(zip(paths, measured, strict=True)):
        by_title = {curve.title: curve for curve in curves}
        for row, title in enumerate(titles):
            axes = figure.add_subplot(grid[row, column])
            _draw(axes, title, by_title.get(title), limits[title])
            if row == 0:
                axes.set_title(f"{'/'.join(path.parts[-3:])}\n{title}", fontsize=9, loc="left")
        _write_values(figure.add_subplot(grid[len(titles), column]), found)
    with write_atomically(out) as temporary:
        figure.savefig(temporary, format="png")


def _limits(curves: Sequence[Curve]) -> tuple[float, float]:
    """Common limits of a kind of curve, so that clips can be compared; single outliers do not count."""
    values = np.concatenate([curve.values[np.isfinite(curve.values)] for curve in curves])
    if not len(values):
        return 0.0, 1.0
    low, high = np.percentile(values, [0.2, 99.8])
    margin = 0.08 * (high - low) + 1e-6
    return float(low - margin), float(high + margin)


def _draw(axes: Any, title: str, curve: Curve | None, limits: tuple[float, float]) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.tick_params(labelsize=7)
    axes.set_ylim(*limits)
    if curve is None or not len(curve.values):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center", fontsize=9)
        return
    axes.set_ylabel(curve.unit, fontsize=8)
    axes.plot(curve.time_s, curve.values, "o-" if curve.dots else "-", linewidth=0.8, markersize=2.5)
    axes.set_xlabel("s", fontsize=7, loc="right", labelpad=-2)


def _write_values(axes: Any, found: Measurement) -> None:
    axes.axis("off")
    lines = []
    for name, spec in CATALOGUE.items():
        value = found.features[name]
        shown = (
            f"{value:10.3f} {spec.unit.split(';')[0].split(': ')[-1]}"
            if value is not None
            else f"      null {found.null_reasons[name]}"
        )
        lines.append(f"{name:20s} {shown}")
    axes.text(
        0, 1, "\n".join(lines), family="monospace", fontsize=7.5, va="top", transform=axes.transAxes, in_layout=False
    )
