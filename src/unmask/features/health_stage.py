"""`unmask health`: judge a table of features, alone or against a reference."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from unmask.config import ExtractConfig
from unmask.features.health import feature_health
from unmask.features.health_page import health_page
from unmask.features.results import refuse_critical
from unmask.schemas import (
    FEATURES,
    SAMPLES,
    Document,
    FeatureHealth,
    StageOutcome,
    new_directory,
    read_table,
    write_atomically,
)


class HealthReport(Document):
    """``health.json``.

    Attributes:
        features: State of each feature.
    """

    features: list[FeatureHealth]


def run_health(
    dataset: Path, features: Path, out: Path, config: ExtractConfig, reference: tuple[Path, Path] | None = None
) -> StageOutcome:
    """Judge features.

    Args:
        dataset: Folder that `unmask ingest` wrote.
        features: Folder that `unmask extract` wrote.
        out: Folder for ``health.json`` and ``health.html``.
        config: Whether a critical feature is an error.
        reference: Data set and features to compare with.

    Returns:
        Counts and what is wrong.

    Raises:
        InputError: A feature is unusable without a reason in the material; the report is written all the same.
        ContractError: A folder is missing or broken.
    """
    rows = _with_modality(dataset, features)
    entries = feature_health(rows, _with_modality(*reference) if reference else None)
    with new_directory(out) as folder:
        HealthReport(features=entries).save(folder / "health.json")
        with write_atomically(folder / "health.html") as page:
            page.write_text(health_page(entries, rows), encoding="utf-8")
    refuse_critical(entries, config)
    levels = ("ok", "warning", "critical")
    return StageOutcome(
        metrics={f"features_{level}": float(sum(entry.level == level for entry in entries)) for level in levels},
        messages=tuple(f"{entry.name} ({entry.level}): {problem}" for entry in entries for problem in entry.problems)
        or ("All features are sound.",),
    )


def _with_modality(dataset: Path, features: Path) -> pd.DataFrame:
    rows: pd.DataFrame = read_table(features / "features.parquet", FEATURES).to_pandas()
    samples: pd.DataFrame = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    kinds = dict(zip(samples["sample_id"], samples["modality"], strict=True))
    return rows.assign(modality=rows["sample_id"].map(kinds))
