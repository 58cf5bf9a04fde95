"""The documentation of the features, rendered from the catalogue."""

from __future__ import annotations

from html import escape

from unmask.features.catalogue import CATALOGUE, EXTRACTOR_VERSION, NULL_REASONS, FeatureSpec
from unmask.features.health import FIXES
from unmask.features.health_page import page

DIRECTIONS = {
    "higher_fake": "higher in fakes",
    "higher_real": "higher in real clips",
    "none": "none expected: a covariate",
}
RULES = (
    "What cannot be measured is null with a reason, never 0 and never 0.5.",
    "A video gets every feature that its length, its size and its faces allow.",
    "A picture gets those that make sense without a course in time; the others are null (single_image).",
    "A sound file gets none of them (audio).",
)


def catalogue_markdown() -> str:
    """Render the catalogue as Markdown."""
    lines = [f"# The {len(CATALOGUE)} features", "", f"Extractor version {EXTRACTOR_VERSION}.", ""]
    lines += [f"- {rule}" for rule in RULES]
    for spec in CATALOGUE.values():
        lines += ["", f"## `{spec.name}`: {spec.title}", "", spec.meaning, "", "| | |", "|---|---|"]
        lines += [f"| {name} | {text} |" for name, text in _facts(spec)]
    lines += ["", "## Why a feature is null", "", "| code | meaning | what to do |", "|---|---|---|"]
    lines += [f"| `{code}` | {sentence} | {FIXES[code]} |" for code, sentence in NULL_REASONS.items()]
    return "\n".join(lines) + "\n"


def catalogue_html() -> str:
    """Render the catalogue as one self-contained page."""
    parts = [f"<p>Extractor version {EXTRACTOR_VERSION}.</p><ul>"]
    parts += [f"<li>{escape(rule)}</li>" for rule in RULES]
    parts.append("</ul>")
    for spec in CATALOGUE.values():
        parts.append(f"<h2><code>{spec.name}</code> {escape(spec.title)}</h2><p>{escape(spec.meaning)}</p><table>")
        parts += [f"<tr><th>{name}</th><td>{escape(text)}</td></tr>" for name, text in _facts(spec)]
        parts.append("</table>")
    parts.append("<h2>Why a feature is null</h2><table><tr><th>code</th><th>meaning</th><th>what to do</th></tr>")
    parts += [
        f"<tr><td><code>{code}</code></td><td>{escape(sentence)}</td><td>{escape(FIXES[code])}</td></tr>"
        for code, sentence in NULL_REASONS.items()
    ]
    parts.append("</table>")
    return page(f"The {len(CATALOGUE)} features", "\n".join(parts))


def _facts(spec: FeatureSpec) -> list[tuple[str, str]]:
    return [
        ("method", spec.method),
        ("source", spec.citation),
        ("unit", spec.unit),
        ("range", f"{spec.low:g} to {spec.high:g}"),
        ("direction", DIRECTIONS[spec.direction]),
        ("exists for", " and ".join(f"{kind}s" for kind in spec.modalities)),
        ("null when", ", ".join(spec.nulls) or "never"),
        ("known bias", spec.bias),
        ("when all are equal", spec.if_constant),
    ]
