"""Confounder audit: can the classes be told apart by a classifier that sees nothing but file metadata?

Where reals are JPEG and fakes PNG, or the classes differ in bit rate, size or sample rate, a detector reaches a high
figure by learning that, and fails on the first file from elsewhere. This audit measures how much there is to learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask.errors import MissingExtraError
from unmask.metrics import bootstrap_estimate, roc_auc
from unmask.schemas import Estimate

Floats = NDArray[np.float64]

FOLDS = 5
REPEATS = 3  # divisions into folds; a single one is luck in a small set
WORDS = ("codec", "container", "pixel_format", "encoder")
BINS = 8  # of a field; a field with no more values than that gets one for each
MAX_SAMPLES = 10_000  # of whole groups; more would sharpen the interval, not the message
RESAMPLES = 1000
MANY_GROUPS = 1000  # beyond that, groups are dealt to folds, which takes no time
# A single field is named in a warning if it alone tells the classes apart at least this well.
NAMED_AUC = 0.6
MAX_NAMED = 3


@dataclass(frozen=True)
class MetadataAudit:
    """What metadata alone achieve.

    Attributes:
        auc: Of the classifier, cross-validated by group, with an interval.
        fields: Field to the cross-validated AUC of a classifier that sees only this field, the highest first.
        warnings: In plain words, if the AUC is above the limit.
    """

    auc: Estimate
    fields: dict[str, float]
    warnings: list[str]


def audit_metadata(samples: pd.DataFrame, limit: float, rng: np.random.Generator) -> MetadataAudit:
    """Train a classifier on metadata only and report how well it does on groups it has not seen.

    The classifier is a logistic regression on the fields cut into bins, so that a limit, a mixture and an exact value
    are found as well as a trend, from a few dozen rows. No group is in the fitted and in the judged part at once.

    Args:
        samples: Usable samples: rows of the samples table with a label and a group.
        limit: AUC above which to warn.
        rng: Source of every random choice.

    Returns:
        The AUC with the fields that carry it; undefined where fewer than two groups have reals, or fakes.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    samples = _at_most(samples, MAX_SAMPLES, rng)
    fields = metadata_fields(samples)
    labels = samples["label"].to_numpy(np.int64)
    groups = samples["group_id"].to_numpy(object)
    folds = _folds(labels, groups, rng)
    if not folds:
        return MetadataAudit(Estimate(value=None, n=len(samples), method="too few groups"), {}, [])
    if not fields:
        return MetadataAudit(Estimate(value=0.5, n=len(samples), method="all files have the same metadata"), {}, [])
    scores = _cross_validated(np.concatenate([*fields.values()], axis=1), labels, folds)
    auc = bootstrap_estimate(roc_auc, labels, scores, groups, rng=rng, resamples=RESAMPLES)
    once = folds[: len(folds) // REPEATS]
    alone = {name: roc_auc(labels, _cross_validated(table, labels, once)) or 0.5 for name, table in fields.items()}
    alone = dict(sorted(alone.items(), key=lambda item: -item[1]))
    warn = auc.value is not None and auc.value > limit
    return MetadataAudit(auc, alone, [_warning(auc, alone, samples, limit)] if warn else [])


@dataclass(frozen=True)
class SourceAudits:
    """The metadata audit within each source.

    Attributes:
        auc: Source to what metadata alone achieve in it.
        warnings: In plain words, for sources above the limit; none if there is only one source.
    """

    auc: dict[str, Estimate]
    warnings: list[str]


def audit_sources(
    samples: pd.DataFrame, together: MetadataAudit, limit: float, rng: np.random.Generator
) -> SourceAudits:
    """Audit each source by itself: two sources that are confounded in opposite ways look clean together.

    Args:
        samples: As in `audit_metadata`.
        together: The audit of all of them.
        limit: AUC above which to warn.
        rng: Source of every random choice.
    """
    found = SourceAudits({}, [])
    sources = sorted(samples["source"].unique())
    if len(sources) == 1:
        return SourceAudits({sources[0]: together.auc}, [])
    for source in sources:
        audit = audit_metadata(samples[samples["source"] == source], limit, rng)
        found.auc[source] = audit.auc
        found.warnings.extend(f"Within {source}: {text}" for text in audit.warnings)
    return found


def _at_most(samples: pd.DataFrame, most: int, rng: np.random.Generator) -> pd.DataFrame:
    """Draw whole groups until the next would be too much; one that is too much by itself is passed over."""
    if len(samples) <= most:
        return samples
    sizes = samples.groupby("group_id", sort=True).size()
    chosen, total = [], 0
    for place in rng.permutation(len(sizes)):
        if total + sizes.iloc[place] <= most:
            chosen.append(sizes.index[place])
            total += sizes.iloc[place]
    return samples[samples["group_id"].isin(chosen)]


def _numbers(samples: pd.DataFrame) -> dict[str, Floats]:
    """Give the fields as numbers ``(N,)``; NaN where a file has no such thing."""

    def column(name: str) -> Floats:
        if name not in samples:
            return np.full(len(samples), np.nan)
        return np.array([np.nan if pd.isna(value) else float(value) for value in samples[name]], np.float64)

    width, height, frames = column("width_px"), column("height_px"), column("n_frames")
    return {
        "size_bytes": column("size_bytes"),
        "width_px": width,
        "height_px": height,
        "bytes_per_pixel": column("size_bytes") / (width * height * frames),
        "fps": column("fps"),
        "duration_s": column("duration_s"),
        "n_frames": frames,
        "bitrate_bps": column("bitrate_bps"),
        "sample_rate_hz": column("sample_rate_hz"),
        "has_audio": column("has_audio"),
        "rotation_deg": column("rotation_deg"),
        "channels": column("channels"),
        "peak_dbfs": column("peak_dbfs"),
    }


def metadata_fields(samples: pd.DataFrame) -> dict[str, Floats]:
    """Build what the classifier sees.

    Args:
        samples: Rows of the samples table.

    Returns:
        Field to ``(N, B)`` in 0 to 1: for a number, its rank and whether it lies in each of up to 8 bins or is
        missing; for codec, container, pixel format and encoder, whether it is each of the 8 most frequent. Fields that
        never vary are left out.
    """
    fields = {name: _binned(values) for name, values in _numbers(samples).items()}
    for name in WORDS:
        if name in samples and samples[name].notna().any():
            common = samples[name].value_counts().index[:BINS]
            fields[name] = np.stack([(samples[name] == word).to_numpy(np.float64) for word in common], axis=1)
    return {name: table for name, table in fields.items() if (table != table[:1]).any()}


def _binned(values: Floats) -> Floats:
    missing = np.isnan(values)
    known = values[~missing]
    distinct = np.unique(known)
    if len(distinct) > BINS:
        distinct = np.unique(np.quantile(known, np.arange(BINS) / BINS, method="lower"))
    bins = np.where(missing, -1, np.searchsorted(distinct, values, side="right") - 1)
    rank = np.where(missing, 0, np.searchsorted(np.sort(known), values) / max(1, len(known)))
    members = bins[:, None] == np.arange(-1, len(distinct))
    return np.concatenate([rank[:, None], members], axis=1)


def _folds(
    labels: NDArray[np.int64], groups: NDArray[np.object_], rng: np.random.Generator
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Divide the rows into a part to fit on and a part to judge, several times; no group is in both parts."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise MissingExtraError("The metadata audit of `unmask ingest`", "analysis") from error

    codes = pd.factorize(groups)[0]
    n_folds = min(FOLDS, *(len(np.unique(codes[labels == label])) for label in (0, 1)))
    if n_folds < 2:
        return []
    divided = []
    for seed in rng.integers(2**31, size=REPEATS):
        if codes.max() < MANY_GROUPS:
            divided += StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed).split(codes, labels, codes)
        else:
            divided += _dealt(labels, codes, n_folds, np.random.default_rng(seed))
    return [(fit, rest) for fit, rest in divided if len(np.unique(labels[fit])) == 2]


def _dealt(
    labels: NDArray[np.int64], codes: NDArray[np.int64], n_folds: int, rng: np.random.Generator
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Deal groups to folds like cards, sorted by what they hold: quick, and even where there are many."""
    held = np.zeros((codes.max() + 1, 2), np.int64)
    np.add.at(held, (codes, labels), 1)
    order = rng.permutation(len(held))
    order = order[np.lexsort((held[order, 1], held[order, 0]))]
    fold = np.empty(len(held), np.int64)
    fold[order] = np.arange(len(held)) % n_folds
    return [(np.flatnonzero(fold[codes] != i), np.flatnonzero(fold[codes] == i)) for i in range(n_folds)]


def _cross_validated(
    table: Floats, labels: NDArray[np.int64], folds: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]]
) -> Floats:
    """Score every row by classifiers that saw none of its group: mean logit over the repeats, ``(N,)``."""
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    scores, judged = np.zeros(len(labels)), np.zeros(len(labels))
    # The matrices are so small that threads only wait for each other: on busy cores several would take minutes.
    with threadpool_limits(1):
        for fit, rest in folds:
            # Balanced weights: otherwise a fold rich in fakes is fitted on a rest poor in them, and its scores sink.
            model = LogisticRegression(class_weight="balanced", solver="newton-cholesky")
            scores[rest] += model.fit(table[fit], labels[fit]).decision_function(table[rest])
            judged[rest] += 1
    return np.divide(scores, judged, out=np.zeros_like(scores), where=judged > 0)


def _warning(auc: Estimate, fields: dict[str, float], samples: pd.DataFrame, limit: float) -> str:
    named = [name for name, value in fields.items() if value >= NAMED_AUC][:MAX_NAMED]
    carried = ", ".join(f"{name} ({_compare(name, samples)}; alone AUC {fields[name]:.2f})" for name in named)
    return (
        f"File metadata alone tell real from fake with AUC {auc}, above the limit of {limit:g}: a detector may learn "
        f"the files instead of the forgeries. "
        + (f"What differs: {carried}. " if named else "No single field does it; several together do. ")
        + "Bring both classes into one format (codec, bit rate, size, length, sample rate) before trusting any figure: "
        "`unmask ingest --normalise` does."
    )


def _compare(name: str, samples: pd.DataFrame) -> str:
    """Say how a field differs between the classes: the middle and the range of nine tenths of each."""
    real, fake = (samples.loc[samples["label"] == label] for label in (0, 1))
    if name in WORDS:
        common = ((kind, of[name].mode()) for kind, of in (("real", real), ("fake", fake)))
        return ", ".join(f"{kind} mostly {mode.iloc[0] if len(mode) else 'none'}" for kind, mode in common)
    ranges = []
    for kind, of in (("real", real), ("fake", fake)):
        values = _numbers(of)[name]
        known = values[~np.isnan(values)]
        low, middle, high = np.quantile(known, [0.05, 0.5, 0.95]) if len(known) else (np.nan, np.nan, np.nan)
        ranges.append(f"{kind} {middle:.4g}, {low:.4g} to {high:.4g}" if len(known) else f"{kind} none")
    return "; ".join(ranges)
