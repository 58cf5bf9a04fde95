"""What `unmask score` and the server answer about one file, and how it reads on a terminal."""

from __future__ import annotations

import textwrap
from typing import Literal

from pydantic import Field

from unmask.schemas import DetectorModality, Document

WIDTH = 100
NAME_WIDTH = 34
BAR_WIDTH = 20
# Meanings are told of so many features, those that moved the probability most.
EXPLAINED = 3
# Contributions below this many logit units move a probability by less than half a per cent.
VISIBLE_CONTRIBUTION = 0.02

Decision = Literal["real", "fake", "uncertain", "not scored"]


class DetectorEvidence(Document):
    """What one detector says.

    Attributes:
        name: The detector.
        probability: Its own calibrated P(fake); null when it saw nothing.
        weight: Its share in the ensemble, in [0, 1].
        frames: Crops that it looked at, or windows of sound that it listened to.
        modality: What it judges.
    """

    name: str
    probability: float | None = Field(ge=0, le=1)
    weight: float = Field(ge=0, le=1)
    frames: int = Field(ge=0)
    modality: DetectorModality = "face"


class FeatureEvidence(Document):
    """One forensic feature of the file.

    Attributes:
        name: Name in the catalogue.
        title: Short name for people.
        meaning: What it measures and what it says.
        unit: Unit of the value.
        value: The measurement; null when it could not be made.
        usual_low: 5th percentile over real training samples; null when unknown.
        usual_high: 95th percentile over real training samples; null when unknown.
        contribution: Signed push on the logit of P(fake), positive towards fake; null when fusion does not use it.
        reason: Why there is no value.
        bias: What else moves the value; who is measured wrongly.
    """

    name: str
    title: str
    meaning: str
    unit: str
    value: float | None
    usual_low: float | None = None
    usual_high: float | None = None
    contribution: float | None = None
    reason: str | None = None
    bias: str = ""


class TimelinePoint(Document):
    """What the detectors see in one second of a video, or hear in one of a recording.

    Attributes:
        second: Of the video, from 0.
        probability: P(fake) by the detectors alone, without the features, which exist only for the whole video.
        crops: Face crops, or windows of sound, that it rests on.
    """

    second: int = Field(ge=0)
    probability: float = Field(ge=0, le=1)
    crops: int = Field(ge=1)


class RuleEvidence(Document):
    """What a rule on top of fusion did to the probability of this file.

    Attributes:
        rule: real_evidence, artefact_scale or feedback.
        sentence: What it did and why.
        change: Change of the probability, in [-1, 1].
    """

    rule: str
    sentence: str
    change: float = Field(ge=-1, le=1)


class Verdict(Document):
    """The answer about one file.

    Attributes:
        file: Name or path as given.
        modality: image, video or audio; null when the file could not be read.
        verdict: real or fake at the operating point; uncertain when the detectors disagree; not scored when there is
            no probability.
        probability: Calibrated P(fake); null when it could not be scored.
        reason: Why it is uncertain or not scored.
        operating_point: Name of the stored threshold.
        threshold: Fake if the probability is at least this.
        agreement: How far the detectors agree, weighed by their certainty, see `unmask.ensemble.apply.agreement`.
        ensemble_probability: Calibrated P(fake) of the detectors alone, before the features are joined.
        ensemble_contribution: Push of the detectors on the logit of P(fake); null when fusion is not used.
        detectors: What each detector says.
        features: What each feature says.
        timeline: Seconds of a video in which a face was seen, or of a recording that were listened to, in order; empty
            for images.
        method: How the probability was made, as in `unmask.schemas.FusionInfo`; ``fallback`` is a weighted average by
            written weights, because too few labelled samples were there to fit fusion; null when not scored.
        rules: Rules that changed the probability, in the order in which they were applied.
        warnings: What a reader must know about this file.
        model_version: The bundle that answered.
        seconds: Wall time.
    """

    file: str
    modality: Literal["image", "video", "audio"] | None
    verdict: Decision
    probability: float | None = Field(ge=0, le=1)
    reason: str | None = None
    operating_point: str
    threshold: float = Field(ge=0, le=1)
    agreement: float | None = Field(default=None, ge=0, le=1)
    ensemble_probability: float | None = Field(default=None, ge=0, le=1)
    ensemble_contribution: float | None = None
    detectors: list[DetectorEvidence] = Field(default_factory=list)
    features: list[FeatureEvidence] = Field(default_factory=list)
    timeline: list[TimelinePoint] = Field(default_factory=list)
    method: Literal["fusion", "recalibrated", "ensemble", "fallback"] | None = None
    rules: list[RuleEvidence] = Field(default_factory=list)
    warnings: list[str] = Field(default_factory=list)
    model_version: str
    seconds: float = Field(ge=0)


def decide(
    probability: float | None, threshold: float, agreement: float | None, agreement_threshold: float
) -> tuple[Decision, str | None]:
    """Turn a probability into a verdict at the operating point.

    Args:
        probability: Calibrated P(fake), or None.
        threshold: Of the operating point.
        agreement: How far the detectors agree, in [0, 1], or None.
        agreement_threshold: Less agreement is called uncertain.

    Returns:
        The verdict, and why when it is neither real nor fake.
    """
    if probability is None:
        return "not scored", None
    if agreement is not None and agreement < agreement_threshold:
        reason = (
            f"detectors_disagree: the detectors contradict each other; counted by how sure each is, {agreement:.0%} "
            f"of what they say agrees with their common result, and a verdict needs {agreement_threshold:.0%}"
        )
        return "uncertain", reason
    return ("fake" if probability >= threshold else "real"), None


def render_text(verdict: Verdict) -> str:
    """Write a verdict for a terminal.

    Args:
        verdict: The verdict.

    Returns:
        Text of at most 100 columns (longer only where the name of the file is), without a line break at the end.
    """
    blocks = [_headline(verdict), _rules(verdict.rules)]
    if any(detector.probability is not None for detector in verdict.detectors):
        blocks.append(_detector_table(verdict))
    if any(feature.value is not None for feature in verdict.features):
        blocks.append(_feature_table(verdict))
        blocks.append(_not_measured(verdict.features))
    if verdict.warnings:
        blocks.append(["Please note", *(line for text in verdict.warnings for line in _bullet(text))])
    blocks.append([f"Model {verdict.model_version} · answered in {verdict.seconds:.1f} s"])
    return "\n\n".join("\n".join(block) for block in blocks if block)


def _headline(verdict: Verdict) -> list[str]:
    kind = f"  ({verdict.modality})" if verdict.modality else ""
    lines = [f"{verdict.file}{kind}", ""]
    if verdict.probability is None:
        return lines + _wrap(f"NOT SCORED — {_sentence(verdict.reason or 'no reason given')}", "  ")
    digits = _digits_that_differ(verdict.probability, verdict.threshold)
    lines.append(
        f"  {verdict.verdict.upper():<10} {_bar(verdict.probability, verdict.threshold)}  "
        f"{verdict.probability:.{digits}%} probability of a fake"
    )
    side = "at or above" if verdict.probability >= verdict.threshold else "below"
    lines += _wrap(
        f"The probability is {side} the threshold of {verdict.threshold:.{digits}%} (operating point "
        f"'{verdict.operating_point}', marked | in the bar).",
        "  ",
    )
    if verdict.reason:
        lines += _wrap(_sentence(verdict.reason), "  ")
    if verdict.method == "fallback":
        lines += _wrap(
            "Rule-based fallback: no fusion was trained, because there were too few labelled samples. The probability "
            "is a weighted average of the detectors and the measurements, by written weights; it is not calibrated.",
            "  ",
        )
    return lines


def _rules(rules: list[RuleEvidence]) -> list[str]:
    if not rules:
        return []
    lines = ["Rules that changed the probability"]
    for rule in rules:
        lines += _bullet(f"{rule.sentence} Change: {100 * rule.change:+.1f} percentage points.")
    return lines


def _digits_that_differ(probability: float, threshold: float) -> int:
    """Choose so many digits of a percentage that a probability below the threshold does not read as equal to it."""
    enough = (digits for digits in range(1, 7) if f"{probability:.{digits}%}" != f"{threshold:.{digits}%}")
    return 1 if probability == threshold else next(enough, 7)


def _bar(probability: float, threshold: float | None = None) -> str:
    filled = round(probability * BAR_WIDTH)
    cells = ["█"] * filled + ["·"] * (BAR_WIDTH - filled)
    if threshold is not None:
        cells[min(int(threshold * BAR_WIDTH), BAR_WIDTH - 1)] = "|"
    return "".join(cells)


def _detector_table(verdict: Verdict) -> list[str]:
    lines = [f"{'Detectors':<{NAME_WIDTH}}  {'P(fake)':>7}  {'':<{BAR_WIDTH}}  {'weight':>6}  {'frames':>6}"]
    for detector in verdict.detectors:
        known = detector.probability is not None
        shown = f"{detector.probability:.3f}" if known else "–"
        bar = _bar(detector.probability) if detector.probability is not None else ""
        lines.append(
            f"  {_shorten(detector.name, NAME_WIDTH - 2):<{NAME_WIDTH - 2}}  {shown:>7}  {bar:<{BAR_WIDTH}}  "
            f"{detector.weight:>6.2f}  {detector.frames:>6d}"
        )
    if verdict.ensemble_probability is not None:
        bar = _bar(verdict.ensemble_probability)
        lines.append(
            f"  {'together':<{NAME_WIDTH - 2}}  {verdict.ensemble_probability:>7.3f}  {bar:<{BAR_WIDTH}}"
            + (f"  {_push(verdict.ensemble_contribution)}" if verdict.ensemble_contribution is not None else "")
        )
    if verdict.agreement is not None and len(verdict.detectors) > 1:
        lines.append(f"  They agree to {verdict.agreement:.0%}, each counted by how sure it is.")
    return lines


def _feature_table(verdict: Verdict) -> list[str]:
    measured = [feature for feature in verdict.features if feature.value is not None]
    measured.sort(key=lambda feature: -abs(feature.contribution or 0.0))
    lines = [f"{'What was measured':<{NAME_WIDTH}} {'value':>9}  {'usual for reals':<15}  {'pushes to':<10}  unit"]
    for feature in measured:
        usual = ""
        if feature.usual_low is not None and feature.usual_high is not None:
            usual = f"{_number(feature.usual_low)} … {_number(feature.usual_high)}"
        line = (
            f"  {_shorten(feature.title, NAME_WIDTH - 2):<{NAME_WIDTH - 2}} {_number(feature.value):>9}  {usual:<15}  "
            f"{_push(feature.contribution):<10}  "
        )
        lines.append((line + _shorten(feature.unit, WIDTH - len(line))).rstrip())
    moving = [feature for feature in measured if abs(feature.contribution or 0.0) >= VISIBLE_CONTRIBUTION]
    for feature in moving[:EXPLAINED]:
        lines += _bullet(f"{feature.title}: {feature.meaning}")
    if all(feature.contribution is None for feature in measured):
        lines += _wrap(
            "The measurements are shown for information; the probability rests on the detectors alone.", "  "
        )
    return lines


def _push(contribution: float | None) -> str:
    if contribution is None:
        return ""
    if abs(contribution) < VISIBLE_CONTRIBUTION:
        return "—"
    return f"{'fake' if contribution > 0 else 'real'} {contribution:+.2f}"


def _not_measured(features: list[FeatureEvidence]) -> list[str]:
    """Group what could not be measured by its reason, so that one cause is told once."""
    titles: dict[str, list[str]] = {}
    for feature in features:
        if feature.value is None:
            titles.setdefault(feature.reason or "no reason given", []).append(feature.title)
    if not titles:
        return []
    lines = ["What could not be measured"]
    for reason, names in titles.items():
        lines += _bullet(f"{', '.join(names)}: {_sentence(reason)}")
    return lines


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _shorten(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _sentence(reason: str) -> str:
    """Show ``code: sentence`` as a sentence with its code behind."""
    code, colon, detail = reason.partition(": ")
    return f"{detail} [{code}]" if colon and " " not in code else reason


def _wrap(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)


def _bullet(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  - ", subsequent_indent="    ", break_on_hyphens=False)
