"""The stage `evaluate`: measure everything on test, damage it, and write the report. Nothing is chosen here."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from unmask import metrics
from unmask.config import EvaluateConfig
from unmask.errors import InputError
from unmask.evaluation.attack_study import study_attacks
from unmask.evaluation.cautions import cautions
from unmask.evaluation.compare import against_headline
from unmask.evaluation.figures import as_measured, frame_systems, measure, measure_parts
from unmask.evaluation.inputs import Inputs, load_inputs
from unmask.evaluation.report import render_html, render_markdown
from unmask.evaluation.results import HEADLINE, Results
from unmask.evaluation.robustness import as_robustness, measure_robustness
from unmask.evaluation.wording import full
from unmask.schemas import ROBUSTNESS, CrossDatasetInfo, EvaluationInfo, StageOutcome, new_directory, write_table

logger = logging.getLogger(__name__)
REPORT_FILE = "report.html"
SUMMARY_FILE = "summary.md"
CROSS_FILE = "cross.json"
MAX_MESSAGES = 6
UNSCORED_POLICY = (
    "A test sample without a score is in no figure; it is counted with its reason, and the figures are given once more "
    "with every such sample taken for a mistake."
)


def run_evaluate(
    dataset: Path,
    faces: Path,
    features: Path,
    trained: Sequence[Path],
    ensemble: Path,
    fusion: Path,
    out: Path,
    config: EvaluateConfig,
    seed: int,
    cross: Path | None = None,
) -> StageOutcome:
    """Measure detectors, ensemble and fusion on the test split, and write the report.

    Args:
        dataset: Folder of `unmask ingest`.
        faces: Folder of face crops of `unmask extract`.
        features: Folder of features of `unmask extract`.
        trained: Folders of `unmask train`.
        ensemble: Folder of `unmask ensemble`.
        fusion: Folder of `unmask fuse`.
        out: Gets ``metrics.json``, ``robustness.parquet``, ``report.html`` and ``summary.md``.
        config: Settings.
        seed: Of resamples, noise, and the draw of samples for the robustness table.
        cross: Folder of `unmask cross-dataset`, to be shown in the report.

    Returns:
        The figures, the ROC curve and the confusion matrix of the headline system, and sentences for the user.

    Raises:
        ContractError: A file of an earlier stage is missing or broken.
        InputError: The folders do not belong together.
    """
    inputs = load_inputs(dataset, faces, features, trained, ensemble, fusion)
    across = None if cross is None else _load_cross(cross, inputs.dataset.version)
    results = measure_all(inputs, config, seed)
    info = document_of(results)
    with new_directory(out) as folder:
        info.save(folder / "metrics.json")
        scored_again = [table for table in (results.robustness.table, results.attacks.table) if len(table)]
        table = pd.concat(scored_again) if scored_again else as_robustness([])
        write_table(folder / "robustness.parquet", table, ROBUSTNESS)
        (folder / REPORT_FILE).write_text(render_html(results, config, seed, across), encoding="utf-8")
        (folder / SUMMARY_FILE).write_text(render_markdown(results, config, seed), encoding="utf-8")
    return _outcome(results, info, out)


def _load_cross(folder: Path, version: str) -> CrossDatasetInfo:
    found = CrossDatasetInfo.load(folder / CROSS_FILE)
    if found.dataset_version != version:
        raise InputError(
            f"The cross-dataset results in {folder} come from version {found.dataset_version[:12]} of the data set, "
            f"not from {version[:12]}.",
            "Run `unmask cross-dataset` again.",
        )
    return found


def measure_all(inputs: Inputs, config: EvaluateConfig, seed: int) -> Results:
    """Make all measurements.

    Args:
        inputs: Everything that the earlier stages wrote.
        config: Settings.
        seed: Of everything random.

    Returns:
        The findings.
    """
    systems = inputs.systems()
    headline = next(system for system in systems if system.name == HEADLINE)
    threshold = inputs.operating_point.threshold
    # Every system meets the same resamples, as far as it scored the same samples.
    video = {s.name: measure(s, threshold, np.random.default_rng([seed, 0]), config.resamples) for s in systems}
    # Resamples draw whole groups here too, because frames of a clip are alike.
    frame = {
        s.name: measure(s, threshold, np.random.default_rng([seed, 0]), config.resamples) for s in frame_systems(inputs)
    }
    return Results(
        inputs=inputs,
        systems=systems,
        video=video,
        frame=frame,
        parts={s.name: measure_parts(s, inputs.samples, threshold, seed, config.resamples) for s in systems},
        confusion=metrics.confusion(headline.labels, headline.probabilities, threshold),
        points=[as_measured(point, headline) for point in inputs.fusion.operating_points.values()],
        unscored=inputs.unscored(),
        comparisons=against_headline(
            headline, [system for system in systems if system is not headline], seed, config.resamples
        ),
        robustness=measure_robustness(inputs, config, seed),
        attacks=study_attacks(inputs, config, seed),
    )


def document_of(results: Results) -> EvaluationInfo:
    """Put the findings into the form of ``metrics.json``."""
    return EvaluationInfo(
        dataset_version=results.inputs.dataset.version,
        headline=HEADLINE,
        video=results.video,
        frame=results.frame,
        slices=results.slices,
        confusion=results.confusion,
        operating_point=results.point,
        n_scored=len(results.headline.labels),
        n_unscored=results.unscored,
        warnings=cautions(results),
        parts=results.parts,
        unresolved=results.unresolved,
        unscored_policy=UNSCORED_POLICY,
        unscored=results.unscored_by_system,
        if_unscored_were_wrong=results.if_unscored_were_wrong,
    )


def _outcome(results: Results, info: EvaluationInfo, out: Path) -> StageOutcome:
    numbers: dict[str, float | None] = {}
    for system, figures in info.video.items():
        numbers |= {f"{system}_{name}": estimate.value for name, estimate in figures.items()}
    auc, point = info.video[HEADLINE]["roc_auc"], info.operating_point
    numbers |= {
        f"{HEADLINE}_roc_auc_low": auc.low,
        f"{HEADLINE}_roc_auc_high": auc.high,
        "threshold": point.threshold,
        "true_positive_rate": point.tpr.value,
        "false_positive_rate": point.fpr.value,
        "n_scored": float(info.n_scored),
        "n_unscored": float(sum(info.n_unscored.values())),
    }
    headline = results.headline
    messages = (
        f"ROC AUC of {HEADLINE} on test: {full(auc)}",
        f"At the threshold {point.threshold:.3f}: fakes found {full(point.tpr, '%')}, "
        f"false alarms {full(point.fpr, '%')}",
        *(f"Doubt: {warning}" for warning in info.warnings[:MAX_MESSAGES]),
        f"Report: {out / REPORT_FILE}",
    )
    return StageOutcome(
        metrics={name: float(value) for name, value in numbers.items() if value is not None},
        messages=messages,
        roc=metrics.roc_points(headline.labels, headline.probabilities) or None,
        confusion=info.confusion,
    )
