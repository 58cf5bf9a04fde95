"""How many there are of each class, where, and what that asks of training."""

from __future__ import annotations

from typing import Literal

import pandas as pd

from unmask.schemas import Balance
from unmask.schemas.tables import SPLITS

Level = Literal["balanced", "mild", "moderate", "severe"]
LABEL_NAMES = {0: "real", 1: "fake"}
BALANCED, MILD, MODERATE = 1.1, 2.0, 5.0
ADVICE: dict[Level, tuple[Literal["none", "weights", "sampler"], str]] = {
    "balanced": ("none", "The classes are balanced; training needs no correction."),
    "mild": ("weights", "The classes are nearly balanced; weights of the classes in the loss are enough."),
    "moderate": (
        "weights",
        "Weigh the classes in the loss (train.class_balance), judge by AUC and not by accuracy, and choose the "
        "threshold on calib.",
    ),
    "severe": (
        "sampler",
        "Draw the smaller class more often (train.class_balance), augment it more, judge by PR-AUC, choose the "
        "threshold on calib; more media of the smaller class help most.",
    ),
}


def balance_of(usable: pd.DataFrame) -> Balance:
    """Count classes and say what their ratio asks for.

    Args:
        usable: Usable rows of the samples table, both classes among them.
    """
    ratio = _ratio(usable["label"]) or float("inf")
    level = level_of(ratio)
    correction, advice = ADVICE[level]
    rarer = LABEL_NAMES[int((usable["label"] == 1).sum() < (usable["label"] == 0).sum())]
    return Balance(
        ratio=ratio,
        level=level,
        advice=advice if level == "balanced" else f"Fewer {rarer} files, 1 to {ratio:.2g}: {level}. {advice}",
        class_balance=correction,
        by_source={
            str(source): {name: int((rows["label"] == label).sum()) for label, name in LABEL_NAMES.items()}
            for source, rows in usable.groupby("source", sort=True)
        },
        by_manipulation={
            str(kind): int(count) for kind, count in usable["manipulation"].dropna().value_counts().sort_index().items()
        },
        by_split={split: _ratio(usable.loc[usable["split"] == split, "label"]) for split in SPLITS},
    )


def level_of(ratio: float) -> Level:
    """Say how unbalanced classes are; `ADVICE` tells what each level asks of training.

    Args:
        ratio: Count of the larger class over that of the smaller one.
    """
    if ratio < BALANCED:
        return "balanced"
    return "mild" if ratio < MILD else "moderate" if ratio <= MODERATE else "severe"


def _ratio(labels: pd.Series) -> float | None:
    counts = [int((labels == label).sum()) for label in LABEL_NAMES]
    return max(counts) / min(counts) if min(counts) else None
