"""`unmask tune`: search training settings with Optuna, judged on val and on nothing else."""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import Any

import optuna
import yaml
from optuna.storages.journal import JournalFileBackend, JournalStorage

from unmask.config import TrainConfig, TuneConfig
from unmask.detectors import Detector, WeightSource, weights_from
from unmask.errors import InputError
from unmask.objects import LocalMedia, MediaFiles, ObjectStore
from unmask.schemas import (
    DatasetInfo,
    StageOutcome,
    TrainingCurvePoint,
    TuningInfo,
    TuningTrial,
    new_directory,
    sha256_json,
    write_atomically,
)
from unmask.training.events import Listener
from unmask.training.train_stage import Prepared, prepare

logger = logging.getLogger(__name__)
TUNING_FILE = "tuning.json"
BEST_FILE = "best.yaml"
# The first trials are never given up, so that there is something to compare with.
STARTUP_TRIALS = 4


def run_tune(
    detector: str,
    dataset: Path,
    faces: Path,
    features: Path | None,
    out: Path,
    config: TrainConfig,
    tune: TuneConfig,
    seed: int,
    store: ObjectStore | None = None,
    files: MediaFiles | None = None,
) -> StageOutcome:
    """Search learning rate, weight decay, batch size, label smoothing and optimiser for one detector.

    The first training has the settings as they are, so that it is seen whether the search was worth it. Trainings
    that fall behind the median of the others are given up early.

    Args:
        detector: A registered name, or ``timm:<model>``.
        dataset: Folder with ``dataset.json``.
        faces: Folder with the parts of the faces table.
        features: Folder with ``extraction.json``.
        out: Folder to make: ``tuning.json`` (`TuningInfo`) and ``best.yaml``, a configuration for ``--config``.
        config: Settings to start from.
        tune: What is searched.
        seed: Of the search and of every training.
        store: Keeps finished trials, so that a killed search goes on.
        files: Gives the weight file that ``config.pretrained`` names, if it is not on this machine.

    Returns:
        The best figure and that of the settings as they were.

    Raises:
        InputError: No training could be finished.
    """
    settings = config.resolved_for(detector)
    if tune.epochs:
        settings = settings.model_copy(update={"epochs": tune.epochs})
    prepared = prepare(detector, dataset, faces, features, settings, seed)
    reasons: dict[int, str] = {}
    source = WeightSource(store, files or LocalMedia())
    with tempfile.TemporaryDirectory() as scratch, weights_from(source):
        journal = Journal(store, f"tuning/{_key(detector, prepared, settings, tune, seed)}.log", Path(scratch))
        study = _study(journal, settings, tune, seed)
        while (left := tune.trials - len(_finished(study))) > 0:
            logger.info("%s: trial %d of %d", detector, tune.trials - left + 1, tune.trials)
            _try(study, study.ask(_spaces(tune, settings)), prepared, settings, reasons)
            journal.keep()
        info = _describe(study, detector, settings, dataset, seed, reasons)
    best = info.trials[info.best]
    with new_directory(out) as folder:
        info.save(folder / TUNING_FILE)
        _write_best(folder / BEST_FILE, detector, best.settings)
    return _outcome(info, out)


class Journal:
    """The trials of a search, as a file that is kept in a store after each of them.

    Args:
        store: A folder or a bucket; None keeps nothing.
        key: Of the file.
        scratch: Folder of the file while the search runs.
    """

    def __init__(self, store: ObjectStore | None, key: str, scratch: Path) -> None:
        self.store = store
        self.key = key
        self.file = scratch / "trials.log"
        if store is not None and store.stat(key) is not None:
            store.download(key, self.file)

    def keep(self) -> None:
        """Store what is known by now."""
        if self.store is not None:
            self.store.upload(self.file, self.key)


def _key(detector: str, prepared: Prepared, settings: TrainConfig, tune: TuneConfig, seed: int) -> str:
    """Name a search after everything but its length: a longer one goes on where a shorter one ended."""
    origin = [prepared.origin.dataset_version, prepared.origin.extractor_version]
    return sha256_json([detector, origin, settings.model_dump(), tune.model_dump(exclude={"trials"}), seed])


def _study(journal: Journal, settings: TrainConfig, tune: TuneConfig, seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        study_name="tuning",
        storage=JournalStorage(JournalFileBackend(str(journal.file))),
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=1),
    )
    if not study.trials:
        now = settings.model_dump(include=set(_spaces(tune, settings)))
        study.enqueue_trial({**now, "weight_decay": settings.weight_decay or tune.weight_decay[0]})
    return study


def _spaces(tune: TuneConfig, settings: TrainConfig) -> dict[str, optuna.distributions.BaseDistribution]:
    """Say what is searched; the settings as they are always belong to it."""

    def between(low: float, high: float, now: float, *, log: bool) -> optuna.distributions.FloatDistribution:
        return optuna.distributions.FloatDistribution(min(low, now), max(high, now), log=log)

    return {
        "learning_rate": between(*tune.learning_rate, settings.learning_rate, log=True),
        "weight_decay": between(*tune.weight_decay, settings.weight_decay or tune.weight_decay[0], log=True),
        "label_smoothing": between(*tune.label_smoothing, settings.label_smoothing, log=False),
        "batch_size": optuna.distributions.CategoricalDistribution(sorted({*tune.batch_sizes, settings.batch_size})),
        "optimizer": optuna.distributions.CategoricalDistribution(sorted({*tune.optimizers, settings.optimizer})),
    }


def _finished(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Trials that count; those that a kill cut short do not."""
    return [trial for trial in study.trials if trial.state.is_finished()]


class Pruner(Listener):
    """Gives a training up that falls behind.

    Args:
        trial: Of the search.
    """

    def __init__(self, trial: optuna.Trial) -> None:
        self._trial = trial
        self._best = float("-inf")

    def epoch(self, point: TrainingCurvePoint, detector: Detector) -> None:
        """Report the best figure so far.

        Raises:
            TrialPruned: It has fallen behind; never the first trial, which has the settings as they were.
        """
        self._best = max(self._best, point.val_auc if point.val_auc is not None else -(point.val_loss or 0.0))
        self._trial.report(self._best, point.epoch)
        if self._trial.number and self._trial.should_prune():
            raise optuna.TrialPruned


def _try(
    study: optuna.Study,
    trial: optuna.Trial,
    prepared: Prepared,
    settings: TrainConfig,
    reasons: dict[int, str],
) -> None:
    """Train once and tell the study how it went."""
    tried = settings.model_copy(update=trial.params)
    try:
        fitted = prepared.trainer(tried, listener=Pruner(trial)).fit()
    except optuna.TrialPruned:
        study.tell(trial, state=optuna.trial.TrialState.PRUNED)
    except InputError as error:  # it diverged, or does not fit into memory: a result too
        reasons[trial.number] = error.problem
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, fitted.best_value)


def _describe(
    study: optuna.Study,
    detector: str,
    settings: TrainConfig,
    dataset: Path,
    seed: int,
    reasons: dict[int, str],
) -> TuningInfo:
    trials = [
        TuningTrial(
            number=number,
            settings=trial.params,
            value=trial.value if trial.state == optuna.trial.TrialState.COMPLETE else None,
            epochs=len(trial.intermediate_values),
            state={"FAIL": "failed"}.get(trial.state.name, trial.state.name.lower()),
            reason=reasons.get(trial.number, ""),
        )
        for number, trial in enumerate(_finished(study))
    ]
    complete = [trial for trial in trials if trial.value is not None]
    if not complete:
        raise InputError(
            f"None of {len(trials)} trainings could be finished: {next(iter(reasons.values()), 'all were given up')}.",
            "Narrow tune.learning_rate and tune.batch_sizes.",
        )
    return TuningInfo(
        detector=detector,
        metric=settings.checkpoint_metric,
        trials=trials,
        best=max(complete, key=lambda trial: trial.value or float("-inf")).number,
        dataset_version=DatasetInfo.load(dataset / "dataset.json").version,
        seed=seed,
    )


def _write_best(path: Path, detector: str, settings: dict[str, Any]) -> None:
    """Write the best settings as a configuration that holds for this detector alone."""
    with write_atomically(path) as temporary:
        text = yaml.safe_dump({"train": {"models": {detector: settings}}}, sort_keys=False)
        temporary.write_text(f"# Chosen by `unmask tune` on val. Give it to a stage with --config.\n{text}", "utf-8")


def _outcome(info: TuningInfo, out: Path) -> StageOutcome:
    best, first = info.trials[info.best], info.trials[0]
    counts = {state: sum(trial.state == state for trial in info.trials) for state in ("complete", "pruned", "failed")}
    before = "could not be finished" if first.value is None else f"{first.value:.3f}"
    chosen = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in best.settings.items())
    messages = [
        f"{info.detector}: best {info.metric} on val {best.value:.3f}, with the settings as they were {before}; "
        f"chosen among {counts['complete']} trainings and therefore optimistic.",
        f"Best settings: {chosen}.",
        f"{counts['pruned']} trainings were given up early, {counts['failed']} failed.",
        f"Use them: --config {out / BEST_FILE}",
    ]
    metrics = {"best": float(best.value or 0.0), "trials": float(len(info.trials))}
    return StageOutcome(
        metrics=metrics | ({"before": first.value} if first.value is not None else {}), messages=tuple(messages)
    )
