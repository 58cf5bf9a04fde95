"""The summary that leads the report: what a person needs in order to decide, in plain words."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from unmask.evaluation.cautions import cautions
from unmask.evaluation.fusion_findings import measure_certainty
from unmask.evaluation.perturbations import PERTURBATIONS
from unmask.evaluation.results import Results
from unmask.evaluation.wording import aim, count, full, interval, listing, number, readable
from unmask.schemas import Estimate

# What the first sentence of the report calls good: the lower end of the interval must reach this.
SAFE_AUC = 0.8
MANY_FALSE_ALARMS = 0.2
FEW_FOUND = 0.5
# Below this many groups, an interval that reaches down to guessing says more about the data than about the detector.
FEW_GROUPS = 20
NOUNS = {"video": "video", "image": "image", "audio": "recording"}


@dataclass(frozen=True)
class Tile:
    """One figure in large type.

    Attributes:
        title: What it is.
        value: The figure.
        interval: Its interval.
        n: What it rests on.
        meaning: How to read it.
    """

    title: str
    value: str
    interval: str
    n: str
    meaning: str


@dataclass(frozen=True)
class Summary:
    """The lead of the report.

    Attributes:
        verdict: One sentence.
        tone: good, weak or bad; colours the verdict.
        tiles: The figures that decide.
        answers: Question and answer.
        doubts: What to doubt.
    """

    verdict: str
    tone: str
    tiles: list[Tile]
    answers: list[tuple[str, str]]
    doubts: list[str]


def summarise(results: Results) -> Summary:
    """Write the summary.

    Args:
        results: The findings.

    Returns:
        Sentences and tiles.
    """
    verdict, tone = _verdict(results)
    answers = [
        ("What is it?", _what(results)),
        ("How good is it?", _quality(results)),
        ("When does it say fake?", _threshold(results)),
        ("What could it not score?", _unscored(results)),
        ("Does it survive damage and attacks?", _damage(results)),
    ]
    return Summary(verdict, tone, _tiles(results), answers, cautions(results))


def noun(results: Results, n: int) -> str:
    """Name n test samples: ``12 videos``, ``3 images``, or ``8 files`` when the modalities are mixed."""
    samples = results.inputs.samples
    modalities = set(samples.loc[samples["split"] == "test", "modality"].dropna())
    one = NOUNS.get(str(next(iter(modalities))), "file") if len(modalities) == 1 else "file"
    return count(n, one)


def _verdict(results: Results) -> tuple[str, str]:
    auc = results.video["fusion"]["roc_auc"]
    if auc.value is None:
        return "Not to be used yet: its quality cannot be measured, because test lacks one of the classes.", "bad"
    if auc.low is None or auc.high is None:
        where = f"{noun(results, auc.n)} of {count(results.n_groups, 'independent group')}"
        return f"Not to be used yet: there are too few test samples to say how good it is ({where}).", "bad"
    shown = f"ROC AUC {number(auc.value)}, 95 % interval {interval(auc)}, on {noun(results, auc.n)}"
    if auc.high < 0.5:
        return f"Not to be used: it ranks worse than guessing ({shown}).", "bad"
    if auc.low <= 0.5 and results.n_groups < FEW_GROUPS:
        groups = count(results.n_groups, "independent group")
        return f"Not to be relied on yet: test is too small to tell it from guessing ({shown} of {groups}).", "weak"
    if auc.low <= 0.5:
        return f"Not to be used: it cannot be told from guessing ({shown}).", "bad"
    if auc.low < SAFE_AUC:
        return f"Not to be relied on yet: it beats guessing, but not by a safe margin ({shown}).", "weak"
    trouble = _trouble_at_threshold(results)
    if trouble:
        return f"Not with this threshold: it ranks fakes above reals well ({shown}), but {trouble}.", "weak"
    return f"Fit for media like these: it tells fakes from reals well ({shown}).", "good"


def _trouble_at_threshold(results: Results) -> str:
    """Say what spoils the verdicts of a detector that ranks well."""
    fpr, tpr = results.point.fpr.value or 0, results.point.tpr.value or 0
    if fpr > MANY_FALSE_ALARMS:
        return f"at the threshold in use it calls {number(fpr, '%')} of reals fake (n = {results.point.fpr.n})"
    if tpr < FEW_FOUND:
        return f"at the threshold in use it finds only {number(tpr, '%')} of fakes (n = {results.point.tpr.n})"
    return ""


def _what(results: Results) -> str:
    inputs = results.inputs
    names = [detector.info.name for detector in inputs.detectors]
    n_features = sum("." in name and not name.startswith("missing:") for name in inputs.fusion.inputs)
    joined = "averaged by written weights" if inputs.fusion.method == "fallback" else "combined"
    combined = f", {joined} with {count(n_features, 'forensic feature')}" if inputs.fusion.used else ""
    trained = inputs.dataset.counts.get("train", {})
    return (
        f"A detector of manipulated media made of {count(len(names), 'neural network')} ({listing(names)}){combined}. "
        f"It was trained on {trained.get('real', 0)} reals and {trained.get('fake', 0)} fakes of "
        f"“{inputs.dataset.name}”, calibrated on others, and judged here on test samples of people and source clips "
        f"that it had never seen. How it does on other kinds of media is not measured here."
    )


def _quality(results: Results) -> str:
    figures = results.video["fusion"]
    auc = figures["roc_auc"]
    if auc.value is None:
        return "That cannot be said: there are no reals or no fakes with a score in the test split."
    text = (
        f"A fake gets a higher score than a real in {number(auc.value, '%')} of pairs "
        f"({interval(auc, '%')}, n = {auc.n}; guessing gives 50 %)."
    )
    ece, chance = figures["ece"], figures["ece_if_calibrated"]
    if ece.value is not None and chance.high is not None:
        verdict = "no more than chance explains" if ece.value <= chance.high else "more than chance explains"
        text += f" Stated probabilities are off by {full(ece)} on average, {verdict} ({interval(chance)})."
    return text + _uncertain(results)


def _uncertain(results: Results) -> str:
    """Count the verdicts that are withheld because the networks contradict each other, and how right the others are."""
    found = measure_certainty(results.inputs)
    if not found:
        return ""
    certain, uncertain = found
    threshold = number(results.inputs.ensemble.agreement_threshold, "%")
    if not _hits(uncertain.share):
        return f" The networks contradict each other on none of the {noun(results, uncertain.share.n)}."
    text = (
        f" The networks contradict each other (agreement below {threshold}) on {_hits(uncertain.share)} of "
        f"{noun(results, uncertain.share.n)}; those verdicts are called uncertain."
    )
    if certain.right.n:
        text += (
            f" Of the others, {_hits(certain.right)} of {certain.right.n} are right ({interval(certain.right, '%')})."
        )
    return text


def _hits(estimate: Estimate) -> int:
    return round((estimate.value or 0.0) * estimate.n)


def _threshold(results: Results) -> str:
    point = results.point
    return (
        f"When the probability is {point.threshold:.3f} or more ({aim(point.name)}; chosen on the calibration split). "
        f"On test this found {_of(point.tpr, 'fake')} and raised a false alarm for "
        f"{_of(point.fpr, 'real')}."
    )


def _of(estimate: Estimate, one: str) -> str:
    if estimate.value is None:
        return f"0 of 0 {one}s (undefined)"
    hits = round(estimate.value * estimate.n)
    return (
        f"{hits} of {count(estimate.n, one)} ({number(estimate.value, '%')}, 95 % interval {interval(estimate, '%')})"
    )


def _unscored(results: Results) -> str:
    unscored = results.unscored
    n_test = len(results.headline.labels) + sum(unscored.values())
    failed = sum(results.inputs.dataset.failed.values())
    before = f" {count(failed, 'file')} failed before the splits were made and belong to none." if failed else ""
    if not unscored:
        return f"Nothing: all {noun(results, n_test)} of the test split have a score.{before}"
    reasons = listing([f"{readable(code)} ({n})" for code, n in unscored.items()])
    n = sum(unscored.values())
    return (
        f"{n} of {noun(results, n_test)} of the test split: {reasons}. {'It is' if n == 1 else 'They are'} left out of "
        f"every figure; in use, such a file gets no verdict rather than a guess.{before}"
    )


def _damage(results: Results) -> str:
    table = results.robustness.table
    rows = table.loc[(table["system"] == "ensemble") & (table["metric"] == "roc_auc")].dropna(subset=["value"])
    clean, damaged = rows.loc[rows["severity"] == 0], rows.loc[rows["severity"] > 0]
    if clean.empty or damaged.empty:
        return "That was not measured."
    records = [*clean.to_dict("records"), *damaged.to_dict("records")]
    worst = min(records[1:], key=lambda row: float(row["value"]))
    first, last = (f"{row['value']:.3f} ({interval(_from_row(row))}, n = {row['n']})" for row in (records[0], worst))
    return (
        f"The ROC AUC of the networks together is {first} on undamaged crops and at worst {last} "
        f"({PERTURBATIONS[str(worst['perturbation'])].title}, severity {worst['severity']} of 5).{_attacked(results)}"
    )


def _attacked(results: Results) -> str:
    """Say what the strongest attack leaves of the ensemble."""
    table = results.attacks.table
    rows = table.loc[(table["system"] == "ensemble") & (table["metric"] == "roc_auc") & (table["epsilon"] > 0)]
    rows = rows.dropna(subset=["value"])
    if rows.empty:
        return ""
    worst = min(rows.to_dict("records"), key=lambda row: float(row["value"]))
    return (
        f" Against somebody who knows {worst['crafted_on']} and changes each pixel by {worst['epsilon']:g} of 255 "
        f"levels, it falls to {worst['value']:.3f} ({interval(_from_row(worst))}, n = {worst['n']})."
    )


def _from_row(row: Mapping[Hashable, Any]) -> Estimate:
    low, high = (None if row[name] != row[name] else row[name] for name in ("low", "high"))
    return Estimate(value=row["value"], low=low, high=high, n=row["n"])


def _tiles(results: Results) -> list[Tile]:
    auc = results.video["fusion"]["roc_auc"]
    point = results.point
    n_unscored = sum(results.unscored.values())
    n_test = len(results.headline.labels) + n_unscored
    return [
        Tile("ROC AUC", number(auc.value), interval(auc), f"n = {auc.n}", "0.5 is guessing, 1 is perfect"),
        _rate("Fakes found", point.tpr, "fake", f"at the threshold {point.threshold:.2f}"),
        _rate("False alarms", point.fpr, "real", "reals called fake at that threshold"),
        Tile("Without a score", str(n_unscored), f"of {n_test}", f"n = {n_test}", "test samples in no figure"),
    ]


def _rate(title: str, estimate: Estimate, one: str, meaning: str) -> Tile:
    return Tile(title, number(estimate.value, "%"), interval(estimate, "%"), f"n = {count(estimate.n, one)}", meaning)
