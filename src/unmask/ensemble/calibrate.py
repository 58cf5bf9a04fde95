"""Temperature (Guo et al., 2017), Platt and isotonic calibration, made safe for few and for separated samples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize

from unmask.ensemble.apply import FloatArray, apply_calibration, sigmoid
from unmask.ensemble.folds import group_folds
from unmask.schemas import DetectorCalibration, rows_for_choice

# A temperature at an end of this range says that the scores are useless or separate the classes perfectly.
LOWEST_TEMPERATURE = 0.05
HIGHEST_TEMPERATURE = 50.0
NEWTON_STEPS = 30
Kind = Literal["temperature", "platt", "isotonic"]
# From simple to complex, with the samples of each class that a kind needs before it may be chosen.
NEEDED_PER_CLASS: dict[Kind, int] = {"temperature": 0, "platt": 20, "isotonic": 200}


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


def fit_calibration(labels: npt.ArrayLike, logits: npt.ArrayLike, kind: Kind) -> DetectorCalibration:
    """Fit one kind of calibration; what cannot be fitted to these samples falls back to a temperature.

    Args:
        labels: ``(N,)``, 0 real and 1 fake, of calib rows.
        logits: ``(N,)``, finite.
        kind: temperature, platt or isotonic.

    Returns:
        A calibration that keeps the order of the logits.
    """
    y, z = np.asarray(labels), np.asarray(logits, dtype=np.float64)
    if len(np.unique(y)) == 2 and kind == "platt":
        slope, offset = fit_platt(y, z)
        if slope > 0:
            return DetectorCalibration(kind="platt", slope=slope, offset=offset)
    if len(np.unique(y)) == 2 and kind == "isotonic":
        knots = _isotonic_knots(y, z)
        if len(knots) > 1:
            return DetectorCalibration(kind="isotonic", knots=knots)
    return DetectorCalibration(kind="temperature", slope=1 / fit_temperature(y, z).value)


def _isotonic_knots(labels: npt.NDArray[np.generic], logits: FloatArray) -> list[tuple[float, float]]:
    """Fit a rising curve through the middles of the blocks of isotonic regression (Oron & Flournoy, 2017).

    The step function itself would give many samples the same probability; the line through its middles does not.
    """
    values, place, counts = np.unique(logits, return_inverse=True, return_counts=True)
    targets = np.bincount(place, weights=smoothed_targets(labels)) / counts
    level = np.asarray(optimize.isotonic_regression(targets, weights=counts.astype(np.float64)).x)
    # Neighbouring blocks of the same level are one: the curve must rise everywhere.
    block = np.concatenate([[0], np.cumsum(np.diff(level) > 1e-9)])
    knots = []
    for k in range(int(block[-1]) + 1):
        inside = block == k
        share = float(level[inside][0])
        knots.append((float(np.average(values[inside], weights=counts[inside])), float(np.log(share / (1 - share)))))
    return knots


def choose_calibration(rows: pd.DataFrame, detector: str, *, folds: int, rng: np.random.Generator) -> Kind:
    """Choose the kind of calibration with the best likelihood out of fold.

    Args:
        rows: Calib rows with ``label``, ``group_id``, ``split`` and a column of logits.
        detector: The column; rows without a logit are left out.
        folds: Group folds.
        rng: Source of the folds.

    Returns:
        The kind; temperature unless another one is better, and the data are enough for it: 20 of each class for
        platt, 200 for isotonic.

    Raises:
        LeakError: A row is not of calib.
    """
    rows = rows_for_choice(rows, {"calib"}, "choose_calibration")
    rows = rows[rows[detector].notna()]
    y, z = rows["label"].to_numpy(dtype=np.int64), rows[detector].to_numpy(dtype=np.float64)
    fewest = int(min((y == 0).sum(), (y == 1).sum()))
    kinds = [kind for kind, needed in NEEDED_PER_CLASS.items() if fewest >= needed]
    if len(kinds) < 2:
        return "temperature"
    fold = group_folds(y, rows["group_id"].to_numpy(dtype=object), folds, rng)
    losses = dict.fromkeys(kinds, 0.0)
    for k in np.unique(fold):
        fitting, judged = fold != k, fold == k
        for kind in kinds:
            moved = apply_calibration(fit_calibration(y[fitting], z[fitting], kind), z[judged])
            losses[kind] += likelihood_loss(moved, y[judged].astype(np.float64)) * int(judged.sum())
    return min(kinds, key=lambda kind: losses[kind])


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
