"""What a reader must doubt, in plain words, the gravest first."""

from __future__ import annotations

from unmask.config import IngestConfig
from unmask.evaluation.fusion_findings import measure_rules, without_quality
from unmask.evaluation.perturbations import PERTURBATIONS
from unmask.evaluation.results import Results
from unmask.evaluation.wording import aim, count, full, inner, interval, listing, number, readable
from unmask.fusion.apply import LARGEST_SHARE_OF_TRACES, share_of_traces
from unmask.schemas import Estimate, FeatureHealth

FEW_SAMPLES = 30
FEW_GROUPS = 10
MANY_UNSCORED = 0.05
MANY_FAILED = 0.1


def cautions(results: Results) -> list[str]:
    """Say what limits the findings.

    Args:
        results: The findings.

    Returns:
        Sentences; empty when there is nothing to doubt beyond the intervals.
    """
    return [
        *_ranking(results),
        *_size(results),
        *_data(results),
        *_scoring(results),
        *_probabilities(results),
        *_threshold(results),
        *_fusion(results),
        *_rules(results),
        *_robustness(results),
        *_features(results.inputs.extraction.health),
    ]


def _ranking(results: Results) -> list[str]:
    auc = results.video["fusion"]["roc_auc"]
    if auc.value is None:
        return [
            f"Nothing can be said about the quality: the test split has {count(results.n_reals, 'real')} and "
            f"{count(results.n_fakes, 'fake')} with a score, and both kinds are needed."
        ]
    if auc.low is None or auc.high is None:
        groups = count(results.n_groups, "independent group")
        return [f"The ROC AUC of {number(auc.value)} proves nothing: {groups} in test are too few for an interval."]
    if auc.high < 0.5:
        return [f"The ranking is worse than guessing: ROC AUC {full(auc)}. Check that the labels are not swapped."]
    if auc.low <= 0.5:
        return [f"The ranking cannot be told from guessing: ROC AUC {full(auc)}, while guessing gives 0.5."]
    return []


def _size(results: Results) -> list[str]:
    sentences = []
    if min(results.n_reals, results.n_fakes) < FEW_SAMPLES:
        sentences.append(
            f"The test split is small: {count(results.n_reals, 'real')} and {count(results.n_fakes, 'fake')} with a "
            f"score. Read every figure with its interval, and do not compare models by them."
        )
    if results.n_groups < FEW_GROUPS:
        sentences.append(
            f"The test samples come from only {count(results.n_groups, 'independent group')} (people or source clips); "
            "with so few, the intervals themselves are too narrow."
        )
    return sentences


def _data(results: Results) -> list[str]:
    dataset = results.inputs.dataset
    sentences = list(dataset.warnings)
    audit = dataset.metadata_audit_auc
    limit = float(IngestConfig.model_fields["metadata_auc_limit"].default)
    told = any("metadata" in warning.lower() for warning in dataset.warnings)
    if audit.value is not None and audit.value > limit and not told:
        sentences.append(
            f"File metadata alone tell reals from fakes (ROC AUC {inner(audit)}): size, codec or bitrate differ "
            "between the classes, and a detector may have learned that instead of forgery."
        )
    n_failed = len(results.inputs.failed())
    total = len(results.inputs.samples)
    if total and n_failed / total > MANY_FAILED:
        sentences.append(
            f"{n_failed} of {total} files could not be used ({number(n_failed / total, '%')}); what is left may be the "
            "easier part."
        )
    return sentences


def _scoring(results: Results) -> list[str]:
    n_unscored = sum(results.unscored.values())
    n_test = n_unscored + len(results.headline.labels)
    sentences = []
    if n_test and n_unscored / n_test > MANY_UNSCORED:
        reasons = listing([f"{readable(code)} {n}" for code, n in results.unscored.items()])
        sentences.append(
            f"{n_unscored} of {n_test} test samples are in no figure ({reasons}); the figures hold for the others only."
        )
    for name, gap in results.robustness.out_of_parity.items():
        sentences.append(
            f"The stored scores of {name} cannot be reproduced from its weights (logits differ by up to {gap:.2g}); "
            "train it again."
        )
    return sentences


def _probabilities(results: Results) -> list[str]:
    figures = results.video["fusion"]
    ece, by_chance = figures["ece"], figures["ece_if_calibrated"]
    if ece.value is None or by_chance.high is None or ece.value <= by_chance.high:
        return []
    return [
        f"The probabilities are not to be taken at their word: the calibration error is {full(ece)}, and chance alone "
        f"would explain {interval(by_chance)}."
    ]


def _threshold(results: Results) -> list[str]:
    chosen, measured = results.inputs.operating_point, results.point
    sentences = []
    if not chosen.resolvable:
        note = f" {_sentence(chosen.note)}" if chosen.note else ""
        sentences.append(
            f"The calibration split is too small to promise what the threshold in use does "
            f"({chosen.threshold:.3f}, {aim(chosen.name)}; false alarms on calib: {inner(chosen.fpr, '%')}).{note}"
        )
    if chosen.fpr.high is not None and measured.fpr.low is not None and measured.fpr.low > chosen.fpr.high:
        sentences.append(
            f"There are more false alarms on test ({inner(measured.fpr, '%')}) than calib promised "
            f"({inner(chosen.fpr, '%')}): the threshold does not carry over."
        )
    return sentences


def _sentence(text: str) -> str:
    text = text.strip()
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "!", "?")) else ".")


def _fusion(results: Results) -> list[str]:
    fusion, analysis = results.inputs.fusion, results.inputs.analysis
    if fusion.method == "fallback":
        return [_sentence(fusion.decision)]
    if not fusion.used:
        why = "with them, probabilities on calib were no better; the section on the combination has the figures."
        if analysis is None:
            return [f"The forensic features have no say in the verdict. {_sentence(fusion.decision)}"]
        return [f"The forensic features have no say in the verdict: {why}"]
    sentences = []
    traces, features = share_of_traces(fusion.importance)
    if traces > LARGEST_SHARE_OF_TRACES:
        sentences.append(
            f"Artefact and frequency features carry {number(traces, '%')} of the weight of all features "
            f"({number(features, '%')} of that of fusion). They follow compression and size more than forgery: check "
            "that these are matched between reals and fakes."
        )
    loss = without_quality(analysis.ablations) if analysis else None
    if loss is not None and loss.change is not None:
        sentences.append(
            f"Fusion leans on measures of quality: without them its ROC AUC on calib falls by "
            f"{inner(loss.change.model_copy(update=_turned(loss.change)))}. Quality tells how a file was coded, not "
            "whether it is forged."
        )
    ours, ensemble = (results.video[name]["roc_auc"] for name in ("fusion", "ensemble"))
    if ours.value is not None and ensemble.value is not None and ours.value < ensemble.value:
        sentences.append(
            f"Fusion ranks no better on test than the detectors without the forensic features "
            f"(ROC AUC {inner(ours)}, against {inner(ensemble)})."
        )
    return sentences


def _turned(change: Estimate) -> dict[str, float | None]:
    """Turn a change into a loss."""
    low, value, high = (None if end is None else -end for end in (change.high, change.value, change.low))
    return {"low": low, "value": value, "high": high}


def _of(share: Estimate, one: str) -> str:
    hits = round((share.value or 0.0) * share.n)
    return f"{hits} of {count(share.n, one)} ({interval(share, '%')})"


def _rules(results: Results) -> list[str]:
    sentences = []
    for one in measure_rules(results.inputs):
        if one.unusual and one.calib_reals is not None:
            sentences.append(
                f"Strong camera evidence holds the probability of {_of(one.calib_reals, 'calib real')} down; 10 to "
                "30 % are usual. Change `fusion.real_evidence_count`."
            )
        if one.rule == "real_evidence" and (one.fakes.value or 0) > 0:
            sentences.append(
                f"Strong camera evidence also holds the probability of {_of(one.fakes, 'fake')} of test down."
            )
    return sentences


def _robustness(results: Results) -> list[str]:
    table = results.robustness.table
    rows = table.loc[(table["system"] == "ensemble") & (table["metric"] == "roc_auc")].dropna(subset=["value"])
    clean, damaged = rows.loc[rows["severity"] == 0], rows.loc[rows["severity"] > 0]
    if clean.empty or damaged.empty or clean["value"].iloc[0] <= 0.5:
        return []
    before = float(clean["value"].iloc[0])
    # More than half of what was better than guessing is gone.
    lost = damaged.loc[damaged["value"] - 0.5 < (before - 0.5) / 2].sort_values("severity")
    if lost.empty:
        return []
    mildest = lost.drop_duplicates("perturbation")
    cases = listing(
        [f"{PERTURBATIONS[str(r.perturbation)].title} from severity {r.severity}" for r in mildest.itertuples()]
    )
    return [f"Damage takes away more than half of the ensemble's advantage over guessing: {cases} of 5."]


def _features(health: list[FeatureHealth]) -> list[str]:
    critical = [one.name for one in health if one.level == "critical"]
    warning = [one.name for one in health if one.level == "warning"]
    sentences = []
    if health and not any(one.n for one in health):
        return ["There are no forensic features of such media: the verdict rests on the detectors alone."]
    if critical:
        sentences.append(f"Unusable in these data: {listing(critical)}; the health table says why and what to do.")
    if warning:
        sentences.append(f"To be used with care: {listing(warning)}; see the health table.")
    return sentences
