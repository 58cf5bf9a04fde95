"""Whether a version may carry an alias: a pure decision over what the stages wrote and what the champion says.

There are two questions. Is the version sound, so that it may be put on trial? And is it good enough to become
champion: better than the one that serves, or not worse by more than a stated margin, on the same test samples? Each
criterion is a function from the evidence to one line of the decision document.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask import metrics
from unmask.config import BundleConfig, PromoteConfig
from unmask.deployment.paired import parts
from unmask.schemas import Criterion, DatasetInfo, Estimate, EvaluationInfo, Manifest

# The bundle stage may be told to accept a worse export, to look at it; the alias is not given to one.
PARITY_LIMIT: float = BundleConfig().parity_tolerance
MIN_SAMPLES_PER_CLASS = 1
SEED = 20
GUESSING = 0.5
TRIED_SYSTEM = "ensemble"
FIRST = "There is no champion yet: nothing to compare with."
Verdict = Literal["passed", "failed", "undecided", "missing", "not applicable"]


@dataclass(frozen=True)
class Champion:
    """The version that serves, as far as it can be compared.

    Attributes:
        version: Its number.
        threshold: From which probability on it calls a file fake.
        paired: Rows of TEST_SCORES of the challenger that the champion scored too and was not fitted on, with its
            probability in the column ``champion``; None when there are none.
        source: Where the champion's scores come from, in plain words; or why there are none.
        damaged: Damage to rows as in ``paired``, both scored on damaged crops; None when that was not possible.
        robustness: Rows of ROBUSTNESS of the champion's own evaluation; None when it is not comparable.
    """

    version: str
    threshold: float
    paired: pd.DataFrame | None
    source: str
    damaged: Mapping[str, pd.DataFrame] | None = None
    robustness: pd.DataFrame | None = None


@dataclass(frozen=True)
class Evidence:
    """All that the decision looks at.

    Attributes:
        manifest: Of the bundle.
        evaluation: What `unmask evaluate` measured on test.
        dataset: What `unmask ingest` found.
        dataset_versions: Document name to the data set version that it states.
        extractor_versions: Document name to the extractor version that it states.
        file_problems: What is wrong with the files of the bundle, from `unmask.deployment.bundle.file_problems`.
        scores: Rows of TEST_SCORES of the bundle; None when they could not be read.
        threshold: From which probability on the bundle calls a file fake.
        robustness: Rows of ROBUSTNESS; None when there are none.
        leaks: From `unmask.deployment.paired.leaks`; None when the samples could not be read.
        champion: The version that serves; None when there is none.
    """

    manifest: Manifest
    evaluation: EvaluationInfo
    dataset: DatasetInfo
    dataset_versions: Mapping[str, str]
    extractor_versions: Mapping[str, str]
    file_problems: Sequence[str] = field(default=())
    scores: pd.DataFrame | None = None
    threshold: float = GUESSING
    robustness: pd.DataFrame | None = None
    leaks: Sequence[str] | None = None
    champion: Champion | None = None


class GateResult(NamedTuple):
    """The decision.

    Attributes:
        criteria: One line each, in the order of `CRITERIA`.
        sound: Whether the version may be put on trial.
        ready: Whether it may become champion.
        summary: One or two sentences.
    """

    criteria: list[Criterion]
    sound: bool
    ready: bool
    summary: str


def decide(evidence: Evidence, config: PromoteConfig) -> GateResult:
    """Check every criterion.

    Args:
        evidence: What the stages wrote.
        config: The bounds.

    Returns:
        Every criterion with its value and bound (all of them, also after one has failed), and the decision.
    """
    criteria = [criterion(evidence, config) for criterion in CRITERIA]
    sound = all(each.passed for each in criteria if each.needed_for == "trial")
    ready = all(each.passed for each in criteria)
    return GateResult(criteria, sound, ready, _summary(evidence, criteria, sound, ready))


def _summary(evidence: Evidence, criteria: Sequence[Criterion], sound: bool, ready: bool) -> str:
    champion = evidence.champion
    if ready and champion is None:
        auc = evidence.evaluation.video.get(evidence.evaluation.headline, {}).get("roc_auc")
        return f"All {len(criteria)} criteria passed; it may become the first champion. Test AUC {auc}."
    if ready and champion is not None:
        ranking = next(each for each in criteria if each.name == RANKING)
        may = f"All {len(criteria)} criteria passed; it may replace champion version {champion.version}."
        return f"{may} {ranking.sentence}"
    by_verdict = {
        verdict: [each.name for each in criteria if not each.passed and each.verdict == verdict]
        for verdict in ("failed", "missing", "undecided")
    }
    said = [
        f"{words}: {', '.join(by_verdict[verdict])}"
        for verdict, words in (
            ("failed", "not passed"),
            ("missing", "evidence is missing"),
            ("undecided", "too few samples to decide"),
        )
        if by_verdict[verdict]
    ]
    stays = f"Version {champion.version} stays champion" if champion else "It does not become champion"
    trial = "" if sound else "No alias. "
    return f"{trial}{stays}; {'; '.join(said)}."


def _line(
    name: str,
    verdict: Verdict,
    value: str,
    bound: str,
    sentence: str,
    needed_for: Literal["trial", "champion"] = "champion",
) -> Criterion:
    return Criterion(
        name=name,
        value=value,
        bound=bound,
        passed=verdict in ("passed", "not applicable"),
        verdict=verdict,
        needed_for=needed_for,
        sentence=sentence,
    )


def _trial(name: str, value: str, bound: str, passed: bool, good: str, bad: str) -> Criterion:
    return _line(name, "passed" if passed else "failed", value, bound, good if passed else bad, "trial")


# --- sound enough to be put on trial ---------------------------------------------------------------------------------


def _auc(evidence: Evidence, config: PromoteConfig) -> Criterion:
    headline = evidence.evaluation.headline
    auc = evidence.evaluation.video.get(headline, {}).get("roc_auc")
    passed = auc is not None and auc.value is not None and auc.value >= config.min_auc
    return _trial(
        f"test AUC of {headline}",
        "not in metrics.json" if auc is None else str(auc),
        f"at least {config.min_auc:g}",
        passed,
        "It ranks fakes above reals well enough to be looked at.",
        "It does not rank fakes above reals well enough to be looked at.",
    )


def _test_size(evidence: Evidence, config: PromoteConfig) -> Criterion:
    (true_negative, false_positive), (false_negative, true_positive) = evidence.evaluation.confusion
    reals, fakes = true_negative + false_positive, false_negative + true_positive
    unscored = sum(evidence.evaluation.n_unscored.values())
    return _trial(
        "test samples with a score",
        f"{reals} real, {fakes} fake ({unscored} without a score)",
        f"at least {MIN_SAMPLES_PER_CLASS} of each class",
        min(reals, fakes) >= MIN_SAMPLES_PER_CLASS,
        "Both classes were tested.",
        "A class was not tested at all.",
    )


def _files(evidence: Evidence, config: PromoteConfig) -> Criterion:
    problems = list(evidence.file_problems)
    return _trial(
        "bundle files",
        "; ".join(problems) if problems else f"{len(evidence.manifest.files)} files, all as hashed",
        "present, SHA-256 as in the manifest",
        not problems,
        "The files are those that were bundled.",
        "What would be served is not what was bundled.",
    )


def _parity(evidence: Evidence, config: PromoteConfig) -> Criterion:
    manifest = evidence.manifest
    missing = [name for name in manifest.detectors if name not in manifest.parity]
    worst = max(manifest.parity.values(), default=float("nan"))
    return _trial(
        "ONNX equals torch",
        f"no check of {', '.join(missing)}" if missing else f"largest difference of probability {worst:.1e}",
        f"at most {PARITY_LIMIT:g}",
        not missing and bool(worst <= PARITY_LIMIT),
        "What is served answers like what was trained.",
        "What is served does not answer like what was trained.",
    )


def _same(name: str, stated: Mapping[str, str]) -> Criterion:
    by_version: dict[str, list[str]] = {}
    for document, version in stated.items():
        by_version.setdefault(version, []).append(document)
    agreed = len(by_version) == 1
    value = next(iter(by_version)) if agreed else "; ".join(f"{v}: {', '.join(d)}" for v, d in by_version.items())
    return _trial(
        name,
        value or "none stated",
        "the same in every document",
        agreed,
        "All parts belong together.",
        "The parts come from different runs.",
    )


def _dataset_version(evidence: Evidence, config: PromoteConfig) -> Criterion:
    stated = {
        "bundle": evidence.manifest.dataset_version,
        "evaluation": evidence.evaluation.dataset_version,
        "dataset": evidence.dataset.version,
        **evidence.dataset_versions,
    }
    return _same("data set version", stated)


def _extractor_version(evidence: Evidence, config: PromoteConfig) -> Criterion:
    stated = {"bundle": evidence.manifest.extractor_version, **evidence.extractor_versions}
    return _same("extractor version", stated)


# --- good enough to become champion ----------------------------------------------------------------------------------

SIZE, RANKING, FALSE_ALARMS = "size of the comparison", "ranking", "false alarms"
CALIBRATION, BRIER, ROBUSTNESS_NAME, SLICES = "calibration", "Brier score", "robustness", "slices"
METADATA, LEAKS = "file metadata", "leaks between splits"


def _compared(evidence: Evidence) -> pd.DataFrame | None:
    return evidence.scores if evidence.champion is None else evidence.champion.paired


def _no_scores(name: str, bound: str, evidence: Evidence) -> Criterion:
    champion = evidence.champion
    why = "The bundle's scores on test are not there." if champion is None else champion.source
    return _line(name, "missing", "no evidence", bound, f"{why} Without it the champion stays." if champion else why)


def _size(evidence: Evidence, config: PromoteConfig) -> Criterion:
    bound = f"at least {config.min_groups} groups with reals and with fakes"
    rows = _compared(evidence)
    if rows is None:
        return _no_scores(SIZE, bound, evidence)
    reals, fakes = _groups(rows, 0), _groups(rows, 1)
    value = f"{len(rows)} samples; {reals} groups with reals, {fakes} with fakes"
    if min(reals, fakes) >= config.min_groups:
        source = f" {evidence.champion.source}" if evidence.champion else ""
        return _line(SIZE, "passed", value, bound, f"There is enough to decide on.{source}")
    return _line(
        SIZE,
        "undecided",
        value,
        bound,
        f"n = {len(rows)} cannot decide: with so few independent groups, chance alone moves every figure further than "
        "the margins allow.",
    )


def _ranking(evidence: Evidence, config: PromoteConfig) -> Criterion:
    rows = _compared(evidence)
    if evidence.champion is None:
        return _first_ranking(rows, evidence, config)
    bound = f"AUC not worse than the champion's by {config.margin_auc:g} or more"
    if rows is None or not _both_classes(rows):
        return _no_scores(RANKING, bound, evidence)
    difference = _difference(metrics.roc_auc, rows, config)
    aucs = [metrics.roc_auc(rows["label"], rows[column]) for column in ("probability", "champion")]
    value = f"{aucs[0]:.3f} against {aucs[1]:.3f}; difference {_signed(difference)}{_delong(rows)}"
    verdict = _not_worse(difference, config.margin_auc)
    if difference.low is not None and difference.low > 0:
        said = "It ranks better than the champion."
    elif difference.low == difference.high == 0:
        said = "It ranks the same samples exactly as the champion does."
    elif verdict == "passed":
        said = "It ranks not worse than the champion, within the margin."
    elif verdict == "failed":
        said = "It ranks worse than the champion."
    else:
        said = f"{difference.n} samples cannot show that it ranks not worse than the champion."
    return _line(RANKING, verdict, value, bound, said)


def _first_ranking(rows: pd.DataFrame | None, evidence: Evidence, config: PromoteConfig) -> Criterion:
    floor = max(config.min_auc, GUESSING)
    bound = f"AUC above {floor:g}, the whole interval"
    if rows is None or not _both_classes(rows):
        return _no_scores(RANKING, bound, evidence)
    auc = _estimate(metrics.roc_auc, rows, config)
    if auc.low is not None and auc.low > floor:
        return _line(RANKING, "passed", str(auc), bound, "It is shown to be better than guessing.")
    if auc.value is not None and auc.value > floor:
        return _line(RANKING, "undecided", str(auc), bound, f"n = {auc.n} cannot show that it is better than guessing.")
    return _line(RANKING, "failed", str(auc), bound, "It is not better than guessing.")


def _false_alarms(evidence: Evidence, config: PromoteConfig) -> Criterion:
    bound = f"at most {config.max_fpr:.1%} of reals, the whole interval"
    rows = evidence.scores
    if rows is None or not (rows["label"] == 0).any():
        return _line(FALSE_ALARMS, "missing", "no evidence", bound, "The bundle's scores on test are not there.")
    reals = rows.loc[rows["label"] == 0, "probability"]
    rate = metrics.clopper_pearson(int((reals >= evidence.threshold).sum()), len(reals))
    assert rate.value is not None
    assert rate.high is not None
    value = _percent(rate)
    if rate.high <= config.max_fpr:
        return _line(FALSE_ALARMS, "passed", value, bound, "False alarms are in bounds at the operating point.")
    if rate.value > config.max_fpr:
        said = "It calls too many reals fake at the operating point; choose another one (fusion.operating_point)."
        return _line(FALSE_ALARMS, "failed", value, bound, said)
    needed = _reals_needed(config.max_fpr)
    said = f"{rate.n} reals cannot show that false alarms are in bounds; without a single one it takes {needed}."
    return _line(FALSE_ALARMS, "undecided", value, bound, said)


def _calibration(evidence: Evidence, config: PromoteConfig) -> Criterion:
    bound = f"ECE at most {config.margin_ece:g} above what chance explains"
    rows = evidence.scores
    if rows is None or rows.empty:
        return _line(CALIBRATION, "missing", "no evidence", bound, "The bundle's scores on test are not there.")
    found = metrics.expected_calibration_error(rows["label"], rows["probability"])
    chance = metrics.calibration_error_if_perfect(rows["probability"], rng=np.random.default_rng(SEED))
    assert found is not None
    assert chance.value is not None
    assert chance.high is not None
    value = f"{found:.3f}; perfect probabilities would show {chance.value:.3f} [{chance.low:.3f}, {chance.high:.3f}]"
    if found <= chance.high + config.margin_ece:
        return _line(CALIBRATION, "passed", value, bound, "Its probabilities can be taken at their word.")
    return _line(CALIBRATION, "failed", value, bound, "Its probabilities are further off than chance explains.")


def _brier(evidence: Evidence, config: PromoteConfig) -> Criterion:
    bound = f"not worse than the champion's by {config.margin_brier:g} or more"
    if evidence.champion is None:
        return _line(BRIER, "not applicable", "no champion", bound, FIRST)
    rows = evidence.champion.paired
    if rows is None or rows.empty:
        return _no_scores(BRIER, bound, evidence)
    # Smaller is better: the sign is turned so that one rule serves all.
    worse = _difference(metrics.brier, rows, config)
    verdict = _not_worse(_turned(worse), config.margin_brier)
    said = {
        "passed": "Its probabilities are as close to the truth as the champion's.",
        "failed": "Its probabilities are further from the truth than the champion's.",
    }.get(verdict, f"{worse.n} samples cannot show that its probabilities are as close to the truth.")
    return _line(BRIER, verdict, f"difference {_signed(worse)} (smaller is better)", bound, said)


def _robustness(evidence: Evidence, config: PromoteConfig) -> Criterion:
    bound = f"AUC on damaged media not worse than the champion's by {config.margin_robustness:g} or more"
    champion = evidence.champion
    if champion is None:
        return _line(ROBUSTNESS_NAME, "not applicable", "no champion", bound, FIRST)
    if champion.damaged:
        return _paired_robustness(champion.damaged, bound, config)
    own, other = evidence.robustness, champion.robustness
    common = None if own is None or other is None else _common_conditions(own, other)
    if common is None or common.empty:
        said = "Neither damaged crops nor comparable robustness tables of both versions are there."
        return _line(ROBUSTNESS_NAME, "missing", "no evidence", bound, said)
    return _tabled_robustness(common, bound, config)


def _paired_robustness(damaged: Mapping[str, pd.DataFrame], bound: str, config: PromoteConfig) -> Criterion:
    # Several conditions are tested at once, so each interval is made wider (Bonferroni).
    confidence = 1 - 0.05 / len(damaged)
    found = {
        name: _difference(metrics.roc_auc, rows, config, confidence)
        for name, rows in damaged.items()
        if _both_classes(rows)
    }
    verdict = _worst([_not_worse(each, config.margin_robustness) for each in found.values()])
    value = "; ".join(f"{name} {_signed(each)}" for name, each in found.items()) or "no evidence"
    said = {
        "passed": "Damage hurts it no more than the champion.",
        "failed": "Damage hurts it more than the champion.",
        "undecided": "There are too few samples to show that damage hurts it no more than the champion.",
    }.get(verdict, "No damaged crops of both classes are there.")
    return _line(ROBUSTNESS_NAME, verdict, value, bound, said)


def _common_conditions(own: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    keys = ["perturbation", "severity"]
    tables = [
        each.loc[(each["system"] == TRIED_SYSTEM) & (each["metric"] == "roc_auc") & (each["severity"] > 0)].set_index(
            keys
        )
        for each in (own, other)
    ]
    joined = tables[0][["value"]].join(tables[1]["value"].rename("value_champion"), how="inner")
    return joined.dropna()


def _tabled_robustness(common: pd.DataFrame, bound: str, config: PromoteConfig) -> Criterion:
    drops = common["value"] - common["value_champion"]
    worst = drops.idxmin()
    value = (
        f"mean difference of AUC {drops.mean():+.3f} over {len(drops)} conditions, worst {drops.min():+.3f} "
        f"({worst[0]} {worst[1]})"  # type: ignore[index]
    )
    fine = bool(drops.mean() > -config.margin_robustness)
    said = "does not fall" if fine else "falls"
    note = "From the tables of both evaluations, which hold no interval of the difference."
    return _line(ROBUSTNESS_NAME, "passed" if fine else "failed", value, bound, f"AUC under damage {said}. {note}")


def _slices(evidence: Evidence, config: PromoteConfig) -> Criterion:
    rows = _compared(evidence)
    versus = evidence.champion is not None
    bound = (
        f"no source, manipulation or compression loses {config.max_slice_drop:g} AUC or more"
        if versus
        else "no source, manipulation or compression is ranked worse than by guessing"
    )
    if rows is None:
        return _no_scores(SLICES, bound, evidence)
    judged, small = _judged_slices(rows, config)
    check = partial(_slice_against if versus else _slice_alone, config=config)
    found = {name: check(part) for name, part in judged.items()}
    verdict = _worst([each for each, _ in found.values()]) if found else "passed"
    bad = {name: text for name, (each, text) in found.items() if each == verdict and verdict != "passed"}
    skipped = f"; too small to judge: {', '.join(small)}" if small else ""
    if verdict == "passed":
        value = f"{len(judged)} judged" + skipped
        return _line(SLICES, "passed", value, bound, "No part of the data is left behind.")
    value = "; ".join(f"{name} {text}" for name, text in bad.items()) + skipped
    words = "collapses" if verdict == "failed" else "may have collapsed; there are too few samples to tell"
    return _line(SLICES, verdict, value, bound, f"{', '.join(bad)} {words}, whatever the average says.")


def _judged_slices(rows: pd.DataFrame, config: PromoteConfig) -> tuple[dict[str, pd.DataFrame], list[str]]:
    judged, small = {}, []
    for name, part in parts(rows).items():
        if min(_groups(part, 0), _groups(part, 1)) >= config.min_slice_groups:
            judged[name] = part
        else:
            small.append(name)
    return judged, small


def _slice_against(rows: pd.DataFrame, config: PromoteConfig) -> tuple[Verdict, str]:
    difference = _difference(metrics.roc_auc, rows, config)
    if difference.value is None or difference.value > -config.max_slice_drop:
        return "passed", _signed(difference)
    worse = difference.high is not None and difference.high < 0
    return ("failed" if worse else "undecided"), _signed(difference)


def _slice_alone(rows: pd.DataFrame, config: PromoteConfig) -> tuple[Verdict, str]:
    auc = _estimate(metrics.roc_auc, rows, config)
    if auc.value is None or auc.value >= GUESSING:
        return "passed", str(auc)
    return ("failed" if auc.high is not None and auc.high < GUESSING else "undecided"), str(auc)


def _metadata(evidence: Evidence, config: PromoteConfig) -> Criterion:
    audit = evidence.dataset.metadata_audit_auc
    bound = f"AUC of file metadata alone at most {config.metadata_auc_limit:g}"
    if audit.value is None:
        said = f"Metadata were not audited: {audit.method or 'too few samples'}."
        return _line(METADATA, "missing", str(audit), bound, said)
    if audit.value <= config.metadata_auc_limit:
        return _line(METADATA, "passed", str(audit), bound, "File metadata do not give the classes away.")
    said = "File metadata alone tell real from fake, so the figures may say nothing about faces."
    return _line(METADATA, "failed", str(audit), bound, said)


def _leaks(evidence: Evidence, config: PromoteConfig) -> Criterion:
    bound = "no file and no group in two splits"
    if evidence.leaks is None:
        return _line(LEAKS, "missing", "no evidence", bound, "The table of samples is not there.")
    if evidence.leaks:
        said = "Test samples were seen before, so the figures are too good."
        return _line(LEAKS, "failed", "; ".join(evidence.leaks), bound, said)
    return _line(LEAKS, "passed", "none", bound, "No test sample was seen before.")


# --- figures ---------------------------------------------------------------------------------------------------------


def _columns(rows: pd.DataFrame) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
    groups = rows["group_id"].fillna("sample:" + rows["sample_id"]).to_numpy(object)
    return rows["label"].to_numpy(np.int64), groups


def _groups(rows: pd.DataFrame, label: int) -> int:
    labels, groups = _columns(rows)
    return len(set(groups[labels == label]))


def _both_classes(rows: pd.DataFrame) -> bool:
    return rows["label"].nunique() == 2


def _estimate(metric: metrics.Metric, rows: pd.DataFrame, config: PromoteConfig) -> Estimate:
    labels, groups = _columns(rows)
    rng = np.random.default_rng(SEED)
    return metrics.bootstrap_estimate(metric, labels, rows["probability"], groups, rng=rng, resamples=config.resamples)


def _difference(
    metric: metrics.Metric, rows: pd.DataFrame, config: PromoteConfig, confidence: float = 0.95
) -> Estimate:
    """Estimate challenger minus champion on the same resamples."""
    labels, groups = _columns(rows)
    return metrics.paired_difference(
        metric,
        labels,
        rows["champion"].to_numpy(np.float64),
        rows["probability"].to_numpy(np.float64),
        groups,
        rng=np.random.default_rng(SEED),
        resamples=config.resamples,
        confidence=confidence,
    )


def _turned(estimate: Estimate) -> Estimate:
    value, low, high = (None if each is None else -each for each in (estimate.value, estimate.high, estimate.low))
    return estimate.model_copy(update={"value": value, "low": low, "high": high})


def _not_worse(difference: Estimate, margin: float) -> Verdict:
    """Judge a difference of which larger is better: the whole interval must lie above minus the margin."""
    if difference.value is None:
        return "missing"
    if difference.low is None or difference.high is None:
        return "undecided"
    if difference.low > -margin:
        return "passed"
    # Shown to be worse, or worse than the margin on these very samples.
    return "failed" if difference.high < 0 or difference.value <= -margin else "undecided"


def _worst(verdicts: Sequence[Verdict]) -> Verdict:
    order: tuple[Verdict, ...] = ("failed", "missing", "undecided", "passed")
    return next((each for each in order if each in verdicts), "missing")


def _delong(rows: pd.DataFrame) -> str:
    labels, groups = _columns(rows)
    try:
        tested = metrics.delong(labels, rows["champion"], rows["probability"], groups)
    except ValueError:
        return ""
    return f", DeLong p = {tested.p_value:.2g}"


def _reals_needed(max_fpr: float) -> int:
    """Number of reals without a false alarm whose exact 95 % interval ends at a rate."""
    return int(np.ceil(np.log(0.025) / np.log1p(-max_fpr))) if max_fpr < 1 else 1


def _signed(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"undefined (n = {estimate.n})"
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:+.3f} (no interval, n = {estimate.n})"
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}] (n = {estimate.n})"


def _percent(rate: Estimate) -> str:
    return f"{rate.value:.1%} [{rate.low:.1%}, {rate.high:.1%}] (n = {rate.n})"


CRITERIA: tuple[Callable[[Evidence, PromoteConfig], Criterion], ...] = (
    _auc,
    _test_size,
    _files,
    _parity,
    _dataset_version,
    _extractor_version,
    _size,
    _ranking,
    _false_alarms,
    _calibration,
    _brier,
    _robustness,
    _slices,
    _metadata,
    _leaks,
)
