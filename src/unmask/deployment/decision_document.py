"""The decision of the gate as a page for people: Markdown and one self-contained HTML file."""

from __future__ import annotations

import html
from collections.abc import Sequence

from unmask.schemas import Criterion, PromotionDecision

VERDICTS = {
    "passed": "passed",
    "failed": "NOT PASSED",
    "undecided": "TOO FEW SAMPLES",
    "missing": "NO EVIDENCE",
    "not applicable": "does not apply",
}
TIERS = (("trial", "To be put on trial"), ("champion", "To become champion"))
HEADER = ("What was looked at", "What was found", "What it must be", "Verdict", "In plain words")
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 0 auto; padding: 1.5rem; }
table { border-collapse: collapse; width: 100%; margin: 0 0 2rem; }
caption { text-align: left; font-size: 1.25rem; font-weight: 600; padding: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .5rem .75rem; border-bottom: 1px solid #8886; }
td { overflow-wrap: anywhere; }
.verdict { font-weight: 600; white-space: nowrap; }
.bad { color: #b3261e; }
@media (prefers-color-scheme: dark) { .bad { color: #ff9c94; } }
.summary { font-size: 1.125rem; border-left: .3rem solid #8888; padding-left: 1rem; }
"""


def headline(decision: PromotionDecision) -> str:
    """Say in a few words how it ended.

    Args:
        decision: The decision.

    Returns:
        For example ``Version 4: may become champion``.
    """
    subject = f"Version {decision.version}"
    if decision.champion == decision.version:
        return f"{subject}: is the champion"
    if decision.alias is None:
        return f"{subject}: refused"
    if decision.ready:
        return f"{subject}: may become champion"
    return f"{subject}: on trial, must not replace the champion" if decision.champion else f"{subject}: on trial only"


def render_markdown(decision: PromotionDecision) -> str:
    """Write the decision as Markdown.

    Args:
        decision: The decision.

    Returns:
        A page with one table for each alias.
    """
    lines = [f"# {decision.model}: {headline(decision)}", "", decision.summary, "", *_facts(decision)]
    for tier, title in TIERS:
        rows = [each for each in decision.criteria if each.needed_for == tier]
        if rows:
            lines += ["", f"## {title}", "", _row(HEADER), _row(["---"] * len(HEADER))]
            lines += [_row(_cells(each)) for each in rows]
    return "\n".join(lines) + "\n"


def render_html(decision: PromotionDecision) -> str:
    """Write the decision as one HTML file that needs nothing else.

    Args:
        decision: The decision.

    Returns:
        The page.
    """
    title = html.escape(f"{decision.model}: {headline(decision)}")
    facts = "".join(f"<li>{html.escape(fact.removeprefix('- '))}</li>" for fact in _facts(decision))
    tables = "".join(
        _table(name, [each for each in decision.criteria if each.needed_for == tier]) for tier, name in TIERS
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>'
        f'<body><h1>{title}</h1><p class="summary">{html.escape(decision.summary)}</p><ul>{facts}</ul>{tables}'
        "</body></html>\n"
    )


def _facts(decision: PromotionDecision) -> list[str]:
    how = {
        "automatic": "a version that passes everything becomes champion at once",
        "wait": "a version that passes everything waits for a person to move the alias",
    }[decision.mode]
    return [
        f"- Decided at {decision.decided_at or 'an unknown time'}",
        f"- Champion at that time: {f'version {decision.champion}' if decision.champion else 'none'}",
        f"- Alias given: {decision.alias or 'none'}",
        f"- Mode: {decision.mode} ({how})",
    ]


def _cells(criterion: Criterion) -> tuple[str, ...]:
    return (criterion.name, criterion.value, criterion.bound, VERDICTS[criterion.verdict], criterion.sentence)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |"


def _table(title: str, criteria: Sequence[Criterion]) -> str:
    if not criteria:
        return ""
    head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in HEADER)
    body = "".join(_html_row(each) for each in criteria)
    return f"<table><caption>{html.escape(title)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_row(criterion: Criterion) -> str:
    name, value, bound, verdict, sentence = (html.escape(cell) for cell in _cells(criterion))
    look = "verdict" if criterion.passed else "verdict bad"
    return (
        f'<tr><th scope="row">{name}</th><td>{value}</td><td>{bound}</td><td class="{look}">{verdict}</td>'
        f"<td>{sentence}</td></tr>"
    )
