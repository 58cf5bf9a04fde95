"""The fusion model itself: a scikit-learn pipeline, and the same thing as a handful of stored numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from unmask.ensemble.apply import FloatArray
from unmask.fusion.apply import ENSEMBLE, LARGEST_DEVIATION, MISSING
from unmask.fusion.oversample import OversampledLogistic
from unmask.metrics.curves import IntArray
from unmask.schemas import FusionInfo

# That a feature is missing is itself an input only if both states were seen this often.
MIN_PER_STATE = 5
# The ensemble's standardised logit is enlarged by this, so that the penalty on it is a hundredth of that on a
# feature: it is the main input, and features have to earn their place beside it.
EMPHASIS = 10.0

Splits = list[tuple[IntArray, IntArray]]


@dataclass(frozen=True)
class StoredModel:
    """Coefficients of a fitted model; the fields are those of `unmask.schemas.FusionInfo`."""

    inputs: list[str]
    impute: list[float]
    center: list[float]
    scale: list[float]
    coefficients: list[float]
    intercept: float
    calibration_slope: float
    calibration_offset: float


def as_info(stored: StoredModel) -> FusionInfo:
    """Wrap coefficients so that they can be applied; there are no operating points.

    Args:
        stored: The coefficients.

    Returns:
        A document that scores rows and is not meant to give verdicts.
    """
    return FusionInfo(
        **asdict(stored), operating_points={}, default_operating_point="", importance={}, used=True, decision=""
    )


class FusionModel:
    """Logistic regression over the ensemble's logit and features, calibrated by a sigmoid on out-of-fold values.

    Missing features are replaced by their median; that they are missing is an input of its own where it was seen
    often enough. The penalty is L2, light on the ensemble.

    Args:
        features: Names of the features, in the order of their columns.
        inverse_regularisation: C of the logistic regression.
        with_ensemble: Whether the ensemble's logit is an input; without it, its column is there and not looked at.
        oversample: Whether the regression is fitted with synthetic rows of the rarer class.
    """

    def __init__(
        self,
        features: Sequence[str],
        inverse_regularisation: float,
        *,
        with_ensemble: bool = True,
        oversample: bool = False,
    ) -> None:
        self.features = list(features)
        self.inverse_regularisation = inverse_regularisation
        self.with_ensemble = with_ensemble
        self.oversample = oversample

    def indicated(self, x: FloatArray) -> list[int]:
        """Find the columns whose absence is an input.

        Args:
            x: ``(N, 1 + F)``: the ensemble's logit, then the features, NaN where not measured.

        Returns:
            Column numbers.
        """
        absent = np.isnan(x).sum(axis=0)
        return [k for k in range(1, x.shape[1]) if MIN_PER_STATE <= absent[k] <= len(x) - MIN_PER_STATE]

    def out_of_fold(self, x: FloatArray, labels: IntArray, splits: Splits) -> FloatArray:
        """Predict each row by a model that did not see its fold.

        Args:
            x: ``(N, 1 + F)``.
            labels: ``(N,)``, 0 real and 1 fake.
            splits: Row numbers to fit on and to predict.

        Returns:
            Decision values ``(N,)``, not calibrated.
        """
        pipeline = self._pipeline(self.indicated(x))
        decided: FloatArray = cross_val_predict(pipeline, x, labels, cv=splits, method="decision_function")
        return decided

    def fit(self, x: FloatArray, labels: IntArray, splits: Splits) -> tuple[StoredModel, FloatArray]:
        """Fit on all rows and calibrate on out-of-fold decision values.

        Args:
            x: ``(N, 1 + F)``.
            labels: ``(N,)``, 0 real and 1 fake.
            splits: Row numbers to fit on and to predict.

        Returns:
            The coefficients, and the probabilities ``(N,)`` that scikit-learn itself gives to these rows.
        """
        indicated = self.indicated(x)
        calibrated = CalibratedClassifierCV(self._pipeline(indicated), method="sigmoid", cv=splits, ensemble=False)
        calibrated.fit(x, labels)
        inner = calibrated.calibrated_classifiers_[0]
        stored = self._stored(inner.estimator, inner.calibrators[0], indicated)
        return stored, np.asarray(calibrated.predict_proba(x)[:, 1], dtype=np.float64)

    def _pipeline(self, indicated: list[int]) -> Pipeline:
        ensemble = Pipeline([("scale", StandardScaler()), ("emphasise", FunctionTransformer(_emphasise))])
        feature = Pipeline(
            [
                ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
                ("scale", StandardScaler()),
                ("limit", FunctionTransformer(_limit)),
            ]
        )
        columns = ColumnTransformer(
            [
                (ENSEMBLE, ensemble if self.with_ensemble else "drop", [0]),
                ("features", feature, list(range(1, 1 + len(self.features)))),
                ("missing", MissingIndicator(features="all"), indicated),
            ]
        )
        # Synthetic rows are made inside each fit, so that no fold is predicted by what was made from its own rows.
        kind = OversampledLogistic if self.oversample else LogisticRegression
        logistic = kind(C=self.inverse_regularisation, max_iter=10_000, tol=1e-8, random_state=0)
        return Pipeline([("columns", columns), ("logistic", logistic)])

    def _stored(self, pipeline: Pipeline, sigmoid: object, indicated: list[int]) -> StoredModel:
        columns, logistic = pipeline["columns"].named_transformers_, pipeline["logistic"]
        names, impute, center, scale, factors = [], [], [], [], []
        if self.with_ensemble:
            of_ensemble = columns[ENSEMBLE]["scale"]
            names, impute, factors = [ENSEMBLE], [0.0], [EMPHASIS]
            center, scale = _floats(of_ensemble.mean_), _floats(of_ensemble.scale_)
        if self.features:
            of_features = columns["features"]
            names += self.features
            impute += _floats(of_features["impute"].statistics_)
            center += _floats(of_features["scale"].mean_)
            scale += _floats(of_features["scale"].scale_)
            factors += [1.0] * len(self.features)
        flags = [f"{MISSING}{self.features[k - 1]}" for k in indicated]
        return StoredModel(
            inputs=names + flags,
            impute=impute + [0.0] * len(flags),
            center=center + [0.0] * len(flags),
            scale=scale + [1.0] * len(flags),
            coefficients=_floats(np.array(factors + [1.0] * len(flags)) * logistic.coef_[0]),
            intercept=float(logistic.intercept_[0]),
            calibration_slope=-float(sigmoid.a_),  # type: ignore[attr-defined]
            calibration_offset=-float(sigmoid.b_),  # type: ignore[attr-defined]
        )


def _floats(values: npt.ArrayLike) -> list[float]:
    return [float(value) for value in np.asarray(values)]


def _emphasise(x: FloatArray) -> FloatArray:
    return x * EMPHASIS


def _limit(x: FloatArray) -> FloatArray:
    return np.clip(x, -LARGEST_DEVIATION, LARGEST_DEVIATION)
