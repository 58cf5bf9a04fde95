"""Temperature scaling (Guo et al., 2017) and Platt scaling, made safe for few and for perfectly separated samples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import optimize

from unmask.ensemble.apply import FloatArray, sigmoid

# A temperature at an end of this range says that the scores are useless or separate the classes perfectly.
LOWEST_TEMPERATURE = 0.05
HIGHEST_TEMPERATURE = 50.0
NEWTON_STEPS = 30


@dataclass(frozen=True)
class Temperature:
    """A fitted temperature.

    Attributes:
        value: Logits are divided by it.
        nll: Mean negative log-likelihood of the smoothed labels after division, in nats.
        note: What a reader must know; empty when all is well.
    """

    value: float
    nll: float
    note: str = ""


def smoothed_targets(labels: npt.ArrayLike) -> FloatArray:
    """Give each class the target that one more sample of the other class would imply (Platt, 1999).

    Without it, perfectly separated samples would call for infinite confidence; with many samples it changes nothing.

    Args:
        labels: ``(N,)``, 0 real and 1 fake.

    Returns:
        ``(N,)`` in (0, 1).
    """
    y = np.asarray(labels) == 1
    fakes, reals = int(y.sum()), int((~y).sum())
    return np.where(y, (fakes + 1) / (fakes + 2), 1 / (reals + 2))


def fit_temperature(labels: npt.ArrayLike, logits: npt.ArrayLike) -> Temperature:
    """Fit the temperature that makes sigmoid(logit / T) most likely.

    The likelihood is convex in 1 / T, so Newton's method within bounds finds the optimum.

    Args:
        labels: ``(N,)``, 0 real and 1 fake, of calib rows.
        logits: ``(N,)``, finite.

    Returns:
        The temperature, within [0.05, 50]; 1 when there is only one class, because one class says nothing about it.
    """
    y, z = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    if len(np.unique(y)) < 2:
        return Temperature(1.0, float("nan"), "temperature 1, because calib has one class only")
    target = smoothed_targets(y)
    slope = fit_slope(z, target)
    value, nll = 1 / slope, likelihood_loss(z * slope, target)
    if value >= HIGHEST_TEMPERATURE * (1 - 1e-6):
        return Temperature(value, nll, f"temperature at its bound {value:g}: the scores do not rank calib")
    if value <= LOWEST_TEMPERATURE * (1 + 1e-6):
        return Temperature(value, nll, f"temperature at its bound {value:g}: the scores are tiny and separate calib")
    return Temperature(value, nll)


def fit_platt(labels: npt.ArrayLike, logits: npt.ArrayLike) -> tuple[float, float]:
    """Fit slope and offset of a sigmoid calibration (Platt, 1999): P(fake) = sigmoid(slope · logit + offset).

    Args:
        labels: ``(N,)``, 0 real and 1 fake, of calib rows.
        logits: ``(N,)``, finite.

    Returns:
        Slope and offset; the slope is negative when larger logits mean real.

    Raises:
        ValueError: There is only one class.
    """
    z, target = np.asarray(logits, dtype=np.float64), smoothed_targets(labels)
    if len(np.unique(np.asarray(labels))) < 2:
        raise ValueError("one class alone cannot be calibrated")
    spread = float(np.std(z)) or 1.0
    centred = (z - z.mean()) / spread

    def loss(parameters: FloatArray) -> tuple[float, FloatArray]:
        margin = parameters[0] * centred + parameters[1]
        wrong = (sigmoid(margin) - target) / len(z)
        return likelihood_loss(margin, target), np.array([wrong @ centred, wrong.sum()])

    fitted = optimize.minimize(loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-10})
    slope = float(fitted.x[0]) / spread
    return slope, float(fitted.x[1]) - slope * float(z.mean())


def likelihood_loss(logits: FloatArray, target: FloatArray) -> float:
    """Compute the mean negative log-likelihood of targets.

    Args:
        logits: ``(N,)``.
        target: ``(N,)`` in [0, 1].

    Returns:
        In nats.
    """
    return float(np.mean(np.logaddexp(0.0, logits) - target * logits))


def fit_slope(logits: FloatArray, target: FloatArray, *, start: float = 1.0, tolerance: float = 1e-10) -> float:
    """Minimise the likelihood loss over a factor of the logits, by Newton's method inside a shrinking bracket.

    Args:
        logits: ``(N,)``.
        target: ``(N,)`` in [0, 1].
        start: First guess.
        tolerance: Relative change at which to stop.

    Returns:
        The factor, 1 / temperature, within the bounds of the temperature.
    """
    low, high = 1 / HIGHEST_TEMPERATURE, 1 / LOWEST_TEMPERATURE
    slope = min(max(start, low), high)
    for _ in range(NEWTON_STEPS):
        p = sigmoid(slope * logits)
        gradient = float(np.mean((p - target) * logits))
        curvature = float(np.mean(p * (1 - p) * logits * logits))
        low, high = (low, slope) if gradient > 0 else (slope, high)
        step = slope - gradient / curvature if curvature > 0 else high
        # Outside the bracket Newton has overshot; the geometric middle halves the range of temperatures.
        following = step if low < step < high else float(np.sqrt(low * high))
        if abs(following - slope) <= tolerance * slope:
            return following
        slope = following
    return slope
