"""Synthetic rows of the rarer class, for fitting only (SMOTE; Chawla et al., JAIR 2002)."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
from sklearn.linear_model import LogisticRegression

from unmask.ensemble.apply import FloatArray
from unmask.metrics.curves import IntArray

NEIGHBOURS = 5
# From this ratio of the classes on, rows are made.
SEVERE_RATIO = 10.0


def wanted(labels: IntArray, setting: str) -> bool:
    """Whether fusion is to be fitted with synthetic rows.

    Args:
        labels: ``(N,)``, 0 real and 1 fake, both there.
        setting: ``on``, ``off``, or ``auto``: when there are more than ten of one class for each of the other.

    Returns:
        The answer; always no for equally large classes.
    """
    smaller, larger = np.sort(np.bincount(labels, minlength=2))
    return bool(smaller < larger and (setting == "on" or (setting == "auto" and larger > SEVERE_RATIO * smaller)))


def with_synthetic(x: FloatArray, labels: IntArray, rng: np.random.Generator) -> tuple[FloatArray, IntArray]:
    """Add rows of the rarer class until there are as many as of the other.

    Each lies somewhere between a row of that class and one of its nearest neighbours of the same class. Columns that
    hold 0 and 1 only are taken from the former, so that they stay what they are.

    Args:
        x: ``(N, D)``, standardised, no NaN.
        labels: ``(N,)``, 0 real and 1 fake.
        rng: Source of pairs and places.

    Returns:
        The rows with the new ones behind them, and their labels; unchanged if the rarer class has one row only.
    """
    rarer = int(np.argmin(np.bincount(labels, minlength=2)))
    own = x[labels == rarer]
    n_new = len(x) - 2 * len(own)
    if len(own) < 2 or n_new <= 0:
        return x, labels
    distance = np.square(own[:, None] - own[None]).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(own) - 1)]
    base = rng.permutation(np.resize(np.arange(len(own)), n_new))
    other = nearest[base, rng.integers(nearest.shape[1], size=n_new)]
    place = rng.random((n_new, 1))
    flags = np.isin(x, (0.0, 1.0)).all(axis=0)
    made = own[base] + np.where(flags, 0.0, place * (own[other] - own[base]))
    return np.concatenate([x, made]), np.concatenate([labels, np.full(n_new, rarer, labels.dtype)])


class OversampledLogistic(LogisticRegression):  # type: ignore[misc]
    """Logistic regression that is fitted with synthetic rows; it predicts, and is calibrated, on real ones only."""

    def fit(self, X: FloatArray, y: IntArray, sample_weight: Any = None) -> Self:  # noqa: N803
        """Fit; see scikit-learn. ``random_state`` seeds the rows."""
        super().fit(*with_synthetic(X, y, np.random.default_rng(self.random_state)), sample_weight)
        return self
