"""Four ways to weigh detectors: equally, the best one alone, by a logistic fit, by Bayesian search."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from scipy import optimize

from unmask.ensemble.apply import FloatArray, combine, sigmoid
from unmask.ensemble.calibrate import fit_slope, likelihood_loss, smoothed_targets
from unmask.errors import MissingExtraError
from unmask.metrics import roc_auc
from unmask.metrics.curves import IntArray

if TYPE_CHECKING:
    import optuna

# No weight is exactly 0, so that a sample which only a weak detector could score still has a score.
SMALLEST_WEIGHT = 1e-4
# On a small calib set many weights reach the same AUC; the likelihood then decides. A hundredth of a nat weighs as
# much as 0.0001 of AUC, which is far below what any calib set can resolve.
TIE_BREAK = 0.01
# Keeps the logistic fit finite when the classes are separated perfectly.
RIDGE = 1e-3
# Where a weight of 0 lies in the unit interval that the search sees; see `_weights_at`.
SHARPNESS = 5.0

Weigher = Callable[[FloatArray, IntArray, np.random.Generator], FloatArray]


def on_simplex(raw: FloatArray) -> FloatArray:
    """Scale non-negative numbers to weights that sum to 1, none below a ten-thousandth.

    Args:
        raw: ``(D,)``; all zeros become equal weights.

    Returns:
        ``(D,)``.
    """
    total = raw.sum()
    shares = raw / total if total > 0 else np.full(len(raw), 1 / len(raw))
    raised = np.maximum(shares, SMALLEST_WEIGHT)
    weights: FloatArray = raised / raised.sum()
    return weights


def equal_weights(calibrated: FloatArray, labels: IntArray, rng: np.random.Generator) -> FloatArray:
    """Weigh all detectors alike.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.
        labels: Not used.
        rng: Not used.

    Returns:
        ``(D,)``.
    """
    return np.full(calibrated.shape[1], 1 / calibrated.shape[1])


def best_single_weights(calibrated: FloatArray, labels: IntArray, rng: np.random.Generator) -> FloatArray:
    """Give (almost) all weight to the detector with the best AUC; of equals to the one with the better likelihood.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.
        labels: ``(N,)``, 0 real and 1 fake.
        rng: Not used.

    Returns:
        ``(D,)``.
    """
    d = calibrated.shape[1]
    objective = _Objective(calibrated, labels)
    return on_simplex(np.eye(d)[int(np.argmax([objective(on_simplex(corner)) for corner in np.eye(d)]))])


def logistic_weights(calibrated: FloatArray, labels: IntArray, rng: np.random.Generator) -> FloatArray:
    """Fit a logistic regression with non-negative coefficients and scale these to the simplex.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score, taken as undecided.
        labels: ``(N,)``, 0 real and 1 fake.
        rng: Not used.

    Returns:
        ``(D,)``; equal weights when no detector helps.
    """
    z = np.where(np.isnan(calibrated), 0.0, calibrated)
    d = z.shape[1]
    target = labels.astype(np.float64)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        margin = z @ parameters[:d] + parameters[d]
        wrong = (sigmoid(margin) - target) / len(z)
        ridge = RIDGE * parameters[:d]
        gradient = np.concatenate([z.T @ wrong + ridge, [wrong.sum()]])
        return likelihood_loss(margin, target) + 0.5 * float(ridge @ parameters[:d]), gradient

    start = np.concatenate([np.full(d, 1 / d), [0.0]])
    bounds = [(0.0, None)] * d + [(None, None)]
    fitted = optimize.minimize(loss, start, jac=True, bounds=bounds, method="L-BFGS-B")
    return on_simplex(np.asarray(fitted.x[:d], dtype=np.float64))


def bayesian_weights(calibrated: FloatArray, labels: IntArray, rng: np.random.Generator, *, trials: int) -> FloatArray:
    """Search the simplex for the best AUC with a tree-structured Parzen estimator (Bergstra et al., 2011).

    The search starts at equal weights, at the logistic fit and at each detector alone, so that it knows what it has
    to beat. Of weights with (nearly) the same AUC the better likelihood wins.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score, taken as undecided.
        labels: ``(N,)``, 0 real and 1 fake.
        rng: Seeds the search.
        trials: Weights tried.

    Returns:
        ``(D,)``.

    Raises:
        MissingExtraError: Optuna is not installed.
    """
    try:
        import optuna
    except ImportError as error:
        raise MissingExtraError("the Bayesian weight search", "analysis") from error

    d = calibrated.shape[1]
    objective = _Objective(calibrated, labels)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=int(rng.integers(2**31)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    starts = [equal_weights(calibrated, labels, rng), logistic_weights(calibrated, labels, rng), *np.eye(d)]
    for start in starts:
        study.enqueue_trial({f"u{k}": float(np.exp(-SHARPNESS * start[k])) for k in range(d)})

    def evaluate(trial: optuna.Trial) -> float:
        return objective(_weights_at([trial.suggest_float(f"u{k}", np.exp(-SHARPNESS), 1.0) for k in range(d)]))

    study.optimize(evaluate, n_trials=trials)
    return _weights_at([study.best_params[f"u{k}"] for k in range(d)])


def _weights_at(place: list[float]) -> FloatArray:
    """Map the unit cube to the simplex: -log of uniform numbers, normalised, is spread evenly over it."""
    return on_simplex(-np.log(np.asarray(place)))


class _Objective:
    """AUC of weights, with the likelihood (at its best temperature) to break ties."""

    def __init__(self, calibrated: FloatArray, labels: IntArray) -> None:
        self.calibrated = calibrated
        self.labels = labels
        self.target = smoothed_targets(labels)
        self.slope = 1.0

    def __call__(self, weights: FloatArray) -> float:
        combined = np.nan_to_num(combine(self.calibrated, weights))
        auc = roc_auc(self.labels, combined)
        # The slope of the last weights is a good start for the next, and three digits suffice for a tie-break.
        self.slope = fit_slope(combined, self.target, start=self.slope, tolerance=1e-3)
        return (0.5 if auc is None else auc) - TIE_BREAK * likelihood_loss(combined * self.slope, self.target)
