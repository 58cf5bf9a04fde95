# mypy: allow-untyped-decorators
"""The retraining pipeline: looks at the data on a schedule, and trains when they ask for it."""

from typing import Any

from kfp import dsl

from components.check_gpu import check_gpu
from components.check_prerequisites import check_prerequisites
from components.decide_retraining import decide_retraining
from components.notify import notify
from pipelines.resources import Cluster, place
from pipelines.training import DEFAULT_STORE, DEFAULTS, Settings, learn, prepare

NAME = "unmask-retraining"


def build(cluster: Cluster = Cluster()) -> Any:  # noqa: B008 - frozen
    """Wire the retraining pipeline.

    Args:
        cluster: What differs from cluster to cluster.

    Returns:
        The pipeline, ready to compile.
    """
    on_gpu = cluster.training.count > 0

    @dsl.pipeline(name=NAME, display_name="unmask: retrain when the data ask for it")
    def retraining(
        sources: list,  # type: ignore[type-arg]
        tracking_uri: str,
        detectors: list = list(DEFAULTS.detectors),  # type: ignore[type-arg]  # noqa: B006 - kfp reads it once
        epochs: int = DEFAULTS.train.epochs,
        registered_model: str = DEFAULTS.promote.registered_model,
        store: str = DEFAULT_STORE,
        force: bool = False,
        need_gpu: bool = on_gpu,
        notify_on: str = "failure,challenger,success",
        ui_url: str = "",
        seed: int = DEFAULTS.seed,
        config: str = "",
    ) -> None:
        """Look at the data; train, evaluate and register when new samples, drift or age ask for it; tell people.

        Args:
            sources: [NAME=]PLACE each: s3://bucket/prefix, folder, https:// archive, kaggle:…; real/ and fake/ below.
            tracking_uri: MLflow server that runs and models are registered with, for example http://mlflow:5000.
            detectors: Detectors to train, each in its own step with its own GPU.
            epochs: Passes over the training crops.
            registered_model: Name in the MLflow registry; its champion or challenger is what data are compared with.
            store: Folder or bucket that keeps finished work, so that only new files are measured.
            force: Train whatever the data say.
            need_gpu: Fail within seconds when training steps would see no GPU.
            notify_on: Events that are worth a message: failure, challenger, success.
            ui_url: Address of the KFP UI, for links in messages.
            seed: Of every random choice.
            config: Further settings as YAML; section retraining holds the bounds of the decision.
        """
        settings = Settings(
            detectors,
            epochs,
            DEFAULTS.fusion.target_fpr,
            DEFAULTS.fusion.operating_point,
            registered_model,
            tracking_uri,
            seed,
            store,
            config,
        )
        told = place(
            notify(
                run_name=dsl.PIPELINE_JOB_NAME_PLACEHOLDER,
                run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER,
                run_created=dsl.PIPELINE_JOB_CREATE_TIME_UTC_PLACEHOLDER,
                ui_url=ui_url,
                tracking_uri=tracking_uri,
                registered_model=registered_model,
                notify_on=notify_on,
                config=config,
            ),
            cluster,
        )
        with dsl.ExitHandler(told, name="watched"):
            checks = [
                place(
                    check_prerequisites(
                        sources=sources,
                        store=store,
                        tracking_uri=tracking_uri,
                        registered_model=registered_model,
                        config=config,
                    ),
                    cluster,
                )
            ]
            if on_gpu:
                checks.append(place(check_gpu(need_gpu=need_gpu), cluster))
            # What lies behind the sources changes between runs, so an earlier result of ingest never counts.
            prepared = prepare(sources, "", settings, cluster, cached=False, after=checks)
            decided = place(
                decide_retraining(
                    dataset=prepared.dataset,
                    features=prepared.features,
                    faces=prepared.faces,
                    upstream=prepared.version,
                    tracking_uri=tracking_uri,
                    registered_model=registered_model,
                    force=force,
                    config=config,
                ),
                cluster,
            )
            with dsl.If(decided.outputs["retrain"] == "yes", name="data-ask-for-it"):
                learn(prepared, settings, cluster)

    return retraining
