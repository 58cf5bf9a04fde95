"""Confounder audit: can the classes be told apart by a classifier that sees nothing but file metadata?

Where reals are JPEG and fakes PNG, or the classes differ in bit rate, size or sample rate, a detector reaches a high
figure by learning that, and fails on the first file from elsewhere. This audit measures how much there is to learn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask.errors import MissingExtraError
from unmask.metrics import bootstrap_estimate, roc_auc
from unmask.schemas import Estimate

Floats = NDArray[np.float64]

FOLDS = 5
TREES = 50
MAX_SAMPLES = 10_000  # of whole groups; more would sharpen the interval, not the message
SAMPLES_OF_REPEATS = 2000  # small sets are cross-validated several times, because one division into folds is luck
MAX_REPEATS = 3
RESAMPLES = 1000
MAX_CATEGORIES = 20
# A single field is named in a warning if it alone tells the classes apart at least this well.
NAMED_AUC = 0.6
MAX_NAMED = 3


@dataclass(frozen=True)
class MetadataAudit:
    """What metadata alone achieve.

    Attributes:
        auc: Of the classifier, cross-validated by group, with an interval.
        fields: Field to the AUC of that field alone, at least .5, the highest first.
        warnings: In plain words, if the AUC is above the limit.
    """

    auc: Estimate
    fields: dict[str, float]
    warnings: list[str]


def audit_metadata(samples: pd.DataFrame, limit: float, rng: np.random.Generator) -> MetadataAudit:
    """Train a classifier on metadata only and report how well it does on groups it has not seen.

    A random forest (Breiman, 2001) needs no scaling, finds limits and exact values, and works from a few dozen rows.
    No group is in the fitted and the judged part at once.

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
    table = metadata_table(samples)
    labels = samples["label"].to_numpy(np.int64)
    groups = samples["group_id"].to_numpy(object)
    scores = _cross_validated(table, labels, groups, rng)
    if scores is None:
        return MetadataAudit(Estimate(value=None, n=len(samples), method="too few groups"), {}, [])
    auc = bootstrap_estimate(roc_auc, labels, scores, groups, rng=rng, resamples=RESAMPLES)
    fields = _single_fields(samples, labels)
    warn = auc.value is not None and auc.value > limit
    return MetadataAudit(auc, fields, [_warning(auc, fields, samples, limit)] if warn else [])


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
    }


def metadata_table(samples: pd.DataFrame) -> Floats:
    """Build what the classifier sees.

    Args:
        samples: Rows of the samples table.

    Returns:
        ``(N, F)``, finite: the numbers, whether each is missing, and one column for each of the common codecs.
    """
    columns = []
    for values in _numbers(samples).values():
        missing = np.isnan(values)
        columns += [np.where(missing, -1.0, values), missing.astype(np.float64)]
    for codec in samples["codec"].value_counts().index[:MAX_CATEGORIES]:
        columns.append((samples["codec"] == codec).to_numpy(np.float64))
    table = np.stack(columns, axis=1)
    varying = (table != table[:1]).any(axis=0)
    return table[:, varying] if varying.any() else table[:, :1]


def _cross_validated(
    table: Floats, labels: NDArray[np.int64], groups: NDArray[np.object_], rng: np.random.Generator
) -> Floats | None:
    """Score every sample by forests that saw none of its group, averaged over repeated divisions into folds."""
    try:
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise MissingExtraError("The metadata audit of `unmask ingest`", "analysis") from error

    codes = pd.factorize(groups)[0]
    folds = min(FOLDS, *(len(np.unique(codes[labels == label])) for label in (0, 1)))
    if folds < 2:
        return None
    repeats = max(1, min(MAX_REPEATS, SAMPLES_OF_REPEATS // len(labels)))
    scores, judged = np.zeros(len(labels)), np.zeros(len(labels))
    for _ in range(repeats):
        seeds = rng.integers(2**31, size=2)
        for fit, rest in StratifiedGroupKFold(folds, shuffle=True, random_state=seeds[0]).split(table, labels, codes):
            if len(np.unique(labels[fit])) < 2:
                continue
            # Balanced weights: otherwise a fold rich in fakes is fitted on a rest poor in them, and its scores sink.
            forest = RandomForestClassifier(
                TREES, min_samples_leaf=2, class_weight="balanced", random_state=seeds[1], n_jobs=1
            )
            scores[rest] += forest.fit(table[fit], labels[fit]).predict_proba(table[rest])[:, 1]
            judged[rest] += 1
    return scores / judged if judged.all() else None


def _single_fields(samples: pd.DataFrame, labels: NDArray[np.int64]) -> dict[str, float]:
    """Rank the fields by how well each alone tells the classes apart: AUC of its order, either way round."""
    found = {}
    for name, values in {**_numbers(samples), "codec": _fake_share(samples["codec"], labels)}.items():
        auc = roc_auc(labels, np.where(np.isnan(values), -1.0, values))
        found[name] = 0.5 if auc is None else max(auc, 1 - auc)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _fake_share(categories: pd.Series[str], labels: NDArray[np.int64]) -> Floats:
    """Replace each category by the share of fakes in it."""
    return pd.Series(labels, index=categories.index).groupby(categories).transform("mean").to_numpy(np.float64)


def _warning(auc: Estimate, fields: dict[str, float], samples: pd.DataFrame, limit: float) -> str:
    named = [name for name, value in fields.items() if value >= NAMED_AUC][:MAX_NAMED]
    carried = "; ".join(f"{name} ({_compare(name, samples)}; alone AUC {fields[name]:.2f})" for name in named)
    return (
        f"File metadata alone tell real from fake with AUC {auc}, above the limit of {limit:g}: a detector may learn "
        f"the files instead of the forgeries. "
        + (f"What differs: {carried}. " if named else "No single field does it; several together do. ")
        + "Bring both classes into one format (codec, bit rate, size, length, sample rate) before trusting any figure."
    )


def _compare(name: str, samples: pd.DataFrame) -> str:
    """Say how a field differs between the classes."""
    real, fake = (samples.loc[samples["label"] == label] for label in (0, 1))
    if name == "codec":
        return ", ".join(f"{kind} mostly {of[name].mode().iloc[0]}" for kind, of in (("real", real), ("fake", fake)))
    medians = []
    for of in (real, fake):
        values = _numbers(of)[name]
        known = values[~np.isnan(values)]
        medians.append(f"{np.median(known):.4g}" if len(known) else "none")
    return f"median real {medians[0]}, fake {medians[1]}"
