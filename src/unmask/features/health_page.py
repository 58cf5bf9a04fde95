"""The page that shows the health of the features: one self-contained HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import pandas as pd

from unmask.features.catalogue import CATALOGUE, NULL_REASONS, FeatureSpec
from unmask.features.health import known_values
from unmask.features.observation import Floats
from unmask.schemas import FeatureHealth

PAGE_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; color: #1c2430; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #d8dee6; }
th { font-weight: 600; color: #55606e; } td.number { text-align: right; font-variant-numeric: tabular-nums; }
code { font-size: .92em; } small { color: #55606e; }
.ok { color: #1a6b3c; } .warning { color: #8a5300; } .critical { color: #a11; font-weight: 600; }
svg { display: block; } rect.real { fill: #2b6cb0; opacity: .6; } rect.fake { fill: #c2410c; opacity: .6; }
"""
BINS, WIDTH_PX, HEIGHT_PX = 24, 168, 36


def health_page(health: Sequence[FeatureHealth], rows: pd.DataFrame) -> str:
    """Render the page.

    Args:
        health: Of every feature.
        rows: The table ``features`` with a further column ``modality``, for the histograms.

    Returns:
        HTML that needs nothing else.
    """
    levels = {level: sum(entry.level == level for entry in health) for level in ("critical", "warning", "ok")}
    drift = any(entry.drift for entry in health)
    heads = ["feature", "state", "rows", "no value", "mean ± deviation", "range", "real and fake"]
    heads += ["drift"] if drift else []
    body = "\n".join(_row(CATALOGUE[entry.name], entry, rows, drift) for entry in health)
    summary = ", ".join(f'<span class="{level}">{count} {level}</span>' for level, count in levels.items())
    return page(
        "Feature health",
        f"<p>{summary}. Looked at: rows of train, val and calib that were measured; never the test split. "
        'Histograms: <span style="color:#2b6cb0">real</span> and <span style="color:#c2410c">fake</span>.</p>'
        f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>\n{body}</table>",
    )


def page(title: str, body: str) -> str:
    """Wrap a body in a self-contained page."""
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{PAGE_STYLE}</style></head>\n<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _row(spec: FeatureSpec, entry: FeatureHealth, rows: pd.DataFrame, drift: bool) -> str:
    nulls = "; ".join(f"{count} × {NULL_REASONS.get(code, code)}" for code, count in entry.null_reasons.items())
    problems = " ".join(entry.problems)
    figures = "–" if entry.mean is None else f"{entry.mean:.4g} ± {entry.std:.3g}"
    extent = "–" if entry.low is None else f"{entry.low:.4g} … {entry.high:.4g}"
    cells = [
        f"<td><code>{escape(spec.name)}</code><br>{escape(spec.title)}<br><small>{escape(spec.unit)}</small></td>",
        f'<td><span class="{entry.level}">{entry.level}</span><br><small>{escape(problems)}</small></td>',
        f'<td class="number">{entry.n}</td>',
        f'<td class="number">{entry.null_share:.0%}<br><small>{escape(nulls)}</small></td>',
        f'<td class="number">{figures}</td>',
        f'<td class="number">{extent}</td>',
        f"<td>{_histogram(spec, rows)}</td>",
    ]
    if drift:
        found = entry.drift
        text = f"PSI {found.psi:.2f}<br><small>KS {found.ks:.2f}, p = {found.p_value:.2g}</small>" if found else "–"
        cells.append(f"<td>{text}</td>")
    return f"<tr>{''.join(cells)}</tr>"


def _histogram(spec: FeatureSpec, rows: pd.DataFrame) -> str:
    """Two histograms over one another, as SVG."""
    values = {name: known_values(rows[rows["label"] == label], spec) for name, label in (("real", 0), ("fake", 1))}
    both = np.concatenate(list(values.values()))
    if not len(both) or float(np.ptp(both)) == 0:
        return ""
    edges = np.linspace(both.min(), both.max(), BINS + 1)
    bars = "".join(_bars(name, known, edges) for name, known in values.items() if len(known))
    return f'<svg width="{WIDTH_PX}" height="{HEIGHT_PX}" role="img" aria-label="histogram">{bars}</svg>'


def _bars(name: str, known: Floats, edges: Floats) -> str:
    counts = np.histogram(known, edges)[0]
    heights = np.round(counts / counts.max() * HEIGHT_PX).astype(int)
    width = WIDTH_PX / BINS
    return "".join(
        f'<rect class="{name}" x="{i * width:.1f}" y="{HEIGHT_PX - high}" width="{width:.1f}" height="{high}"/>'
        for i, high in enumerate(heights)
        if high
    )
