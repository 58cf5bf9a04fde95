"""Is one system better than another on the same test samples? `unmask compare A B`, and the table of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask import metrics
from unmask.config import EvaluateConfig
from unmask.errors import InputError
from unmask.evaluation.comparison_report import (
    ComparisonInfo,
    PairComparison,
    Side,
    comparison_html,
    comparison_markdown,
    sentences_of,
)
from unmask.evaluation.figures import rates_at
from unmask.evaluation.inputs import SystemScores, groups_of
from unmask.schemas import VIDEO_SCORES, Estimate, FusionInfo, StageOutcome, new_directory, read_table

COMPARISON_FILE = "comparison.json"
HTML_FILE = "comparison.html"
SUMMARY_FILE = "comparison.md"
# A true difference of so many standard errors is found at 5 % in four of five tries: 1.96 + 0.84.
DETECTABLE_ERRORS = 2.80


@dataclass(frozen=True)
class AgainstHeadline:
    """How a system ranks against the headline system, on the samples that both scored.

    Attributes:
        name: Of the system.
        difference: ROC AUC of the system minus that of the headline, paired cluster bootstrap.
        p_value: DeLong's test by group, corrected (Holm) for the number of systems.
    """

    name: str
    difference: Estimate
    p_value: float


def against_headline(
    headline: SystemScores, others: Sequence[SystemScores], seed: int, resamples: int
) -> list[AgainstHeadline]:
    """Compare systems with the headline system, each on the samples that both scored.

    Args:
        headline: With its scores.
        others: With theirs; they need not have scored the same samples, as detectors of faces and of sounds do not.
        seed: Of the resamples.
        resamples: How many.

    Returns:
        One row a system, but for those that share too few groups of a class with the headline for a test.
    """
    reference = _scores_by_id(headline)
    differences: dict[str, Estimate] = {}
    p_values: list[float] = []
    for other in others:
        own = _scores_by_id(other)
        common = reference.index.intersection(own.index).sort_values()
        labels = reference.loc[common, "label"].to_numpy(np.int64)
        groups = reference.loc[common, "group"].to_numpy(object)
        before, after = (table.loc[common, "score"].to_numpy(np.float64) for table in (reference, own))
        try:
            p_values.append(metrics.delong(labels, before, after, groups).p_value)
        except ValueError:  # too few groups of a class
            continue
        rng = np.random.default_rng([seed, 4])
        differences[other.name] = metrics.paired_difference(
            metrics.roc_auc, labels, before, after, groups, rng=rng, resamples=resamples
        )
    corrected = metrics.holm(p_values)
    return [
        AgainstHeadline(name, difference, p_value)
        for (name, difference), p_value in zip(differences.items(), corrected, strict=True)
    ]


def _scores_by_id(system: SystemScores) -> pd.DataFrame:
    return pd.DataFrame(
        {"label": system.labels, "group": system.groups, "score": system.probabilities}, index=system.sample_ids
    )


@dataclass(frozen=True)
class Contender:
    """One of the systems that are compared.

    Attributes:
        name: A letter, as the sentences call it.
        origin: Where it comes from: the folder of a run or of a bundle.
        rows: Labelled test samples with a score: index ``sample_id``; ``label``, ``probability`` and ``group``.
        threshold: Its own operating point: fake if the probability is at least this.
    """

    name: str
    origin: str
    rows: pd.DataFrame
    threshold: float


def run_compare(folders: Sequence[Path], out: Path, config: EvaluateConfig, seed: int) -> StageOutcome:
    """Compare runs of the pipeline on the test samples that all scored, each with the first.

    Args:
        folders: Of `unmask fuse`, two or more, on the same test samples.
        out: Gets ``comparison.json``, ``comparison.html`` and ``comparison.md``.
        config: Number of resamples.
        seed: Of the resamples.

    Returns:
        The figures and the sentences.

    Raises:
        ContractError: A file is missing or broken.
        InputError: The runs have no common test samples of both classes, or disagree about labels.
    """
    return write_comparison([contender_of(folder, place) for place, folder in enumerate(folders)], out, config, seed)


def write_comparison(contenders: Sequence[Contender], out: Path, config: EvaluateConfig, seed: int) -> StageOutcome:
    """Compare contenders and write what came out.

    Args:
        contenders: Two or more.
        out: Gets ``comparison.json``, ``comparison.html`` and ``comparison.md``.
        config: Number of resamples.
        seed: Of the resamples.

    Returns:
        The figures and the sentences.

    Raises:
        InputError: See `compare_contenders`.
    """
    info = compare_contenders(contenders, config.resamples, seed)
    with new_directory(out) as folder:
        info.save(folder / COMPARISON_FILE)
        (folder / HTML_FILE).write_text(comparison_html(info), encoding="utf-8")
        (folder / SUMMARY_FILE).write_text(comparison_markdown(info), encoding="utf-8")
    numbers: dict[str, float | None] = {"n": float(info.n)}
    for pair in info.pairs:
        after = "" if len(info.pairs) == 1 else f"_{pair.b.name}"
        numbers |= {
            f"auc_a{after}": pair.a.auc.value,
            f"auc_b{after}": pair.b.auc.value,
            f"difference{after}": pair.difference.value,
            f"difference_low{after}": pair.difference.low,
            f"difference_high{after}": pair.difference.high,
            f"p_value{after}": pair.p_value,
            f"decision_p_value{after}": pair.decision_p_value,
        }
    return StageOutcome(
        metrics={name: value for name, value in numbers.items() if value is not None},
        messages=(*(sentence for pair in info.pairs for sentence in pair.sentences), *info.left_out),
    )


def compare_contenders(contenders: Sequence[Contender], resamples: int, seed: int) -> ComparisonInfo:
    """Compare systems with the first of them, on the samples that all scored.

    Args:
        contenders: Two or more.
        resamples: Of the paired bootstrap by group.
        seed: Of the resamples; all pairs meet the same.

    Returns:
        The comparison, with p-values corrected (Holm) for the number of pairs.

    Raises:
        InputError: There are fewer than two, no common samples of both classes, or labels that differ.
    """
    if len(contenders) < 2:
        raise InputError("There is only one system to compare.", "Name two or more.")
    common = contenders[0].rows.index
    for other in contenders[1:]:
        common = common.intersection(other.rows.index)
    common = common.sort_values()
    first, *others = [replace(one, rows=one.rows.loc[common]) for one in contenders]
    for other in others:
        _check_common(first, other)
    pairs = [_pair(first, other, resamples, seed) for other in others]
    ranking = metrics.holm([pair.p_value for pair in pairs])
    deciding = metrics.holm([pair.decision_p_value for pair in pairs])
    corrected = [
        pair.model_copy(update={"p_value_corrected": p, "decision_p_value_corrected": q})
        for pair, p, q in zip(pairs, ranking, deciding, strict=True)
    ]
    return ComparisonInfo(
        n=len(common),
        n_groups=len(set(first.rows["group"])),
        pairs=[pair.model_copy(update={"sentences": sentences_of(pair, len(pairs))}) for pair in corrected],
        left_out=[
            f"Left out: {len(one.rows) - len(common)} test samples that {one.name} scored and not all others."
            for one in contenders
            if len(one.rows) > len(common)
        ],
    )


def _pair(a: Contender, b: Contender, resamples: int, seed: int) -> PairComparison:
    labels, groups = a.rows["label"].to_numpy(np.int64), a.rows["group"].to_numpy(object)
    of_a, of_b = (one.rows["probability"].to_numpy(np.float64) for one in (a, b))
    called = [scores >= one.threshold for scores, one in ((of_a, a), (of_b, b))]
    rng = partial(np.random.default_rng, seed)
    try:
        found = metrics.compare_systems(
            labels, of_a, of_b, groups, rng=rng(), resamples=resamples, thresholds=(a.threshold, b.threshold)
        )
    except ValueError as error:
        raise InputError(
            f"{a.origin} and {b.origin} share too few test samples to compare ({error}).",
            "Evaluate both on the same data set.",
        ) from error
    accuracy = metrics.paired_difference(
        metrics.accuracy,
        labels,
        called[0].astype(np.float64),
        called[1].astype(np.float64),
        groups,
        rng=rng(),
        resamples=resamples,
    )
    decided = metrics.mcnemar(labels, *called)
    sides = [_side(one, labels, scores, groups, rng(), resamples) for one, scores in ((a, of_a), (b, of_b))]
    return PairComparison(
        a=sides[0],
        b=sides[1],
        n=found.n,
        difference=found.difference,
        p_value=found.delong.p_value,
        detectable=DETECTABLE_ERRORS * found.delong.standard_error,
        effect=found.effect,
        accuracy_difference=accuracy,
        right_only_a=decided.only_a,
        right_only_b=decided.only_b,
        decision_p_value=decided.p_value,
        sentences=[],
    )


def _side(
    one: Contender,
    labels: NDArray[np.int64],
    scores: NDArray[np.float64],
    groups: NDArray[np.object_],
    rng: np.random.Generator,
    resamples: int,
) -> Side:
    fpr, tpr = rates_at(labels, scores, one.threshold)
    auc = metrics.bootstrap_estimate(metrics.roc_auc, labels, scores, groups, rng=rng, resamples=resamples)
    return Side(name=one.name, origin=one.origin, threshold=one.threshold, auc=auc, tpr=tpr, fpr=fpr)


def contender_of(folder: Path, place: int, rows: pd.DataFrame | None = None) -> Contender:
    """Read what a system scored on test.

    Args:
        folder: Of `unmask fuse`, or a bundle: it holds ``fusion.json``.
        place: 0 is A, 1 is B, …
        rows: Rows of VIDEO_SCORES; None reads those of the folder.

    Returns:
        The contender.

    Raises:
        ContractError: A file is missing or broken.
    """
    if rows is None:
        rows = read_table(folder / "scores.parquet", VIDEO_SCORES).to_pandas()
    info = FusionInfo.load(folder / "fusion.json")
    threshold = info.operating_points[info.default_operating_point].threshold
    return Contender(letter(place), str(folder), scored_rows(rows), threshold)


def scored_rows(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep the labelled test samples with a score.

    Args:
        rows: ``sample_id``, ``label``, ``group_id``, ``split``, ``probability``.

    Returns:
        Rows of a `Contender`.
    """
    rows = rows.loc[rows["split"] == "test"].dropna(subset=["label", "probability"])
    return rows.assign(group=groups_of(rows)).set_index("sample_id")[["label", "probability", "group"]]


def letter(place: int) -> str:
    """Name a contender by its place: A, B, …, then by number."""
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[place] if place < 26 else f"number {place + 1}"


def _check_common(left: Contender, right: Contender) -> None:
    if left.rows.empty:
        raise InputError(
            f"{left.origin} and {right.origin} share no scored test sample.",
            "Compare runs on the same data set and seed.",
        )
    differing = int((left.rows["label"] != right.rows["label"]).sum())
    if differing:
        raise InputError(
            f"{left.origin} and {right.origin} give {differing} of {len(left.rows)} common test samples different "
            "labels.",
            "Ingest both from the same sources.",
        )
