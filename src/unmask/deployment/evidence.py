"""``evidence.json`` of a bundle: how reliable it was on test, for those who read its verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unmask.schemas import Document, Estimate, EvaluationInfo, OperatingPoint

EVIDENCE = "evidence.json"
FIGURES = ("roc_auc", "accuracy", "recall", "precision", "brier", "ece", "ece_if_calibrated")
DRAWN_ONLY = (
    "A demonstration: this detector has seen only drawn faces of the rendered sample set. What it says of real people "
    "means nothing."
)


class EvidenceInfo(Document):
    """How good the system was on the test split.

    Attributes:
        dataset_version: Of the data.
        system: The system whose verdicts are given.
        figures: Figure to estimate over all of test, with its interval.
        slices: ``source=…``, ``manipulation=…`` or ``compression=…`` to figure to estimate.
        operating_point: The threshold of verdicts, with rates as measured on test.
        n_scored: Test samples with a score.
        n_unscored: Reason to test samples without one.
        warnings: Sentences for the reader.
        notice: What every reader of a verdict must know first; empty when there is nothing of that kind.
        optimised: Whether detectors were changed after these figures were measured; ``optimisation.json`` has the
            figures of what is served.
    """

    dataset_version: str
    system: str
    figures: dict[str, Estimate]
    slices: dict[str, dict[str, Estimate]]
    operating_point: OperatingPoint
    n_scored: int
    n_unscored: dict[str, int]
    warnings: list[str]
    notice: str = ""
    optimised: bool = False


def save_evidence(evaluation: Path, folder: Path, *, optimised: bool) -> EvidenceInfo:
    """Write the evidence of a bundle.

    Args:
        evaluation: Folder that `unmask evaluate` wrote.
        folder: Of the bundle.
        optimised: Whether detectors were changed since.

    Returns:
        What was written.

    Raises:
        ContractError: ``metrics.json`` is missing or broken.
    """
    info = EvaluationInfo.load(evaluation / "metrics.json")
    figures = info.video.get(info.headline, {})
    evidence = EvidenceInfo(
        dataset_version=info.dataset_version,
        system=info.headline,
        figures={name: figures[name] for name in FIGURES if name in figures},
        slices=info.slices,
        operating_point=info.operating_point,
        n_scored=info.n_scored,
        n_unscored=info.n_unscored,
        warnings=info.warnings,
        notice=DRAWN_ONLY if _drawn_only(info.slices) else "",
        optimised=optimised,
    )
    evidence.save(folder / EVIDENCE)
    return evidence


def _drawn_only(slices: Mapping[str, object]) -> bool:
    # Scoring imports this module, and needs nothing of what renders.
    from unmask.data.sampleset.forgery import MANIPULATIONS

    seen = {name.partition("=")[2] for name in slices if name.startswith("manipulation=")}
    return bool(seen) and seen <= set(MANIPULATIONS)
