"""Scoring stored crops, sounds and features with a bundle: how versions are compared on the same samples."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unmask.config import ExtractConfig
from unmask.deployment.bundle import (
    ENSEMBLE,
    EXTRACT,
    FUSION,
    INPUT,
    detector_document,
    parse_document,
    read_checked,
    read_manifest,
)
from unmask.ensemble.apply import apply_ensemble
from unmask.errors import ContractError, InputError
from unmask.fusion.apply import apply_fusion
from unmask.media.preprocessing import decode_item, to_input
from unmask.metrics import pool_logits
from unmask.schemas import (
    FACES,
    FEATURES,
    WINDOWS,
    WINDOWS_FOLDER,
    AnyPreprocessing,
    DetectorInfo,
    DetectorModality,
    EnsembleInfo,
    FusionInfo,
    read_table,
)

BATCH_SIZE = 32
SAMPLES_AT_ONCE = 64
COLUMNS = ("sample_id", "face_index", "frame_index", "jpeg")
WINDOW_COLUMNS = ("sample_id", "window_index", "pcm")
# What crops and features depend on; the rest of the settings only says how fast or how patiently they are made.
CROP_SETTINGS = ("crops_per_video", "crop_size_px", "crop_scale", "jpeg_quality", "sound_windows")
Image = NDArray[np.uint8]
Damage = Callable[[Image, tuple[str, int, int]], Image]


class CropScorer:
    """A bundle that scores crops which `unmask extract` made.

    Args:
        folder: The bundle; every file is checked against its hash.
        threads: CPU threads of a detector.

    Raises:
        ContractError: A file is missing, changed or broken.
    """

    def __init__(self, folder: Path, threads: int = 1) -> None:
        self.manifest = read_manifest(folder)
        contents = read_checked(folder, self.manifest)
        self.ensemble = parse_document(contents, ENSEMBLE, EnsembleInfo, folder)
        self.fusion = parse_document(contents, FUSION, FusionInfo, folder)
        self.extract = ExtractConfig.model_validate_json(contents[EXTRACT])
        self._frames: dict[str, int] = {}
        self._aggregations: dict[str, str] = {}
        for name, file in self.manifest.onnx.items():
            info = parse_document(contents, detector_document(file), DetectorInfo, folder)
            self._frames[name] = int(info.config["eval_frames_per_video"])
            self._aggregations[name] = info.aggregation
        self._sessions = {name: session(contents[file], threads) for name, file in self.manifest.onnx.items()}

    @property
    def threshold(self) -> float:
        """From which probability on the bundle calls a file fake."""
        return self.fusion.operating_points[self.fusion.default_operating_point].threshold

    def check_fits(self, extract: ExtractConfig, extractor_version: str) -> None:
        """Refuse crops and features that were measured in another way than this bundle measures.

        Args:
            extract: The settings that they were made with.
            extractor_version: The extractor that made them.

        Raises:
            InputError: They differ from what the bundle was made with.
        """
        own = {name: getattr(self.extract, name) for name in CROP_SETTINGS}
        theirs = {name: getattr(extract, name) for name in CROP_SETTINGS}
        different = [
            f"{name} {theirs[name]} instead of {own[name]}" for name in CROP_SETTINGS if own[name] != theirs[name]
        ]
        if extractor_version != self.manifest.extractor_version:
            different.append(f"extractor {extractor_version} instead of {self.manifest.extractor_version}")
        if different:
            raise InputError(
                f"The crops were made in another way than the bundle makes them: {', '.join(different)}.",
                "Extract with the settings of the bundle.",
            )

    def score(
        self,
        faces: Path,
        features: Path | None,
        sample_ids: Collection[str],
        damage: Damage | None = None,
    ) -> dict[str, float]:
        """Score samples from their stored crops and features.

        Args:
            faces: Folder of FACES parts.
            features: Folder with ``features.parquet``; None stops at the ensemble, which sees nothing but crops.
            sample_ids: Which.
            damage: Applied to every crop that is scored, not to sound; gets the crop and its key.

        Returns:
            Sample to calibrated P(fake); samples of which no detector has anything to judge are left out.

        Raises:
            ContractError: A table is missing or broken.
            InputError: A feature that fusion needs is not there.
        """
        found: dict[str, NDArray[np.float64]] = {}
        for modality in sorted({one.modality for one in self.manifest.preprocessing.values()}):
            for sample_id, items in stored_items(faces, sample_ids, modality):
                logits = found.setdefault(sample_id, np.full(len(self.ensemble.detectors), np.nan))
                self._fill(logits, items, modality, damage)
        if not found:
            return {}
        ids = sorted(found)
        logit, probability, _ = apply_ensemble(self.ensemble, np.stack([found[sample_id] for sample_id in ids]))
        if features is not None:
            try:
                probability = apply_fusion(self.fusion, logit, feature_columns(features, ids))
            except ValueError as error:
                raise InputError(
                    f"The features in {features} do not suit the bundle: {error}.", "Extract them anew."
                ) from error
        return {name: float(p) for name, p in zip(ids, probability, strict=True) if np.isfinite(p)}

    def _fill(
        self, logits: NDArray[np.float64], items: pd.DataFrame, modality: DetectorModality, damage: Damage | None
    ) -> None:
        """Put the logits of the detectors of a modality into those of a sample ``(D,)``."""
        images: dict[int, NDArray[Any]] = {}
        for position, name in enumerate(self.ensemble.detectors):
            preprocessing = self.manifest.preprocessing[name]
            if preprocessing.modality != modality:
                continue
            chosen = spread(items["face_index"].to_numpy(), self._frames[name])
            for row in chosen:
                if row not in images:
                    images[row] = _item(items.iloc[row], preprocessing, damage)
            scored = onnx_logits(self._sessions[name], [images[row] for row in chosen], preprocessing)
            if len(scored):
                logits[position] = pool_logits(scored, self._aggregations[name])


def session(content: bytes, threads: int = 1) -> Any:
    """Load an ONNX file on the CPU, where its answers do not depend on the machine's accelerator."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def onnx_logits(loaded: Any, images: Sequence[NDArray[Any]], preprocessing: AnyPreprocessing) -> NDArray[np.float64]:
    """Score crops or windows of sound with a loaded ONNX file.

    Args:
        loaded: From `session`.
        images: RGB crops ``(H, W, 3)``, uint8, or windows ``(L,)``, int16.
        preprocessing: Of the detector.

    Returns:
        Logits ``(N,)``, float64.
    """
    parts = [
        loaded.run(None, {INPUT: to_input(images[first : first + BATCH_SIZE], preprocessing)})[0].astype(np.float64)
        for first in range(0, len(images), BATCH_SIZE)
    ]
    return np.concatenate(parts) if parts else np.empty(0)


def stored_items(
    faces: Path, sample_ids: Collection[str], modality: DetectorModality
) -> Iterator[tuple[str, pd.DataFrame]]:
    """Read the crops, or the windows of sound, of some samples, a few samples at a time.

    Args:
        faces: Folder of FACES parts, with that of the windows.
        sample_ids: Which.
        modality: Crops or windows.

    Yields:
        A sample and its rows ``sample_id``, ``face_index``, ``frame_index``, ``encoded``, in order of face and time;
        samples in order of their name. Windows have the face 0, and their number as that of the frame.

    Raises:
        ContractError: There is no part, or a part is broken.
    """
    heard = modality == "audio"
    folder, spec = (faces / WINDOWS_FOLDER, WINDOWS) if heard else (faces, FACES)
    columns = list(WINDOW_COLUMNS if heard else COLUMNS)
    parts = sorted(folder.glob("*.parquet"))
    if not parts:
        raise ContractError(folder, f"table {spec.name}", "does not exist", "Run `unmask extract` first.")
    wanted = sorted(sample_ids)
    # A sample may reach over the end of a part, so all parts are asked for a few samples at a time.
    for first in range(0, len(wanted), SAMPLES_AT_ONCE):
        few = [("sample_id", "in", wanted[first : first + SAMPLES_AT_ONCE])]
        try:
            table = pa.concat_tables([pq.read_table(part, columns=columns, filters=few) for part in parts])
        except (pa.ArrowInvalid, OSError) as error:
            raise ContractError(folder, f"table {spec.name}", f"is not readable Parquet ({error})") from error
        frame = table.to_pandas().rename(columns={"jpeg": "encoded", "pcm": "encoded", "window_index": "frame_index"})
        if heard:
            frame["face_index"] = 0
        frame = frame.sort_values(["sample_id", "face_index", "frame_index"], ignore_index=True)
        for sample_id, rows in frame.groupby("sample_id", sort=True):
            yield str(sample_id), rows.reset_index(drop=True)


def spread(faces: NDArray[Any], per_face: int) -> list[int]:
    """Pick evenly spaced crops of each face, as training and scoring do."""
    # The runtime owns the rule; a local import keeps its decoding libraries out of what only quantises.
    from unmask.deployment.runtime import evenly_spaced

    return evenly_spaced(np.asarray(faces, np.int64), per_face)


def _item(row: Any, preprocessing: AnyPreprocessing, damage: Damage | None) -> NDArray[Any]:
    item = decode_item(memoryview(row["encoded"]), preprocessing)
    key = (str(row["sample_id"]), int(row["face_index"]), int(row["frame_index"]))
    return item if damage is None or preprocessing.modality == "audio" else damage(item, key)


def feature_columns(features: Path, ids: Sequence[str]) -> Mapping[str, NDArray[np.float64]]:
    """Read the features of some samples.

    Args:
        features: Folder with ``features.parquet``.
        ids: Samples.

    Returns:
        Feature to values ``(N,)`` in the order of ``ids``, NaN where not measured.

    Raises:
        ContractError: The table is missing or broken.
    """
    frame = read_table(features / "features.parquet", FEATURES).to_pandas().set_index("sample_id").reindex(ids)
    named = [name for name in frame.columns if "." in str(name)]
    return {str(name): frame[name].to_numpy(np.float64, na_value=np.nan) for name in named}
