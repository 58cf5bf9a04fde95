"""Ways to combine detectors, each fitted on calibrated logits and applied to others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import optimize

from unmask.ensemble.apply import FloatArray, combine, sigmoid, stack
from unmask.ensemble.calibrate import likelihood_loss, smoothed_targets
from unmask.ensemble.weights import (
    Weigher,
    bayesian_weights,
    best_single_weights,
    equal_weights,
    logistic_weights,
    on_simplex,
)
from unmask.metrics.curves import IntArray

# Pulls attention towards equal, constant weights and stacking towards none.
RIDGE = 0.01
# Attention has a handful of parameters; more rows only cost time.
MAX_ATTENTION_ROWS = 5000
STEEPEST = 10.0


@dataclass(frozen=True)
class Combination:
    """A fitted way to combine calibrated logits.

    Attributes:
        weights: ``(D,)`` on the simplex; of stacking the shares of the absolute coefficients, for show.
        certainty: See `unmask.ensemble.apply.combine`.
        deviation: See `unmask.ensemble.apply.combine`.
        stacking: Coefficients and intercept; empty for a weighted mean.
    """

    weights: FloatArray
    certainty: float = 0.0
    deviation: float = 0.0
    stacking: tuple[float, ...] = ()

    def apply(self, calibrated: FloatArray) -> FloatArray:
        """Combine.

        Args:
            calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.

        Returns:
            ``(N,)``; NaN where no detector has a score.
        """
        if self.stacking:
            return stack(calibrated, self.stacking)
        return combine(calibrated, self.weights, self.certainty, self.deviation)


Combiner = Callable[[FloatArray, IntArray, np.random.Generator], Combination]


def by_confidence(calibrated: FloatArray, labels: IntArray, rng: np.random.Generator) -> Combination:
    """Let each detector count as much as it is certain in the sample at hand.

    Args:
        calibrated: ``(N, D)`` calibrated logits.
        labels: Not used; nothing is fitted.
        rng: Not used.

    Returns:
        The combination.
    """
    return Combination(equal_weights(calibrated, labels, rng), certainty=1.0)


def by_attention(calibrated: FloatArray, labels: IntArray, rng: np.random.Generator) -> Combination:
    """Fit weights that depend on the sample: on each detector's certainty and on its distance to the others.

    It is a softmax over detectors of (log weight + certainty · log certainty of the detector - deviation · distance),
    fitted by the likelihood of the combined logit at its best scale.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score.
        labels: ``(N,)``, 0 real and 1 fake.
        rng: Draws rows when there are more than 5,000.

    Returns:
        The combination.
    """
    rows = np.arange(len(labels))
    if len(rows) > MAX_ATTENTION_ROWS:
        rows = np.sort(rng.choice(rows, MAX_ATTENTION_ROWS, replace=False))
    z, target, d = calibrated[rows], smoothed_targets(labels[rows]), int(calibrated.shape[1])

    def combination(parameters: FloatArray) -> Combination:
        weights = np.exp(parameters[:d] - parameters[:d].max())
        return Combination(on_simplex(weights), float(parameters[d]), float(parameters[d + 1]))

    def loss(parameters: FloatArray) -> float:
        combined = np.nan_to_num(combination(parameters).apply(z)) * np.exp(parameters[d + 2])
        penalty = RIDGE * float(np.sum(parameters[: d + 2] ** 2)) / d
        return likelihood_loss(combined, target) + penalty

    bounds = [(-STEEPEST, STEEPEST)] * d + [(0.0, STEEPEST)] * 2 + [(-3.0, 3.0)]
    fitted = optimize.minimize(loss, np.zeros(d + 3), bounds=bounds, method="L-BFGS-B", options={"maxiter": 60})
    return combination(np.asarray(fitted.x, dtype=np.float64))


def by_stacking(calibrated: FloatArray, labels: IntArray, rng: np.random.Generator) -> Combination:
    """Fit a logistic regression on the calibrated logits (Wolpert, 1992); coefficients may be negative.

    Args:
        calibrated: ``(N, D)`` calibrated logits; NaN where a detector has no score, taken as undecided.
        labels: ``(N,)``, 0 real and 1 fake.
        rng: Not used.

    Returns:
        The combination.
    """
    z, target = np.nan_to_num(calibrated), smoothed_targets(labels)

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        margin = z @ parameters[:-1] + parameters[-1]
        wrong = (sigmoid(margin) - target) / len(z)
        ridge = RIDGE * parameters[:-1]
        gradient = np.concatenate([z.T @ wrong + ridge, [wrong.sum()]])
        return likelihood_loss(margin, target) + 0.5 * float(ridge @ parameters[:-1]), gradient

    start = np.append(np.full(z.shape[1], 1 / z.shape[1]), 0.0)
    fitted = optimize.minimize(loss, start, jac=True, method="L-BFGS-B")
    coefficients = [float(value) for value in fitted.x]
    return Combination(on_simplex(np.abs(np.array(coefficients[:-1]))), stacking=tuple(coefficients))


def combiners(trials: int) -> Mapping[str, Combiner]:
    """List the ways to combine detectors.

    Args:
        trials: Of the Bayesian search.

    Returns:
        Name to combiner; equal first.
    """

    def fixed(weigh: Weigher) -> Combiner:
        return lambda calibrated, labels, rng: Combination(weigh(calibrated, labels, rng))

    return {
        "equal": fixed(equal_weights),
        "bayesian": fixed(lambda z, y, rng: bayesian_weights(z, y, rng, trials=trials)),
        "logistic": fixed(logistic_weights),
        "best_single": fixed(best_single_weights),
        "confidence": by_confidence,
        "attention": by_attention,
        "stacking": by_stacking,
    }
