"""Bundles on the labelled test files of a data set, for comparing what would be deployed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from unmask.deployment.examine import Examined, examine
from unmask.deployment.runtime import Bundle
from unmask.errors import InputError, MediaError
from unmask.progress import track
from unmask.schemas import SAMPLES, read_table

logger = logging.getLogger(__name__)


def score_bundles(folders: Sequence[Path], dataset: Path) -> dict[Path, pd.DataFrame]:
    """Score the labelled test files with several bundles; bundles that measure alike share the decoding.

    Args:
        folders: Of bundles.
        dataset: Folder of `unmask ingest`; its files must lie where they lay.

    Returns:
        Bundle to rows with ``sample_id``, ``label``, ``group_id``, ``split`` and ``probability``, which is null where
        the bundle gives none.

    Raises:
        InputError: A file of the data set is gone, or there is no labelled test file.
        ContractError: A bundle is broken.
    """
    samples = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    samples = samples.loc[(samples["split"] == "test") & samples["label"].notna()].reset_index(drop=True)
    if samples.empty:
        raise InputError(f"{dataset} has no labelled test file.", "Ingest labelled media.")
    missing = [uri for uri in samples["uri"] if not Path(uri).is_file()]
    if missing:
        raise InputError(f"{len(missing)} test files are gone, {missing[0]} first.", "Ingest the data set again.")
    bundles = {folder: Bundle.load(folder) for folder in folders}
    found: dict[Path, list[float | None]] = {folder: [] for folder in bundles}
    for uri in track(samples["uri"], len(samples), "compare", "file"):
        for folder, probability in _judge(Path(uri), bundles).items():
            found[folder].append(probability)
    keys = samples[["sample_id", "label", "group_id", "split"]]
    return {folder: keys.assign(probability=pd.array(values, "Float64")) for folder, values in found.items()}


def _judge(path: Path, bundles: dict[Path, Bundle]) -> dict[Path, float | None]:
    measured: dict[str, Examined | None] = {}
    answers: dict[Path, float | None] = {}
    for folder, bundle in bundles.items():
        how = bundle.extract.model_dump_json()
        if how not in measured:
            try:
                measured[how] = examine(path, bundle.extract)
            except MediaError as error:
                logger.info("%s has no score: %s", path.name, error)
                measured[how] = None
        examined = measured[how]
        answers[folder] = None if examined is None else bundle.judge(examined, name=str(path)).verdict.probability
    return answers
