"""What a comparison of systems says: as a document, in sentences, as Markdown and as a page."""

from __future__ import annotations

from html import escape

from unmask.schemas import Document, Estimate

# Cohen's words for differences in standard deviations.
EFFECTS = ((0.2, "negligible"), (0.5, "small"), (0.8, "medium"))
SURE = 0.05
WIDTH_PX, HEIGHT_PX, MARGIN_PX = 640, 46, 20


class Side(Document):
    """One of two systems.

    Attributes:
        name: A letter.
        origin: Folder that it comes from.
        threshold: Its own operating point.
        auc: ROC AUC on the common samples.
        tpr: Share of fakes that it finds at its threshold.
        fpr: Share of reals that it calls fake there.
    """

    name: str
    origin: str
    threshold: float
    auc: Estimate
    tpr: Estimate
    fpr: Estimate


class PairComparison(Document):
    """Two systems on the same test samples.

    Attributes:
        a: The first, with which all others are compared.
        b: The other.
        n: Labelled test samples.
        difference: ROC AUC of the second minus that of the first, paired bootstrap by group.
        p_value: DeLong's test by group, that the AUCs are equal.
        p_value_corrected: The same corrected (Holm) for the number of pairs.
        detectable: True difference in AUC that so many samples would show in four of five tries.
        effect: Difference in d', in standard deviations. Null where an AUC is 0 or 1.
        accuracy_difference: Share of right decisions, second minus first, each at its own threshold.
        right_only_a: Samples that only the first decides rightly.
        right_only_b: Samples that only the second decides rightly.
        decision_p_value: Exact McNemar test, that either is right equally often.
        decision_p_value_corrected: The same corrected (Holm) for the number of pairs.
        sentences: What a person would say, the answer first.
    """

    a: Side
    b: Side
    n: int
    difference: Estimate
    p_value: float
    p_value_corrected: float = 1.0
    detectable: float
    effect: float | None
    accuracy_difference: Estimate
    right_only_a: int
    right_only_b: int
    decision_p_value: float
    decision_p_value_corrected: float = 1.0
    sentences: list[str]


class ComparisonInfo(Document):
    """``comparison.json``: systems on the same test samples, each against the first.

    Attributes:
        n: Labelled test samples that all scored.
        n_groups: Independent groups among them.
        pairs: One for each system but the first.
        left_out: Sentences on samples that not all scored.
    """

    n: int
    n_groups: int
    pairs: list[PairComparison]
    left_out: list[str]


def sentences_of(pair: PairComparison, n_pairs: int) -> list[str]:
    """Say what a person would say.

    Args:
        pair: The comparison, p-values corrected.
        n_pairs: Number of pairs that were tested together.

    Returns:
        The answer with its figures; what it means for decisions; what the samples could not have shown, if they
        showed nothing.
    """
    a, b = pair.a.name, pair.b.name
    low, high = pair.difference.low, pair.difference.high
    interval = "" if low is None or high is None else f" [{low:+.3f}, {high:+.3f}]"
    p_value = f"p = {pair.p_value_corrected:.2g}" + (f" corrected for {n_pairs} comparisons" if n_pairs > 1 else "")
    figures = (
        f"ROC AUC {_value(pair.b.auc)} against {_value(pair.a.auc)}, "
        f"difference {_value(pair.difference, '+')}{interval}, {_effect(pair.effect)}, {p_value}, n = {pair.n}"
    )
    shown = pair.p_value_corrected < SURE and low is not None and high is not None and not low <= 0 <= high
    if pair.difference.value == 0 and low == high == 0:
        answer = f"{b} and {a} rank alike"
    elif shown:
        answer = (
            f"{b} is {'better' if (pair.difference.value or 0) > 0 else 'worse'} than {a} at telling fakes from reals"
        )
    else:
        answer = f"The data do not show which of {a} and {b} is better"
    told = [f"{answer} ({figures}).", _decisions(pair, n_pairs)]
    if not shown and pair.detectable > 0:
        told.append(
            f"So few samples would have shown a difference of {pair.detectable:.2f} or more in four of five tries."
        )
    return told


def _decisions(pair: PairComparison, n_pairs: int) -> str:
    a, b = pair.a, pair.b
    sure = pair.decision_p_value_corrected < SURE
    p_value = f"p = {pair.decision_p_value_corrected:.2g}" + (" corrected" if n_pairs > 1 else "")
    counts = (
        f"{b.name} alone is right on {pair.right_only_b} samples and {a.name} alone on {pair.right_only_a} ({p_value})"
    )
    rates = (
        f"{b.name} finds {_percent(b.tpr)} of the fakes with {_percent(b.fpr)} false alarms, {a.name} {_percent(a.tpr)}"
        f" with {_percent(a.fpr)}"
    )
    if pair.right_only_a == pair.right_only_b == 0:
        return f"At their thresholds both decide every sample alike: {rates}."
    more = b.name if pair.right_only_b > pair.right_only_a else a.name
    meaning = f"{more} decides rightly more often" if sure else "neither decides rightly more often beyond chance"
    return f"At their thresholds {counts}, so {meaning}: {rates}."


def _effect(effect: float | None) -> str:
    if effect is None:
        return "size of the effect undefined at an AUC of 0 or 1"
    word = next((word for limit, word in EFFECTS if abs(effect) < limit), "large")
    return f"a {word} effect (d' {effect:+.2f})"


def _value(one: Estimate, sign: str = "") -> str:
    return "undefined" if one.value is None else f"{one.value:{sign}.3f}"


def _percent(one: Estimate) -> str:
    return "an undefined share" if one.value is None else f"{one.value:.0%}"


def comparison_markdown(info: ComparisonInfo) -> str:
    """Write a comparison as Markdown."""
    lines = ["# Comparison", "", f"{info.n} test samples of {info.n_groups} independent groups, the same for all.", ""]
    lines += [f"- **{one.name}**: `{one.origin}`" for one in _sides(info)]
    for pair in info.pairs:
        lines += ["", f"## {pair.b.name} against {pair.a.name}", "", *(f"- {text}" for text in pair.sentences), ""]
        header, *rows = _table(pair)
        lines += [f"| {' | '.join(header)} |", f"| {' | '.join(['---'] * len(header))} |"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    lines += ["", *(f"- {text}" for text in info.left_out)] if info.left_out else []
    return "\n".join(lines) + "\n"


def comparison_html(info: ComparisonInfo) -> str:
    """Write a comparison as a page that refers to nothing outside."""
    origins = "".join(f"<li><b>{escape(one.name)}</b>: {escape(one.origin)}</li>" for one in _sides(info))
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><title>Comparison</title>',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<style>{STYLE}</style></head><body><main>",
        "<h1>Comparison</h1>",
        f"<p>{info.n} test samples of {info.n_groups} independent groups, the same for all.</p><ul>{origins}</ul>",
    ]
    reach = max((_reach(pair.difference) for pair in info.pairs), default=0.1)
    for pair in info.pairs:
        answer, *others = pair.sentences
        parts += [
            f"<section><h2>{escape(pair.b.name)} against {escape(pair.a.name)}</h2>",
            f'<p class="answer">{escape(answer)}</p>',
            *(f"<p>{escape(text)}</p>" for text in others),
            _drawing(pair, reach),
            _html_table(pair),
            "</section>",
        ]
    parts += [f"<p>{escape(text)}</p>" for text in info.left_out]
    return "\n".join([*parts, "</main></body></html>"]) + "\n"


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:0;color:#1d2430;background:#fff}"
    "main{max-width:46rem;margin:0 auto;padding:1rem}.answer{font-size:1.15rem;font-weight:600}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}.scroll{overflow-x:auto}"
    "th,td{padding:.3rem .8rem .3rem 0;text-align:left;border-bottom:1px solid #ccd3dd}svg{width:100%;height:auto}"
    "li{overflow-wrap:anywhere}"
    "@media(prefers-color-scheme:dark){body{color:#e6eaf0;background:#14181f}th,td{border-color:#3a4350}}"
)


def _sides(info: ComparisonInfo) -> list[Side]:
    return [info.pairs[0].a, *(pair.b for pair in info.pairs)] if info.pairs else []


def _table(pair: PairComparison) -> list[list[str]]:
    a, b = pair.a, pair.b
    return [
        ["", a.name, b.name, "difference"],
        ["ROC AUC", _interval(a.auc), _interval(b.auc), _interval(pair.difference, "+")],
        ["Fakes found", _interval(a.tpr), _interval(b.tpr), ""],
        ["False alarms", _interval(a.fpr), _interval(b.fpr), ""],
        ["Threshold", f"{a.threshold:.3f}", f"{b.threshold:.3f}", ""],
        ["Right decisions", "", "", _interval(pair.accuracy_difference, "+")],
        ["Right alone", str(pair.right_only_a), str(pair.right_only_b), f"{pair.right_only_b - pair.right_only_a:+d}"],
        ["p, ranking (DeLong, Holm)", "", "", f"{pair.p_value_corrected:.2g}"],
        ["p, decisions (McNemar, Holm)", "", "", f"{pair.decision_p_value_corrected:.2g}"],
    ]


def _html_table(pair: PairComparison) -> str:
    header, *rows = _table(pair)
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in header)
    body = "".join(
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(text)}</td>" for text in others)}</tr>'
        for first, *others in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _interval(one: Estimate, sign: str = "") -> str:
    text = _value(one, sign)
    return text if one.low is None or one.high is None else f"{text} [{one.low:{sign}.3f}, {one.high:{sign}.3f}]"


def _reach(one: Estimate) -> float:
    return max(0.02, *(abs(value) for value in (one.value, one.low, one.high) if value is not None))


def _drawing(pair: PairComparison, reach: float) -> str:
    """Draw the difference with its interval on a line around 0."""
    one = pair.difference
    if one.value is None:
        return ""
    words = f"Difference in ROC AUC, {pair.b.name} minus {pair.a.name}: {_interval(one, '+')}"

    def x(value: float) -> float:
        return WIDTH_PX / 2 + value / reach * (WIDTH_PX / 2 - MARGIN_PX)

    middle = HEIGHT_PX / 2 - 6
    parts = [
        f'<svg viewBox="0 0 {WIDTH_PX} {HEIGHT_PX}" role="img" aria-label="{escape(words)}" fill="currentColor">',
        f'<path d="M{x(0):.1f} 4V{HEIGHT_PX - 16}" stroke="currentColor" stroke-dasharray="3 3"/>',
    ]
    if one.low is not None and one.high is not None:
        parts.append(f'<path d="M{x(one.low):.1f} {middle}H{x(one.high):.1f}" stroke="currentColor" stroke-width="3"/>')
    parts.append(f'<circle cx="{x(one.value):.1f}" cy="{middle}" r="6"/>')
    labels = ((-reach, "start"), (0.0, "middle"), (reach, "end"))
    parts += [
        f'<text x="{x(value):.1f}" y="{HEIGHT_PX - 2}" font-size="12" text-anchor="{anchor}">{value:+.2f}</text>'
        for value, anchor in labels
    ]
    return "".join([*parts, "</svg>"])
