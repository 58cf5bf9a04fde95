"""Whether new data ask for a new training: share of new samples, drift of features and scores, age of the model.

A registered version leaves two tables behind (`write_reference`): the content hashes of the samples that it has seen,
and the features of some of them; its scores of test samples lie beside. The next scheduled run compares what it finds
with these (`decide_retraining`). Scores are compared with those on test, because samples that a version was fitted on
look too good, and new ones are scored by the version itself.

Drift is judged by two figures at once. The population stability index (PSI; see Yurdakul and Naranjo, "Statistical
properties of the population stability index", Journal of Risk Model Validation, 2020) says how large a change is, the
two-sample Kolmogorov-Smirnov test whether chance explains it. With one test for each feature and class, some fail by
chance in most runs, so the p-values are corrected (Holm, Scandinavian Journal of Statistics, 1979). Samples of one
group (an identity, a source video) resemble each other, so one sample a group is compared.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from unmask.config import RetrainingConfig
from unmask.errors import ContractError, UnmaskError
from unmask.schemas import (
    FEATURES,
    SAMPLES,
    DatasetInfo,
    FeatureDrift,
    RetrainingDecision,
    StageOutcome,
    new_directory,
    read_table,
    write_atomically,
)

DECISION = "retraining.json"
SUMMARY = "retraining.md"
KNOWN = "known_samples.parquet"
REFERENCE_FEATURES = "reference_features.parquet"
MAX_REFERENCE_ROWS = 20_000
SCORE = "score"
MAX_SCORED = 1000  # independent new samples of a class; more would not change what the tests say
PSI_BINS = 10
LABELS: tuple[Literal["real", "fake"], ...] = ("real", "fake")
Scorer = Callable[[Collection[str]], Mapping[str, float]]


@dataclass(frozen=True)
class Reference:
    """What is known about the registered version that new data are compared with.

    Attributes:
        version: Registered version.
        alias: champion or challenger.
        age_days: Since it was registered.
        dataset_version: Of the data that it was trained on; empty when unknown.
        known: Content hashes of the samples that it has seen; None when it left none behind.
        features: Columns ``label`` (0 or 1), ``group_id`` and one a feature; None when it left none behind.
        scores: Columns ``label``, ``group_id`` and ``score`` (P(fake)) of its test samples; None when it left none.
    """

    version: str
    alias: str
    age_days: float
    dataset_version: str
    known: frozenset[str] | None
    features: pd.DataFrame | None
    scores: pd.DataFrame | None = None


def labelled_samples(dataset: Path, features: Path) -> pd.DataFrame:
    """Join the samples that training can use with their features.

    Args:
        dataset: Folder that `unmask ingest` wrote.
        features: Folder that `unmask extract` wrote.

    Returns:
        One row a sample that is ok in both tables and labelled: ``sample_id``, ``sha256``, ``label``, ``group_id``
        and one column a feature (float64, NaN where not measurable), sorted by ``sample_id``, which is a hash and so
        a random order.

    Raises:
        ContractError: A table is missing or broken.
    """
    samples = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    measured = read_table(features / "features.parquet", FEATURES).to_pandas()
    usable = samples.loc[
        (samples["status"] == "ok") & samples["label"].notna(), ["sample_id", "sha256", "label", "group_id"]
    ]
    names = _feature_names(measured)
    rows = usable.merge(measured.loc[measured["status"] == "ok", ["sample_id", *names]], on="sample_id")
    ordered: pd.DataFrame = rows.astype({"label": "int64"}).sort_values("sample_id", ignore_index=True)
    return ordered


def write_reference(dataset: Path, features: Path, folder: Path) -> None:
    """Write what a version leaves behind for later comparisons.

    Args:
        dataset: Folder that `unmask ingest` wrote.
        features: Folder that `unmask extract` wrote.
        folder: Gets ``known_samples.parquet`` (content hashes) and ``reference_features.parquet`` (at most
            `MAX_REFERENCE_ROWS` samples).
    """
    rows = labelled_samples(dataset, features)
    kept = rows.head(MAX_REFERENCE_ROWS)[["label", "group_id", *_feature_names(rows)]]
    for name, table in ((KNOWN, rows[["sha256"]].drop_duplicates()), (REFERENCE_FEATURES, kept)):
        with write_atomically(folder / name) as temporary:
            pq.write_table(pa.Table.from_pandas(table, preserve_index=False), temporary, compression="zstd")


def read_reference(folder: Path) -> tuple[frozenset[str], pd.DataFrame]:
    """Read what `write_reference` wrote.

    Args:
        folder: Where the two files lie.

    Returns:
        Content hashes, and the features with ``label`` and ``group_id``.

    Raises:
        ContractError: A file is missing or holds something else.
    """
    tables = {}
    for name, columns in ((KNOWN, {"sha256"}), (REFERENCE_FEATURES, {"label", "group_id"})):
        try:
            tables[name] = pq.read_table(folder / name).to_pandas()
        except (OSError, pa.ArrowInvalid) as error:
            raise ContractError(folder / name, "table", f"is not a readable Parquet file ({error})") from error
        if missing := sorted(columns - set(tables[name].columns)):
            raise ContractError(folder / name, "table", f"columns missing: {', '.join(missing)}")
    return frozenset(tables[KNOWN]["sha256"]), tables[REFERENCE_FEATURES]


def population_stability_index(known: ArrayLike, new: ArrayLike, bins: int = PSI_BINS) -> float:
    """Measure how far a distribution has moved.

    Args:
        known: Values before, at least one.
        new: Values now, at least one.
        bins: Quantile bins of ``known``; equal edges (a value that occurs often) are merged.

    Returns:
        Σ (new share − known share) · ln(new share / known share), natural logarithm, 0 or more. Half a sample is
        added to each bin, so that an empty one stays finite.
    """
    before, after = np.asarray(known, dtype=np.float64), np.asarray(new, dtype=np.float64)
    inner = np.unique(np.quantile(before, np.linspace(0, 1, bins + 1)[1:-1]))
    shares = []
    for values in (before, after):
        counts = np.bincount(np.searchsorted(inner, values, side="left"), minlength=len(inner) + 1) + 0.5
        shares.append(counts / counts.sum())
    return float(np.sum((shares[1] - shares[0]) * np.log(shares[1] / shares[0])))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Correct p-values for the number of tests (Holm's step-down procedure).

    Args:
        p_values: Uncorrected, in [0, 1].

    Returns:
        Corrected, in the same order, in [0, 1].
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def measure_drift(
    known: pd.DataFrame, new: pd.DataFrame, config: RetrainingConfig, scores: pd.DataFrame | None = None
) -> list[FeatureDrift]:
    """Compare the features and scores of new samples with those known before, class by class.

    Args:
        known: Columns ``label``, ``group_id`` and one a feature.
        new: The same, and ``score`` if they were scored; rows in random order.
        config: Bounds.
        scores: Columns ``label``, ``group_id`` and ``score`` of known samples; None compares no scores.

    Returns:
        One entry for each feature, or ``score``, and class with enough independent groups on both sides, those that
        drifted first, then by PSI.
    """
    tables = [(known, sorted(set(_feature_names(known)) & set(_feature_names(new))))]
    if scores is not None and SCORE in new.columns:
        tables.append((scores, [SCORE]))
    found: list[tuple[str, Literal["real", "fake"], int, int, float, float, float]] = []
    for table, names in tables:
        for code, label in enumerate(LABELS):
            before, after = (_one_a_group(frame[frame["label"] == code]) for frame in (table, new))
            for name in names:
                a, b = before[name].dropna().to_numpy(float), after[name].dropna().to_numpy(float)
                if min(len(a), len(b)) >= config.min_drift_groups:
                    ks = stats.ks_2samp(a, b, method="asymp")
                    psi = population_stability_index(a, b)
                    found.append((name, label, len(a), len(b), psi, float(ks.statistic), float(ks.pvalue)))
    corrected = holm([entry[-1] for entry in found])
    drift = [
        FeatureDrift(
            name=name,
            label=label,
            n_known=n_known,
            n_new=n_new,
            psi=psi,
            ks=ks,
            p=float(p),
            drifted=bool(psi >= config.drift_psi and p < config.drift_p),
        )
        for (name, label, n_known, n_new, psi, ks, _), p in zip(found, corrected, strict=True)
    ]
    return sorted(drift, key=lambda entry: (not entry.drifted, -entry.psi))


def with_scores(
    rows: pd.DataFrame, reference: Reference | None, score: Scorer, config: RetrainingConfig
) -> pd.DataFrame:
    """Let the registered version score new samples, one a group.

    Args:
        rows: See `labelled_samples`.
        reference: The version that scores; None if none is registered.
        score: Takes sample ids and gives P(fake) of those that it can score.
        config: Bounds; with too few new samples nothing is scored, for they would not be judged.

    Returns:
        The rows with a column ``score`` (NaN where there is none), or unchanged if nothing was to be scored.
    """
    new = _unseen(rows, reference)
    if reference is None or new is None or reference.scores is None or len(new) < config.min_new_samples:
        return rows
    few = [_one_a_group(new[new["label"] == code]).head(MAX_SCORED) for code in range(len(LABELS))]
    scored = score(set(pd.concat(few)["sample_id"]))
    return rows.assign(**{SCORE: rows["sample_id"].map(scored).astype(float)})


def decide_retraining(
    rows: pd.DataFrame,
    dataset_version: str,
    model: str,
    reference: Reference | None,
    config: RetrainingConfig,
    force: bool = False,
) -> RetrainingDecision:
    """Decide whether to train.

    Args:
        rows: See `labelled_samples` and `with_scores`.
        dataset_version: Of the data at hand.
        model: Registered model name.
        reference: The version to compare with; None if none is registered.
        config: Bounds.
        force: Train whatever the data say.

    Returns:
        The decision with its reason and everything that was compared.
    """
    new = _unseen(rows, reference)
    drift: list[FeatureDrift] = []
    if new is not None and reference is not None and reference.features is not None:
        drift = measure_drift(reference.features, new, config, reference.scores)
    retrain, reason = _verdict(dataset_version, reference, None if new is None else len(new), drift, config)
    if force and not retrain:
        retrain, reason = True, f"Training was asked for; on its own the data would not: {reason}"
    return RetrainingDecision(
        retrain=retrain,
        reason=reason,
        model=model,
        reference_version=reference.version if reference else None,
        reference_alias=reference.alias if reference else None,
        age_days=reference.age_days if reference else None,
        dataset_version=dataset_version,
        n_known=len(reference.known) if reference and reference.known is not None else None,
        n_new=None if new is None else len(new),
        drift=drift,
        notes=_notes(reference, new, drift, config),
    )


def run_decide_retraining(
    dataset: Path,
    features: Path,
    model: str,
    reference: Reference | None,
    out: Path,
    config: RetrainingConfig,
    force: bool = False,
    score: Scorer | None = None,
) -> StageOutcome:
    """Stage ``decide-retraining``.

    Args:
        dataset: Folder that `unmask ingest` wrote.
        features: Folder that `unmask extract` wrote.
        model: Registered model name.
        reference: The version to compare with; None if none is registered.
        out: Folder for ``retraining.json`` and ``retraining.md``.
        config: Bounds.
        force: Train whatever the data say.
        score: Lets the registered version score samples; None compares no scores.

    Returns:
        The reason as message, and the figures.
    """
    rows = labelled_samples(dataset, features)
    notes = []
    if score is not None:
        try:
            rows = with_scores(rows, reference, score, config)
        except UnmaskError as error:  # features, share and age can still decide
            notes = [f"Drift of scores was not judged: {error.problem}"]
    version = DatasetInfo.load(dataset / "dataset.json").version
    decision = decide_retraining(rows, version, model, reference, config, force)
    decision = decision.model_copy(update={"notes": [*decision.notes, *notes]})
    with new_directory(out) as folder:
        decision.save(folder / DECISION)
        (folder / SUMMARY).write_text(render_markdown(decision), encoding="utf-8")
    metrics = {"retrain": float(decision.retrain), "largest_psi": max((e.psi for e in decision.drift), default=0.0)}
    metrics |= {"new_samples": float(decision.n_new)} if decision.n_new is not None else {}
    metrics |= {"age_days": decision.age_days} if decision.age_days is not None else {}
    messages = (f"{'Training' if decision.retrain else 'Not training'}: {decision.reason}", *decision.notes)
    return StageOutcome(metrics=metrics, messages=messages)


def render_markdown(decision: RetrainingDecision) -> str:
    """Write a decision as a page that the KFP UI shows.

    Args:
        decision: The decision.

    Returns:
        Markdown.
    """
    compared = "no registered version"
    if decision.reference_version:
        compared = (
            f"version {decision.reference_version} ({decision.reference_alias}), {decision.age_days:.1f} days old"
        )
    lines = [
        f"# {'Training' if decision.retrain else 'Not training'}",
        "",
        decision.reason,
        "",
        f"- Model: {decision.model}, compared with {compared}",
        f"- Data set: {decision.dataset_version}",
        f"- Samples known to it: {_count(decision.n_known)}; new: {_count(decision.n_new)}",
        *(f"- {note}" for note in decision.notes),
    ]
    if decision.drift:
        lines += ["", "| what | class | known | new | PSI | KS | p (corrected) | drifted |", "|" + "---|" * 8]
        lines += [
            f"| {e.name} | {e.label} | {e.n_known} | {e.n_new} | {e.psi:.3f} | {e.ks:.3f} | {e.p:.2g} | "
            f"{'yes' if e.drifted else 'no'} |"
            for e in decision.drift[:20]
        ]
    return "\n".join(lines) + "\n"


def _feature_names(frame: pd.DataFrame) -> list[str]:
    return [str(name) for name in frame.columns if "." in str(name)]


def _one_a_group(frame: pd.DataFrame) -> pd.DataFrame:
    """Keep the first row of each group; a row without a group stands for itself."""
    groups = frame["group_id"].where(frame["group_id"].notna(), [f"alone {i}" for i in range(len(frame))])
    return frame[~groups.duplicated()]


def _unseen(rows: pd.DataFrame, reference: Reference | None) -> pd.DataFrame | None:
    if reference is None:
        return rows
    if reference.known is None:
        return None
    return rows[~rows["sha256"].isin(list(reference.known))]


def _verdict(
    dataset_version: str,
    reference: Reference | None,
    n_new: int | None,
    drift: Sequence[FeatureDrift],
    config: RetrainingConfig,
) -> tuple[bool, str]:
    """Apply the rules in order; the first that speaks decides."""
    if reference is None:
        return True, "No version is registered yet."
    named = f"version {reference.version} ({reference.alias})"
    if reference.dataset_version == dataset_version:
        return False, f"The data are those that {named} was trained on."
    if n_new is None:
        return True, f"The data differ from those of {named}, which left no list of its samples behind."
    known = len(reference.known or ())
    share = n_new / known if known else float("inf")
    counted = f"{n_new} new samples beside {known} known to {named}"
    if n_new < config.min_new_samples:
        return False, f"Only {counted}; at least {config.min_new_samples} are wanted."
    if share >= config.min_new_share:
        return True, f"There are {counted}: {share:.0%}, and {config.min_new_share:.0%} ask for training."
    if moved := [entry for entry in drift if entry.drifted]:
        worst = moved[0]
        what = "the version's own score" if worst.name == SCORE else worst.name
        return True, (
            f"{len(moved)} of {len(drift)} comparisons show drift, most of all {what} of {worst.label} media "
            f"(PSI {worst.psi:.2f}, corrected p {worst.p:.1g}), in {counted}."
        )
    if reference.age_days > config.max_age_days:
        return True, f"{named.capitalize()} is {reference.age_days:.0f} days old, and there are {counted}."
    return False, f"There are {counted} ({share:.1%}), without drift, and it is {reference.age_days:.0f} days old."


def _notes(
    reference: Reference | None, new: pd.DataFrame | None, drift: Sequence[FeatureDrift], config: RetrainingConfig
) -> list[str]:
    if reference is None or new is None or len(new) == 0:
        return []
    if reference.features is None:
        return ["Drift was not judged: the registered version left no features behind."]
    judged = {entry.label for entry in drift}
    notes = [
        f"Drift of {label} media was not judged: fewer than {config.min_drift_groups} independent groups."
        for label in LABELS
        if label not in judged
    ]
    if judged and not any(entry.name == SCORE for entry in drift):
        if reference.scores is None:
            why = "the registered version left no scores of test samples behind"
        elif SCORE not in new.columns:
            why = "the new samples were not scored"
        else:
            why = f"fewer than {config.min_drift_groups} independent groups on test, or new ones with a score"
        notes.append(f"Drift of scores was not judged: {why}.")
    return notes


def _count(number: int | None) -> str:
    return "unknown" if number is None else f"{number:,}"
