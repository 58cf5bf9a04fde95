"""Feature health: what is missing, constant or unbelievable, why, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd

from unmask.features.catalogue import CATALOGUE, NULL_REASONS, FeatureSpec
from unmask.schemas import FeatureHealth

CHOICE_SPLITS = ("train", "val", "calib")
MAX_NULL_SHARE = 0.5
MIN_ROWS_FOR_VARIANCE = 5

FIXES: Mapping[str, str] = {
    "audio": "Nothing to do: judge audio by its own detectors.",
    "single_image": "Nothing to do: give videos if the course in time is wanted.",
    "no_face": "Look at some of the clips: if there are faces, they are smaller than 5 % of the picture.",
    "small_face": "Give clips of higher resolution or closer faces.",
    "not_frontal": "Give clips on which people look towards the camera.",
    "too_short": "Give longer clips; ten seconds suffice for every feature.",
    "too_slow": "Give clips with 24 frames a second or more, not such as were thinned out.",
    "too_small": "Give clips of higher resolution.",
    "static": "Nothing to do when the camera stands on a tripod; hand-held clips have a value.",
    "flat": "Nothing to do for drawings and blank pictures.",
    "dark": "Look at the exposure of the clips.",
    "not_applicable": "Nothing to do when all clips come from such a codec.",
    "undefined": "Report it with the clip: a measurement should never end like this.",
}
"""What to do about a frequent null: code to sentence."""

Level = Literal["ok", "warning", "critical"]


def feature_health(rows: pd.DataFrame) -> list[FeatureHealth]:
    """Judge every feature of the catalogue on the rows that may be looked at before the test.

    Rows of the test split and failed rows are left out here, whatever is handed in.

    Args:
        rows: The table ``features`` with a further column ``modality``; ``null_reasons`` holds dicts or pairs.

    Returns:
        One entry a feature, in the order of the catalogue.
    """
    seen = rows[rows["split"].isin(CHOICE_SPLITS) & (rows["status"] == "ok")]
    reasons = [dict(entry) for entry in seen["null_reasons"]]
    return [_judge(spec, seen, reasons) for spec in CATALOGUE.values()]


def _judge(spec: FeatureSpec, seen: pd.DataFrame, reasons: list[dict[str, str]]) -> FeatureHealth:
    fits = seen["modality"].isin(spec.modalities).to_numpy(bool)
    column = seen[spec.name].to_numpy(float)[fits]
    known = column[np.isfinite(column)]
    counts = Counter(
        reason.get(spec.name, "undefined")
        for reason, fit, value in zip(reasons, fits, seen[spec.name].to_numpy(float), strict=True)
        if fit and not np.isfinite(value)
    )
    null_share = 1 - len(known) / len(column) if len(column) else 1.0
    level, problems = _problems(spec, column, known, counts)
    return FeatureHealth(
        name=spec.name,
        n=len(column),
        null_share=null_share,
        mean=float(known.mean()) if len(known) else None,
        std=float(known.std()) if len(known) else None,
        low=float(known.min()) if len(known) else None,
        high=float(known.max()) if len(known) else None,
        level=level,
        problems=problems,
        null_reasons=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
    )


def _problems(
    spec: FeatureSpec, column: np.ndarray, known: np.ndarray, counts: Counter[str]
) -> tuple[Level, list[str]]:
    if not len(column):
        kinds = " or ".join(spec.modalities)
        return "warning", [f"No {kinds} was measured before the test split, and the feature exists for no other file."]
    if not len(known):
        return "critical", [f"No value at all in {len(column)} rows. {_explain(counts)}"]
    level: Level = "ok"
    problems = []
    null_share = 1 - len(known) / len(column)
    if null_share > MAX_NULL_SHARE:
        level = "warning"
        problems.append(f"{null_share:.0%} of {len(column)} rows have no value. {_explain(counts)}")
    if len(known) >= MIN_ROWS_FOR_VARIANCE and float(np.ptp(known)) == 0:
        level = "warning"
        problems.append(
            f"All {len(known)} values are {known[0]:g}: they cannot tell anything apart. "
            "Look whether the clips are copies of one another."
        )
    outside = int(((known < spec.low) | (known > spec.high)).sum())
    if outside:
        level = "warning"
        problems.append(
            f"{outside} of {len(known)} values lie outside {spec.low:g} to {spec.high:g} {spec.unit}. "
            "Look at those clips: damaged pictures or a wrong frame rate do this."
        )
    return level, problems


def _explain(counts: Counter[str]) -> str:
    code, count = max(counts.items(), key=lambda item: (item[1], item[0]))
    return f"Most often ({count}): {NULL_REASONS.get(code, code)} {FIXES.get(code, '')}".strip()
