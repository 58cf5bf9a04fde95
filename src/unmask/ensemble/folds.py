"""Folds that keep groups together and the classes as even as groups allow."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from unmask.metrics.curves import IntArray
from unmask.metrics.intervals import group_codes


def group_folds(labels: npt.ArrayLike, groups: npt.ArrayLike, folds: int, rng: np.random.Generator) -> IntArray:
    """Assign each row to a fold, whole groups at a time.

    Large groups are placed first, each where its classes are rarest; groups of equal size come in random order.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.
        groups: ``(N,)``; a missing group is a group of its own.
        folds: Wanted number of folds; fewer when there are fewer groups.
        rng: Breaks ties.

    Returns:
        ``(N,)`` fold of each row, 0 to K - 1, each fold with at least one group.

    Raises:
        ValueError: There are fewer than two groups.
    """
    y = np.asarray(labels).astype(np.int64)
    codes, n_groups = group_codes(groups)
    if n_groups < 2:
        raise ValueError(f"{n_groups} groups cannot be put into folds")
    k = min(folds, n_groups)
    per_group = np.zeros((n_groups, 2))
    np.add.at(per_group, (codes, y), 1)
    share = per_group / np.maximum(per_group.sum(axis=0), 1)
    order = rng.permutation(n_groups)
    order = order[np.argsort(-share[order].sum(axis=1), kind="stable")]
    filled = np.zeros((k, 2))
    fold_of_group = np.empty(n_groups, dtype=np.int64)
    for place, group in enumerate(order):
        # While folds are empty, each group opens one, so that none stays empty.
        free = np.flatnonzero(filled.sum(axis=1) == 0) if place < k else np.arange(k)
        cost = ((filled[free] + share[group]) ** 2).sum(axis=1) - (filled[free] ** 2).sum(axis=1)
        fold = free[np.argmin(cost)]
        fold_of_group[group] = fold
        filled[fold] += share[group]
    return fold_of_group[codes]


def counted(n: int, what: str) -> str:
    """Write a number with its noun.

    Args:
        n: The number.
        what: The noun in the singular.

    Returns:
        For example ``1 group`` or ``3 groups``.
    """
    return f"{n} {what}" if n == 1 else f"{n} {what}s"
