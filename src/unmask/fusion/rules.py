"""Rules on top of fusion: each fitted on calib, stored, shown in the verdict, and off unless the configuration says so.

A rule is a prior belief that the data are too few to teach. It breaks calibration a little, so its effect on calib is
told whenever it is fitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from unmask.config import FusionConfig
from unmask.ensemble.apply import FloatArray
from unmask.ensemble.folds import counted
from unmask.ensemble.phrases import share_of
from unmask.features.catalogue import CATALOGUE
from unmask.fusion.apply import (
    ENSEMBLE,
    FLOW_ODDITY,
    MISSING,
    TRACES,
    apply_fusion,
    artefact_factor,
    as_row,
    real_evidence,
)
from unmask.metrics import clopper_pearson
from unmask.schemas import ArtefactScale, FusionInfo, FusionRules, RealEvidence, rows_for_choice

# Families whose features a camera and a living face produce; traces and quality covariates are no evidence of either.
CAMERA_FAMILIES = ("forensics.", "face.", "temp.")
# A strong sign of a camera is one that at most this share of fakes shows.
RARE_AMONG_FAKES = 0.05
MIN_VALUES = 8
LEAST_ARTEFACT_FACTOR = 0.2
# How often the cap should apply to reals if it is set well.
USUAL_FREQUENCY = (0.1, 0.3)
FEEDBACK_RANGE = (0.3, 2.2)
NO_TRACES = "Rule artefact_scale is left out: traces in single frames have no say in the probability."


@dataclass(frozen=True)
class RuleEffect:
    """What a rule did to one sample.

    Attributes:
        rule: real_evidence, artefact_scale or feedback.
        sentence: What a person would say.
        change: Change of the probability.
    """

    rule: str
    sentence: str
    change: float


@dataclass(frozen=True)
class FeedbackCount:
    """How often users' verdicts bore out what an input said.

    Attributes:
        right: Times it pushed towards the true label.
        wrong: Times it pushed away from it.
    """

    right: int = 0
    wrong: int = 0


def fit_rules(
    rows: pd.DataFrame, directions: Mapping[str, str], config: FusionConfig, inputs: Sequence[str]
) -> tuple[FusionRules, list[str]]:
    """Fit the rules that the configuration names.

    Args:
        rows: Calib rows with ``label`` 0 or 1, ``split`` and the features, null where not measured.
        directions: Feature to higher_fake, higher_real or none.
        config: Names the rules, and the count and the cap.
        inputs: Of the fusion that they act on.

    Returns:
        The rules and sentences on them; a rule that calib is too small for, or that has nothing to act on, is left
        out with a sentence.

    Raises:
        LeakError: A row is not of calib.
    """
    rows = rows_for_choice(rows, {"calib"}, "fit_rules")
    evidence = scale = None
    told = []
    if "real_evidence" in config.rules:
        evidence, sentence = _fit_real_evidence(rows, directions, config.real_evidence_count, config.real_evidence_cap)
        told.append(sentence)
    if "artefact_scale" in config.rules:
        scale, sentence = None, NO_TRACES
        if any(name.removeprefix(MISSING).startswith(TRACES) for name in inputs):
            scale, sentence = _fit_artefact_scale(rows)
        told.append(sentence)
    return FusionRules(real_evidence=evidence, artefact_scale=scale), told


def _fit_real_evidence(
    rows: pd.DataFrame, directions: Mapping[str, str], count: int, cap: float
) -> tuple[RealEvidence | None, str]:
    fakes, bounds, higher = rows[rows["label"] == 1], {}, {}
    for name, direction in directions.items():
        if direction == "none" or not name.startswith(CAMERA_FAMILIES) or name not in rows:
            continue
        values = fakes[name].dropna().to_numpy(dtype=np.float64)
        if len(values) >= MIN_VALUES:
            higher[name] = direction == "higher_real"
            place = 1 - RARE_AMONG_FAKES if higher[name] else RARE_AMONG_FAKES
            bounds[name] = float(np.quantile(values, place, method="higher" if higher[name] else "lower"))
    if len(bounds) < count:
        return (
            None,
            f"Rule real_evidence is left out: calib gives bounds for {len(bounds)} features, {count} are needed.",
        )
    nothing = clopper_pearson(0, 0)
    rule = RealEvidence(bounds=bounds, higher=higher, count=count, cap=cap, reals=nothing, fakes=nothing)
    columns = {name: rows[name].to_numpy(dtype=np.float64) for name in bounds}
    enough = real_evidence(rule, columns, len(rows)) >= count
    of_fakes, of_reals = enough[rows["label"] == 1], enough[rows["label"] == 0]
    rule = rule.model_copy(
        update={
            "reals": clopper_pearson(int(of_reals.sum()), len(of_reals)),
            "fakes": clopper_pearson(int(of_fakes.sum()), len(of_fakes)),
        }
    )
    told = (
        f"Rule real_evidence: on calib, {counted(count, 'strong sign')} of a camera or more hold the probability of "
        f"{share_of(rule.reals, 'real')} and {share_of(rule.fakes, 'fake')} at {cap:g} or less."
    )
    low, high = USUAL_FREQUENCY
    if rule.reals.value is not None and not low <= rule.reals.value <= high:
        told += f" Of reals {low:.0%} to {high:.0%} are usual: change `fusion.real_evidence_count`, now {count}."
    return rule, told


def _fit_artefact_scale(rows: pd.DataFrame) -> tuple[ArtefactScale | None, str]:
    name = FLOW_ODDITY
    values = rows.loc[rows["label"] == 0, name].dropna().to_numpy(dtype=np.float64) if name in rows else np.array([])
    quiet, odd = np.quantile(values, [0.5, 0.95]) if len(values) else (0.0, 0.0)
    if len(values) < MIN_VALUES or not quiet < odd:
        return None, f"Rule artefact_scale is left out: {len(values)} calib reals have a value of {name}."
    scale = ArtefactScale(quiet=float(quiet), odd=float(odd), least=LEAST_ARTEFACT_FACTOR)
    factor = float(artefact_factor(scale, values).mean())
    return scale, f"Rule artefact_scale: traces in single frames count {factor:.2f} times on average over calib reals."


def feedback_factors(counts: Mapping[str, FeedbackCount]) -> dict[str, float]:
    """Turn users' feedback into factors of the contributions.

    The factor is the odds of being right, smoothed by one sample of each kind (Laplace), and limited so that no
    amount of feedback can silence an input or let it rule.

    Args:
        counts: Input to how often it was right and wrong.

    Returns:
        Input to factor in [0.3, 2.2]; 1 without feedback.
    """
    low, high = FEEDBACK_RANGE
    return {name: min(high, max(low, (c.right + 1) / (c.wrong + 1))) for name, c in counts.items()}


def count_feedback(
    counts: Mapping[str, FeedbackCount], pushes: Iterable[tuple[str, float]], label: int
) -> dict[str, FeedbackCount]:
    """Add one sample whose truth a user has told.

    Args:
        counts: So far.
        pushes: Contributions of the inputs in this sample, as `unmask.fusion.apply.contributions` gives them.
        label: 0 real, 1 fake.

    Returns:
        New counts; an input that pushed nowhere is not counted.
    """
    new = dict(counts)
    for name, push in pushes:
        if push != 0:
            old = new.get(name, FeedbackCount())
            right = (push > 0) == (label == 1)
            new[name] = FeedbackCount(old.right + int(right), old.wrong + int(not right))
    return new


def with_feedback(info: FusionInfo, counts: Mapping[str, FeedbackCount]) -> FusionInfo:
    """Give a fusion the factors of users' feedback.

    Args:
        info: The fitted fusion.
        counts: Feedback so far.

    Returns:
        The same fusion with other factors. Its operating points were chosen without them.
    """
    known = {name: count for name, count in counts.items() if name in info.inputs}
    return info.model_copy(update={"rules": info.rules.model_copy(update={"feedback": feedback_factors(known)})})


def rule_changes(
    info: FusionInfo, ensemble_logit: npt.ArrayLike, features: Mapping[str, npt.ArrayLike]
) -> dict[str, FloatArray]:
    """Compute what each rule changes, in the order in which they apply.

    Args:
        info: The fitted fusion.
        ensemble_logit: ``(N,)`` combined logits of the ensemble; NaN where there is none.
        features: Feature name to ``(N,)`` values, NaN where not measured.

    Returns:
        feedback, artefact_scale and real_evidence, as far as there are such rules, to the change of the probability
        ``(N,)`` by that rule on top of the ones before it; NaN where there is no ensemble logit.
    """
    given = info.rules
    steps = (
        ("feedback", FusionRules(feedback=given.feedback), bool(given.feedback)),
        (
            "artefact_scale",
            FusionRules(feedback=given.feedback, artefact_scale=given.artefact_scale),
            given.artefact_scale is not None,
        ),
        ("real_evidence", given, given.real_evidence is not None),
    )
    changes = {}
    before = apply_fusion(info.model_copy(update={"rules": FusionRules()}), ensemble_logit, features)
    for name, rules, there in steps:
        if there:
            after = apply_fusion(info.model_copy(update={"rules": rules}), ensemble_logit, features)
            changes[name] = after - before
            before = after
    return changes


def rule_effects(info: FusionInfo, ensemble_logit: float, features: Mapping[str, float | None]) -> list[RuleEffect]:
    """Say what each rule does to one sample.

    Args:
        info: The fitted fusion.
        ensemble_logit: Combined logit of the ensemble.
        features: Feature name to value, None where not measured.

    Returns:
        The rules that change something, in the order in which they apply.
    """
    row = as_row(features)
    changes = rule_changes(info, np.array([ensemble_logit]), row)
    return [
        RuleEffect(name, _tell(name, info.rules, row), float(change[0]))
        for name, change in changes.items()
        if change[0] != 0
    ]


def _tell(name: str, rules: FusionRules, row: Mapping[str, FloatArray]) -> str:
    if name == "real_evidence" and rules.real_evidence is not None:
        rule = rules.real_evidence
        signs = [_title(sign) for sign, bound in rule.bounds.items() if _beyond(rule, sign, bound, row)]
        strong = f"{len(signs)} strong {'sign' if len(signs) == 1 else 'signs'} of a camera"
        return f"{strong} ({', '.join(signs)}): the probability is held at {rule.cap:.0%} or less."
    if name == "artefact_scale" and rules.artefact_scale is not None:
        factor = float(artefact_factor(rules.artefact_scale, row[FLOW_ODDITY])[0])
        return f"The motion looks natural, so that traces in single frames count {factor:.2f} times."
    changed = ", ".join(f"{_title(name)} {factor:.2f} times" for name, factor in rules.feedback.items() if factor != 1)
    return f"Users' feedback weighs anew what speaks for and against: {changed}."


def _title(name: str) -> str:
    inner = name.removeprefix(MISSING)
    title = "the detectors" if inner == ENSEMBLE else CATALOGUE[inner].title if inner in CATALOGUE else inner
    return f"no value of {title}" if name.startswith(MISSING) else title


def _beyond(rule: RealEvidence, name: str, bound: float, row: Mapping[str, FloatArray]) -> bool:
    alone = rule.model_copy(update={"bounds": {name: bound}})
    return bool(real_evidence(alone, row, 1)[0])
