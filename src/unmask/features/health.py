"""Feature health: what is missing, constant, unbelievable or has drifted, why, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from unmask.features.catalogue import CATALOGUE, NULL_REASONS, FeatureSpec
from unmask.features.observation import Floats
from unmask.schemas import FeatureHealth, ReferenceDrift

CHOICE_SPLITS = ("train", "val", "calib")
MAX_NULL_SHARE = 0.5
MIN_ROWS_FOR_VARIANCE = 5
MIN_ROWS_FOR_DRIFT = 20
MAX_PSI = 0.25  # customary limit of a large shift
MAX_DRIFT_P = 0.01  # after Holm's correction
UNEXPLAINED = frozenset({"undefined"})  # nulls that nothing in the material explains
N_BINS = 10

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


def feature_health(rows: pd.DataFrame, reference: pd.DataFrame | None = None) -> list[FeatureHealth]:
    """Judge every feature of the catalogue on the rows that may be looked at before the test.

    Rows of the test split and failed rows are left out here, whatever is handed in. A feature is critical when it is
    missing, or has no value at all and the material does not explain why.

    Args:
        rows: The table ``features`` with a further column ``modality``; ``null_reasons`` holds dicts or pairs.
        reference: Another such table, to which the values are compared.

    Returns:
        One entry a feature, in the order of the catalogue.
    """
    seen = _seen(rows)
    reasons = [dict(entry) for entry in seen["null_reasons"]]
    drifts = _drifts(seen, _seen(reference)) if reference is not None else {}
    return [_judge(spec, seen, reasons, drifts.get(spec.name)) for spec in CATALOGUE.values()]


def known_values(rows: pd.DataFrame, spec: FeatureSpec) -> Floats:
    """Values of a feature on the rows that may be looked at before the test.

    Args:
        rows: As for `feature_health`.
        spec: The feature.

    Returns:
        ``(N,)``, finite.
    """
    return _known(_seen(rows), spec)


def _seen(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["split"].isin(CHOICE_SPLITS) & (rows["status"] == "ok")]


def _known(seen: pd.DataFrame, spec: FeatureSpec) -> Floats:
    if spec.name not in seen:
        return np.zeros(0)
    column = seen.loc[seen["modality"].isin(spec.modalities), spec.name].to_numpy(np.float64)
    return np.asarray(column[np.isfinite(column)])


def _judge(
    spec: FeatureSpec, seen: pd.DataFrame, reasons: list[dict[str, str]], drift: ReferenceDrift | None
) -> FeatureHealth:
    if spec.name not in seen:
        problem = "The column is missing: another version wrote the table. Run extract again with this one."
        return _entry(spec, 0, np.zeros(0), "critical", [problem], Counter(), None)
    fits = seen["modality"].isin(spec.modalities).to_numpy(bool)
    column = seen[spec.name].to_numpy(np.float64)
    counts = Counter(
        reason.get(spec.name, "undefined")
        for reason, fit, value in zip(reasons, fits, column, strict=True)
        if fit and not np.isfinite(value)
    )
    known = _known(seen, spec)
    n = int(fits.sum())
    level, problems = _problems(spec, n, known, counts)
    if drift is not None and drift.psi > MAX_PSI and drift.p_value < MAX_DRIFT_P:
        level = "warning" if level == "ok" else level
        problems.append(
            f"The values have drifted from the reference (PSI {drift.psi:.2f}, p = {drift.p_value:.1g}). "
            "Find out what changed: cameras, compression, kind of content; then think about training again."
        )
    return _entry(spec, n, known, level, problems, counts, drift)


def _entry(
    spec: FeatureSpec,
    n: int,
    known: Floats,
    level: Level,
    problems: list[str],
    counts: Counter[str],
    drift: ReferenceDrift | None,
) -> FeatureHealth:
    figures = [float(f(known)) if len(known) else None for f in (np.mean, np.std, np.min, np.max)]
    return FeatureHealth(
        name=spec.name,
        n=n,
        null_share=1 - len(known) / n if n else 1.0,
        mean=figures[0],
        std=figures[1],
        low=figures[2],
        high=figures[3],
        level=level,
        problems=problems,
        null_reasons=dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))),
        drift=drift,
    )


def _problems(spec: FeatureSpec, n: int, known: Floats, counts: Counter[str]) -> tuple[Level, list[str]]:
    if not n:
        kinds = " or ".join(spec.modalities)
        return "warning", [f"No {kinds} was measured before the test split, and the feature exists for no other file."]
    if not len(known):
        unexplained = sum(count for code, count in counts.items() if code in UNEXPLAINED)
        level: Level = "critical" if unexplained > MAX_NULL_SHARE * n else "warning"
        return level, [f"No value at all in {n} rows. {_explain(counts)}"]
    level = "ok"
    problems = []
    null_share = 1 - len(known) / n
    if null_share > MAX_NULL_SHARE:
        level = "warning"
        problems.append(
            f"{null_share:.0%} of {n} rows have no value. {_explain(counts)} "
            "Fusion leans on the other features then: see their weights in the report."
        )
    if len(known) >= MIN_ROWS_FOR_VARIANCE and float(np.ptp(known)) == 0:
        level = "warning"
        problems.append(
            f"All {len(known)} values are {known[0]:g}: they cannot tell anything apart. {spec.if_constant}"
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


def _drifts(seen: pd.DataFrame, reference: pd.DataFrame) -> dict[str, ReferenceDrift]:
    """Compare the values of all features that have enough of them on both sides."""
    figures: dict[str, tuple[int, float, float, float]] = {}
    for spec in CATALOGUE.values():
        now, before = _known(seen, spec), _known(reference, spec)
        if min(len(now), len(before)) >= MIN_ROWS_FOR_DRIFT:
            found = stats.ks_2samp(now, before)
            figures[spec.name] = (
                len(before),
                stability_index(before, now),
                float(found.statistic),
                float(found.pvalue),
            )
    corrected = holm([figure[3] for figure in figures.values()])
    return {
        name: ReferenceDrift(n_reference=n, psi=psi, ks=ks, p_value=p)
        for (name, (n, psi, ks, _)), p in zip(figures.items(), corrected, strict=True)
    }


def stability_index(before: Floats, now: Floats) -> float:
    """Population stability index of values against a reference, over the tenths of the reference.

    Args:
        before: ``(N,)`` the reference.
        now: ``(M,)``.

    Returns:
        0 for equal shares; above 0.25 is customarily a large shift.
    """
    edges = np.unique(np.quantile(before, np.linspace(0, 1, N_BINS + 1)[1:-1]))
    shares = [
        (np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1) + 0.5)
        / (len(values) + 0.5 * (len(edges) + 1))
        for values in (before, now)
    ]
    return float(((shares[1] - shares[0]) * np.log(shares[1] / shares[0])).sum())


def holm(p_values: list[float]) -> list[float]:
    """Correct p values for their number (Holm 1979, Scandinavian Journal of Statistics 6(2))."""
    corrected = [1.0] * len(p_values)
    highest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        highest = max(highest, min(1.0, p_values[index] * (len(p_values) - rank)))
        corrected[index] = highest
    return corrected
