"""A complete tiny release made by hand: a real Meso4 with seeded weights, and the documents around it."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from unmask.config import BundleConfig, ExtractConfig, TrainConfig
from unmask.data.sampleset.clips import Job, render
from unmask.deployment.bundle_stage import run_bundle
from unmask.detectors import Detector, build
from unmask.detectors.storage import save_detector
from unmask.features.catalogue import EXTRACTOR_VERSION
from unmask.schemas import (
    FEATURES,
    ROBUSTNESS,
    SAMPLES,
    VIDEO_SCORES,
    DatasetInfo,
    DetectorInfo,
    EnsembleInfo,
    Estimate,
    EvaluationInfo,
    ExtractionInfo,
    FeatureHealth,
    FusionInfo,
    Manifest,
    OperatingPoint,
    TrainingCurvePoint,
    sha256_file,
    write_table,
)

DATASET_VERSION = "d" * 16
BLUR, PULSE = "quality.blur", "temp.rppg"
AUC = Estimate(value=0.8, low=0.6, high=0.95, n=20, method="bootstrap by group")
RATE = Estimate(value=0.1, low=0.01, high=0.4, n=10, method="Clopper-Pearson")
POINT = OperatingPoint(name="max_f1", threshold=0.4, fpr=RATE, tpr=RATE, resolvable=True)
EXTRACT = ExtractConfig(crops_per_video=12, crop_size_px=128)
EVAL_FRAMES = 5
N_TEST = 160


@dataclass(frozen=True)
class Parts:
    """Folders of a release, as the stages write them."""

    root: Path
    trained: tuple[Path, ...]

    @property
    def bundle(self) -> Path:
        return self.root / "bundle"

    def inputs(self) -> dict[str, object]:
        """Folders in the words of `run_promote`."""
        names = ("bundle", "evaluation", "dataset", "features", "ensemble", "fusion")
        return {**{name: self.root / name for name in names}, "trained": list(self.trained)}

    def write_bundle(self, out: Path | None = None, **changes: object) -> Path:
        """Run the bundle stage."""
        values: dict[str, object] = {
            "trained": self.trained,
            "ensemble": self.root / "ensemble",
            "fusion": self.root / "fusion",
            "features": self.root / "features",
            "extract_config": EXTRACT,
            "out": out or self.bundle,
            "config": BundleConfig(),
        }
        run_bundle(**{**values, **changes})  # type: ignore[arg-type]
        return out or self.bundle


def variant(parts: Parts, root: Path, words: str, strength: float | None = None) -> Parts:
    """Copy a release and let its bundle be another one; with other test scores if asked for."""
    other = Parts(root, parts.trained)
    shutil.copytree(parts.root, root, ignore=shutil.ignore_patterns("trained-*"))
    if strength is not None:
        write_scores(root / "fusion", strength)
    path = other.bundle / "fusion.json"
    fusion_info().model_copy(update={"decision": words}).save(path)
    manifest = Manifest.load(other.bundle / "manifest.json")
    files = {**manifest.files, "fusion.json": sha256_file(path)}
    manifest.model_copy(update={"files": files}).save(other.bundle / "manifest.json")
    return other


@lru_cache
def make_detector(seed: int, architecture: str = "meso4") -> Detector:
    """Build a detector whose normalisation has seen inputs, so that its logits differ from one to another."""
    torch.manual_seed(seed)
    detector = build(architecture)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        detector.train()
        detector(torch.rand(4, *detector.preprocessing.input_shape))
        for name, parameter in detector.named_parameters():
            if name.startswith("head"):
                parameter.mul_(3)
    return detector.eval()


def write_parts(root: Path, names: tuple[str, ...] = ("meso4",)) -> Parts:
    """Write everything but the bundle; all detectors are Meso4 but one called lcnn, which listens."""
    trained = tuple(root / f"trained-{index}" for index in range(len(names)))
    for index, (folder, name) in enumerate(zip(trained, names, strict=True)):
        detector = make_detector(index, "lcnn" if name == "lcnn" else "meso4")
        save_detector(folder, detector, detector_info(name, detector))
    share = 1 / len(names)
    EnsembleInfo(
        detectors=list(names),
        temperatures=[1.5] * len(names),
        weights=[share] * len(names),
        temperature=0.8,
        method="equal",
        decision="set by hand",
        candidates={"equal": AUC},
        agreement_threshold=0.8,
    ).save(root / "ensemble" / "ensemble.json")
    fusion_info().save(root / "fusion" / "fusion.json")
    _write_features(root / "features")
    DatasetInfo(
        name="hand-made",
        version=DATASET_VERSION,
        counts={"train": {"real": 12, "fake": 12}, "test": {"real": 10, "fake": 10}},
        failed={},
        groups={"train": 12, "test": 10},
        metadata_audit_auc=Estimate(value=0.52, low=0.4, high=0.64, n=48, method="bootstrap by group"),
        sources={"hand-made": "somewhere"},
    ).save(root / "dataset" / "dataset.json")
    write_samples(root / "dataset")
    write_scores(root / "fusion", 4.0)
    _write_evaluation(root / "evaluation", names)
    return Parts(root, trained)


def sample_rows() -> pd.DataFrame:
    """24 samples of train and N_TEST of test, every second one fake, two to a group."""
    rows = []
    for split, count in (("train", 24), ("test", N_TEST)):
        for index in range(count):
            fake = index % 2
            row = dict.fromkeys(column.name for column in SAMPLES.columns)
            row |= {
                "sample_id": hashlib.sha256(f"id {split}-{index}".encode()).hexdigest()[:16],
                "uri": f"/nowhere/{split}-{index}.mp4",
                "modality": "video",
                "label": fake,
                "source": "hand-made" if index % 4 < 2 else "second hand",
                "manipulation": "blended face" if fake else None,
                "group_id": f"{split}-{index // 2}",
                "split": split,
                "sha256": hashlib.sha256(f"{split}-{index}".encode()).hexdigest(),
                "size_bytes": 1000,
                "status": "ok",
            }
            rows.append(row)
    return pd.DataFrame(rows)


def write_samples(folder: Path) -> None:
    write_table(folder / "samples.parquet", sample_rows(), SAMPLES)


def write_scores(folder: Path, strength: float, seed: int = 8) -> None:
    """Write test scores that tell fakes from reals by so many standard deviations, well calibrated."""
    samples = sample_rows()
    samples = samples[samples["split"] == "test"].reset_index(drop=True)
    label = samples["label"].to_numpy(float)
    noise = np.random.default_rng(seed).standard_normal(len(samples))
    logit = strength * (strength * (label - 0.5) + noise)
    rows = samples[["sample_id", "label", "group_id", "split"]].assign(
        logit=logit, probability=1 / (1 + np.exp(-logit)), agreement=1.0, reason=None
    )
    write_table(folder / "scores.parquet", rows, VIDEO_SCORES)


def write_clips(folder: Path) -> tuple[Path, Path]:
    """Render a talking face and a forgery of it."""
    job = Job(seed=3, group=0, member=0, size_px=256, fps=25, duration_s=2.4)
    render(job, folder)
    return folder / job.real_path, folder / job.fake_path


def detector_info(name: str, detector: Detector) -> DetectorInfo:
    curve = [
        TrainingCurvePoint(epoch=1, train_loss=0.7, val_loss=0.69, val_auc=0.5, learning_rate=1e-3, seconds=1),
        TrainingCurvePoint(epoch=2, train_loss=0.6, val_loss=None, val_auc=None, learning_rate=5e-4, seconds=1),
        TrainingCurvePoint(epoch=3, train_loss=0.5, val_loss=0.62, val_auc=0.7, learning_rate=1e-4, seconds=1),
    ]
    return DetectorInfo(
        name=name,
        architecture=detector.architecture,
        n_parameters=detector.n_parameters,
        preprocessing=detector.preprocessing,
        aggregation="mean_logit",
        config=TrainConfig(eval_frames_per_video=EVAL_FRAMES).model_dump(mode="json"),
        curve=curve,
        best_epoch=3,
        val_auc=AUC,
        dataset_version=DATASET_VERSION,
        extractor_version=EXTRACTOR_VERSION,
        weights_sha256="",
        versions={"torch": torch.__version__},
        device="cpu",
        train_seconds=3.0,
    )


def fusion_info() -> FusionInfo:
    return FusionInfo(
        inputs=["ensemble", BLUR, PULSE, f"missing:{PULSE}"],
        impute=[0.0, 2.0, -3.0, 0.0],
        center=[0.1, 2.0, -3.0, 0.5],
        scale=[1.2, 0.5, 4.0, 0.5],
        coefficients=[1.1, -0.3, -0.2, 0.15],
        intercept=0.05,
        calibration_slope=0.9,
        calibration_offset=-0.1,
        operating_points={"max_f1": POINT},
        default_operating_point="max_f1",
        importance={"ensemble": 0.7, BLUR: 0.2, PULSE: 0.1},
        used=True,
        decision="set by hand",
    )


def _write_features(folder: Path) -> None:
    rng = np.random.default_rng(5)
    n = 24
    frame = pd.DataFrame(
        {
            "sample_id": [f"{index:016x}" for index in range(n)],
            "label": [index % 2 for index in range(n)],
            "group_id": [f"g{index}" for index in range(n)],
            "split": "train",
            "status": "ok",
            "reason": None,
            "n_frames_expected": 50,
            "n_frames_decoded": 50,
            "face_share": 1.0,
            "n_crops": 12,
            "extractor_version": EXTRACTOR_VERSION,
            "null_reasons": [[] for _ in range(n)],
            BLUR: rng.normal(2.0, 0.5, n),
            PULSE: [None if index % 3 == 0 else float(index) for index in range(n)],
        }
    )
    # One test row far outside: it must not reach the reference.
    outlier = {"sample_id": "f" * 16, "group_id": "g99", "split": "test", BLUR: 999.0}
    frame = pd.concat([frame, frame.iloc[:1].assign(**outlier)], ignore_index=True)
    write_table(folder / "features.parquet", frame, FEATURES)
    health = [
        FeatureHealth(name=name, n=n, null_share=0, mean=None, std=None, low=None, high=None, level="ok")
        for name in (BLUR, PULSE)
    ]
    ExtractionInfo(
        extractor_version=EXTRACTOR_VERSION,
        dataset_version=DATASET_VERSION,
        n_ok=n,
        n_failed=0,
        n_reused=0,
        failed={},
        n_crops=12 * n,
        health=health,
    ).save(folder / "extraction.json")


def _write_evaluation(folder: Path, names: tuple[str, ...]) -> None:
    EvaluationInfo(
        dataset_version=DATASET_VERSION,
        headline="fusion",
        video={system: {"roc_auc": AUC, "brier": RATE} for system in ("fusion", "ensemble", *names)},
        frame={name: {"roc_auc": AUC} for name in names},
        slices={"manipulation=blended face": {"roc_auc": Estimate(value=None, n=2)}, "source=a/b": {"roc_auc": AUC}},
        confusion=((9, 1), (2, 8)),
        operating_point=POINT,
        n_scored=20,
        n_unscored={"no_face": 1},
        warnings=["n is small"],
    ).save(folder / "metrics.json")
    row = dict.fromkeys(column.name for column in ROBUSTNESS.columns)
    row |= {"system": "ensemble", "perturbation": "jpeg", "severity": 1, "metric": "roc_auc", "crafted_on": "none"}
    row |= {"value": 0.7, "low": 0.5, "high": 0.9, "n": 20}
    write_table(folder / "robustness.parquet", pd.DataFrame([row]), ROBUSTNESS)
    (folder / "report.html").write_text("<!doctype html><title>report</title><h1>Report</h1>", encoding="utf-8")
    (folder / "summary.md").write_text("# Summary\n\nTest AUC 0.8 [0.6, 0.95]\n", encoding="utf-8")
