"""`unmask run`: the compiled training pipeline on this machine, from a folder to a registered detector."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import yaml

from unmask.config import UnmaskConfig
from unmask.data.sources import Source
from unmask.objects import FolderStore, ObjectStore
from unmask.schemas import EvaluationInfo, PromotionDecision, RetrainingDecision

logger = logging.getLogger(__name__)


def fingerprint(files: ObjectStore) -> str:
    """Describe the state of the files of a source without reading their bytes.

    Args:
        files: Of the source.

    Returns:
        Hash over name and version of every file, 16 hexadecimal characters. A changed, added or removed file changes
        it.

    Raises:
        StorageError: They cannot be listed.
    """
    digest = hashlib.sha256()
    for stored in files.objects():
        digest.update(f"{stored.key}\0{stored.version}\n".encode())
    return digest.hexdigest()[:16]


def run_on_this_machine(
    sources: Sequence[Source],
    videos: int,
    work: Path,
    runner: Literal["local", "docker"],
    config: UnmaskConfig,
    store: str = "",
    tracking_uri: str = "",
) -> str:
    """Run the training pipeline and say what came out.

    Args:
        sources: The data sets; when none is given, a sample set is rendered first.
        videos: Clips in that sample set.
        work: Folder for everything written: artifacts, store, cache, MLflow database.
        runner: ``local`` (processes on this host) or ``docker``.
        config: The resolved configuration.
        store: Folder or bucket that keeps finished work; left out, a folder in ``work``.
        tracking_uri: MLflow server; left out, a database in ``work``.

    Returns:
        Text for the user: the headline figure, where the report lies, what was registered, and what to do next.

    Raises:
        StorageError: A source cannot be listed.
        UnmaskError: A step failed; its own message is the last thing logged.
    """
    from unmask.adapters.local_runner import run_training

    begin = time.monotonic()
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    if not sources:
        sources = [Source("sample", FolderStore(_rendered_sample(work / "sample", videos, config.seed)))]
    state = hashlib.sha256("".join(fingerprint(source.files) for source in sources).encode()).hexdigest()[:16]
    config = _shared_cores(config)
    result = run_training(
        {
            "sources": [f"{source.name}={source.files.uri}" for source in sources],
            "data_version": state,
            "detectors": list(config.detectors),
            "epochs": config.train.epochs,
            "target_fpr": config.fusion.target_fpr,
            "operating_point": config.fusion.operating_point,
            "registered_model": config.promote.registered_model,
            "seed": config.seed,
            "store": store or str(work / "store"),
            "tracking_uri": tracking_uri or f"sqlite:///{work / 'mlflow.db'}",
            "config": yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False),
        },
        work,
        runner,
    )
    latest = {name: result.outputs[name] for name in ("evaluation", "bundle", "decision")}
    _link_latest(work / "latest", latest)
    return _summary(work, latest, time.monotonic() - begin)


def retrain_on_this_machine(
    sources: Sequence[str],
    work: Path,
    config: UnmaskConfig,
    force: bool = False,
    runner: Literal["local", "docker"] = "local",
    store: str = "",
    tracking_uri: str = "",
) -> str:
    """Run the retraining pipeline and say what came out.

    Args:
        sources: Data sets, NAME=PLACE each; folders absolute.
        work: Folder for everything written; that of `unmask run`, so that its detector is what data are compared with.
        config: The resolved configuration.
        force: Train whatever the data say.
        runner: ``local`` (processes on this host) or ``docker``.
        store: Folder or bucket that keeps finished work; left out, a folder in ``work``.
        tracking_uri: MLflow server; left out, a database in ``work``.

    Returns:
        Text for the user.

    Raises:
        UnmaskError: A step failed; the message about it has been sent.
    """
    from unmask.adapters.local_runner import run_retraining

    begin = time.monotonic()
    work = work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    config = _shared_cores(config)
    result = run_retraining(
        {
            "sources": list(sources),
            "detectors": list(config.detectors),
            "epochs": config.train.epochs,
            "registered_model": config.promote.registered_model,
            "seed": config.seed,
            "store": store or str(work / "store"),
            "tracking_uri": tracking_uri or f"sqlite:///{work / 'mlflow.db'}",
            "force": force,
            "need_gpu": False,
            "config": yaml.safe_dump(config.model_dump(mode="json", exclude_defaults=True), sort_keys=False),
        },
        work,
        runner,
    )
    decided = RetrainingDecision.load(result.outputs["decide-retraining/decision"] / "retraining.json")
    if not decided.retrain:
        return f"Nothing was trained. {decided.reason}"
    made = {name: "promote/decision" if name == "decision" else name for name in ("evaluation", "bundle", "decision")}
    latest = {name: result.outputs[key] for name, key in made.items()}
    _link_latest(work / "latest", latest)
    return f"Trained, because: {decided.reason}\n{_summary(work, latest, time.monotonic() - begin)}"


def _mlflow_page(tracking_uri: str) -> str:
    if tracking_uri.startswith("http"):
        return tracking_uri
    return f".venv/bin/mlflow ui --backend-store-uri {tracking_uri}"


def _shared_cores(config: UnmaskConfig) -> UnmaskConfig:
    """Divide the cores among the detectors that kfp.local trains at once (two), unless the user has said otherwise."""
    if config.train.threads:
        return config
    threads = max(1, len(os.sched_getaffinity(0)) // min(2, len(config.detectors)))
    return config.model_copy(update={"train": config.train.model_copy(update={"threads": threads})})


def _rendered_sample(folder: Path, videos: int, seed: int) -> Path:
    from unmask.data.sampleset import generate

    for message in generate(folder, videos, seed).messages:
        logger.info("%s", message)
    return folder


def _link_latest(folder: Path, targets: dict[str, Path]) -> None:
    """Point ``latest/<name>`` at the artifacts of this run, so that commands need no run id."""
    folder.mkdir(exist_ok=True)
    for name, target in targets.items():
        fresh = folder / f".{name}.new"
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(os.path.relpath(target, folder))
        os.replace(fresh, folder / name)


def _summary(work: Path, latest: dict[str, Path], seconds: float) -> str:
    evaluation = EvaluationInfo.load(latest["evaluation"] / "metrics.json")
    decision = PromotionDecision.load(latest["decision"] / "decision.json")
    auc = evaluation.video[evaluation.headline]["roc_auc"]
    here = Path(os.path.relpath(work)) if work.is_relative_to(Path.cwd()) else work
    alias = f", alias {decision.alias}" if decision.alias else f". {decision.summary}"
    lines = [
        "",
        f"Done in {seconds:.0f} s.",
        f"  Video-level ROC-AUC on test ({evaluation.headline}): {auc}, 95 % interval in brackets",
        *(f"  Note: {warning}" for warning in evaluation.warnings[:3]),
        f"  Report:            {here / 'latest' / 'evaluation' / 'report.html'}",
        f"  Registered model:  {decision.model} version {decision.version}{alias}",
        "",
        "Next:",
        "  Score a file:      .venv/bin/unmask score FILE"
        + ("" if here == Path(".unmask") else f" --bundle {here / 'latest' / 'bundle'}"),
        "  Judge on a page:   .venv/bin/unmask serve"
        + ("" if here == Path(".unmask") else f" --bundle {here / 'latest' / 'bundle'}"),
        f"  Open MLflow:       {_mlflow_page(decision.tracking_uri)}",
        "  Your own media:    make run DATA=path/to/folder   (with real/ and fake/ below it)",
    ]
    return "\n".join(lines)
