"""The charts of the report, each made from the scores or estimates that it shows."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from unmask import metrics
from unmask.evaluation.charts import (
    Axis,
    Bar,
    Chart,
    LegendEntry,
    Plot,
    Point,
    integer_axis,
    interval_rows,
    nice_axis,
    share_axis,
    signed_axis,
)
from unmask.evaluation.inputs import SystemScores
from unmask.evaluation.perturbations import PERTURBATIONS
from unmask.evaluation.wording import Unit, count, full, interval, number
from unmask.fusion.apply import ENSEMBLE
from unmask.schemas import DetectorInfo, Estimate, FusionInfo, InputWeight, OperatingPoint

MAX_CURVE_POINTS = 400
RELIABILITY_BINS = 10
MIN_PER_BIN = 4
HISTOGRAM_BINS = 20
# More intervals than this beside each other cannot be told apart.
MANY_SYSTEMS = 4
REAL_STYLE, FAKE_STYLE, UNSURE_STYLE = 0, 1, 6
ATTACK_TITLES = {
    "fgsm": "One-step attack (FGSM)",
    "pgd": "Many-step attack (PGD)",
    "apgd": "Adaptive attack (APGD)",
    "square": "Attack by questions alone (Square)",
}
NOTE_ROOM = 20
GUESSING = LegendEntry(0, "guessing", "rule")


def styles(names: Sequence[str]) -> dict[str, int]:
    """Give each system its colour: fusion and the ensemble the first two, detectors the rest in order."""
    leading = [name for name in ("fusion", "ensemble") if name in names]
    order = [*leading, *(name for name in names if name not in leading)]
    return {name: place for place, name in enumerate(order)}


def _counts(scores: SystemScores) -> str:
    n_fakes = int(scores.labels.sum())
    return f"n = {len(scores.labels)} ({count(n_fakes, 'fake')}, {count(len(scores.labels) - n_fakes, 'real')})"


def roc(systems: Sequence[SystemScores], figures: Mapping[str, Mapping[str, Estimate]], point: OperatingPoint) -> Chart:
    """Draw the ROC curves, and the operating point with its exact intervals.

    Args:
        systems: With their scores.
        figures: System to figure to estimate.
        point: The default operating point as measured on test.

    Returns:
        The chart.
    """
    style = styles([one.name for one in systems])
    words = "; ".join(f"{one.name} AUC {full(figures[one.name]['roc_auc'])}" for one in systems)
    plot = Plot(
        "ROC curves", words, share_axis("false positive rate (reals called fake)"), share_axis("true positive rate")
    )
    plot.rule((0, 0), (1, 1))
    for one in sorted(systems, key=lambda system: -style[system.name]):
        points = metrics.roc_points(one.labels, one.probabilities, MAX_CURVE_POINTS)
        plot.line([(fpr, tpr) for _, fpr, tpr in points], style[one.name], strong=one.kind == "fusion")
    _mark_point(plot, point)
    legend = [LegendEntry(style[one.name], _legend(one.name, figures[one.name]["roc_auc"])) for one in systems]
    headline = next(one for one in systems if one.kind == "fusion")
    return Chart(
        plot.title,
        plot.svg(),
        "How many fakes are found against how many reals are called fake, over all thresholds; up and to the left is "
        f"better. The dot is the threshold in use, with 95 % intervals. Fusion: {_counts(headline)}.",
        (*_in_style_order(legend), LegendEntry(0, "threshold in use", "dot"), GUESSING),
        ("system", "ROC AUC, 95 % interval, n"),
        tuple((one.name, full(figures[one.name]["roc_auc"])) for one in systems),
    )


def _mark_point(plot: Plot, point: OperatingPoint) -> None:
    fpr, tpr = point.fpr, point.tpr
    if fpr.value is None or tpr.value is None:
        return
    plot.whisker((fpr.low or 0, tpr.value), (1 if fpr.high is None else fpr.high, tpr.value), 0)
    plot.whisker((fpr.value, tpr.low or 0), (fpr.value, 1 if tpr.high is None else tpr.high), 0)
    plot.dot(fpr.value, tpr.value, 0, radius=4.5)


def _legend(name: str, estimate: Estimate) -> str:
    return f"{name} {number(estimate.value)} ({interval(estimate)})"


def _in_style_order(entries: Sequence[LegendEntry]) -> list[LegendEntry]:
    return sorted(entries, key=lambda entry: entry.style)


def precision_recall(systems: Sequence[SystemScores], figures: Mapping[str, Mapping[str, Estimate]]) -> Chart:
    """Draw precision against recall.

    Args:
        systems: With their scores.
        figures: System to figure to estimate.

    Returns:
        The chart.
    """
    style = styles([one.name for one in systems])
    words = "; ".join(f"{one.name} average precision {full(figures[one.name]['pr_auc'])}" for one in systems)
    plot = Plot(
        "Precision and recall",
        words,
        share_axis("recall (share of fakes found)"),
        share_axis("precision (alarms that are right)"),
    )
    headline = next(one for one in systems if one.kind == "fusion")
    if len(headline.labels):
        prevalence = float(headline.labels.mean())
        plot.rule((0, prevalence), (1, prevalence))
    for one in sorted(systems, key=lambda system: -style[system.name]):
        plot.line(_precision_recall_points(one), style[one.name], strong=one.kind == "fusion")
    legend = [LegendEntry(style[one.name], _legend(one.name, figures[one.name]["pr_auc"])) for one in systems]
    return Chart(
        plot.title,
        plot.svg(),
        "How many alarms are right against how many fakes are found; up and to the right is better. Guessing gives "
        f"the share of fakes. Fusion: {_counts(headline)}.",
        (*_in_style_order(legend), GUESSING),
        ("system", "average precision, 95 % interval, n"),
        tuple((one.name, full(figures[one.name]["pr_auc"])) for one in systems),
    )


def _precision_recall_points(scores: SystemScores) -> list[Point]:
    """Precision falls between two points of equal recall, so the curve is drawn in steps."""
    order = np.argsort(-scores.probabilities, kind="stable")
    labels, ranked = scores.labels[order], scores.probabilities[order]
    n_fakes = int(labels.sum())
    if n_fakes in (0, len(labels)):
        return []
    last_of_tie = np.append(np.diff(ranked) != 0, True)
    hits = np.cumsum(labels)[last_of_tie]
    called = np.flatnonzero(last_of_tie) + 1
    recall, precision = hits / n_fakes, hits / called
    keep = np.unique(np.linspace(0, len(recall) - 1, min(len(recall), MAX_CURVE_POINTS)).round().astype(int))
    points: list[Point] = [(0.0, float(precision[keep[0]]))]
    for place in keep:
        points += [(float(recall[place]), points[-1][1]), (float(recall[place]), float(precision[place]))]
    return points


def reliability(scores: SystemScores, figures: Mapping[str, Estimate]) -> Chart:
    """Draw observed shares of fakes against stated probabilities, in bins of equal mass.

    Args:
        scores: Of the headline system.
        figures: Its figures.

    Returns:
        The chart.
    """
    bins = _equal_mass_bins(scores)
    ece, by_chance = figures["ece"], figures["ece_if_calibrated"]
    words = f"Expected calibration error {full(ece)}, by chance alone {full(by_chance)}. " + "; ".join(
        f"stated {mean:.2f}, observed {full(observed, digits=2)}" for mean, observed in bins
    )
    plot = Plot("Reliability", words, share_axis("stated probability of fake"), share_axis("observed share of fakes"))
    plot.rule((0, 0), (1, 1))
    for mean, observed in bins:
        plot.whisker((mean, observed.low or 0), (mean, 1 if observed.high is None else observed.high), 0)
    plot.line([(mean, observed.value or 0) for mean, observed in bins], 0, dashed=False)
    for mean, observed in bins:
        plot.dot(mean, observed.value or 0, 0)
    return Chart(
        plot.title,
        plot.svg(),
        "Whether a stated probability means what it says: on the dashed line it does. Each dot holds about as many "
        f"samples, with an exact 95 % interval; {_counts(scores)}.",
        (LegendEntry(0, "fusion", "dot"), LegendEntry(0, "perfect", "rule")),
        ("stated", "observed, 95 % interval, n"),
        tuple((f"{mean:.3f}", full(observed)) for mean, observed in bins),
    )


def _equal_mass_bins(scores: SystemScores) -> list[tuple[float, Estimate]]:
    n = len(scores.labels)
    n_bins = max(1, min(RELIABILITY_BINS, n // MIN_PER_BIN))
    order = np.argsort(scores.probabilities, kind="stable")
    parts = [part for part in np.array_split(order, n_bins) if len(part)]
    return [
        (
            float(scores.probabilities[part].mean()),
            metrics.clopper_pearson(int(scores.labels[part].sum()), len(part)),
        )
        for part in parts
    ]


def histogram(scores: SystemScores, threshold: float) -> Chart:
    """Draw the scores of fakes upwards and those of reals downwards.

    Args:
        scores: Of the headline system.
        threshold: In use.

    Returns:
        The chart.
    """
    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    fakes, _ = np.histogram(scores.probabilities[scores.labels == 1], edges)
    reals, _ = np.histogram(scores.probabilities[scores.labels == 0], edges)
    (tn, fp), (fn, tp) = metrics.confusion(scores.labels, scores.probabilities, threshold)
    words = (
        f"At the threshold {threshold:.3f} and above lie {tp} of {tp + fn} fakes and {fp} of {tn + fp} reals; "
        f"n = {len(scores.labels)}."
    )
    largest = int(max(fakes.max(), reals.max(), 1))
    scale = nice_axis("", [0, largest], from_zero=True, count=3)
    ticks = tuple(sorted({sign * tick for tick in scale.ticks for sign in (-1.0, 1.0) if tick == round(tick)}))
    y = _MirroredAxis("samples", -scale.high, scale.high, ticks)
    plot = Plot("Scores", words, share_axis("probability of fake"), y, top=NOTE_ROOM)
    for up, down, low, high in zip(fakes, reals, edges, edges[1:], strict=False):
        if up:
            plot.box((low + 0.004, 0), (high - 0.004, float(up)), FAKE_STYLE)
        if down:
            plot.box((low + 0.004, 0), (high - 0.004, -float(down)), REAL_STYLE)
    plot.rule((threshold, -scale.high), (threshold, scale.high))
    plot.text(*_above(plot, threshold), f"threshold {threshold:.2f}", anchor=_anchor(threshold))
    return Chart(
        plot.title,
        plot.svg(),
        f"Fakes count upwards, reals downwards; apart is better. {words}",
        (
            LegendEntry(FAKE_STYLE, f"fakes (n = {tp + fn})", "box"),
            LegendEntry(REAL_STYLE, f"reals (n = {tn + fp})", "box"),
        ),
        ("probability", "fakes", "reals"),
        tuple(
            (f"{low:.2f}–{high:.2f}", str(up), str(down))
            for low, high, up, down in zip(edges, edges[1:], fakes, reals, strict=False)
        ),
    )


class _MirroredAxis(Axis):
    """Counts on both sides of 0."""

    def text(self, tick: float) -> str:
        return f"{abs(tick):g}"


def _anchor(threshold: float) -> str:
    return "start" if threshold < 0.3 else "end" if threshold > 0.7 else "middle"


def _above(plot: Plot, threshold: float) -> tuple[float, float]:
    return plot.px(threshold), plot.top - 5


def thresholds(scores: SystemScores, points: Sequence[OperatingPoint], default: str) -> Chart:
    """Draw detection rate and false alarms over the threshold.

    Args:
        scores: Of the headline system.
        points: Operating points as measured on test.
        default: Name of the one in use.

    Returns:
        The chart.
    """
    grid = np.linspace(0, 1, 201)
    words = "; ".join(
        f"{point.name} at {point.threshold:.3f}: true positive rate {full(point.tpr, '%')}, "
        f"false positive rate {full(point.fpr, '%')}"
        for point in points
    )
    plot = Plot("Thresholds", words, share_axis("threshold"), share_axis("share called fake"), top=NOTE_ROOM)
    for label, style in ((1, FAKE_STYLE), (0, REAL_STYLE)):
        own = np.sort(scores.probabilities[scores.labels == label])
        if len(own):
            shares = 1 - np.searchsorted(own, grid, side="left") / len(own)
            plot.line(list(zip(grid.tolist(), shares.tolist(), strict=True)), style, strong=True)
    used = next(point for point in points if point.name == default)
    plot.rule((used.threshold, 0), (used.threshold, 1))
    plot.text(*_above(plot, used.threshold), f"in use: {used.threshold:.2f}", anchor=_anchor(used.threshold))
    return Chart(
        plot.title,
        plot.svg(),
        f"What another threshold would do on test; shown, not chosen: thresholds come from calib. {_counts(scores)}.",
        (
            LegendEntry(FAKE_STYLE, "fakes called fake (want high)"),
            LegendEntry(REAL_STYLE, "reals called fake (want low)"),
        ),
        (
            "operating point",
            "threshold",
            "true positive rate, 95 % interval, n",
            "false positive rate, 95 % interval, n",
        ),
        tuple((p.name, f"{p.threshold:.3f}", full(p.tpr, "%"), full(p.fpr, "%")) for p in points),
    )


def estimates(
    title: str,
    caption: str,
    named: Mapping[str, Estimate],
    axis: Axis,
    *,
    reference: float | None = None,
    style: int = 0,
    neutral: str = "guessing",
    digits: int = 2,
) -> Chart:
    """Draw estimates with their intervals below each other.

    Args:
        title: Of the chart.
        caption: What to see.
        named: Name to estimate, from top to bottom.
        axis: From and to.
        reference: Where a dashed line stands, for example 0.5 for guessing.
        style: Colour.
        neutral: What the dashed line stands for.
        digits: Decimals of the numbers in the drawing.

    Returns:
        The chart.
    """
    unit: Unit = "%" if axis.percent else ""
    bars = [
        Bar(
            name,
            one.value,
            one.low,
            one.high,
            full(one, unit, digits),
            style,
        )
        for name, one in named.items()
    ]
    words = "; ".join(f"{name} {full(one, unit, digits)}" for name, one in named.items())
    svg = interval_rows(title, words, bars, axis, reference)
    rows = tuple((name, full(one, unit)) for name, one in named.items())
    legend = [LegendEntry(style, "estimate with 95 % interval", "dot")]
    legend += [LegendEntry(0, neutral, "rule")] * (reference is not None)
    return Chart(title, svg, caption, tuple(legend), ("", "estimate, 95 % interval, n"), rows)


def robustness(table: pd.DataFrame, names: Sequence[str]) -> list[Chart]:
    """Draw the AUC over the severity of each damage.

    Args:
        table: Rows of ROBUSTNESS.
        names: Systems, in the order of their colours elsewhere.

    Returns:
        One chart a damage.
    """
    style = styles([*names, "fusion"])
    clean = table.loc[table["severity"] == 0]
    charts = []
    for damage in dict.fromkeys(table.loc[table["severity"] > 0, "perturbation"]):
        rows = pd.concat([clean, table.loc[table["perturbation"] == damage]])
        charts.append(_robustness_chart(str(damage), beside_auc(rows, "severity"), style))
    return charts


BESIDE_AUC = {"roc_auc_change": "against undamaged", "tpr": "fakes found", "fpr": "false alarms"}


def beside_auc(rows: pd.DataFrame, condition: str) -> pd.DataFrame:
    """Put the change and both rates at the threshold in use beside the AUC of each system and condition.

    Args:
        rows: Rows of ROBUSTNESS, of one damage or attack with its undamaged rows.
        condition: ``severity`` or ``epsilon``; 0 is undamaged.

    Returns:
        The rows of the AUC with the columns of `BESIDE_AUC`, as text.
    """
    keys = ["system", condition]
    auc = rows.loc[(rows["metric"] == "roc_auc") & rows["value"].notna()]
    for metric, title in BESIDE_AUC.items():
        own = rows.loc[rows["metric"] == metric]
        unit: Unit = "" if metric == "roc_auc_change" else "%"
        # Against itself nothing changes.
        texts = [full(estimate_of(row), unit) if unit or row[condition] else "–" for row in own.to_dict("records")]
        auc = auc.merge(own[keys].assign(**{title: texts}), on=keys, how="left")
    return auc


def _robustness_chart(damage: str, rows: pd.DataFrame, style: Mapping[str, int]) -> Chart:
    about = PERTURBATIONS[damage]
    systems = [name for name in style if name in set(rows["system"])]
    ordered = rows.sort_values(["system", "severity"])
    tabled = tuple(
        (name, str(row["severity"]), full(estimate_of(row)), *(str(row[title]) for title in BESIDE_AUC.values()))
        for name in systems
        for row in ordered.loc[ordered["system"] == name].to_dict("records")
    )
    words = "; ".join(f"{system}, severity {severity}: AUC {text}" for system, severity, text, *_ in tabled)
    low = min(0.4, float(rows["low"].fillna(rows["value"]).min())) if len(rows) else 0.0
    y = (
        Axis("ROC AUC", 0.0, 1.0, (0, 0.25, 0.5, 0.75, 1))
        if low < 0.2
        else Axis("ROC AUC", 0.2, 1, (0.25, 0.5, 0.75, 1))
    )
    plot = Plot(about.title, words, integer_axis("severity (0 is undamaged)", 0, 5), y)
    plot.rule((0, 0.5), (5, 0.5))
    crowded = len(systems) > MANY_SYSTEMS
    for place, name in enumerate(reversed(systems)):
        own = ordered.loc[ordered["system"] == name]
        # Shifted a little sideways, or whiskers of the systems would hide each other.
        shift = 0.07 * (place - (len(systems) - 1) / 2)
        strong = name == "ensemble"
        _robustness_line(plot, own, style[name], shift, strong=strong, whiskers=strong or not crowded)
    drawn = ", drawn for the ensemble, of the others in the numbers" if crowded else ""
    steps = ", ".join(f"{level:g}" for level in about.levels)
    n = int(rows["n"].max()) if len(rows) else 0
    return Chart(
        about.title,
        plot.svg(),
        f"Severities 1 to 5 are {steps} ({about.parameter}). 95 % intervals{drawn}; n = {n}.",
        (*(LegendEntry(style[name], name) for name in systems), GUESSING),
        ("system", "severity", "ROC AUC, 95 % interval, n", *BESIDE_AUC.values()),
        tabled,
    )


def _robustness_line(plot: Plot, rows: pd.DataFrame, style: int, shift: float, *, strong: bool, whiskers: bool) -> None:
    x = np.clip(rows["severity"].to_numpy(float) + shift, 0, 5)
    for place, low, high in zip(x, rows["low"], rows["high"], strict=True):
        if whiskers and low == low and high == high:
            plot.whisker((float(place), max(low, plot.y.low)), (float(place), high), style)
    values = rows["value"].to_numpy(float)
    plot.line(list(zip(x.tolist(), values.tolist(), strict=True)), style, strong=strong)
    for place, value in zip(x, values, strict=True):
        plot.dot(float(place), float(value), style)


def estimate_of(row: Mapping[Hashable, Any]) -> Estimate:
    """Read the figure of a row of ROBUSTNESS."""
    value, low, high = (None if pd.isna(row[name]) else float(row[name]) for name in ("value", "low", "high"))
    return Estimate(value=value, low=low, high=high, n=int(row["n"]))


def training(info: DetectorInfo) -> list[Chart]:
    """Draw the loss and the val AUC over the epochs.

    Args:
        info: Of the detector.

    Returns:
        The chart of losses, and that of the AUC if there were val rows of both classes.
    """
    if not info.curve:
        return []
    epochs = [point.epoch for point in info.curve]
    x = integer_axis("epoch", min(epochs), max(epochs))
    train = [(float(p.epoch), p.train_loss) for p in info.curve]
    val = [(float(p.epoch), p.val_loss) for p in info.curve if p.val_loss is not None]
    auc = [(float(p.epoch), p.val_auc) for p in info.curve if p.val_auc is not None]
    table = tuple(
        (str(p.epoch), number(p.train_loss), number(p.val_loss), number(p.val_auc), f"{p.learning_rate:.2g}")
        for p in info.curve
    )
    headers = ("epoch", "train loss", "val loss", "val AUC", "learning rate")
    words = f"from {info.curve[0].train_loss:.3f} to {info.curve[-1].train_loss:.3f} over {len(epochs)} epochs"
    losses = Plot(
        f"Loss of {info.name}",
        f"Training loss {words}; epoch {info.best_epoch} was kept.",
        x,
        nice_axis("loss", [value for _, value in train + val], from_zero=True),
    )
    _epochs(losses, [(train, 0), (val, 1)], info.best_epoch)
    charts = [
        Chart(
            losses.title,
            losses.svg(),
            f"Epoch {info.best_epoch} of {len(epochs)} was kept, chosen on val.",
            (LegendEntry(0, "train"), LegendEntry(1, "val"), LegendEntry(0, "kept", "rule")),
            headers,
            table,
        )
    ]
    if auc:
        best = f"At epoch {info.best_epoch}, which was kept: val AUC {full(info.val_auc)}"
        plot = Plot(f"Val AUC of {info.name}", f"{best}.", x, share_axis("ROC AUC on val, by video"))
        plot.rule((x.low, 0.5), (x.high, 0.5))
        _epochs(plot, [(auc, 1)], info.best_epoch)
        legend = (LegendEntry(1, "val"), LegendEntry(0, "kept, and guessing", "rule"))
        charts.append(Chart(plot.title, plot.svg(), f"{best}; optimistic, because it was chosen on it.", legend))
    return charts


def _epochs(plot: Plot, lines: Sequence[tuple[Sequence[Point], int]], best_epoch: int) -> None:
    plot.rule((best_epoch, plot.y.low), (best_epoch, plot.y.high))
    for points, style in lines:
        plot.line(points, style)
        for x, y in points:
            plot.dot(x, y, style, radius=2.6)


def importance(weights: Sequence[InputWeight], titles: Mapping[str, str], fusion: FusionInfo, limit: int = 20) -> Chart:
    """Draw what the fusion leans on, which way, and how sure that is.

    Args:
        weights: The largest first.
        titles: Input to readable name.
        fusion: Says whether these weights are used, and whether they were fitted or written.
        limit: How many of the largest are shown.

    Returns:
        The chart.
    """
    alone = [weight for weight in weights if weight.input != ENSEMBLE]
    # The networks weigh so much more than any feature that beside them the features could not be told apart.
    shown = alone[:limit]
    bars = []
    for weight in shown:
        one = weight.coefficient
        style = UNSURE_STYLE if not weight.clear else FAKE_STYLE if (one.value or 0) > 0 else REAL_STYLE
        text = _signed(one)
        bars.append(Bar(titles.get(weight.input, weight.input), one.value, one.low, one.high, text, style))
    ends = [end for bar in bars for end in (bar.value, bar.low, bar.high) if end is not None]
    fitted = fusion.method != "fallback"
    title = "Features that fusion leans on" if fusion.used else "Features that fusion would lean on"
    title = title if fitted else "Written weights of the features"
    words = "; ".join(f"{bar.label} {bar.text}" for bar in bars) or "0 features"
    rest = f" The {len(alone) - len(shown)} smaller ones are left out." if len(alone) > len(shown) else ""
    n = shown[0].coefficient.n if shown else 0
    how = (
        f"Fitted on calib, with 95 % intervals; n = {n}. One whose interval holds 0 has no sure direction. Not a proof "
        "of cause."
        if fitted
        else "Not fitted: the directions are those that the catalogue of features expects."
    )
    axis = signed_axis("push on the logit by one standard deviation more", ends)
    return Chart(
        title,
        interval_rows(title, words, bars, axis, 0.0),
        f"To the right, a high value speaks for fake; to the left, for real. {how}{_networks_beside(weights)}{rest}",
        (
            LegendEntry(FAKE_STYLE, "speaks for fake", "dot"),
            LegendEntry(REAL_STYLE, "speaks for real", "dot"),
            *([LegendEntry(UNSURE_STYLE, "not sure", "dot")] if fitted else []),
        ),
        ("input", "coefficient, 95 % interval, n", "share of all"),
        tuple(
            (titles.get(one.input, one.input), full(one.coefficient), number(one.share.value, "%")) for one in weights
        ),
    )


def _signed(one: Estimate) -> str:
    # Adding 0 after rounding turns -0 into 0.
    value = f"{round(one.value or 0, 2) + 0:+.2f}"
    return f"{value} ({interval(one, digits=2)})" if one.n else value


def _networks_beside(weights: Sequence[InputWeight]) -> str:
    for weight in weights:
        if weight.input == ENSEMBLE:
            one = weight.coefficient
            push = _signed(one)
            return f" The networks together push by {push} and carry {number(weight.share.value, '%')} of all weight."
    return ""


def gains(named: Mapping[str, Estimate], caption: str) -> Chart:
    """Draw gains in AUC around 0.

    Args:
        named: Name to gain, from top to bottom.
        caption: What to see.

    Returns:
        The chart.
    """
    ends = [end for one in named.values() for end in (one.value, one.low, one.high) if end is not None]
    axis = signed_axis("gain in ROC AUC", ends)
    return estimates("Gain over equal weights", caption, named, axis, reference=0, style=2, neutral="no gain", digits=3)


def attacks(table: pd.DataFrame, names: Sequence[str]) -> list[Chart]:
    """Draw the AUC over the strength of each attack, of the attacked network and of all that only looked on.

    Args:
        table: Rows of ROBUSTNESS with ``crafted_on`` and ``epsilon``.
        names: Systems, in the order of their colours elsewhere.

    Returns:
        One chart an attack and network attacked.
    """
    style = styles([*names, "fusion"])
    attacked = table.loc[table["crafted_on"].notna()]
    return [
        _attack_chart(str(attack), str(on), beside_auc(rows, "epsilon"), style)
        for (attack, on), rows in attacked.groupby(["perturbation", "crafted_on"], sort=False)
    ]


def _attack_chart(attack: str, on: str, rows: pd.DataFrame, style: Mapping[str, int]) -> Chart:
    rows = rows.sort_values(["system", "epsilon"])
    systems = [name for name in style if name in set(rows["system"])]
    strengths = sorted({float(value) for value in rows["epsilon"]}) or [0.0, 1.0]
    title = f"{ATTACK_TITLES.get(attack, attack)} on {on}"
    tabled = tuple(
        (name, f"{row['epsilon']:g}", full(estimate_of(row)), *(str(row[title]) for title in BESIDE_AUC.values()))
        for name in systems
        for row in rows.loc[rows["system"] == name].to_dict("records")
    )
    words = "; ".join(f"{system}, strength {strength}: AUC {text}" for system, strength, text, *_ in tabled)
    # Strengths stand at equal distances: they are chosen as multiples, and 0 has to have a place.
    places = {strength: float(place) for place, strength in enumerate(strengths)}
    x = _NamedAxis("most that a pixel changes, of 255 levels", 0, max(1, len(strengths) - 1), tuple(places.values()))
    x = replace(x, names=tuple(f"{strength:g}" for strength in strengths))
    plot = Plot(title, words, x, share_axis("ROC AUC"))
    plot.rule((x.low, 0.5), (x.high, 0.5))
    for place, name in enumerate(reversed(systems)):
        own = rows.loc[rows["system"] == name]
        own = own.assign(severity=own["epsilon"].map(places))
        shift = 0.03 * (place - (len(systems) - 1) / 2)
        _robustness_line(plot, own, style[name], shift, strong=name == on, whiskers=len(systems) <= MANY_SYSTEMS)
    n = int(rows["n"].max()) if len(rows) else 0
    return Chart(
        title,
        plot.svg(),
        f"The attack knew {on} alone; how far the others and the ensemble follow is how far it carries over. Values "
        f"below 0.5 are worse than guessing. 95 % intervals; n = {n}.",
        (
            *(LegendEntry(style[name], f"{name}, attacked" if name == on else name) for name in systems),
            GUESSING,
        ),
        ("system", "strength", "ROC AUC, 95 % interval, n", *BESIDE_AUC.values()),
        tabled,
    )


@dataclass(frozen=True)
class _NamedAxis(Axis):
    """Places with names, at equal distances."""

    names: tuple[str, ...] = ()

    def text(self, tick: float) -> str:
        return self.names[round(tick)]
