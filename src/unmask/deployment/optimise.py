"""Smaller detectors for a bundle, kept only where they lose little, calibrated anew, and compared with the originals.

What is kept is chosen on val, ranges come from crops of train, calibration and thresholds from calib, and test is only
reported. A quantised detector turns some verdicts even where its AUC stays, so ensemble and fusion are fitted anew.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask import metrics
from unmask.config import BundleConfig, DistillConfig, EnsembleConfig, FusionConfig, TrainConfig
from unmask.deployment.paired import own_scores, read_samples
from unmask.deployment.rescoring import feature_columns, onnx_logits, session, stored_items
from unmask.deployment.shrinking import prune, quantise_dynamic, quantise_static
from unmask.ensemble.apply import apply_ensemble, video_logits
from unmask.errors import InputError
from unmask.fusion.apply import apply_fusion
from unmask.media.preprocessing import decode_item, to_input
from unmask.schemas import (
    FRAME_SCORES,
    AnyPreprocessing,
    DetectorInfo,
    Document,
    EnsembleInfo,
    Estimate,
    FusionInfo,
    read_table,
    rows_for_choice,
    write_table,
)

KEY = ["sample_id", "face_index", "frame_index"]
RESAMPLES = 2000
SEED = 21
TIMED_CALLS, WARM_UP_CALLS = 30, 5
MEGABYTE = 1e6
Variant = Literal["float32", "student", "pruned", "static", "dynamic"]


class VariantRow(Document):
    """One form of one detector.

    Attributes:
        detector: Its name.
        variant: float32 (the export), student (of the whole ensemble), pruned, static or dynamic.
        size_mb: Of the ONNX file.
        compressed_mb: Of the file after zlib.
        p50_ms: Median CPU time of one crop on one thread, without preprocessing.
        val_auc: Video-level AUC on val.
        val_loss: AUC of float32 minus this one, on the same samples, and of the ensemble for a student; null for
            float32.
        kept: Whether the bundle holds it.
        reason: Why, or why not.
    """

    detector: str
    variant: Variant
    size_mb: float
    compressed_mb: float
    p50_ms: float
    val_auc: Estimate
    val_loss: Estimate | None
    kept: bool
    reason: str


class OptimisationInfo(Document):
    """``optimisation.json``: what was tried and what it cost.

    Attributes:
        max_auc_loss: The bound.
        rows: Every form of every detector.
        test_auc_before: Fusion with the detectors as trained, on test; null, as the next ones, when all were kept.
        test_auc_after: Fusion with those that the bundle holds, calibrated anew.
        test_difference: After minus before, on the same samples.
        flipped: Share of test samples whose verdict differs, each at its own threshold, after recalibration.
        flipped_uncalibrated: The same if only the form had changed, and calibration and thresholds were left; null when
            no form was.
    """

    max_auc_loss: float
    rows: list[VariantRow]
    test_auc_before: Estimate | None = None
    test_auc_after: Estimate | None = None
    test_difference: Estimate | None = None
    flipped: Estimate | None = None
    flipped_uncalibrated: Estimate | None = None


@dataclass(frozen=True)
class Recalibration:
    """What fitting calibration anew needs.

    Attributes:
        dataset: Folder of `unmask ingest`.
        features: Folder with ``features.parquet``.
        ensemble: Settings of `unmask ensemble`.
        fusion: Settings of `unmask fuse`.
        seed: Of the run.
        distil: The student that bundle.distil trains, and its bound.
        training: How it is trained.
    """

    dataset: Path
    features: Path
    ensemble: EnsembleConfig
    fusion: FusionConfig
    seed: int
    distil: DistillConfig = field(default_factory=DistillConfig)
    training: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True)
class Trained:
    """What a bundle is made of.

    Attributes:
        folders: Detector to the folder that `unmask train` wrote, in the order of the ensemble.
        ensemble: Folder that `unmask ensemble` wrote.
        fusion: Folder that `unmask fuse` wrote.
    """

    folders: Mapping[str, Path]
    ensemble: Path
    fusion: Path


@dataclass(frozen=True)
class Smaller:
    """Detectors of which at least one has another form.

    Attributes:
        onnx: Detector to ONNX file.
        trained: These detectors with ensemble and fusion fitted anew, below the folder for what lies in between.
    """

    onnx: dict[str, bytes]
    trained: Trained


def wanted(config: BundleConfig) -> bool:
    """Whether the settings ask for any of this."""
    return config.quantise != "none" or config.prune > 0 or config.distil


def as_exported(onnx: Mapping[str, bytes], folders: Mapping[str, Path]) -> list[VariantRow]:
    """Describe detectors of which no other form is tried, by the scores of their training.

    Args:
        onnx: Detector to its exported ONNX file.
        folders: Detector to the folder that `unmask train` wrote.

    Returns:
        A row each.
    """
    rows = []
    for name, content in onnx.items():
        info = DetectorInfo.load(folders[name] / "detector.json")
        auc = Estimate(value=None, n=0)
        if (folders[name] / "scores.parquet").is_file():
            frames = read_table(folders[name] / "scores.parquet", FRAME_SCORES).to_pandas()
            labelled = video_logits(_labelled_val(frames), info.aggregation)
            auc = _auc(labelled, labelled["logit"].to_numpy(np.float64))
        rows.append(
            describe_form(name, "float32", content, info.preprocessing, auc, None, kept=True, reason="as exported")
        )
    return rows


def smaller_forms(
    onnx: Mapping[str, bytes],
    trained: Trained,
    faces: Path,
    work: Path,
    config: BundleConfig,
    recalibration: Recalibration,
) -> tuple[Smaller | None, list[VariantRow]]:
    """Try smaller forms of the detectors, keep those that lose little, and calibrate anew.

    Args:
        onnx: Detector to its exported ONNX file, in the order of the ensemble.
        trained: The same detectors as they were trained.
        faces: Face crops of all splits.
        work: An empty folder for what lies in between.
        config: What to try, and the bound.
        recalibration: What fitting anew needs.

    Returns:
        What goes into the bundle, None when no smaller form is kept; and every form that was tried.

    Raises:
        InputError: There are no crops of train or val to go by.
        MissingExtraError: The package onnx is not installed.
    """
    rows: list[VariantRow] = []
    kept: dict[str, bytes] = {}
    for name, content in onnx.items():
        tried = _try_detector(name, content, trained.folders[name], faces, config)
        rows += [row for row, _ in tried]
        kept[name] = next((made for row, made in tried if row.kept), content)
    if all(kept[name] == onnx[name] for name in onnx):
        return None, rows
    folders = _rescore_all(kept, trained.folders, faces, work)
    return Smaller(kept, calibrate_anew(folders, work, recalibration)), rows


def calibrate_anew(folders: Mapping[str, Path], work: Path, recalibration: Recalibration) -> Trained:
    """Run the stages `ensemble` and `fuse` on other detectors.

    Args:
        folders: Detector to a folder with its document and its scores of all splits.
        work: Where ``ensemble`` and ``fusion`` are written.
        recalibration: What fitting anew needs.

    Returns:
        The detectors with their new ensemble and fusion.
    """
    from unmask.ensemble.ensemble_stage import run_ensemble
    from unmask.fusion.fuse_stage import run_fuse

    data, seed = recalibration.dataset, recalibration.seed
    ensemble, fusion = work / "ensemble", work / "fusion"
    run_ensemble(data, list(folders.values()), ensemble, recalibration.ensemble, seed)
    run_fuse(data, ensemble, recalibration.features, fusion, recalibration.fusion, seed)
    return Trained(folders, ensemble, fusion)


def describe_form(
    name: str,
    variant: Variant,
    content: bytes,
    preprocessing: AnyPreprocessing,
    val_auc: Estimate,
    val_loss: Estimate | None,
    *,
    kept: bool,
    reason: str,
) -> VariantRow:
    """Measure size and time of one form of a detector.

    Args:
        name: The detector.
        variant: The form.
        content: The ONNX file.
        preprocessing: Gives the shape of its input.
        val_auc: See `VariantRow`.
        val_loss: See `VariantRow`.
        kept: See `VariantRow`.
        reason: See `VariantRow`.

    Returns:
        Its row of the table.
    """
    return VariantRow(
        detector=name,
        variant=variant,
        size_mb=len(content) / MEGABYTE,
        compressed_mb=len(zlib.compress(content, 6)) / MEGABYTE,
        p50_ms=median_ms(content, preprocessing.input_shape),
        val_auc=val_auc,
        val_loss=val_loss,
        kept=kept,
        reason=reason,
    )


# --- one detector ----------------------------------------------------------------------------------------------------


def _try_detector(
    name: str, content: bytes, folder: Path, faces: Path, config: BundleConfig
) -> list[tuple[VariantRow, bytes]]:
    info = DetectorInfo.load(folder / "detector.json")
    frames = read_table(folder / "scores.parquet", FRAME_SCORES).to_pandas()
    val = _labelled_val(frames)
    if val["label"].nunique() < 2:
        raise InputError("val has no crops of both classes, so no smaller detector can be judged.", "Add media.")
    labelled = video_logits(val, info.aggregation)
    makers = _makers(frames, faces, info.preprocessing, config)
    exact = _video_scores(content, val, faces, info)
    base = _row(name, "float32", content, info.preprocessing, labelled, exact, None)
    tried: list[tuple[VariantRow, bytes]] = []
    for variant, make in makers.items():
        made = make(content)
        own = _video_scores(made, val, faces, info)
        tried.append((_row(name, variant, made, info.preprocessing, labelled, own, exact), made))
    return _choose(base, content, tried, config)


def _labelled_val(frames: pd.DataFrame) -> pd.DataFrame:
    return rows_for_choice(frames.loc[frames["split"] == "val"].dropna(subset=["label"]), {"val"}, "optimisation")


def _makers(
    frames: pd.DataFrame, faces: Path, preprocessing: AnyPreprocessing, config: BundleConfig
) -> dict[Variant, Callable[[bytes], bytes]]:
    makers: dict[Variant, Callable[[bytes], bytes]] = {}
    first: Callable[[bytes], bytes] = partial(prune, share=config.prune)
    if config.prune > 0:
        makers["pruned"] = first
    if config.quantise != "none":
        inputs = _calibration_inputs(frames, faces, preprocessing, config.calibration_crops)
        makers["static"] = lambda content: quantise_static(content, inputs)
    if config.quantise == "auto":
        makers["dynamic"] = quantise_dynamic
    return makers


def _calibration_inputs(
    frames: pd.DataFrame, faces: Path, preprocessing: AnyPreprocessing, count: int
) -> NDArray[np.float32]:
    """Take crops of train, evenly spaced over its samples, of both classes alike."""
    train = rows_for_choice(frames.loc[frames["split"] == "train"], {"train"}, "quantisation")
    if train.empty:
        raise InputError("train has no crops to find the ranges of 8-bit values on.", "Give the faces of this run.")
    ordered = train.sort_values(["label", *KEY], ignore_index=True)
    chosen = ordered.iloc[np.unique(np.linspace(0, len(ordered) - 1, min(count, len(ordered))).astype(int))]
    images = [image for _, image in _items(chosen, faces, preprocessing)]
    return to_input(images, preprocessing)


def _choose(
    base: VariantRow, content: bytes, tried: Sequence[tuple[VariantRow, bytes]], config: BundleConfig
) -> list[tuple[VariantRow, bytes]]:
    """Keep one form: of those inside the bound the quickest, where speed was asked for, else the smallest."""
    inside = [
        (row, made)
        for row, made in tried
        if row.val_loss is not None and row.val_loss.value is not None and row.val_loss.value <= config.max_auc_loss
    ]
    if config.quantise == "auto":
        quicker = [pair for pair in inside if pair[0].variant != "pruned" and pair[0].p50_ms < base.p50_ms]
        best = min(quicker, key=lambda pair: pair[0].p50_ms, default=None)
    else:
        best = min(inside, key=lambda pair: pair[0].compressed_mb, default=None)
    judged = []
    for row, made in tried:
        keeps = best is not None and row is best[0]
        judged.append((row.model_copy(update={"kept": keeps, "reason": _why(row, base, keeps, inside, config)}), made))
    reason = "replaced by a smaller form" if best else "no smaller form was kept"
    return [(base.model_copy(update={"kept": best is None, "reason": reason}), content), *judged]


def _why(
    row: VariantRow,
    base: VariantRow,
    keeps: bool,
    inside: Sequence[tuple[VariantRow, bytes]],
    config: BundleConfig,
) -> str:
    loss = "undefined" if row.val_loss is None or row.val_loss.value is None else f"{row.val_loss.value:+.3f}"
    if all(row is not other for other, _ in inside):
        return f"loses {loss} AUC on val; {config.max_auc_loss:g} is allowed"
    if keeps:
        return f"loses {loss} AUC on val, inside the bound of {config.max_auc_loss:g}"
    if config.quantise == "auto" and row.p50_ms >= base.p50_ms:
        return "not quicker than 32 bit"
    return "another form is better"


def _row(
    name: str,
    variant: Variant,
    content: bytes,
    preprocessing: AnyPreprocessing,
    labelled: pd.DataFrame,
    scores: NDArray[np.float64],
    exact: NDArray[np.float64] | None,
) -> VariantRow:
    loss = None
    if exact is not None:
        labels, groups, rng = labelled["label"].to_numpy(np.int64), _groups(labelled), np.random.default_rng(SEED)
        loss = metrics.paired_difference(metrics.roc_auc, labels, scores, exact, groups, rng=rng, resamples=RESAMPLES)
    auc = _auc(labelled, scores)
    return describe_form(name, variant, content, preprocessing, auc, loss, kept=False, reason="")


def _auc(labelled: pd.DataFrame, scores: NDArray[np.float64]) -> Estimate:
    labels, rng = labelled["label"].to_numpy(np.int64), np.random.default_rng(SEED)
    return metrics.bootstrap_estimate(metrics.roc_auc, labels, scores, _groups(labelled), rng=rng, resamples=RESAMPLES)


def median_ms(content: bytes, input_shape: Sequence[int], calls: int = TIMED_CALLS) -> float:
    """Time one input on one thread, in CPU time, so that a busy machine does not count.

    Args:
        content: An ONNX file.
        input_shape: Of one input.
        calls: How many to take the median of.

    Returns:
        Milliseconds.
    """
    loaded = session(content)
    crop = np.random.default_rng(0).standard_normal((1, *input_shape)).astype(np.float32)
    taken = []
    for call in range(calls + WARM_UP_CALLS):
        start = time.process_time()
        loaded.run(None, {loaded.get_inputs()[0].name: crop})
        if call >= WARM_UP_CALLS:
            taken.append(time.process_time() - start)
    return 1000 * float(np.median(taken))


def _video_scores(content: bytes, frames: pd.DataFrame, faces: Path, info: DetectorInfo) -> NDArray[np.float64]:
    """Score frames anew and aggregate them; in the order of `video_logits`."""
    scored = _rescored(content, frames, faces, info.preprocessing)
    return video_logits(scored, info.aggregation)["logit"].to_numpy(np.float64)


def _rescored(content: bytes, frames: pd.DataFrame, faces: Path, preprocessing: AnyPreprocessing) -> pd.DataFrame:
    """Replace the logits of frames by those of an ONNX file."""
    loaded = session(content)
    by_key: dict[Any, float] = {}
    waiting: list[tuple[Any, NDArray[Any]]] = []

    def flush() -> None:
        logits = onnx_logits(loaded, [image for _, image in waiting], preprocessing)
        by_key.update(zip((key for key, _ in waiting), logits.tolist(), strict=True))
        waiting.clear()

    for keyed in _items(frames, faces, preprocessing):
        waiting.append(keyed)
        if len(waiting) >= 256:  # decoded crops of 256 px: 50 MB
            flush()
    flush()
    keys = list(frames[KEY].itertuples(index=False, name=None))
    missing = sum(key not in by_key for key in keys)
    if missing:
        raise InputError(f"{faces} lacks {missing} of the crops that were scored.", "Give the faces of this run.")
    return frames.assign(logit=[by_key[key] for key in keys])


def _items(frames: pd.DataFrame, faces: Path, preprocessing: AnyPreprocessing) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Yield key and decoded crop or window of frames, sample by sample."""
    keys = set(frames[KEY].itertuples(index=False, name=None))
    for sample_id, items in stored_items(faces, set(frames["sample_id"]), preprocessing.modality):
        columns = (items["face_index"], items["frame_index"], items["encoded"])
        for face, frame, encoded in zip(*columns, strict=True):
            if (sample_id, face, frame) in keys:
                yield (sample_id, face, frame), decode_item(memoryview(encoded), preprocessing)


def _groups(rows: pd.DataFrame) -> NDArray[np.object_]:
    return rows["group_id"].fillna("sample:" + rows["sample_id"]).to_numpy(object)


# --- all of them -----------------------------------------------------------------------------------------------------


def _rescore_all(kept: Mapping[str, bytes], folders: Mapping[str, Path], faces: Path, work: Path) -> dict[str, Path]:
    """Score all splits with what is kept; gives a folder like one of a training for each detector."""
    made = {}
    for index, (name, content) in enumerate(kept.items()):
        info = DetectorInfo.load(folders[name] / "detector.json")
        frames = read_table(folders[name] / "scores.parquet", FRAME_SCORES).to_pandas()
        folder = work / f"detector-{index}"
        write_table(folder / "scores.parquet", _rescored(content, frames, faces, info.preprocessing), FRAME_SCORES)
        info.save(folder / "detector.json")
        made[name] = folder
    return made


def compare_on_test(
    info: OptimisationInfo, given: Trained, changed: Trained, recalibration: Recalibration
) -> tuple[OptimisationInfo, pd.DataFrame]:
    """Report on test what the change of detectors did; nothing is chosen by it.

    Args:
        info: What was tried.
        given: As the run trained and calibrated it.
        changed: What the bundle holds.
        recalibration: Names the data set and the features.

    Returns:
        The same with figures on test, and rows of TEST_SCORES of what the bundle holds.
    """
    samples = read_samples(recalibration.dataset)
    original, after = own_scores(samples, given.fusion), own_scores(samples, changed.fusion)
    both = original.merge(after[["sample_id", "probability"]], on="sample_id", suffixes=("", "_after"))
    labels, groups = both["label"].to_numpy(np.int64), _groups(both)
    columns = [both[name].to_numpy(np.float64) for name in ("probability", "probability_after")]
    called = [column >= _threshold(trained) for column, trained in zip(columns, (given, changed), strict=True)]
    difference = metrics.paired_difference(
        metrics.roc_auc,
        labels,
        columns[0],
        columns[1],
        groups,
        rng=np.random.default_rng(SEED),
        resamples=RESAMPLES,
    )
    uncalibrated = None
    if given.folders.keys() == changed.folders.keys():
        uncalibrated = _flipped_uncalibrated(given, changed, recalibration, both, called[0])
    figures = {
        "test_auc_before": _auc(both, columns[0]),
        "test_auc_after": _auc(both, columns[1]),
        "test_difference": difference,
        "flipped": metrics.clopper_pearson(int((called[0] != called[1]).sum()), len(both)),
        "flipped_uncalibrated": uncalibrated,
    }
    return info.model_copy(update=figures), after


def _threshold(trained: Trained) -> float:
    fusion = FusionInfo.load(trained.fusion / "fusion.json")
    return fusion.operating_points[fusion.default_operating_point].threshold


def _flipped_uncalibrated(
    given: Trained, changed: Trained, recalibration: Recalibration, both: pd.DataFrame, called: NDArray[np.bool_]
) -> Estimate:
    """Count the verdicts that would turn if only the form of the detectors had been exchanged."""
    ensemble = EnsembleInfo.load(given.ensemble / "ensemble.json")
    fusion = FusionInfo.load(given.fusion / "fusion.json")
    columns = []
    for name in ensemble.detectors:
        folder = changed.folders[name]
        frames = read_table(folder / "scores.parquet", FRAME_SCORES).to_pandas()
        aggregation = DetectorInfo.load(folder / "detector.json").aggregation
        logits = video_logits(frames, aggregation).set_index("sample_id")["logit"]
        columns.append(logits.reindex(both["sample_id"]).to_numpy(np.float64))
    logit, _, _ = apply_ensemble(ensemble, np.stack(columns, axis=1))
    features = feature_columns(recalibration.features, both["sample_id"].tolist())
    probability = apply_fusion(fusion, logit, features)
    return metrics.clopper_pearson(int(((probability >= _threshold(given)) != called).sum()), len(both))
