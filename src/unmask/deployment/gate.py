"""Whether a bundle may carry the alias: a pure decision over what the stages wrote.

Each criterion is a function from the evidence to one line of the decision document, so that a further one (against
the current champion, per slice, for drift) is one more function in `CRITERIA`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from unmask.config import BundleConfig, PromoteConfig
from unmask.schemas import DatasetInfo, EvaluationInfo, Manifest
from unmask.schemas.documents import Criterion

# The bundle stage may be told to accept a worse export, to look at it; the alias is not given to one.
PARITY_LIMIT: float = BundleConfig().parity_tolerance
MIN_SAMPLES_PER_CLASS = 1


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
    """

    manifest: Manifest
    evaluation: EvaluationInfo
    dataset: DatasetInfo
    dataset_versions: Mapping[str, str]
    extractor_versions: Mapping[str, str]
    file_problems: Sequence[str] = field(default=())


class GateResult(NamedTuple):
    """The decision.

    Attributes:
        criteria: One line each, in the order of `CRITERIA`.
        promoted: Whether every criterion passed.
        summary: One sentence.
    """

    criteria: list[Criterion]
    promoted: bool
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
    failed = [criterion.name for criterion in criteria if not criterion.passed]
    auc = evidence.evaluation.video.get(evidence.evaluation.headline, {}).get("roc_auc")
    if failed:
        return GateResult(criteria, False, f"No alias: {', '.join(failed)} did not pass.")
    summary = f"All {len(criteria)} criteria passed; test AUC {auc}."
    if auc is None or auc.low is None:
        summary += " There is no interval: test is too small to show that this is better than guessing."
    elif auc.low <= 0.5:
        summary += " The interval includes 0.5: this is not shown to be better than guessing."
    return GateResult(criteria, True, summary)


def _auc(evidence: Evidence, config: PromoteConfig) -> Criterion:
    headline = evidence.evaluation.headline
    auc = evidence.evaluation.video.get(headline, {}).get("roc_auc")
    name = f"test AUC of {headline}"
    bound = f"at least {config.min_auc:g}"
    if auc is None:
        return Criterion(name=name, value="not in metrics.json", bound=bound, passed=False)
    return Criterion(
        name=name, value=str(auc), bound=bound, passed=auc.value is not None and auc.value >= config.min_auc
    )


def _test_size(evidence: Evidence, config: PromoteConfig) -> Criterion:
    (true_negative, false_positive), (false_negative, true_positive) = evidence.evaluation.confusion
    reals, fakes = true_negative + false_positive, false_negative + true_positive
    unscored = sum(evidence.evaluation.n_unscored.values())
    return Criterion(
        name="test samples with a score",
        value=f"{reals} real, {fakes} fake ({unscored} without a score)",
        bound=f"at least {MIN_SAMPLES_PER_CLASS} of each class",
        passed=min(reals, fakes) >= MIN_SAMPLES_PER_CLASS,
    )


def _files(evidence: Evidence, config: PromoteConfig) -> Criterion:
    problems = list(evidence.file_problems)
    value = "; ".join(problems) if problems else f"{len(evidence.manifest.files)} files, all as hashed"
    return Criterion(name="bundle files", value=value, bound="present, SHA-256 as in the manifest", passed=not problems)


def _parity(evidence: Evidence, config: PromoteConfig) -> Criterion:
    manifest = evidence.manifest
    missing = [name for name in manifest.detectors if name not in manifest.parity]
    worst = max(manifest.parity.values(), default=float("nan"))
    value = f"no check of {', '.join(missing)}" if missing else f"largest difference of probability {worst:.1e}"
    return Criterion(
        name="ONNX equals torch",
        value=value,
        bound=f"at most {PARITY_LIMIT:g}",
        passed=not missing and bool(worst <= PARITY_LIMIT),
    )


def _same(name: str, stated: Mapping[str, str]) -> Criterion:
    by_version: dict[str, list[str]] = {}
    for document, version in stated.items():
        by_version.setdefault(version, []).append(document)
    agreed = len(by_version) == 1
    value = next(iter(by_version)) if agreed else "; ".join(f"{v}: {', '.join(d)}" for v, d in by_version.items())
    return Criterion(name=name, value=value or "none stated", bound="the same in every document", passed=agreed)


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


CRITERIA: tuple[Callable[[Evidence, PromoteConfig], Criterion], ...] = (
    _auc,
    _test_size,
    _files,
    _parity,
    _dataset_version,
    _extractor_version,
)
