# mypy: allow-untyped-decorators
"""The training pipeline: from media to a registered detector."""

from typing import Any

from kfp import dsl

from components.bundle import bundle
from components.ensemble import ensemble
from components.evaluate import evaluate
from components.extract import extract
from components.fuse import fuse
from components.ingest import ingest
from components.promote import promote
from components.train import train
from pipelines.resources import Cluster, place
from unmask.config import UnmaskConfig

NAME = "unmask-training"
DEFAULTS = UnmaskConfig()
# A folder that a pod always has; name a mounted volume to keep finished work between runs.
DEFAULT_STORE = "/tmp/unmask-store"


def build(cluster: Cluster = Cluster()) -> Any:  # noqa: B008 - frozen
    """Wire the training pipeline.

    Args:
        cluster: What differs from cluster to cluster.

    Returns:
        The pipeline, ready to compile.
    """

    @dsl.pipeline(name=NAME, display_name="unmask: train a deepfake detector")
    def training(
        sources: list,  # type: ignore[type-arg]  # list[str] cannot stand inside an f-string of kfp
        tracking_uri: str,
        data_version: str = "",
        detectors: list = list(DEFAULTS.detectors),  # type: ignore[type-arg]  # noqa: B006 - kfp reads it once
        epochs: int = DEFAULTS.train.epochs,
        target_fpr: float = DEFAULTS.fusion.target_fpr,
        operating_point: str = DEFAULTS.fusion.operating_point,
        registered_model: str = DEFAULTS.promote.registered_model,
        seed: int = DEFAULTS.seed,
        store: str = DEFAULT_STORE,
        config: str = "",
    ) -> None:
        """Train, combine, calibrate, evaluate and register deepfake detectors on labelled media.

        Args:
            sources: Folders as FOLDER or NAME=FOLDER, with real/ and fake/ below each.
            tracking_uri: MLflow server that runs and models are registered with, for example http://mlflow:5000.
            data_version: Any text; change it when bytes behind the sources changed, else earlier results are reused.
            detectors: Detectors to train, each in its own step with its own GPU.
            epochs: Passes over the training crops.
            target_fpr: False alarms allowed at the operating point target_fpr, between 0 and 1.
            operating_point: Threshold that verdicts use: max_f1, youden or target_fpr.
            registered_model: Name in the MLflow registry.
            seed: Of every random choice.
            store: Folder that keeps finished work between runs, if it is on a volume.
            config: Further settings as YAML, as `unmask config init` writes them; the parameters above win.
        """
        ingested = place(
            ingest(sources=sources, data_version=data_version, seed=seed, store=store, config=config), cluster
        )
        dataset = ingested.outputs["dataset"]
        # Kubeflow's cache key holds parameters but not the bytes of input artifacts, so each step also gets, as text,
        # what its inputs were made from.
        dataset_version = ingested.outputs["dataset_version"]
        trained_from = f"{dataset_version} detectors={detectors} epochs={epochs} seed={seed}"
        judged_from = f"{trained_from} target_fpr={target_fpr} operating_point={operating_point}"

        extracted = place(extract(dataset=dataset, upstream=dataset_version, store=store, config=config), cluster)
        faces, features = extracted.outputs["faces"], extracted.outputs["features"]
        with dsl.ParallelFor(detectors, name="each-detector") as detector:
            learned = place(
                train(
                    detector=detector,
                    dataset=dataset,
                    faces=faces,
                    features=features,
                    upstream=dataset_version,
                    epochs=epochs,
                    seed=seed,
                    store=store,
                    config=config,
                ),
                cluster,
            )
        combined = place(
            ensemble(
                dataset=dataset,
                detectors=dsl.Collected(learned.outputs["trained"]),
                upstream=trained_from,
                seed=seed,
                config=config,
            ),
            cluster,
        ).outputs["ensemble"]
        fused = place(
            fuse(
                dataset=dataset,
                ensemble=combined,
                features=features,
                upstream=trained_from,
                target_fpr=target_fpr,
                operating_point=operating_point,
                seed=seed,
                config=config,
            ),
            cluster,
        ).outputs["fusion"]
        evaluated = place(
            evaluate(
                dataset=dataset,
                faces=faces,
                features=features,
                detectors=dsl.Collected(learned.outputs["trained"]),
                ensemble=combined,
                fusion=fused,
                upstream=judged_from,
                seed=seed,
                config=config,
            ),
            cluster,
        )
        bundled = place(
            bundle(
                detectors=dsl.Collected(learned.outputs["trained"]),
                ensemble=combined,
                fusion=fused,
                features=features,
                upstream=judged_from,
                config=config,
            ),
            cluster,
        )
        place(
            promote(
                bundle=bundled.outputs["bundle"],
                evaluation=evaluated.outputs["evaluation"],
                dataset=dataset,
                features=features,
                detectors=dsl.Collected(learned.outputs["trained"]),
                ensemble=combined,
                fusion=fused,
                upstream=judged_from,
                tracking_uri=tracking_uri,
                registered_model=registered_model,
                config=config,
            ),
            cluster,
        )

    return training
