# mypy: allow-untyped-decorators
"""The tuning pipeline: from media to training settings for each detector."""

from typing import Any

from kfp import dsl

from components.tune import tune
from pipelines.resources import Cluster, place
from pipelines.training import DEFAULT_STORE, DEFAULTS, Settings, prepare

NAME = "unmask-tuning"


def build(cluster: Cluster = Cluster()) -> Any:  # noqa: B008
    """Wire the tuning pipeline.

    Args:
        cluster: What differs from cluster to cluster.

    Returns:
        The pipeline, ready to compile.
    """

    @dsl.pipeline(name=NAME, display_name="unmask: search training settings")
    def tuning(
        sources: list,  # type: ignore[type-arg]  # as in the training pipeline
        data_version: str = "",
        detectors: list = list(DEFAULTS.detectors),  # type: ignore[type-arg]  # noqa: B006
        trials: int = DEFAULTS.tune.trials,
        seed: int = DEFAULTS.seed,
        store: str = DEFAULT_STORE,
        config: str = "",
    ) -> None:
        """Search learning rate, weight decay, batch size and label smoothing of detectors, judged on val.

        Args:
            sources: [NAME=]PLACE each: s3://bucket/prefix, folder, https:// archive, kaggle:…; real/ and fake/ below.
            data_version: Any text; change it when bytes behind the sources changed, else earlier results are reused.
            detectors: Detectors to tune, each in its own step with its own GPU.
            trials: Trainings of each detector, the first with the settings as they are.
            seed: Of every random choice.
            store: Keeps finished work between runs; name a bucket (s3://…) or a folder on a volume.
            config: Further settings as YAML, as `unmask config init` writes them; the parameters above win.
        """
        settings = Settings(detectors, "", "", "", "", "", seed, store, config)
        prepared = prepare(sources, data_version, settings, cluster)
        with dsl.ParallelFor(detectors, name="each-detector") as detector:
            place(
                tune(
                    detector=detector,
                    dataset=prepared.dataset,
                    faces=prepared.faces,
                    features=prepared.features,
                    upstream=prepared.version,
                    trials=trials,
                    seed=seed,
                    store=store,
                    config=config,
                ),
                cluster,
                cluster.training,
            )

    return tuning
