"""What a registered version has seen, kept with its run in MLflow, so that a later run can compare its data with it."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd

from unmask.adapters.tracking import connected, resolve_model
from unmask.adapters.tracking_champion import SCORES
from unmask.config import ExtractConfig, PromoteConfig
from unmask.deployment.rescoring import CropScorer
from unmask.errors import ContractError
from unmask.evaluation.retraining import KNOWN, SCORE, Reference, Scorer, read_reference, write_reference
from unmask.schemas import TEST_SCORES, ExtractionInfo, PromotionDecision, read_table

logger = logging.getLogger(__name__)
FOLDER = "reference"
DATASET_TAGS = ("unmask.dataset_version", "dataset_version")
DAY_MS = 86_400_000


def attach_reference(decision: Path, dataset: Path, features: Path) -> None:
    """Keep the content hashes and features of the samples of a version with its run; nothing happens if they are there.

    Args:
        decision: Folder that `unmask promote` wrote.
        dataset: Folder that `unmask ingest` wrote.
        features: Folder that `unmask extract` wrote.

    Raises:
        InputError: The tracking server does not answer, or refuses.
    """
    made = PromotionDecision.load(decision / "decision.json")
    with connected(made.tracking_uri) as server:
        if any(item.path.endswith(KNOWN) for item in server.client.list_artifacts(made.run_id, FOLDER)):
            return
        with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
            write_reference(dataset, features, Path(temporary))
            server.client.log_artifacts(made.run_id, temporary, FOLDER)


def find_reference(model: str, tracking_uri: str, config: PromoteConfig) -> Reference | None:
    """Look up what new data are compared with: the newer of champion and waiting challenger.

    A challenger that waits for a person has seen the data since the champion; training again before somebody has
    looked at it would bring the same once more.

    Args:
        model: Registered model.
        tracking_uri: MLflow server or ``sqlite:///`` URI.
        config: Names of the aliases.

    Returns:
        What is known about the version; None if neither alias points to one.

    Raises:
        InputError: The tracking server does not answer, or refuses.
    """
    with connected(tracking_uri) as server:
        found = [
            (version, alias)
            for alias in (config.champion_alias, config.alias)
            if (version := _version(server.client, model, alias)) is not None
        ]
        if not found:
            return None
        version, alias = max(found, key=lambda pair: int(pair[0].version))
        known, features, scores = None, None, None
        with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
            if any(item.path.endswith(KNOWN) for item in server.client.list_artifacts(version.run_id, FOLDER)):
                folder = server.client.download_artifacts(version.run_id, FOLDER, temporary)
                try:
                    known, features = read_reference(Path(folder))
                except ContractError as error:
                    logger.warning("The registered version's reference is broken: %s", error)
            scores = _test_scores(server.client, version.run_id, temporary)
        tags = {**server.client.get_run(version.run_id).data.tags, **version.tags}
        return Reference(
            version=str(version.version),
            alias=alias,
            age_days=max(0.0, (time.time() * 1000 - version.creation_timestamp) / DAY_MS),
            dataset_version=next((str(tags[tag]) for tag in DATASET_TAGS if tag in tags), ""),
            known=known,
            features=features,
            scores=scores,
        )


def _test_scores(client: Any, run_id: str, temporary: str) -> pd.DataFrame | None:
    """Fetch what a version said about its test samples; None when it did not leave it behind."""
    if not any(item.path == SCORES for item in client.list_artifacts(run_id)):
        return None
    try:
        rows = read_table(Path(client.download_artifacts(run_id, SCORES, temporary)), TEST_SCORES).to_pandas()
    except ContractError as error:
        logger.warning("The registered version's scores are broken: %s", error)
        return None
    scores: pd.DataFrame = rows[["label", "group_id", "probability"]].rename(columns={"probability": SCORE})
    return scores


def scorer_of(
    model: str, reference: Reference, tracking_uri: str, faces: Path, features: Path, config: ExtractConfig
) -> Scorer:
    """Let a registered version score samples from their crops and features; nothing is fetched before it is asked to.

    Args:
        model: Registered model.
        reference: Which version.
        tracking_uri: MLflow server or ``sqlite:///`` URI.
        faces: Folder of crops that `unmask extract` wrote.
        features: Folder with the features.
        config: What crops and features were made with.

    Returns:
        Takes sample ids and gives P(fake) of those with a crop; raises UnmaskError if the bundle cannot be had, or
        wants other crops.
    """

    def score(sample_ids: Collection[str]) -> dict[str, float]:
        scorer = CropScorer(resolve_model(f"models:/{model}/{reference.version}", tracking_uri))
        scorer.check_fits(config, ExtractionInfo.load(features / "extraction.json").extractor_version)
        return scorer.score(faces, features, sample_ids)

    return score


def waiting_challenger(model: str, tracking_uri: str, config: PromoteConfig, since_ms: float) -> str | None:
    """Say whether a run left a version that waits for a person.

    Args:
        model: Registered model.
        tracking_uri: MLflow server or ``sqlite:///`` URI.
        config: Names of the aliases.
        since_ms: When the run was created, in milliseconds since 1970.

    Returns:
        The version, if the challenger was registered since then and is not the champion already.
    """
    with connected(tracking_uri) as server:
        challenger = _version(server.client, model, config.alias)
        champion = _version(server.client, model, config.champion_alias)
        if challenger is None or challenger.creation_timestamp < since_ms:
            return None
        if champion is not None and champion.version == challenger.version:
            return None
        return str(challenger.version)


def _version(client: Any, model: str, alias: str) -> Any:
    from mlflow.exceptions import MlflowException

    with contextlib.suppress(MlflowException):
        return client.get_model_version_by_alias(model, alias)
    return None
