"""What the champion says about the challenger's test samples: from what it left in the registry, or scored anew."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pandas as pd

from unmask.adapters.tracking_content import Release
from unmask.deployment.gate import Champion
from unmask.deployment.paired import pair, unseen
from unmask.deployment.rescoring import CropScorer, Damage, Image
from unmask.errors import UnmaskError
from unmask.evaluation.perturbations import perturb
from unmask.schemas import ROBUSTNESS, SEEN_SAMPLES, TEST_SCORES, EvaluationInfo, read_table

logger = logging.getLogger(__name__)

SCORES, SEEN, METRICS, ROBUSTNESS_FILE = (
    "test_scores.parquet",
    "seen_samples.parquet",
    "metrics.json",
    "robustness.parquet",
)
DAMAGES = (("jpeg", 3), ("gaussian_blur", 3))
# Damaged crops are scored by both versions; so many samples settle a difference of a few hundredths.
MAX_DAMAGED_SAMPLES = 400


@dataclass(frozen=True)
class Left:
    """What a registered version left in its run.

    Attributes:
        version: Its number.
        file: Gives a file of the run by its name; None when it is not there.
        bundle: Fetches the bundle.
    """

    version: str
    file: Callable[[str], Path | None]
    bundle: Callable[[], Path]


def compare_with(left: Left, release: Release, faces: Path | None) -> Champion:
    """Collect what is known about a champion for a decision about a challenger.

    Stored scores are used for samples that both were tested on. The others are scored anew with the champion's bundle
    when the crops are given; those that the champion was fitted on are left out, because it would look too good.

    Args:
        left: Of the champion.
        release: The challenger.
        faces: Crops of the challenger's data set; None: nothing can be scored anew.

    Returns:
        The champion for `unmask.deployment.gate.decide`.
    """
    metrics = left.file(METRICS)
    evaluation = EvaluationInfo.load(metrics) if metrics else None
    threshold = evaluation.operating_point.threshold if evaluation else 0.5
    if release.scores is None:
        return Champion(left.version, threshold, None, "The challenger's own scores on test are not there.")
    stored, labels = _stored_scores(left)
    seen = left.file(SEEN)
    if seen is None:
        return Champion(
            left.version, threshold, None, f"Version {left.version} did not leave behind what it was fitted on."
        )
    fair = unseen(release.scores, read_table(seen, SEEN_SAMPLES).to_pandas())
    scorer, why_not = _scorer(left, release, faces)
    fresh = _fresh_scores(scorer, fair.loc[~fair["sha256"].isin(stored)], release, faces)
    paired = pair(fair, {**stored, **fresh}, labels)
    source = _source(release.scores, fair, paired, fresh, why_not)
    damaged = None
    if scorer is not None and faces is not None and len(paired):
        damaged = _damaged(scorer, release, paired, faces)
    same_data = evaluation is not None and evaluation.dataset_version == release.evaluation.dataset_version
    return Champion(
        left.version,
        scorer.threshold if scorer else threshold,
        paired if len(paired) else None,
        source,
        damaged,
        _robustness(left) if same_data else None,
    )


def _robustness(left: Left) -> pd.DataFrame | None:
    path = left.file(ROBUSTNESS_FILE)
    try:
        return None if path is None else read_table(path, ROBUSTNESS).to_pandas()
    except UnmaskError as error:
        logger.warning("promote: the robustness table of version %s is not used: %s", left.version, error.problem)
        return None


def _stored_scores(left: Left) -> tuple[dict[str, float], dict[str, int]]:
    path = left.file(SCORES)
    if path is None:
        return {}, {}
    rows = read_table(path, TEST_SCORES).to_pandas().drop_duplicates("sha256").set_index("sha256")
    return rows["probability"].to_dict(), rows["label"].to_dict()


def _scorer(left: Left, release: Release, faces: Path | None) -> tuple[CropScorer | None, str]:
    """Load the champion's bundle, if the challenger's crops are what it would cut itself."""
    if faces is None:
        return None, "no face crops were given to score them with (--faces)"
    try:
        scorer = CropScorer(left.bundle())
        scorer.check_fits(release.extract_config, release.extraction.extractor_version)
    except UnmaskError as error:
        logger.warning("promote: version %s cannot be scored anew: %s", left.version, error.problem)
        return None, error.problem
    return scorer, ""


def _fresh_scores(
    scorer: CropScorer | None, rows: pd.DataFrame, release: Release, faces: Path | None
) -> dict[str, float]:
    if scorer is None or faces is None or rows.empty:
        return {}
    by_id = scorer.score(faces, release.features_folder, set(rows["sample_id"]))
    known = rows.loc[rows["sample_id"].isin(set(by_id))]
    return {str(digest): by_id[str(name)] for digest, name in zip(known["sha256"], known["sample_id"], strict=True)}


def _source(
    all_rows: pd.DataFrame, fair: pd.DataFrame, paired: pd.DataFrame, fresh: dict[str, float], why_not: str
) -> str:
    said = [f"{len(paired)} of {len(all_rows)} test samples are compared"]
    if fresh:
        said.append(f"{len(fresh)} of them scored anew with the champion's bundle")
    if len(fair) < len(all_rows):
        said.append(f"{len(all_rows) - len(fair)} left out because the champion was fitted on them")
    if lost := len(fair.drop_duplicates("sha256")) - len(paired):
        reason = f": {why_not.rstrip('.')}" if why_not else ""
        said.append(f"{lost} left out because the champion has no score for them, or another label{reason}")
    return "; ".join(said) + "."


def _damaged(scorer: CropScorer, release: Release, paired: pd.DataFrame, faces: Path) -> dict[str, pd.DataFrame]:
    """Score the same damaged crops with both bundles; ensembles only, because features see the whole file."""
    own = CropScorer(release.bundle_folder)
    rows = paired.iloc[_few(paired, MAX_DAMAGED_SAMPLES)].reset_index(drop=True)
    ids = set(rows["sample_id"])
    found = {}
    for name, severity in DAMAGES:
        damage = _damage(name, severity)
        scores = [each.score(faces, None, ids, damage) for each in (own, scorer)]
        both = rows.assign(probability=rows["sample_id"].map(scores[0]), champion=rows["sample_id"].map(scores[1]))
        found[f"{name} {severity}"] = both.dropna(subset=["probability", "champion"])
    return found


def _few(rows: pd.DataFrame, limit: int) -> list[int]:
    """Choose rows evenly over the sorted hashes, which say nothing about what is in the files."""
    order = np.argsort(rows["sha256"].to_numpy(str))
    return sorted(order[np.unique(np.linspace(0, len(order) - 1, min(limit, len(order))).astype(int))].tolist())


def _damage(name: str, severity: int) -> Damage:
    def apply(image: Image, key: tuple[str, int, int]) -> Image:
        return perturb(image, name, severity, np.random.default_rng([severity, crc32(f"{name}/{key}".encode())]))

    return apply
