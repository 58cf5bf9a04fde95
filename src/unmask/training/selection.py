"""How a checkpoint is chosen: by figures on val, and on val only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask.metrics import (
    MEAN,
    attention,
    bootstrap_estimate,
    paired_difference,
    pool_logits,
    pr_auc,
    roc_auc,
    top_k,
)
from unmask.schemas import Estimate, rows_for_choice
from unmask.training.objective import plain_loss

INTERVAL_RESAMPLES = 1000
# With fewer groups no gain can be shown, however large it looks.
MIN_GROUPS = 10
AGGREGATIONS = (top_k(0.25), top_k(0.5), attention(0.5), attention(1), attention(2))


@dataclass(frozen=True)
class ValFigures:
    """What one epoch is judged by.

    Attributes:
        auc: Video-level AUC; None when val has one class only.
        loss: Mean cross-entropy over val crops.
        chosen_by: Figure that chooses the checkpoint, larger is better; None when it is undefined.
        noise: One standard error of that figure; 0 where none is known.
    """

    auc: float | None
    loss: float
    chosen_by: float | None
    noise: float = 0.0

    def tops(self, peak: ValFigures | None) -> bool:
        """Whether the figure is higher than the highest so far."""
        if peak is None or peak.chosen_by is None:
            return True
        return self.chosen_by is not None and self.chosen_by > peak.chosen_by

    def better_than(self, other: ValFigures | None, peak: ValFigures) -> bool:
        """Whether this epoch beats the best so far: the one-standard-error rule.

        On few videos the AUC jumps from epoch to epoch by chance, and the first epoch with a lucky one is hardly
        trained. So all epochs within one standard error of the highest figure are as good, and the lowest loss decides
        among them (Breiman et al. 1984, Classification and Regression Trees, section 3.4.3). With many videos the error
        is small, and the figure alone decides.

        Args:
            other: The best so far.
            peak: With the highest figure so far, this one included.
        """
        if other is None:
            return True
        if self.chosen_by is None or other.chosen_by is None or peak.chosen_by is None:
            return self.loss < other.loss
        least = peak.chosen_by - peak.noise
        return self.chosen_by >= least and (other.chosen_by < least or self.loss < other.loss)


def teachers(samples: pd.DataFrame, sources: Sequence[str], excluded: Sequence[str]) -> NDArray[np.bool_]:
    """Tell which samples may teach a detector that is to be tested on what it has never seen.

    Args:
        samples: With columns ``source`` and ``manipulation`` ``(N,)``.
        sources: Those that may teach; empty means all.
        excluded: Manipulations that may not.

    Returns:
        ``(N,)``.
    """
    from_them = samples["source"].isin(list(sources)) if sources else pd.Series(True, index=samples.index)
    allowed: NDArray[np.bool_] = (from_them & ~samples["manipulation"].isin(list(excluded))).to_numpy(bool)
    return allowed


def video_means(frame: pd.DataFrame, logits: NDArray[np.float64], aggregation: str = MEAN) -> pd.DataFrame:
    """Pool frame logits over each sample.

    Args:
        frame: Rows of a crop index ``(N,)``.
        logits: ``(N,)``.
        aggregation: See `unmask.metrics.pool_logits`.

    Returns:
        One row a sample: ``sample_id``, ``label``, ``group_id``, ``logit``; sorted by sample.
    """
    scored = frame[["sample_id", "label", "group_id"]].assign(logit=logits)
    pooled = "mean" if aggregation == MEAN else lambda values: pool_logits(values, aggregation)
    return scored.groupby("sample_id", as_index=False).agg({"label": "first", "group_id": "first", "logit": pooled})


def choose_aggregation(frame: pd.DataFrame, logits: NDArray[np.float64], wanted: str, rng: np.random.Generator) -> str:
    """Choose how frame logits become a video logit, on val.

    Args:
        frame: Rows of a crop index, all of val ``(N,)``.
        logits: ``(N,)``.
        wanted: ``auto``, ``mean``, ``top_k`` or ``attention``. The last two choose their parameter by AUC; auto keeps
            the mean unless the best other is better by more than chance (paired bootstrap by group).
        rng: Source of the resamples.

    Returns:
        A name that `unmask.metrics.pool_logits` understands.

    Raises:
        LeakError: A row is not of val.
    """
    rows_for_choice(frame, {"val"}, "choice of the aggregation")
    if wanted == "mean":
        return MEAN
    candidates = [name for name in AGGREGATIONS if wanted in ("auto", name.partition(":")[0])]
    mean = video_means(frame, logits)
    labels = mean["label"].to_numpy(np.int64)
    if len(set(labels.tolist())) < 2:
        return MEAN if wanted == "auto" else candidates[0]
    pooled = {name: video_means(frame, logits, name)["logit"].to_numpy(np.float64) for name in candidates}
    best = max(candidates, key=lambda name: roc_auc(labels, pooled[name]) or 0.0)
    if wanted != "auto":
        return best
    groups = mean["group_id"].to_numpy()
    if len(set(groups)) < MIN_GROUPS:
        return MEAN
    gain = paired_difference(
        roc_auc, labels, mean["logit"].to_numpy(np.float64), pooled[best], groups, rng=rng, resamples=INTERVAL_RESAMPLES
    )
    return best if gain.low is not None and gain.low > 0 else MEAN


def val_figures(frame: pd.DataFrame, logits: NDArray[np.float64], metric: str = "auc") -> ValFigures:
    """Judge an epoch.

    Args:
        frame: Rows of a crop index, all of val ``(N,)``.
        logits: ``(N,)``.
        metric: Of videos: ``auc``, ``pr_auc``, ``f1`` (at a probability of one half) or ``loss``.

    Returns:
        The figures.

    Raises:
        LeakError: A row is not of val.
    """
    rows_for_choice(frame, {"val"}, "choice of the checkpoint")
    videos = video_means(frame, logits)
    labels, means = videos["label"].to_numpy(np.int64), videos["logit"].to_numpy(np.float64)
    auc = roc_auc(labels, means)
    chosen_by = auc
    if metric == "pr_auc":
        chosen_by = pr_auc(labels, means)
    elif metric == "f1":
        chosen_by = _f1(labels, means)
    elif metric == "loss":
        chosen_by = -plain_loss(labels.astype(np.float64), means)
    noise = auc_error(auc, labels) if metric == "auc" and auc is not None else 0.0
    return ValFigures(auc, plain_loss(frame["label"].to_numpy(np.float64), logits), chosen_by, noise)


def auc_error(auc: float, labels: NDArray[np.int64]) -> float:
    """Standard error of an AUC from it and the numbers alone (Hanley & McNeil 1982, Radiology 143, equation 1).

    Args:
        auc: Of samples of both classes. A perfect one is taken as half a pair short of that, or it would have no error.
        labels: 0 or 1 ``(N,)``.

    Returns:
        The standard error, as if samples were independent.
    """
    n_fake = int(labels.sum())
    n_real = len(labels) - n_fake
    area = min(max(auc, 1 - auc), 1 - 0.5 / (n_fake * n_real))
    fakes, reals = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (n_fake - 1) * (fakes - area**2) + (n_real - 1) * (reals - area**2)
    return float(np.sqrt(spread / (n_fake * n_real)))


def _f1(labels: NDArray[np.int64], logits: NDArray[np.float64]) -> float | None:
    called = logits > 0
    found = int(np.sum(called & (labels == 1)))
    return 2 * found / (int(called.sum()) + int(labels.sum())) if 0 < labels.mean() < 1 else None


def val_auc_estimate(
    frame: pd.DataFrame, logits: NDArray[np.float64], rng: np.random.Generator, aggregation: str = MEAN
) -> Estimate:
    """Give the video-level AUC on val with its interval, resampled by group.

    Args:
        frame: Rows of a crop index, all of val ``(N,)``.
        logits: ``(N,)``.
        rng: Source of the resamples.
        aggregation: See `unmask.metrics.pool_logits`.

    Returns:
        The estimate; optimistic, because the checkpoint was chosen on it.
    """
    videos = video_means(frame, logits, aggregation)
    return bootstrap_estimate(
        roc_auc,
        videos["label"].to_numpy(np.int64),
        videos["logit"].to_numpy(np.float64),
        videos["group_id"].to_numpy(),
        rng=rng,
        resamples=INTERVAL_RESAMPLES,
    )
