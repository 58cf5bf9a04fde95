"""What a promotion writes to the tracking server, built from the documents; knows no SDK."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

import unmask
from unmask.config import ExtractConfig, PromoteConfig
from unmask.deployment.bundle import (
    ENSEMBLE,
    EXTRACT,
    FUSION,
    MANIFEST,
    STUDENT,
    TEST_SCORES_FILE,
    detector_document,
    file_problems,
    file_safe,
    parse_document,
    read_checked,
    read_manifest,
)
from unmask.deployment.gate import Champion, Evidence
from unmask.deployment.paired import leaks, own_scores, read_samples
from unmask.errors import ContractError
from unmask.schemas import (
    ROBUSTNESS,
    TEST_SCORES,
    DatasetInfo,
    DetectorInfo,
    EnsembleInfo,
    Estimate,
    EvaluationInfo,
    ExtractionInfo,
    FusionInfo,
    Manifest,
    read_table,
    sha256_file,
)

MAX_PARAMETER_LENGTH = 500
EVALUATION_FILES = ("report.html", "summary.md", "metrics.json", "robustness.parquet")


@dataclass(frozen=True)
class Release:
    """Everything that is promoted, read and checked.

    Attributes:
        bundle_folder: The bundle.
        evaluation_folder: Report and figures.
        dataset_folder: Holds ``dataset.json``.
        manifest: Of the bundle.
        manifest_sha256: Hash of the manifest, and through it of every file of the bundle: names the bundle.
        evaluation: Figures on test.
        evaluation_sha256: Hash of ``metrics.json``.
        dataset: What ingest found.
        extraction: What extract did.
        extract_config: How files are measured.
        detectors: One document a detector, in the order of the ensemble.
        ensemble: How they are joined.
        fusion: How features are joined, as the bundle does it.
        samples: Usable rows of SAMPLES; None without the table.
        scores: Rows of TEST_SCORES of what the bundle holds; None without the tables.
        robustness: Rows of ROBUSTNESS.
        features_folder: Holds ``features.parquet``.
    """

    bundle_folder: Path
    evaluation_folder: Path
    dataset_folder: Path
    manifest: Manifest
    manifest_sha256: str
    evaluation: EvaluationInfo
    evaluation_sha256: str
    dataset: DatasetInfo
    extraction: ExtractionInfo
    extract_config: ExtractConfig
    detectors: tuple[DetectorInfo, ...]
    ensemble: EnsembleInfo
    fusion: FusionInfo
    samples: pd.DataFrame | None
    scores: pd.DataFrame | None
    robustness: pd.DataFrame
    features_folder: Path

    @property
    def threshold(self) -> float:
        """From which probability on the bundle calls a file fake."""
        return self.fusion.operating_points[self.fusion.default_operating_point].threshold

    @property
    def name(self) -> str:
        """Name of the run: data set and first characters of the bundle's hash."""
        return f"{self.dataset.name} {self.manifest_sha256[:8]}"

    def evidence(self, champion: Champion | None = None) -> Evidence:
        """Return what the gate looks at.

        Args:
            champion: The version that serves, as far as it can be compared.

        Returns:
            The evidence.
        """
        stated: dict[str, ExtractionInfo | DetectorInfo] = {"features": self.extraction}
        stated |= {f"detector {info.name}": info for info in self.detectors}
        return Evidence(
            manifest=self.manifest,
            evaluation=self.evaluation,
            dataset=self.dataset,
            dataset_versions={name: document.dataset_version for name, document in stated.items()},
            extractor_versions={name: document.extractor_version for name, document in stated.items()},
            file_problems=file_problems(self.bundle_folder, self.manifest),
            scores=self.scores,
            threshold=self.threshold,
            robustness=self.robustness if len(self.robustness) else None,
            leaks=None if self.samples is None else leaks(self.samples),
            champion=champion,
        )


def read_release(
    bundle: Path,
    evaluation: Path,
    dataset: Path,
    features: Path,
    trained: Sequence[Path],
    ensemble: Path,
    fusion: Path,
) -> Release:
    """Read every document that a promotion needs.

    Args:
        bundle: Folder that `unmask bundle` wrote; every file is checked against its hash.
        evaluation: Folder that `unmask evaluate` wrote.
        dataset: Folder that `unmask ingest` wrote.
        features: Folder that `unmask extract` wrote.
        trained: Folders that `unmask train` wrote.
        ensemble: Folder that `unmask ensemble` wrote.
        fusion: Folder that `unmask fuse` wrote.

    Returns:
        The documents.

    Raises:
        ContractError: One is missing, breaks its schema, or a file of the bundle is not the one that was bundled.
    """
    manifest = read_manifest(bundle)
    contents = read_checked(bundle, manifest)
    for name in EVALUATION_FILES:
        if not (evaluation / name).is_file():
            raise ContractError(evaluation / name, "file", "does not exist", "Run `unmask evaluate` first.")
    infos = [parse_document(contents, detector_document(file), DetectorInfo, bundle) for file in manifest.onnx.values()]
    _check_same_run(infos, trained, ensemble, bundle)
    samples = read_samples(dataset) if (dataset / "samples.parquet").is_file() else None
    return Release(
        bundle_folder=bundle,
        evaluation_folder=evaluation,
        dataset_folder=dataset,
        manifest=manifest,
        manifest_sha256=sha256_file(bundle / MANIFEST),
        evaluation=EvaluationInfo.load(evaluation / "metrics.json"),
        evaluation_sha256=sha256_file(evaluation / "metrics.json"),
        dataset=DatasetInfo.load(dataset / "dataset.json"),
        extraction=ExtractionInfo.load(features / "extraction.json"),
        extract_config=ExtractConfig.model_validate_json(contents[EXTRACT]),
        detectors=tuple(infos),
        ensemble=parse_document(contents, ENSEMBLE, EnsembleInfo, bundle),
        fusion=FusionInfo.model_validate_json(contents[FUSION]),
        samples=samples,
        scores=_scores(bundle, fusion, samples),
        robustness=read_table(evaluation / "robustness.parquet", ROBUSTNESS).to_pandas(),
        features_folder=features,
    )


def _check_same_run(infos: Sequence[DetectorInfo], trained: Sequence[Path], ensemble: Path, bundle: Path) -> None:
    """Refuse a bundle of another run than the trainings and the ensemble."""
    given = {DetectorInfo.load(folder / "detector.json").name for folder in trained}
    joined = set(EnsembleInfo.load(ensemble / "ensemble.json").detectors)
    # A student was trained when the bundle was made, in the place of all of them.
    held = {info.name for info in infos if not info.name.startswith(STUDENT)} or joined
    for what, others in (("--trained", given), ("--ensemble", joined)):
        if absent := sorted(held - others):
            raise ContractError(
                bundle / MANIFEST, "detectors", f"holds {', '.join(absent)}, which {what} does not give", ""
            )


def _scores(bundle: Path, fusion: Path, samples: pd.DataFrame | None) -> pd.DataFrame | None:
    """Read the test scores of what the bundle holds: its own where it was optimised, else those of fusion."""
    if (bundle / TEST_SCORES_FILE).is_file():
        own: pd.DataFrame = read_table(bundle / TEST_SCORES_FILE, TEST_SCORES).to_pandas()
        return own
    if samples is None or not (fusion / "scores.parquet").is_file():
        return None
    return own_scores(samples, fusion)


def run_parameters(release: Release, config: PromoteConfig) -> dict[str, str]:
    """Flatten the configuration of everything but training, which belongs to each detector's own run.

    Args:
        release: The documents.
        config: Of the promotion.

    Returns:
        Parameter name to value, as text.
    """
    values: dict[str, Any] = {
        "detectors": ", ".join(release.manifest.detectors),
        "ensemble.method": release.ensemble.method,
        "ensemble.weights": ", ".join(f"{weight:.4g}" for weight in release.ensemble.weights),
        "ensemble.agreement_threshold": release.ensemble.agreement_threshold,
        "fusion.used": release.fusion.used,
        "fusion.operating_point": release.fusion.default_operating_point,
        "fusion.threshold": release.evaluation.operating_point.threshold,
    }
    values |= {f"extract.{name}": value for name, value in release.extract_config.model_dump(mode="json").items()}
    values |= {f"promote.{name}": value for name, value in config.model_dump(mode="json").items()}
    return _as_text(values)


def detector_parameters(info: DetectorInfo) -> dict[str, str]:
    """Flatten what is known about one trained detector."""
    values: dict[str, Any] = {
        "name": info.name,
        "architecture": info.architecture,
        "n_parameters": info.n_parameters,
        "aggregation": info.aggregation,
        "device": info.device,
        "best_epoch": info.best_epoch,
    }
    values |= {f"preprocessing.{name}": value for name, value in info.preprocessing.model_dump().items()}
    values |= {f"version.{package}": version for package, version in info.versions.items()}
    return {**_as_text(values), **training_parameters(info.config)}


def training_parameters(settings: Mapping[str, Any]) -> dict[str, str]:
    """Flatten the settings of a training, which are known before it begins."""
    return _as_text({f"train.{name}": value for name, value in settings.items() if name != "models"})


def _as_text(values: Mapping[str, Any]) -> dict[str, str]:
    return {_key(name): str(value)[:MAX_PARAMETER_LENGTH] for name, value in values.items()}


def _key(*parts: str) -> str:
    """Join parts to a name that every tracking server accepts; the parts before the last become a chart section."""
    return "/".join(re.sub(r"[^A-Za-z0-9_.-]+", "-", part) for part in parts)


def run_metrics(release: Release) -> dict[str, float]:
    """Flatten the figures on test; the ends of an interval are metrics of their own.

    Args:
        release: The documents.

    Returns:
        For example ``test/fusion/roc_auc``, ``test/fusion/roc_auc_low`` and ``test/fusion/roc_auc_high``.
    """
    evaluation = release.evaluation
    metrics: dict[str, float] = {}
    for kind, table in (
        ("test", evaluation.video),
        ("test_frames", evaluation.frame),
        ("test_slices", evaluation.slices),
    ):
        for system, figures in table.items():
            for metric, estimate in figures.items():
                metrics |= dict(_with_interval((kind, file_safe(system)), metric, estimate))
    metrics |= dict(_with_interval(("test", "operating_point"), "fpr", evaluation.operating_point.fpr))
    metrics |= dict(_with_interval(("test", "operating_point"), "tpr", evaluation.operating_point.tpr))
    metrics[_key("test", "counts", "scored")] = float(evaluation.n_scored)
    metrics[_key("test", "counts", "not_scored")] = float(sum(evaluation.n_unscored.values()))
    metrics[_key("bundle", "largest_onnx_difference")] = max(release.manifest.parity.values())
    return metrics


def _with_interval(section: tuple[str, ...], metric: str, estimate: Estimate) -> Iterator[tuple[str, float]]:
    for suffix, value in (("", estimate.value), ("_low", estimate.low), ("_high", estimate.high)):
        if value is not None:
            yield _key(*section, metric + suffix), value


def detector_metrics(info: DetectorInfo) -> dict[str, float]:
    """Flatten the end result of one training."""
    metrics = dict(_with_interval(("best",), "val_auc", info.val_auc))
    metrics[_key("train", "seconds")] = info.train_seconds
    return metrics


def run_tags(release: Release) -> dict[str, str]:
    """Tags of the run and of the registered version."""
    return {
        "unmask.manifest_sha256": release.manifest_sha256,
        "unmask.evaluation_sha256": release.evaluation_sha256,
        "unmask.dataset": release.dataset.name,
        "unmask.dataset_version": release.dataset.version,
        "unmask.extractor_version": release.manifest.extractor_version,
        "unmask.version": release.manifest.unmask_version,
        "unmask.git_commit": git_commit(),
    }


def git_commit() -> str:
    """Name the commit of the checkout that this package runs from.

    Returns:
        40 hexadecimal characters; what the environment variable ``UNMASK_GIT_COMMIT`` says where there is no checkout,
        as in a container; else ``unknown``.
    """
    for folder in Path(unmask.__file__).resolve().parents:
        git = folder / ".git"
        if git.is_file():  # a further worktree of a repository: a note of where its files are
            git = folder / git.read_text(encoding="utf-8").strip().removeprefix("gitdir: ")
        if (git / "HEAD").is_file():
            return _head(git) or "unknown"
    return os.environ.get("UNMASK_GIT_COMMIT", "") or "unknown"


def _head(git: Path) -> str:
    head = (git / "HEAD").read_text(encoding="utf-8").strip()
    name = head.removeprefix("ref: ")
    if name == head:
        return head
    common = git / "commondir"  # branches of all worktrees lie together
    if common.is_file():
        git = git / common.read_text(encoding="utf-8").strip()
    if (git / name).is_file():
        return (git / name).read_text(encoding="utf-8").strip()
    packed = git / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), "")


def version_description(release: Release) -> str:
    """Describe a registered version in Markdown, for whoever decides about it."""
    evaluation = release.evaluation
    figures = evaluation.video.get(evaluation.headline, {})
    lines = [
        f"Deepfake detector of {', '.join(release.manifest.detectors)}, joined with forensic features.",
        "",
        f"- Data set: {release.dataset.name}, version `{release.dataset.version}`",
        f"- Code: unmask {release.manifest.unmask_version}, commit `{git_commit()}`",
        *(f"- Test {metric} of {evaluation.headline}: {estimate}" for metric, estimate in figures.items()),
        f"- Verdicts at `{evaluation.operating_point.name}`: fake from {evaluation.operating_point.threshold:.3f}; "
        f"on test FPR {evaluation.operating_point.fpr}, TPR {evaluation.operating_point.tpr}",
        *(f"- Warning: {warning}" for warning in evaluation.warnings),
    ]
    return "\n".join(lines)
