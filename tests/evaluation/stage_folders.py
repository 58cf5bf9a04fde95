"""Folders of all earlier stages, made by code: real tables and documents, real detectors on drawn faces."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import simplejpeg
import torch
from sklearn.linear_model import LogisticRegression

from unmask.config import EvaluateConfig, TrainConfig
from unmask.detectors import build, load_detector, save_detector, score_images
from unmask.ensemble.apply import apply_ensemble, video_logits
from unmask.evaluation.evaluate_stage import run_evaluate
from unmask.fusion.apply import apply_fusion
from unmask.media.preprocessing import decode_crop, to_input
from unmask.schemas import (
    FACES,
    FEATURES,
    FRAME_SCORES,
    SAMPLES,
    VIDEO_SCORES,
    DatasetInfo,
    DetectorInfo,
    EnsembleInfo,
    Estimate,
    ExtractionInfo,
    FeatureHealth,
    FusionInfo,
    OperatingPoint,
    StageOutcome,
    TrainingCurvePoint,
    write_table,
)

MANIPULATIONS = ("Deepfakes", "Face2Face", "NeuralTextures")
FEATURE_NAMES = ("quality.blur", "art.texture", "temp.rppg")
QUICK = EvaluateConfig(
    resamples=100,
    severities=(1, 5),
    perturbations=("jpeg", "gaussian_blur"),
    attacks=("fgsm",),
    epsilons=(4,),
    attack_frames_per_video=1,
)


@dataclass
class Folders:
    """Where each stage wrote, and how the set is made.

    Attributes:
        root: Holds all folders.
        per_split: Split to number of groups; a group is one real and two fakes of it.
        crops: A sample.
        size_px: Of a crop.
        strength: Of the traces of forgery.
        detectors: Their names.
        manipulations: Kinds of fakes.
    """

    root: Path
    per_split: dict[str, int] = field(default_factory=lambda: {"train": 8, "val": 3, "calib": 8, "test": 8})
    crops: int = 2
    size_px: int = 96
    strength: float = 0.7
    detectors: tuple[str, ...] = ("meso4", "meso4-b")
    manipulations: tuple[str, ...] = MANIPULATIONS

    def __getattr__(self, name: str) -> Path:
        if name in ("dataset", "faces", "features", "ensemble", "fusion"):
            return self.root / name
        raise AttributeError(name)

    @property
    def trained(self) -> list[Path]:
        return [self.root / f"trained-{name}" for name in self.detectors]

    def evaluate(self, out: Path, config: EvaluateConfig = QUICK, seed: int = 42) -> StageOutcome:
        return run_evaluate(
            self.dataset, self.faces, self.features, self.trained, self.ensemble, self.fusion, out, config, seed
        )


def draw_face(rng: np.random.Generator, identity: int, fake_strength: float, kind: int, size_px: int) -> np.ndarray:
    """Draw a face; a fake has its inner part smoothed and a faint grid laid over it."""
    look = np.random.default_rng(identity)
    side = max(128, size_px)

    def at(*lengths: float) -> tuple[int, ...]:
        return tuple(round(length * side / 256) for length in lengths)

    skin = np.array([look.integers(150, 225), look.integers(105, 165), look.integers(80, 130)])
    image = np.full((side, side, 3), look.integers(40, 130, 3), np.uint8)
    x, y = 128 + int(rng.integers(-5, 6)), 134 + int(rng.integers(-5, 6))
    cv2.ellipse(image, at(x, y), at(78, 104), 0, 0, 360, skin.tolist(), -1)
    cv2.ellipse(image, at(x, y - 78), at(80, 46), 0, 180, 360, look.integers(10, 90, 3).tolist(), -1)
    for eye in (-32, 32):
        cv2.ellipse(image, at(x + eye, y - 18), at(14, 8), 0, 0, 360, (240, 240, 240), -1)
        cv2.circle(image, at(x + eye, y - 18), at(6)[0], (40, 30, 20), -1)
    cv2.ellipse(image, at(x, y + 52), at(26, int(rng.integers(5, 13))), 0, 0, 360, (150, 60, 70), -1)
    cv2.line(image, at(x, y - 6), at(x - 6, y + 24), (skin * 0.8).tolist(), max(1, at(3)[0]))
    texture = cv2.GaussianBlur(rng.normal(0, 22, image.shape).astype(np.float32), (0, 0), 0.8)
    drawn = np.clip(image + texture, 0, 255).astype(np.float32)
    if fake_strength > 0:
        mask = np.zeros((side, side, 1), np.float32)
        cv2.ellipse(mask, at(x, y), at(58, 76), 0, 0, 360, 1.0, -1)
        grid = ((np.indices((side, side)).sum(0) // (2 + kind)) % 2)[..., None] * 14.0
        forged = cv2.GaussianBlur(drawn, (0, 0), 2.5) + grid - 7
        drawn = drawn * (1 - mask * fake_strength) + forged * mask * fake_strength
    small = cv2.resize(drawn.astype(np.float32), (size_px, size_px), interpolation=cv2.INTER_AREA)
    return np.clip(small, 0, 255).astype(np.uint8)


def _samples(folders: Folders, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    identity = 0
    for split, n_groups in folders.per_split.items():
        for _ in range(n_groups):
            identity += 1
            for copy in range(3):
                label = int(copy > 0)
                kind = (identity + copy) % len(folders.manipulations)
                manipulation = folders.manipulations[kind] if label else None
                name = f"{'fake/' + str(manipulation) if label else 'real'}/{identity:03d}_{copy}.mp4"
                rows.append(_sample(f"{identity:08x}{copy:08x}", name, label, f"g{identity:03d}", split, manipulation))
                rows[-1]["identity"] = identity
                rows[-1]["compression"] = "c23" if identity % 2 else "c40"
                rows[-1]["source"] = "studio" if identity % 3 else "street"
    for place, reason in enumerate(("truncated: 151 of 300 frames decoded", "not_media: the file is text")):
        failed = _sample(f"{0xFFFFFF + place:016x}", f"real/broken_{place}.mp4", 0, None, None, None)
        rows.append({**failed, "status": "failed", "reason": reason, "identity": 0, "source": "studio"})
    return pd.DataFrame(rows)


def _sample(
    sample_id: str, name: str, label: int, group: str | None, split: str | None, manipulation: str | None
) -> dict[str, object]:
    return {
        "sample_id": sample_id,
        "uri": f"/media/drawn/{name}",
        "modality": "video",
        "label": label,
        "source": "studio",
        "manipulation": manipulation,
        "compression": None,
        "group_id": group,
        "split": split,
        "sha256": "0" * 64,
        "size_bytes": 100_000,
        "width_px": 640,
        "height_px": 480,
        "fps": 25.0,
        "duration_s": 4.0,
        "n_frames": 100,
        "codec": "h264",
        "bitrate_bps": 2e5,
        "sample_rate_hz": None,
        "has_audio": False,
        "rotation_deg": 0,
        "status": "ok",
        "reason": None,
    }


def build_folders(folders: Folders, seed: int = 0) -> Folders:
    """Write the folders of all stages before evaluation."""
    rng = np.random.default_rng(seed)
    samples = _samples(folders, rng)
    faceless = samples.loc[samples["split"] == "test", "sample_id"].iloc[-1]
    faces = _write_faces(folders, samples.loc[samples["sample_id"] != faceless], rng)
    _write_dataset(folders, samples)
    features = _write_features(folders, samples, faceless, rng)
    scores = [
        _write_detector(folders, name, path, faces, seed)
        for name, path in zip(folders.detectors, folders.trained, strict=True)
    ]
    _write_ensemble_and_fusion(folders, samples, features, scores, faceless)
    return folders


def _write_faces(folders: Folders, samples: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    rows = []
    for sample in samples.dropna(subset=["split"]).to_dict("records"):
        strength = folders.strength * float(rng.uniform(0.2, 1.6)) * sample["label"]
        kind = folders.manipulations.index(sample["manipulation"]) if sample["label"] else 0
        for crop in range(folders.crops):
            image = draw_face(rng, sample["identity"], strength, kind, folders.size_px)
            rows.append(
                {
                    **{name: sample[name] for name in ("sample_id", "label", "group_id", "split")},
                    "face_index": 0,
                    "frame_index": 25 * crop,
                    "time_s": float(crop),
                    **dict.fromkeys(("x0_px", "y0_px"), 100.0),
                    **dict.fromkeys(("x1_px", "y1_px"), 300.0),
                    "confidence": 0.9,
                    "yaw_deg": 0.0,
                    "jpeg": simplejpeg.encode_jpeg(image, quality=95),
                }
            )
    table = pd.DataFrame(rows)
    half = len(table) // 2
    write_table(folders.faces / "part-00000.parquet", table.iloc[:half], FACES)
    write_table(folders.faces / "part-00001.parquet", table.iloc[half:], FACES)
    return table


def _write_dataset(folders: Folders, samples: pd.DataFrame) -> None:
    write_table(folders.dataset / "samples.parquet", samples.drop(columns="identity"), SAMPLES)
    kinds = samples.dropna(subset=["split"]).assign(kind=lambda rows: rows["label"].map({0: "real", 1: "fake"}))
    counts = {
        split: {str(kind): int(n) for kind, n in rows["kind"].value_counts().items()}
        for split, rows in kinds.groupby("split")
    }
    DatasetInfo(
        name="drawn faces",
        version="v1",
        counts=counts,
        failed={"truncated": 1, "not_media": 1},
        groups=dict(folders.per_split),
        metadata_audit_auc=Estimate(value=0.52, low=0.41, high=0.63, n=len(kinds), method="grouped cross-validation"),
        sources={"studio": "/media/drawn", "street": "/media/drawn"},
    ).save(folders.dataset / "dataset.json")


def _write_features(folders: Folders, samples: pd.DataFrame, faceless: str, rng: np.random.Generator) -> pd.DataFrame:
    usable = samples.dropna(subset=["split"]).reset_index(drop=True)
    rows = usable[["sample_id", "label", "group_id", "split"]].copy()
    gone = rows["sample_id"] == faceless
    rows["status"] = np.where(gone, "failed", "ok")
    rows["reason"] = np.where(gone, "no_face: a face in 0 of 30 examined frames", None)
    rows["n_frames_expected"] = rows["n_frames_decoded"] = 100
    rows["face_share"] = np.where(gone, 0.0, 0.95)
    rows["n_crops"] = np.where(gone, 0, folders.crops)
    rows["extractor_version"] = "1"
    rows["null_reasons"] = [[("temp.rppg", "too_short: 4 s")] if place % 5 == 0 else [] for place in rows.index]
    rows["quality.blur"] = rng.normal(2.0, 0.4, len(rows))
    rows["art.texture"] = rng.normal(5.0, 0.8, len(rows)) - 0.9 * rows["label"]
    rows["temp.rppg"] = np.where(rows.index % 5 == 0, np.nan, rng.normal(2.0, 3.0, len(rows)))
    rows.loc[gone, list(FEATURE_NAMES)] = np.nan
    write_table(folders.features / "features.parquet", rows, FEATURES)
    health = [
        _health("quality.blur", rows, "ok", []),
        _health("art.texture", rows, "ok", []),
        _health(
            "temp.rppg", rows, "warning", ["Not measurable on 20 % of clips: they are too short. Use longer clips."]
        ),
    ]
    ExtractionInfo(
        extractor_version="1",
        dataset_version="v1",
        n_ok=int((~gone).sum()),
        n_failed=1,
        n_reused=0,
        failed={"no_face": 1},
        n_crops=int(rows["n_crops"].sum()),
        health=health,
    ).save(folders.features / "extraction.json")
    return rows


def _health(name: str, rows: pd.DataFrame, level: str, problems: list[str]) -> FeatureHealth:
    values = rows.loc[rows["split"].isin(["train", "calib"]), name]
    known = values.dropna()
    return FeatureHealth(
        name=name,
        n=len(values),
        null_share=float(values.isna().mean()),
        mean=float(known.mean()),
        std=float(known.std()),
        low=float(known.min()),
        high=float(known.max()),
        level=level,
        problems=problems,
        null_reasons={"too_short": int(values.isna().sum())} if values.isna().any() else {},
    )


def _write_detector(folders: Folders, name: str, path: Path, faces: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Take a network with random filters and fit its head alone, which is quick and gives it real skill."""
    torch.manual_seed(seed + sum(name.encode()))
    detector = build("meso4", input_size_px=64).eval()
    images = [decode_crop(jpeg) for jpeg in faces["jpeg"]]
    train = (faces["split"] == "train").to_numpy()
    with torch.inference_mode():
        embedded = detector.embed(torch.from_numpy(to_input(images, detector.preprocessing))).numpy()
    middle, spread = embedded[train].mean(0), embedded[train].std(0) + 1e-6
    fitted = LogisticRegression(C=0.1, class_weight="balanced").fit(
        (embedded[train] - middle) / spread, faces.loc[train, "label"].astype(int)
    )
    weights = fitted.coef_ / spread
    linear = next(layer for layer in detector.head.modules() if isinstance(layer, torch.nn.Linear))
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weights).float())
        linear.bias.copy_(torch.from_numpy(fitted.intercept_ - weights @ middle).float())
    curve = [
        TrainingCurvePoint(
            epoch=epoch,
            train_loss=0.7 * 0.8**epoch + 0.1,
            val_loss=0.7 * 0.85**epoch + 0.15 + 0.004 * epoch**2,
            val_auc=min(0.95, 0.5 + 0.08 * epoch),
            learning_rate=1e-3 / epoch,
            seconds=1.0,
        )
        for epoch in range(1, 9)
    ]
    info = DetectorInfo(
        name=name,
        architecture="meso4",
        n_parameters=detector.n_parameters,
        preprocessing=detector.preprocessing,
        aggregation="mean_logit",
        config=TrainConfig().model_dump(mode="json"),
        curve=curve,
        best_epoch=6,
        val_auc=Estimate(value=0.91, low=0.7, high=1.0, n=9),
        dataset_version="v1",
        extractor_version="1",
        weights_sha256="",
        versions={"torch": torch.__version__},
        device="cpu",
        train_seconds=12.0,
    )
    save_detector(path, detector, info)
    scores = faces[["sample_id", "face_index", "frame_index", "label", "group_id", "split"]].copy()
    scores["logit"] = score_images(load_detector(path)[0], images)
    write_table(path / "scores.parquet", scores, FRAME_SCORES)
    return scores


def _write_ensemble_and_fusion(
    folders: Folders, samples: pd.DataFrame, features: pd.DataFrame, scores: list[pd.DataFrame], faceless: str
) -> None:
    n = len(scores)
    ensemble = EnsembleInfo(
        detectors=list(folders.detectors),
        temperatures=[1.4 + 0.2 * place for place in range(n)],
        weights=[1 / n] * n,
        temperature=1.1,
        method="equal",
        decision="Bayesian weights gain 0.004 (-0.012 to 0.021) over equal ones: not real, so equal ones are kept.",
        candidates={
            "equal": Estimate(value=0.86, low=0.74, high=0.95, n=24),
            "bayesian": Estimate(value=0.864, low=0.74, high=0.95, n=24),
            "single": Estimate(value=0.83, low=0.7, high=0.93, n=24),
        },
        agreement_threshold=0.8,
    )
    ensemble.save(folders.ensemble / "ensemble.json")
    rows = samples.dropna(subset=["split"])[["sample_id", "label", "group_id", "split"]].reset_index(drop=True)
    per_detector = [video_logits(one).set_index("sample_id")["logit"].reindex(rows["sample_id"]) for one in scores]
    logit, probability, agreement = apply_ensemble(ensemble, np.stack([one.to_numpy() for one in per_detector], 1))
    reason = np.where(np.isnan(logit), "no_face: a face in 0 of 30 examined frames", None)
    ensembled = rows.assign(logit=logit, probability=probability, agreement=agreement, reason=reason)
    write_table(folders.ensemble / "scores.parquet", ensembled, VIDEO_SCORES)
    inputs = ["ensemble", *FEATURE_NAMES, "missing:temp.rppg"]
    fusion = FusionInfo(
        inputs=inputs,
        impute=[0.0, 2.0, 4.5, 2.0, 0.0],
        center=[0.0, 2.0, 4.5, 2.0, 0.2],
        scale=[1.5, 0.4, 0.9, 3.0, 0.4],
        coefficients=[1.3, 0.1, -0.6, -0.15, 0.05],
        intercept=0.4,
        calibration_slope=1.0,
        calibration_offset=0.1,
        operating_points=operating_points(),
        default_operating_point="max_f1",
        importance=dict(zip(inputs, (0.59, 0.05, 0.27, 0.07, 0.02), strict=True)),
        used=True,
        decision="Fusion is used: calib holds 24 samples of 8 groups.",
    )
    fusion.save(folders.fusion / "fusion.json")
    values = {name: features[name].to_numpy(float) for name in FEATURE_NAMES}
    fused = apply_fusion(fusion, logit, values)
    unscored = (rows["sample_id"] == faceless).to_numpy()
    fused = np.where(unscored, np.nan, fused)
    table = rows.assign(logit=np.log(fused / (1 - fused)), probability=fused, agreement=agreement, reason=reason)
    write_table(folders.fusion / "scores.parquet", table, VIDEO_SCORES)


def operating_points() -> dict[str, OperatingPoint]:
    def rate(hits: int, n: int) -> Estimate:
        return Estimate(value=hits / n, low=max(0, hits / n - 0.2), high=min(1, hits / n + 0.2), n=n)

    return {
        "max_f1": OperatingPoint(name="max_f1", threshold=0.46, fpr=rate(2, 8), tpr=rate(15, 16), resolvable=True),
        "youden": OperatingPoint(name="youden", threshold=0.61, fpr=rate(1, 8), tpr=rate(14, 16), resolvable=True),
        "target_fpr": OperatingPoint(
            name="target_fpr",
            threshold=0.9,
            fpr=rate(0, 8),
            tpr=rate(8, 16),
            resolvable=False,
            note="8 reals cannot show a false alarm rate of 5 %; 59 without an alarm would.",
        ),
    }
