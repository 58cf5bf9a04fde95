# mypy: allow-untyped-decorators
"""The training pipeline: from media to a registered detector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kfp import dsl

from components.bundle import bundle
from components.ensemble import ensemble
from components.evaluate import evaluate
from components.extract import extract
from components.extract_shard import extract_shard
from components.fuse import fuse
from components.ingest import ingest
from components.ingest_inspected import ingest_inspected
from components.inspect_shard import inspect_shard
from components.merge_extract import merge_extract
from components.promote import promote
from components.train import train
from pipelines.presets import STANDARD
from pipelines.resources import Cluster, place
from unmask.config import UnmaskConfig

NAME = "unmask-training"
DEFAULTS = UnmaskConfig()
# A folder that a pod always has; name a bucket (s3://…) or a mounted volume to keep finished work between runs.
DEFAULT_STORE = "/tmp/unmask-store"


@dataclass(frozen=True)
class Settings:
    """Parameters that several steps take; channels of kfp, typed loosely because kfp does.

    Attributes:
        detectors: Detectors to train.
        epochs: Passes over the training crops.
        target_fpr: False alarms allowed at the operating point target_fpr.
        operating_point: Threshold that verdicts use.
        registered_model: Name in the MLflow registry.
        tracking_uri: MLflow server.
        seed: Of every random choice.
        store: Keeps finished work between runs.
        config: Further settings as YAML.
    """

    detectors: Any
    epochs: Any
    target_fpr: Any
    operating_point: Any
    registered_model: Any
    tracking_uri: Any
    seed: Any
    store: Any
    config: Any


@dataclass(frozen=True)
class Prepared:
    """What ingest and extract brought.

    Attributes:
        dataset: Table of samples.
        version: Content hash of the data set, as text.
        faces: Face crops.
        features: Feature table.
    """

    dataset: Any
    version: Any
    faces: Any
    features: Any


def prepare(
    sources: Any,
    data_version: Any,
    settings: Settings,
    cluster: Cluster,
    cached: bool = True,
    after: Sequence[Any] = (),
) -> Prepared:
    """Wire the steps from media to crops and features.

    Args:
        sources: Folders with media.
        data_version: Changes when the bytes behind the sources change; only for the cache key.
        settings: Parameters of the pipeline.
        cluster: What differs from cluster to cluster.
        cached: False looks at the sources on every run, for they may have changed behind the same names.
        after: Tasks that must have succeeded before.

    Returns:
        Channels of the results.
    """
    if cluster.shards > 1:
        return _prepare_in_shards(sources, data_version, settings, cluster, cached, after)
    ingested = place(
        ingest(
            sources=sources,
            data_version=data_version,
            seed=settings.seed,
            store=settings.store,
            config=settings.config,
        ),
        cluster,
        cached=cached,
    ).after(*after)
    dataset = ingested.outputs["dataset"]
    # Kubeflow's cache key holds parameters but not the bytes of input artifacts, so each step also gets, as text,
    # what its inputs were made from.
    version = ingested.outputs["dataset_version"]
    extracted = place(extract(dataset=dataset, upstream=version, store=settings.store, config=settings.config), cluster)
    return Prepared(dataset, version, extracted.outputs["faces"], extracted.outputs["features"])


def _prepare_in_shards(
    sources: Any, data_version: Any, settings: Settings, cluster: Cluster, cached: bool, after: Sequence[Any]
) -> Prepared:
    """Wire the same with a pod for each shard; the results are those of one pod."""
    shards = [f"{number}/{cluster.shards}" for number in range(1, cluster.shards + 1)]
    store, config = settings.store, settings.config
    with dsl.ParallelFor(shards, name="each-shard-inspected") as shard:
        part = place(
            inspect_shard(sources=sources, data_version=data_version, shard=shard, store=store, config=config),
            cluster,
            cached=cached,
        ).after(*after)
    ingested = place(
        ingest_inspected(
            sources=sources,
            inspected=dsl.Collected(part.outputs["inspected"]),
            data_version=data_version,
            seed=settings.seed,
            store=store,
            config=config,
        ),
        cluster,
        cached=cached,
    )
    dataset, version = ingested.outputs["dataset"], ingested.outputs["dataset_version"]
    with dsl.ParallelFor(shards, name="each-shard-extracted") as shard:
        measured = place(
            extract_shard(dataset=dataset, upstream=version, shard=shard, store=store, config=config), cluster
        )
    merged = place(
        merge_extract(
            dataset=dataset,
            shard_faces=dsl.Collected(measured.outputs["faces"]),
            shard_features=dsl.Collected(measured.outputs["features"]),
            upstream=version,
            config=config,
        ),
        cluster,
    )
    return Prepared(dataset, version, merged.outputs["faces"], merged.outputs["features"])


def train_each(prepared: Prepared, settings: Settings, cluster: Cluster) -> dict[str, Any]:
    """Wire the training steps: a loop for each kind of node.

    Args:
        prepared: Data, crops and features.
        settings: Parameters of the pipeline.
        cluster: Says which detectors go where.

    Returns:
        Name of the list input of later steps (``detectors``, ``detectors_2``, ``detectors_3``) to the channel of one
        training step; as many as there are loops.
    """
    loops = [("each-detector", settings.detectors, cluster.training)]
    loops += [
        (f"each-detector-{number}", list(group.detectors), group)
        for number, group in enumerate(cluster.models, start=2)
    ]
    trained = {}
    for name, detectors, placement in loops:
        with dsl.ParallelFor(detectors, name=name) as detector:
            learned = place(
                train(
                    detector=detector,
                    dataset=prepared.dataset,
                    faces=prepared.faces,
                    features=prepared.features,
                    upstream=prepared.version,
                    epochs=settings.epochs,
                    seed=settings.seed,
                    store=settings.store,
                    tracking_uri=settings.tracking_uri,
                    config=settings.config,
                ),
                cluster,
                placement,
            )
        trained[name.replace("each-detector", "detectors").replace("-", "_")] = learned.outputs["trained"]
    return trained


def collected(trained: Mapping[str, Any]) -> dict[str, Any]:
    """Gather the results of loops for one consumer; kfp changes what it is handed, so each needs its own.

    Args:
        trained: See `train_each`.

    Returns:
        The list inputs of the consumer.
    """
    return {name: dsl.Collected(channel) for name, channel in trained.items()}


def learn(prepared: Prepared, settings: Settings, cluster: Cluster) -> Any:
    """Wire the steps from crops and features to a registered detector.

    Args:
        prepared: Data, crops and features.
        settings: Parameters of the pipeline.
        cluster: What differs from cluster to cluster.

    Returns:
        The last task.
    """
    fixed = "".join(f" {'+'.join(group.detectors)}" for group in cluster.models)
    trained_from = (
        f"{prepared.version} detectors={settings.detectors}{fixed} epochs={settings.epochs} seed={settings.seed}"
    )
    judged_from = f"{trained_from} target_fpr={settings.target_fpr} operating_point={settings.operating_point}"
    dataset, faces, features = prepared.dataset, prepared.faces, prepared.features
    seed, config = settings.seed, settings.config
    trained = train_each(prepared, settings, cluster)
    combined = place(
        ensemble(dataset=dataset, **collected(trained), upstream=trained_from, seed=seed, config=config), cluster
    ).outputs["ensemble"]
    fused = place(
        fuse(
            dataset=dataset,
            ensemble=combined,
            features=features,
            upstream=trained_from,
            target_fpr=settings.target_fpr,
            operating_point=settings.operating_point,
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
            **collected(trained),
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
            **collected(trained),
            ensemble=combined,
            fusion=fused,
            features=features,
            dataset=dataset,
            faces=faces,
            evaluation=evaluated.outputs["evaluation"],
            upstream=judged_from,
            seed=seed,
            config=config,
        ),
        cluster,
    )
    return place(
        promote(
            bundle=bundled.outputs["bundle"],
            evaluation=evaluated.outputs["evaluation"],
            dataset=dataset,
            features=features,
            faces=faces,
            **collected(trained),
            ensemble=combined,
            fusion=fused,
            upstream=judged_from,
            tracking_uri=settings.tracking_uri,
            registered_model=settings.registered_model,
            config=config,
        ),
        cluster,
    )


def build(cluster: Cluster = Cluster(), preset: Mapping[str, Any] = STANDARD, suffix: str = "") -> Any:  # noqa: B008
    """Wire the training pipeline.

    Args:
        cluster: What differs from cluster to cluster.
        preset: Parameters whose defaults differ.
        suffix: Of the pipeline's name.

    Returns:
        The pipeline, ready to compile.
    """
    title = "unmask: train a deepfake detector" + (f" ({suffix})" if suffix else "")
    own: dict[str, Any] = {
        "detectors": list(DEFAULTS.detectors),
        "epochs": DEFAULTS.train.epochs,
        "target_fpr": DEFAULTS.fusion.target_fpr,
        "operating_point": DEFAULTS.fusion.operating_point,
        "registered_model": DEFAULTS.promote.registered_model,
        "config": "",
    } | dict(preset)

    @dsl.pipeline(name=f"{NAME}-{suffix}" if suffix else NAME, display_name=title)
    def training(
        sources: list,  # type: ignore[type-arg]  # list[str] cannot stand inside an f-string of kfp
        tracking_uri: str,
        data_version: str = "",
        detectors: list = own["detectors"],  # type: ignore[type-arg]
        epochs: int = own["epochs"],
        target_fpr: float = own["target_fpr"],
        operating_point: str = own["operating_point"],
        registered_model: str = own["registered_model"],
        seed: int = DEFAULTS.seed,
        store: str = DEFAULT_STORE,
        config: str = own["config"],
    ) -> None:
        """Train, combine, calibrate, evaluate and register deepfake detectors on labelled media.

        Args:
            sources: [NAME=]PLACE each: s3://bucket/prefix, folder, https:// archive, kaggle:…; real/ and fake/ below.
            tracking_uri: MLflow server that runs and models are registered with, for example http://mlflow:5000.
            data_version: Any text; change it when bytes behind the sources changed, else earlier results are reused.
            detectors: Detectors to train, each in its own step with its own GPU.
            epochs: Passes over the training crops.
            target_fpr: False alarms allowed at the operating point target_fpr, between 0 and 1.
            operating_point: Threshold that verdicts use: max_f1, youden or target_fpr.
            registered_model: Name in the MLflow registry.
            seed: Of every random choice.
            store: Folder or s3://bucket/prefix that keeps finished work between runs; a folder must be on a volume.
            config: Further settings as YAML, as `unmask config init` writes them; the parameters above win.
        """
        settings = Settings(
            detectors,
            epochs,
            target_fpr,
            operating_point,
            registered_model,
            tracking_uri,
            seed,
            store,
            config,
        )
        learn(prepare(sources, data_version, settings, cluster), settings, cluster)

    return training
