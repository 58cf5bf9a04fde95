"""`unmask train`: one detector, from crops to weights and scores."""

from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from unmask import detectors
from unmask.config import TrainConfig
from unmask.detectors import Detector
from unmask.errors import InputError
from unmask.metrics import confusion
from unmask.objects import LocalMedia, MediaFiles, ObjectStore
from unmask.schemas import (
    FRAME_SCORES,
    SAMPLES,
    DatasetInfo,
    DetectorInfo,
    DetectorModality,
    ExtractionInfo,
    Preprocessing,
    StageOutcome,
    new_directory,
    read_table,
    sha256_file,
    sha256_json,
    write_table,
)
from unmask.training.checkpoint import Checkpoints
from unmask.training.device import available_cores, describe_device, reproducible, resolve_device
from unmask.training.events import Listener, TensorBoardLog, Told, TrainingLog, TrainingStart
from unmask.training.examples import confusion_sheet, example_sheet
from unmask.training.loader import CropIndex, CropLoader, evenly_spaced_rows, index_for, limit_samples
from unmask.training.parallel import ALONE, Group, joined
from unmask.training.selection import choose_aggregation, teachers, val_auc_estimate, video_means
from unmask.training.system import watched
from unmask.training.trainer import Fitted, Trainer, score_rows

logger = logging.getLogger(__name__)
# Part of the checkpoint key: raise it when the loop changes what the same settings come to.
TRAINER_VERSION = "3"
PACKAGES = ("unmask", "torch", "timm", "numpy", "opencv-python-headless", "simplejpeg", "safetensors")
EXAMPLES_FILE, CONFUSION_FILE = "examples.jpg", "confusion.jpg"
WHAT_SAMPLES_HAVE: dict[DetectorModality, tuple[str, str]] = {"face": ("a face", "faces"), "audio": ("sound", "sound")}
SPLITS = ("train", "val", "calib", "test")
SCORE_COLUMNS = [column.name for column in FRAME_SCORES.columns]


@dataclass(frozen=True)
class Origin:
    """Where the crops come from.

    Attributes:
        dataset_version: Of ``dataset.json``.
        extractor_version: Of ``extraction.json``; ``unknown`` without it.
    """

    dataset_version: str
    extractor_version: str


def run_train(
    detector: str,
    dataset: Path,
    faces: Path,
    features: Path | None,
    out: Path,
    config: TrainConfig,
    seed: int,
    store: ObjectStore | None = None,
    log: TrainingLog | None = None,
    files: MediaFiles | None = None,
) -> StageOutcome:
    """Train a detector on train, choose its checkpoint on val, and score crops of all four splits.

    Args:
        detector: A registered name, or ``timm:<model>``.
        dataset: Folder with ``dataset.json``.
        faces: Folder with the parts of the faces table.
        features: Folder with ``extraction.json``, for the version of the extractor.
        out: Folder to make: ``weights.safetensors``, ``detector.json``, ``scores.parquet``.
        config: Settings; those of ``config.models[detector]`` win.
        seed: Of every random choice.
        store: Keeps checkpoints, so that a killed run can go on, on another machine if it is a bucket; None keeps
            none.
        log: Told of everything while it happens, besides the TensorBoard logs of ``config.tensorboard``.
        files: Gives the weight file that ``config.pretrained`` names, if it is not on this machine.

    Returns:
        Figures on val, and sentences for the user.

    Raises:
        InputError: train or val has no crops, or train has one class only; or the parts do not belong together.
        ConfigError: The detector cannot be built like this, or the device does not exist.
    """
    settings = config.resolved_for(detector)
    source = detectors.WeightSource(store, files or LocalMedia())
    with joined() as group, reproducible(settings, seed) as threads, detectors.weights_from(source):
        prepared = prepare(detector, dataset, faces, features, settings, seed, threads=threads, group=group)
        checkpoints = Checkpoints(store, checkpoint_prefix(detector, settings, prepared.origin, seed))
        with logged(prepared, settings, checkpoints, log if group.leads else None) as told:
            trainer = prepared.trainer(settings, checkpoints, told)
            fitted = trainer.fit()
            if not group.leads:
                return StageOutcome()
            loaders = prepared.loaders(trainer.detector)
            scores = score_splits(trainer.detector, loaders, settings, trainer.device)
            examples = example_sheet(loaders["val"], scores[scores["split"] == "val"])
            info = describe(trainer.detector, detector, settings, seed, fitted, scores, prepared.origin, trainer.device)
            info = info.model_copy(update={"tracking_run": told.run_id})
            pictures = {EXAMPLES_FILE: examples}
            if info.val_confusion is not None:
                pictures[CONFUSION_FILE] = confusion_sheet(info.val_confusion)
            told.end(info, pictures)
    with new_directory(out) as folder:
        write_table(folder / "scores.parquet", scores, FRAME_SCORES)
        for name, content in pictures.items():
            (folder / name).write_bytes(content)
        info = detectors.save_detector(folder, trainer.detector, info)
    return outcome(info, scores)


@contextmanager
def logged(
    prepared: Prepared, config: TrainConfig, checkpoints: Checkpoints, log: TrainingLog | None
) -> Iterator[TrainingLog]:
    """Keep logs of the training in the block: begun before it, closed after it, with the use of the machine.

    Args:
        prepared: What is trained on what.
        config: Resolved; ``tensorboard`` of it asks for a log of its own.
        checkpoints: Whose key names the training.
        log: Another log.

    Yields:
        What is to be told.
    """
    logs = [log] if log is not None else []
    if config.tensorboard and prepared.group.leads:
        run = f"{prepared.name}-{sha256_json([config.model_dump(), prepared.seed])[:8]}".replace(":", "-")
        logs.append(TensorBoardLog(Path(config.tensorboard), run))
    told = Told(logs)
    settings = {**config.model_dump(mode="json"), "seed": prepared.seed}
    version = prepared.origin.dataset_version
    told.begin(TrainingStart(prepared.name, checkpoints.prefix, settings, version, checkpoints.exist()))
    failed = True
    try:
        with watched(told.system) if logs else nullcontext():
            yield told
        failed = False
    finally:
        told.close(failed=failed)


@dataclass(frozen=True)
class Prepared:
    """Everything that a training needs, read and checked; trainers can be made from it again and again.

    Attributes:
        name: Of the detector.
        origin: Versions of data set and extractor.
        index: The labelled crops.
        seed: Of every random choice.
        threads: That decode crops.
        group: The processes that train together.
    """

    name: str
    origin: Origin
    index: CropIndex
    seed: int
    threads: int
    group: Group

    def loaders(self, model: Detector) -> dict[str, CropLoader]:
        """Make a loader for each split."""
        split = self.index.frame["split"].to_numpy()
        return {
            name: CropLoader(self.index.select(split == name), model.preprocessing, workers=self.threads)
            for name in SPLITS
        }

    def trainer(
        self,
        config: TrainConfig,
        checkpoints: Checkpoints | None = None,
        listener: Listener | None = None,
    ) -> Trainer:
        """Make a trainer around a fresh detector, whose weights depend on the seed alone.

        Args:
            config: Resolved for the detector.
            checkpoints: Where to keep what a resume needs; None keeps nothing.
            listener: Told of steps and epochs.

        Returns:
            The trainer; it sees crops of train and val only.
        """
        device = resolve_device(config.device, self.group.local_rank)
        torch.manual_seed(self.seed)
        model = detectors.build(self.name, pretrained=config.pretrained, input_size_px=config.input_size_px)
        if config.input_crop is not None and isinstance(model.preprocessing, Preprocessing):
            model.preprocessing = model.preprocessing.model_copy(update={"crop": config.input_crop})
        loaders = self.loaders(model)
        return Trainer(
            model,
            loaders["train"],
            loaders["val"],
            config,
            self.seed,
            device,
            checkpoints or Checkpoints(None),
            group=self.group,
            listener=listener,
        )


def prepare(
    detector: str,
    dataset: Path,
    faces: Path,
    features: Path | None,
    config: TrainConfig,
    seed: int,
    *,
    threads: int = 0,
    group: Group = ALONE,
) -> Prepared:
    """Read and check what a training needs.

    Args:
        detector: A registered name, or ``timm:<model>``.
        dataset: Folder with ``dataset.json``.
        faces: Folder with the parts of the faces table.
        features: Folder with ``extraction.json``, or None.
        config: Resolved for the detector.
        seed: Of every random choice.
        threads: That decode crops; 0 is one per core.
        group: The processes that train together.

    Returns:
        The parts.

    Raises:
        InputError: See `run_train`.
    """
    origin = read_origin(dataset, features)
    modality = detectors.modality_of(detector)
    index = taught(labelled_crops(faces, modality), dataset, config)
    index = limited(index, config.max_samples_per_class, seed)
    check_splits(index.frame, modality)
    return Prepared(detector, origin, index, seed, threads or config.threads or available_cores(), group)


def read_origin(dataset: Path, features: Path | None) -> Origin:
    """Read the versions of data set and extractor.

    Args:
        dataset: Folder with ``dataset.json``.
        features: Folder with ``extraction.json``, or None.

    Returns:
        The versions.

    Raises:
        InputError: The crops were extracted from another version of the data set.
    """
    dataset_version = DatasetInfo.load(dataset / "dataset.json").version
    if features is None:
        return Origin(dataset_version, "unknown")
    extraction = ExtractionInfo.load(features / "extraction.json")
    if extraction.dataset_version != dataset_version:
        raise InputError(
            f"The faces are of data set version {extraction.dataset_version[:12]}, "
            f"but {dataset} is version {dataset_version[:12]}.",
            "Run `unmask extract` on this data set again.",
        )
    return Origin(dataset_version, extraction.extractor_version)


def labelled_crops(faces: Path, modality: DetectorModality = "face") -> CropIndex:
    """Read the index of the crops, or of the windows of sound, that have both a label and a split.

    Args:
        faces: Folder with the parts of the faces table, and the folder of the windows table.
        modality: What the detector takes.

    Returns:
        The index.
    """
    index = index_for(faces, modality)
    return index.select((index.frame["label"].notna() & index.frame["split"].notna()).to_numpy())


def taught(index: CropIndex, dataset: Path, config: TrainConfig) -> CropIndex:
    """Leave out what ``train.train_sources`` and ``train.exclude_manipulations`` keep from teaching.

    Args:
        index: Crops of all splits.
        dataset: Folder with ``samples.parquet``.
        config: Resolved settings.

    Returns:
        The index without those crops of train and val; calib and test stay whole, so that they can be scored.

    Raises:
        InputError: A source or manipulation is not in the data set.
    """
    if not config.train_sources and not config.exclude_manipulations:
        return index
    samples = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    for column, names in (("source", config.train_sources), ("manipulation", config.exclude_manipulations)):
        known = sorted(set(samples[column].dropna()))
        if unknown := sorted(set(names) - set(known)):
            raise InputError(
                f"There is no {column} {', '.join(unknown)} in {dataset}.", f"It has {', '.join(known) or 'none'}."
            )
    may = teachers(samples, config.train_sources, config.exclude_manipulations)
    teaching = index.frame["sample_id"].isin(set(samples.loc[may, "sample_id"]))
    return index.select((teaching | ~index.frame["split"].isin(["train", "val"])).to_numpy())


def limited(index: CropIndex, most: int | None, seed: int) -> CropIndex:
    """Leave out training samples above the limit of ``train.max_samples_per_class``; other splits stay whole."""
    if most is None:
        return index
    rows = (index.frame["split"] == "train").to_numpy()
    kept = limit_samples(index.frame[rows], most, np.random.default_rng(seed))
    keep = ~rows
    keep[rows] = kept
    return index.select(keep)


def check_splits(frame: pd.DataFrame, modality: DetectorModality = "face") -> None:
    """Refuse crops or windows that no detector can be trained on.

    Args:
        frame: Rows of an index.
        modality: What the detector takes.

    Raises:
        InputError: train or val has no crops, or train has one class only; says how many there are of each.
    """
    videos = frame.drop_duplicates("sample_id")
    shown, kind = WHAT_SAMPLES_HAVE[modality]
    counts = {split: int((videos["split"] == split).sum()) for split in SPLITS}
    listed = ", ".join(f"{split} {count}" for split, count in counts.items())
    for split in ("train", "val"):
        if not counts[split]:
            raise InputError(
                f"No labelled sample with {shown} is in {split} (samples with {kind}: {listed}).",
                "Add media, above all groups: every group lies in one split; or raise the share of that split.",
            )
    classes = videos.loc[videos["split"] == "train", "label"]
    if classes.nunique() < 2:
        only = "fake" if classes.iloc[0] == 1 else "real"
        raise InputError(
            f"All {len(classes)} samples with {kind} in train are {only}.",
            "Add samples of the other class, or change the seed so that the groups are dealt in another way.",
        )


def checkpoint_prefix(name: str, config: TrainConfig, origin: Origin, seed: int) -> str:
    """Name the checkpoints after everything that the weights depend on.

    Args:
        name: Of the detector.
        config: Resolved settings.
        origin: Versions of data set and extractor.
        seed: Of the run.

    Returns:
        Start of their keys in a store.
    """
    pretrained = Path(config.pretrained)
    key = {
        "trainer": TRAINER_VERSION,
        "torch": torch.__version__,
        "detector": name,
        "config": config.model_dump(mode="json", exclude={"tensorboard"}),
        "pretrained": sha256_file(pretrained) if pretrained.is_file() else config.pretrained,
        "dataset": origin.dataset_version,
        "extractor": origin.extractor_version,
        "seed": seed,
    }
    return f"checkpoints/{sha256_json(key)}"


def score_splits(
    model: Detector, loaders: dict[str, CropLoader], config: TrainConfig, device: torch.device
) -> pd.DataFrame:
    """Score evenly spaced crops of every sample of every split.

    Args:
        model: Trained, on ``device``.
        loaders: Split to its crops.
        config: ``eval_frames_per_video`` and ``batch_size``.
        device: Where to compute.

    Returns:
        Rows of `FRAME_SCORES`.
    """
    parts = []
    for loader in loaders.values():
        rows = evenly_spaced_rows(loader.index.frame, config.eval_frames_per_video)
        logits = score_rows(model, loader, rows, config.batch_size, device)
        parts.append(loader.index.frame.iloc[rows].assign(logit=logits)[SCORE_COLUMNS])
    return pd.concat(parts, ignore_index=True)


def describe(
    model: Detector,
    name: str,
    config: TrainConfig,
    seed: int,
    fitted: Fitted,
    scores: pd.DataFrame,
    origin: Origin,
    device: torch.device,
) -> DetectorInfo:
    """Write down everything about a trained detector but its weights."""
    val = scores[scores["split"] == "val"].reset_index(drop=True)
    logits = val["logit"].to_numpy(np.float64)
    aggregation = choose_aggregation(val, logits, config.aggregation, np.random.default_rng(seed))
    videos = video_means(val, logits, aggregation)
    return DetectorInfo(
        name=name,
        architecture=model.architecture,
        n_parameters=model.n_parameters,
        preprocessing=model.preprocessing,
        aggregation=aggregation,
        config={**config.model_dump(mode="json"), "seed": seed},
        curve=fitted.curve,
        best_epoch=fitted.best_epoch,
        val_auc=val_auc_estimate(val, logits, np.random.default_rng(seed), aggregation),
        dataset_version=origin.dataset_version,
        extractor_version=origin.extractor_version,
        weights_sha256="",
        versions={package: version(package) for package in PACKAGES},
        device=describe_device(device),
        train_seconds=fitted.seconds,
        val_confusion=confusion(videos["label"], 1 / (1 + np.exp(-videos["logit"].clip(-40, 40))), 0.5),
        resources=used_resources(fitted, device),
    )


def used_resources(fitted: Fitted, device: torch.device) -> dict[str, float]:
    """Say how fast a training was and how much memory it took; see `DetectorInfo.resources`."""
    found = {
        "crops_per_s": fitted.crops / max(fitted.seconds, 1e-9),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    if device.type == "cuda":
        found["gpu_peak_memory_mb"] = torch.cuda.max_memory_allocated(device) / 2**20
    return found


def outcome(info: DetectorInfo, scores: pd.DataFrame) -> StageOutcome:
    """Sum up a training for whoever called it."""
    best = info.curve[info.best_epoch - 1]
    metrics = {
        "best_epoch": float(info.best_epoch),
        "epochs": float(len(info.curve)),
        "train_loss": best.train_loss,
        "train_seconds": info.train_seconds,
        "parameters": float(info.n_parameters),
    }
    metrics |= {k: v for k, v in (("val_loss", best.val_loss), ("val_auc", info.val_auc.value)) if v is not None}
    messages = [
        f"{info.name}: video AUC on val {info.val_auc} at epoch {info.best_epoch} of {len(info.curve)}, chosen on val "
        f"and therefore optimistic; {info.n_parameters:,} parameters, {info.train_seconds:.0f} s on {info.device}."
    ]
    if info.val_auc.value is None:
        messages.append(f"{info.name}: val has one class only; the checkpoint was chosen by loss.")
    if scores.loc[scores["split"] == "test"].empty:
        messages.append(
            f"No sample in test has {WHAT_SAMPLES_HAVE[info.preprocessing.modality][0]}: nothing can be reported."
        )
    return StageOutcome(metrics=metrics, messages=tuple(messages))
