"""What optimisation tried and cost, as one page for people."""

from __future__ import annotations

import html

from unmask.deployment.decision_document import STYLE
from unmask.deployment.optimise import OptimisationInfo, VariantRow
from unmask.schemas import Estimate

NAMES = {
    "float32": "32 bit, as exported",
    "student": "student of the ensemble",
    "pruned": "pruned",
    "static": "8 bit, ranges from crops",
    "dynamic": "8 bit, ranges at run time",
}
HEADER = (
    "Detector",
    "Form",
    "File",
    "Compressed",
    "CPU time of a crop",
    "AUC on val",
    "AUC lost on val",
    "In the bundle",
)


def render(info: OptimisationInfo) -> str:
    """Write the page.

    Args:
        info: What was tried.

    Returns:
        One HTML file that needs nothing else.
    """
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in HEADER)
    rows = "".join(_row(row) for row in info.rows)
    facts = "".join(f"<li>{html.escape(fact)}</li>" for fact in _facts(info))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Size, time and AUC of the detectors</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f"<body><h1>Size, time and AUC of the detectors</h1><ul>{facts}</ul>"
        f"<table><caption>Every form that was tried</caption><thead><tr>{head}</tr></thead>"
        f"<tbody>{rows}</tbody></table></body></html>\n"
    )


def _facts(info: OptimisationInfo) -> list[str]:
    facts = ["CPU time is the median over calls with one crop on one thread, without preprocessing."]
    if all(row.variant == "float32" for row in info.rows):
        wishes = "bundle.quantise, bundle.prune and bundle.distil"
        return [*facts, f"Nothing smaller was asked for ({wishes}): the bundle holds the detectors as exported."]
    facts.insert(
        0,
        f"Another form is kept only if it loses at most {info.max_auc_loss:g} AUC on val, a student only inside the "
        "bound of distill.max_auc_loss. Ranges of 8-bit values come from crops of train; ensemble, fusion and "
        "thresholds were fitted anew on calib.",
    )
    if any(row.variant == "pruned" for row in info.rows):
        facts.append("ONNX Runtime computes with zeros as with any number: pruning makes nothing quicker.")
    if info.test_difference is None:
        return [*facts, "No smaller form was kept: the bundle holds the detectors as they were exported."]
    alone = ""
    if info.flipped_uncalibrated is not None:
        alone = f"; {_percent(info.flipped_uncalibrated)} if only the detectors had been exchanged"
    return [
        *facts,
        f"Fusion on test: AUC {info.test_auc_before} before, {info.test_auc_after} after; "
        f"difference {_signed(info.test_difference)}.",
        f"Verdicts on test that differ: {_percent(info.flipped)} after calibrating anew{alone}.",
    ]


def _row(row: VariantRow) -> str:
    cells = (
        NAMES[row.variant],
        f"{row.size_mb:.2f} MB",
        f"{row.compressed_mb:.2f} MB",
        f"{row.p50_ms:.1f} ms",
        str(row.val_auc),
        "" if row.val_loss is None else _signed(row.val_loss),
        f"{'yes' if row.kept else 'no'}: {row.reason}",
    )
    data = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
    return f'<tr><th scope="row">{html.escape(row.detector)}</th>{data}</tr>'


def _signed(estimate: Estimate) -> str:
    if estimate.value is None:
        return "undefined"
    ends = "" if estimate.low is None or estimate.high is None else f" [{estimate.low:+.3f}, {estimate.high:+.3f}]"
    return f"{estimate.value:+.3f}{ends}"


def _percent(estimate: Estimate | None) -> str:
    if estimate is None or estimate.value is None:
        return "unknown"
    return f"{estimate.value:.1%} [{estimate.low:.1%}, {estimate.high:.1%}] of {estimate.n}"
