"""Without enough labelled samples to fit fusion: a weighted average by written weights.

Every input speaks in logits. The detectors speak with the ensemble's logit, calibrated as far as that was possible. A
feature speaks with its distance to the usual value, in robust standard deviations, towards fake or real as the
catalogue of features says, and with at most four logits. The detectors together weigh as much as all features
together, and each feature as much as another. Of a sample in which a feature could not be measured, the weights of
the other inputs grow in proportion. Nothing of this is learnt from labels, so the result is no calibrated probability;
what a verdict and a report say about it starts with that.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from unmask.fusion.apply import ENSEMBLE
from unmask.fusion.model import StoredModel
from unmask.schemas import rows_for_choice

# Share of the detectors in the average when everything was measured.
ENSEMBLE_SHARE = 0.5
MIN_VALUES = 8
# A normal distribution has a median absolute deviation of 1 / 1.4826 standard deviations.
MAD_TO_STD = 1.4826
SIGNS = {"higher_fake": 1.0, "higher_real": -1.0}


def average_by_rule(rows: pd.DataFrame, directions: Mapping[str, str], temperature: float) -> StoredModel | None:
    """Write down the average; labels are not looked at.

    Args:
        rows: Rows of train, val and calib with ``split`` and the features, null where not measured. They tell what is
            usual.
        directions: Feature to higher_fake, higher_real or none; none takes no part.
        temperature: Last temperature of the ensemble.

    Returns:
        Coefficients whose sizes sum to 1, for a document with ``averaged``; None when no feature has eight values
        that differ.

    Raises:
        LeakError: A row is of test.
    """
    rows = rows_for_choice(rows, {"train", "val", "calib"}, "average_by_rule")
    usual: dict[str, tuple[float, float]] = {}
    for name, direction in directions.items():
        if direction in SIGNS and name in rows:
            values = rows[name].dropna().to_numpy(dtype=np.float64)
            middle = float(np.median(values)) if len(values) >= MIN_VALUES else 0.0
            spread = MAD_TO_STD * float(np.median(np.abs(values - middle))) if len(values) >= MIN_VALUES else 0.0
            if spread > 0:
                usual[name] = middle, spread
    if not usual:
        return None
    middles, spreads = ([pair[place] for pair in usual.values()] for place in (0, 1))
    each = (1 - ENSEMBLE_SHARE) / len(usual)
    return StoredModel(
        inputs=[ENSEMBLE, *usual],
        impute=[0.0, *middles],
        center=[0.0, *middles],
        scale=[temperature, *spreads],
        coefficients=[ENSEMBLE_SHARE, *(SIGNS[directions[name]] * each for name in usual)],
        intercept=0.0,
        calibration_slope=1.0,
        calibration_offset=0.0,
    )
