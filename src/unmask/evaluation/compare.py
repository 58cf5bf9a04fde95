"""Is one system better than another on the same test samples? `unmask compare A B`, and the table of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from unmask import metrics
from unmask.config import EvaluateConfig
from unmask.errors import InputError
from unmask.evaluation.inputs import SystemScores, groups_of
from unmask.schemas import VIDEO_SCORES, Document, Estimate, FusionInfo, StageOutcome, read_table

COMPARISON_FILE = "comparison.json"


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
    """Compare systems with the headline system.

    Args:
        headline: With its scores.
        others: With theirs.
        seed: Of the resamples.
        resamples: How many.

    Returns:
        One row a system; empty where there are too few groups of a class for a test.
    """
    wanted = set(headline.sample_ids).intersection(*(set(one.sample_ids) for one in others))
    tables = {one.name: _scores_by_id(one).loc[sorted(wanted)] for one in (headline, *others)}
    first = tables[headline.name]
    labels, groups = first["label"].to_numpy(np.int64), first["group"].to_numpy(object)
    scores = {name: table["score"].to_numpy(np.float64) for name, table in tables.items()}
    reference = scores.pop(headline.name)
    try:
        tested = metrics.compare_all(labels, reference, scores, groups)
    except ValueError:
        return []
    rows = []
    for name, own in scores.items():
        rng = np.random.default_rng([seed, 4])
        difference = metrics.paired_difference(
            metrics.roc_auc, labels, reference, own, groups, rng=rng, resamples=resamples
        )
        rows.append(AgainstHeadline(name, difference, tested[name][1]))
    return rows


def _scores_by_id(system: SystemScores) -> pd.DataFrame:
    return pd.DataFrame(
        {"label": system.labels, "group": system.groups, "score": system.probabilities}, index=system.sample_ids
    )


class ComparisonInfo(Document):
    """``comparison.json``: two runs on the same test samples.

    Attributes:
        a: Folder of the first run's fusion.
        b: Folder of the second run's fusion.
        n: Labelled test samples that both scored.
        n_only_a: Samples that only the first scored.
        n_only_b: Samples that only the second scored.
        auc_a: ROC AUC of the first on the common samples.
        auc_b: ROC AUC of the second.
        difference: Second minus first, paired cluster bootstrap.
        p_value: DeLong's test by group, that the AUCs are equal.
        effect: Difference in d'; about 0.2 is small and 0.8 large. Null where an AUC is 0 or 1.
        right_only_a: Samples that only the first decides rightly, each at its own stored threshold.
        right_only_b: Samples that only the second decides rightly.
        decision_p_value: Exact McNemar test, that either is right equally often.
        sentence: What a person would say.
    """

    a: str
    b: str
    n: int
    n_only_a: int
    n_only_b: int
    auc_a: float
    auc_b: float
    difference: Estimate
    p_value: float
    effect: float | None
    right_only_a: int
    right_only_b: int
    decision_p_value: float
    sentence: str


def run_compare(a: Path, b: Path, out: Path, config: EvaluateConfig, seed: int) -> StageOutcome:
    """Compare two runs of the pipeline on the test samples that both scored.

    Args:
        a: Folder of `unmask fuse` of the first run.
        b: The same of the second run, on the same test samples.
        out: Folder that gets ``comparison.json``.
        config: Number of resamples.
        seed: Of the resamples.

    Returns:
        The figures and the sentence.

    Raises:
        ContractError: A file is missing or broken.
        InputError: The runs have no common test samples of both classes, or disagree about labels.
    """
    info = compare_runs(a, b, config.resamples, seed)
    info.save(out / COMPARISON_FILE)
    numbers = {
        "auc_a": info.auc_a,
        "auc_b": info.auc_b,
        "difference": info.difference.value,
        "difference_low": info.difference.low,
        "difference_high": info.difference.high,
        "p_value": info.p_value,
        "decision_p_value": info.decision_p_value,
        "n": float(info.n),
    }
    left_out = info.n_only_a + info.n_only_b
    messages = [info.sentence]
    if left_out:
        messages.append(
            f"Left out: {info.n_only_a} test samples that only A scored, {info.n_only_b} that only B scored."
        )
    return StageOutcome(
        metrics={name: value for name, value in numbers.items() if value is not None}, messages=tuple(messages)
    )


def compare_runs(a: Path, b: Path, resamples: int, seed: int) -> ComparisonInfo:
    """Compare the fusion scores of two runs.

    Args:
        a: Folder of `unmask fuse` of the first run.
        b: The same of the second run.
        resamples: Of the bootstrap.
        seed: Of the resamples.

    Returns:
        The comparison.

    Raises:
        ContractError: A file is missing or broken.
        InputError: The runs have no common test samples of both classes, or disagree about labels.
    """
    first, second = _scored_test_rows(a), _scored_test_rows(b)
    common = first.index.intersection(second.index).sort_values()
    left, right = first.loc[common], second.loc[common]
    _check_common(left, right, a, b)
    labels = left["label"].to_numpy(np.int64)
    of_a, of_b = (rows["probability"].to_numpy(np.float64) for rows in (left, right))
    thresholds = (_threshold(a), _threshold(b))
    decided = metrics.mcnemar(labels, of_a >= thresholds[0], of_b >= thresholds[1])
    try:
        found = metrics.compare_systems(
            labels,
            of_a,
            of_b,
            left["group"].to_numpy(object),
            rng=np.random.default_rng(seed),
            resamples=resamples,
            thresholds=thresholds,
        )
    except ValueError as error:
        raise InputError(
            f"{a} and {b} share too few test samples to compare ({error}).", "Evaluate both on the same data set."
        ) from error
    return ComparisonInfo(
        a=str(a),
        b=str(b),
        n=found.n,
        n_only_a=len(first) - len(common),
        n_only_b=len(second) - len(common),
        auc_a=found.delong.auc_a,
        auc_b=found.delong.auc_b,
        difference=found.difference,
        p_value=found.delong.p_value,
        effect=found.effect,
        right_only_a=decided.only_a,
        right_only_b=decided.only_b,
        decision_p_value=decided.p_value,
        sentence=found.sentence,
    )


def _scored_test_rows(folder: Path) -> pd.DataFrame:
    rows: pd.DataFrame = read_table(folder / "scores.parquet", VIDEO_SCORES).to_pandas()
    rows = rows.loc[rows["split"] == "test"].dropna(subset=["label", "probability"])
    return rows.assign(group=groups_of(rows)).set_index("sample_id")


def _check_common(left: pd.DataFrame, right: pd.DataFrame, a: Path, b: Path) -> None:
    if left.empty:
        raise InputError(f"{a} and {b} share no scored test sample.", "Compare runs on the same data set and seed.")
    differing = int((left["label"] != right["label"]).sum())
    if differing:
        raise InputError(
            f"{a} and {b} give {differing} of {len(left)} common test samples different labels.",
            "Ingest both from the same sources.",
        )


def _threshold(folder: Path) -> float:
    info = FusionInfo.load(folder / "fusion.json")
    return info.operating_points[info.default_operating_point].threshold
