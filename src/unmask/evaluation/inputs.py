"""What an evaluation reads: the tables and documents of all earlier stages, cut down to the test rows at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from unmask.ensemble.apply import apply_calibration, part_of, sigmoid, video_logits
from unmask.errors import ContractError, InputError
from unmask.schemas import (
    FACES,
    FEATURES,
    FRAME_SCORES,
    SAMPLES,
    VIDEO_SCORES,
    WINDOWS,
    WINDOWS_FOLDER,
    DatasetInfo,
    DetectorCalibration,
    DetectorInfo,
    DetectorModality,
    EnsembleInfo,
    ExtractionInfo,
    FusionAnalysis,
    FusionInfo,
    OperatingPoint,
    read_table,
    validate_table,
)

UNLABELLED = "unlabelled"
ANALYSIS = "analysis.json"
Kind = Literal["detector", "ensemble", "fusion"]


@dataclass(frozen=True)
class TrainedDetector:
    """One detector and what it said about the test frames.

    Attributes:
        folder: Where `unmask train` put it.
        info: Its ``detector.json``.
        calibration: Of its logits, fitted by `unmask ensemble` on calib.
        frames: Rows of FRAME_SCORES of labelled test samples.
    """

    folder: Path
    info: DetectorInfo
    calibration: DetectorCalibration
    frames: pd.DataFrame

    def probabilities(self, logits: npt.ArrayLike) -> NDArray[np.float64]:
        """Turn raw logits of any shape into calibrated probabilities."""
        return sigmoid(apply_calibration(self.calibration, logits))


@dataclass(frozen=True)
class SystemScores:
    """The calibrated probabilities of one system on the labelled test samples that it scored.

    Attributes:
        name: Name of the detector, ``ensemble`` or ``fusion``.
        kind: What it is.
        sample_ids: ``(N,)``.
        labels: ``(N,)``, 0 real and 1 fake, int64.
        probabilities: ``(N,)``, P(fake) in [0, 1], float64.
        groups: ``(N,)``; what shares one is resampled together.
    """

    name: str
    kind: Kind
    sample_ids: NDArray[np.object_]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    groups: NDArray[np.object_]

    def only(self, rows: NDArray[np.bool_]) -> SystemScores:
        """Keep some of the samples: ``(N,)`` whether to."""
        return SystemScores(
            self.name,
            self.kind,
            self.sample_ids[rows],
            self.labels[rows],
            self.probabilities[rows],
            self.groups[rows],
        )


@dataclass(frozen=True)
class Inputs:
    """Everything that an evaluation looks at.

    Attributes:
        dataset: ``dataset.json``.
        samples: Rows of SAMPLES of all splits, for counts and failures only.
        extraction: ``extraction.json``.
        features: Rows of FEATURES of all splits; figures are made of none of them.
        detectors: In the order of the ensemble.
        ensemble: ``ensemble.json``.
        fusion: ``fusion.json``.
        ensemble_rows: Rows of VIDEO_SCORES of the test samples, as the ensemble wrote them.
        fusion_rows: The same of fusion.
        faces: Where the face crops lie.
        analysis: ``analysis.json`` of fusion; None when calib was too small for it.
    """

    dataset: DatasetInfo
    samples: pd.DataFrame
    extraction: ExtractionInfo
    features: pd.DataFrame
    detectors: list[TrainedDetector]
    ensemble: EnsembleInfo
    fusion: FusionInfo
    ensemble_rows: pd.DataFrame
    fusion_rows: pd.DataFrame
    faces: Path
    analysis: FusionAnalysis | None = None

    @property
    def operating_point(self) -> OperatingPoint:
        """The threshold that verdicts use, as it was chosen on calib."""
        return self.fusion.operating_points[self.fusion.default_operating_point]

    def seen_by(self, modality: DetectorModality) -> Inputs:
        """The same with the detectors of faces only, or of sound only, and the ensemble of these."""
        kept = [one for one in self.detectors if one.info.preprocessing.modality == modality]
        names = [one.info.name for one in kept]
        return replace(self, detectors=kept, ensemble=part_of(self.ensemble, names))

    @property
    def labelled_test(self) -> pd.DataFrame:
        """The test samples with a label, ``sample_id`` and ``label``, whether they have a score or not."""
        rows: pd.DataFrame = self.fusion_rows[["sample_id", "label"]].dropna(subset=["label"])
        return rows

    def systems(self) -> list[SystemScores]:
        """Collect the systems, the headline first: fusion, the ensemble, each detector."""
        return [
            _of_table("fusion", "fusion", self.fusion_rows),
            _of_table("ensemble", "ensemble", self.ensemble_rows),
            *(_of_detector(detector) for detector in self.detectors),
        ]

    def failed(self) -> pd.DataFrame:
        """List the files that could not be used, from ingest and from extraction.

        Returns:
            Rows of SAMPLES with the column ``stage`` and the reason of that stage.
        """
        early = self.samples.loc[self.samples["status"] == "failed"].assign(stage="ingest")
        reasons = self.features.loc[self.features["status"] == "failed"].set_index("sample_id")["reason"]
        later = self.samples.loc[
            self.samples["sample_id"].isin(reasons.index) & ~self.samples["sample_id"].isin(early["sample_id"])
        ]
        later = later.assign(stage="extract", reason=later["sample_id"].map(reasons))
        return pd.concat([early, later], ignore_index=True)

    def unscored(self) -> dict[str, int]:
        """Count the test samples that have no figure, by the code of the reason."""
        without = self.fusion_rows["probability"].isna()
        reasons = self.fusion_rows.loc[without, "reason"].fillna("unknown")
        counts = Counter(str(reason).partition(":")[0].strip() for reason in reasons)
        n_unlabelled = int((~without & self.fusion_rows["label"].isna()).sum())
        return dict(sorted(counts.items())) | ({UNLABELLED: n_unlabelled} if n_unlabelled else {})


def load_inputs(
    dataset: Path, faces: Path, features: Path, trained: Sequence[Path], ensemble: Path, fusion: Path
) -> Inputs:
    """Read and cross-check the folders of the earlier stages.

    Args:
        dataset: Folder of `unmask ingest`.
        faces: Folder of face crops of `unmask extract`.
        features: Folder of features of `unmask extract`.
        trained: Folders of `unmask train`, in any order.
        ensemble: Folder of `unmask ensemble`.
        fusion: Folder of `unmask fuse`.

    Returns:
        The documents, and the test rows of the tables.

    Raises:
        ContractError: A file is missing or breaks its schema.
        InputError: The folders do not belong together.
    """
    info = DatasetInfo.load(dataset / "dataset.json")
    samples = read_table(dataset / "samples.parquet", SAMPLES).to_pandas()
    extraction = ExtractionInfo.load(features / "extraction.json")
    _same_version(info.version, extraction.dataset_version, f"the features in {features}")
    ensemble_info = EnsembleInfo.load(ensemble / "ensemble.json")
    fusion_info = FusionInfo.load(fusion / "fusion.json")
    if fusion_info.default_operating_point not in fusion_info.operating_points:
        raise ContractError(
            fusion / "fusion.json",
            "default_operating_point",
            f"{fusion_info.default_operating_point!r} is not one of {', '.join(fusion_info.operating_points)}",
        )
    test_ids = set(samples.loc[samples["split"] == "test", "sample_id"])
    return Inputs(
        dataset=info,
        samples=samples,
        extraction=extraction,
        features=read_table(features / "features.parquet", FEATURES).to_pandas(),
        detectors=_load_detectors(trained, ensemble_info, info.version),
        ensemble=ensemble_info,
        fusion=fusion_info,
        ensemble_rows=_scores_of(ensemble / "scores.parquet", test_ids),
        fusion_rows=_scores_of(fusion / "scores.parquet", test_ids),
        faces=faces,
        analysis=FusionAnalysis.load(fusion / ANALYSIS) if (fusion / ANALYSIS).is_file() else None,
    )


def read_test_faces(faces: Path, sample_ids: Sequence[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Read the crops of some test samples without holding those of all splits in memory.

    Args:
        faces: Folder of FACES parts.
        sample_ids: Samples wanted.
        columns: Columns wanted; None reads and checks all of them.

    Returns:
        Rows of FACES.

    Raises:
        ContractError: There is no part, or a part breaks its schema.
    """
    parts = sorted(faces.glob("*.parquet"))
    if not parts:
        raise ContractError(faces, "table faces", "does not exist", "Run `unmask extract` first.")
    wanted = [("sample_id", "in", list(sample_ids)), ("split", "==", "test")]
    try:
        tables = [pq.read_table(part, filters=wanted, columns=columns) for part in parts]
    except (pa.ArrowInvalid, OSError) as error:
        raise ContractError(faces, "table faces", f"is not readable Parquet ({error})") from error
    table = pa.concat_tables(tables, promote_options="default")
    return table if columns is not None else validate_table(table, FACES, faces)


def read_test_windows(faces: Path, sample_ids: Sequence[str]) -> pa.Table:
    """Read the windows of sound of some test samples.

    Args:
        faces: Folder of FACES parts, with that of the windows.
        sample_ids: Samples wanted.

    Returns:
        Rows of WINDOWS; none where `unmask extract` wrote no windows.
    """
    parts = sorted((faces / WINDOWS_FOLDER).glob("*.parquet")) if len(sample_ids) else []
    wanted = [("sample_id", "in", list(sample_ids)), ("split", "==", "test")]
    return pa.concat_tables([WINDOWS.empty(), *(pq.read_table(part, filters=wanted) for part in parts)])


def _test_rows(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.loc[frame["split"] == "test"].reset_index(drop=True)


def _scores_of(path: Path, test_ids: set[str]) -> pd.DataFrame:
    rows = _test_rows(read_table(path, VIDEO_SCORES).to_pandas())
    found = set(rows["sample_id"])
    if found != test_ids:
        raise InputError(
            f"{path} holds {len(found - test_ids)} test samples that the data set does not, "
            f"and lacks {len(test_ids - found)} that it does.",
            "Give the folders of one run: run `unmask ensemble` and `unmask fuse` again on this data set.",
        )
    return rows


def _same_version(expected: str, found: str, what: str) -> None:
    if expected != found:
        raise InputError(
            f"The data set has version {expected}, but {what} come from version {found}.",
            "Splits may differ between versions, so test figures would not be honest; run the earlier stages again.",
        )


def _load_detectors(trained: Sequence[Path], ensemble: EnsembleInfo, version: str) -> list[TrainedDetector]:
    found = {}
    for folder in trained:
        info = DetectorInfo.load(folder / "detector.json")
        _same_version(version, info.dataset_version, f"the weights and scores of {info.name}")
        found[info.name] = (folder, info)
    if set(found) != set(ensemble.detectors):
        raise InputError(
            f"The ensemble was made of {', '.join(ensemble.detectors)}, "
            f"but the trained detectors given are {', '.join(found) or 'none'}.",
            "Give --trained once for each detector of the ensemble.",
        )
    detectors = []
    calibrations = ensemble.calibrations or [
        DetectorCalibration(kind="temperature", slope=1 / temperature) for temperature in ensemble.temperatures
    ]
    for name, calibration in zip(ensemble.detectors, calibrations, strict=True):
        folder, info = found[name]
        frames = _test_rows(read_table(folder / "scores.parquet", FRAME_SCORES).to_pandas())
        detectors.append(TrainedDetector(folder, info, calibration, frames.dropna(subset=["label"])))
    return detectors


def _of_detector(detector: TrainedDetector) -> SystemScores:
    rows = video_logits(detector.frames, detector.info.aggregation)
    return _system(detector.info.name, "detector", rows, detector.probabilities(rows["logit"]))


def _of_table(name: str, kind: Kind, rows: pd.DataFrame) -> SystemScores:
    kept = rows.dropna(subset=["probability", "label"])
    return _system(name, kind, kept, kept["probability"].to_numpy(np.float64))


def _system(name: str, kind: Kind, rows: pd.DataFrame, probabilities: NDArray[np.float64]) -> SystemScores:
    return SystemScores(
        name,
        kind,
        rows["sample_id"].to_numpy(object),
        rows["label"].to_numpy(np.int64),
        probabilities,
        groups_of(rows),
    )


def groups_of(rows: pd.DataFrame) -> NDArray[np.object_]:
    """Give each row its group; a row without one is a group of its own.

    Args:
        rows: With columns ``group_id`` and ``sample_id``.

    Returns:
        ``(N,)`` names.
    """
    return rows["group_id"].fillna("sample:" + rows["sample_id"]).to_numpy(object)
