"""Scoring a file with a bundle: one decode, ONNX Runtime, calibration, fusion, verdict. No torch."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
from numpy.typing import NDArray
from pydantic import ValidationError
from scipy.special import expit

from unmask.config import ExtractConfig
from unmask.deployment.bundle import (
    ENSEMBLE,
    EXTRACT,
    FUSION,
    INPUT,
    MANIFEST,
    REFERENCE,
    FeatureReference,
    detector_document,
    parse_document,
    read_checked,
    read_manifest,
)
from unmask.deployment.cautions import cautions
from unmask.deployment.evidence import EVIDENCE, EvidenceInfo
from unmask.deployment.examine import Examined, UnmeasurableError, examine
from unmask.deployment.providers import choose_providers
from unmask.deployment.verdict import DetectorEvidence, FeatureEvidence, RuleEvidence, TimelinePoint, Verdict, decide
from unmask.ensemble.apply import apply_ensemble, calibrated_logits, video_logits
from unmask.errors import ContractError, InputError, MediaError
from unmask.features import CATALOGUE, EXTRACTOR_VERSION, NULL_REASONS, Crop, Measurement, Window
from unmask.fusion.apply import apply_fusion, contributions
from unmask.fusion.rules import rule_effects
from unmask.media.preprocessing import decode_crop, to_input
from unmask.media.probe import MediaFacts, Modality
from unmask.media.sound import SAMPLE_RATE_HZ, window_samples
from unmask.schemas import DetectorInfo, EnsembleInfo, FusionInfo, Manifest, OperatingPoint, sha256_file

logger = logging.getLogger(__name__)

THREADS = 2
BATCH_SIZE = 16
# Crops that the detectors look at for the course over time; more cost time only.
TIMELINE_CROPS = 32
# A second of which a window holds less than this is not told of.
LEAST_HEARD_S = 0.25


@dataclass(frozen=True)
class Judgement:
    """A verdict, and what it rests on.

    Attributes:
        verdict: The answer.
        crop_probabilities: P(fake) of each crop by the detectors alone ``(N,)``; NaN where no detector looked.
        pushes: Input of fusion to its contribution; empty when fusion is not used or the file was not scored.
    """

    verdict: Verdict
    crop_probabilities: NDArray[np.float64]
    pushes: Mapping[str, float]


@dataclass(frozen=True)
class Bundle:
    """A deployed detector, loaded and checked.

    Attributes:
        folder: Where it was read from.
        version: Names it in answers: 12 characters of the hash of its manifest, or as given to `load`.
        manifest: What it holds.
        detectors: Detector name to its document.
        ensemble: How detector logits are joined.
        fusion: How ensemble and features are joined, and the operating points.
        extract: How files are measured.
        reference: What is usual, feature by feature.
        sessions: Detector name to its loaded ONNX file.
        timeline_crops: Crops a face that the detectors look at for the course over time, at most one a second.
        notice: What every reader of a verdict must know first; often empty.
    """

    folder: Path
    version: str
    manifest: Manifest
    detectors: Mapping[str, DetectorInfo]
    ensemble: EnsembleInfo
    fusion: FusionInfo
    extract: ExtractConfig
    reference: FeatureReference
    sessions: Mapping[str, Any]
    timeline_crops: int = TIMELINE_CROPS
    notice: str = ""

    @classmethod
    def load(
        cls,
        folder: Path,
        *,
        version: str = "",
        threads: int = THREADS,
        timeline_crops: int = TIMELINE_CROPS,
        providers: Sequence[str] = ("cpu",),
    ) -> Bundle:
        """Read a bundle and check every file against the hash in its manifest.

        Args:
            folder: The folder that `unmask bundle` wrote.
            version: Name for answers, for example ``unmask-detector version 3``.
            threads: CPU threads of each detector.
            timeline_crops: Crops a face for the course over time, at most one a second; it does not touch the verdict.
            providers: Where detectors run, see `unmask.deployment.providers.choose_providers`.

        Returns:
            The bundle, ready to score.

        Raises:
            ConfigError: There is no such provider.
            InputError: There is no such folder.
            ContractError: A file is missing or changed, the format is unknown, or the bundle was made with another
                version of the feature extractor.
        """
        if not folder.is_dir():
            raise InputError(f"There is no bundle folder {folder}.", "Give the folder that `unmask bundle` wrote.")
        manifest = read_manifest(folder)
        contents = read_checked(folder, manifest)
        _check_extractor(manifest, folder)
        chosen = choose_providers(providers)
        return cls(
            folder=folder,
            version=version or sha256_file(folder / MANIFEST)[:12],
            manifest=manifest,
            detectors={
                name: parse_document(contents, detector_document(file), DetectorInfo, folder)
                for name, file in manifest.onnx.items()
            },
            ensemble=parse_document(contents, ENSEMBLE, EnsembleInfo, folder),
            fusion=parse_document(contents, FUSION, FusionInfo, folder),
            extract=_parse_extract(contents[EXTRACT], folder),
            reference=parse_document(contents, REFERENCE, FeatureReference, folder),
            sessions={name: _session(contents[file], threads, chosen) for name, file in manifest.onnx.items()},
            timeline_crops=timeline_crops,
            notice=parse_document(contents, EVIDENCE, EvidenceInfo, folder).notice if EVIDENCE in contents else "",
        )

    @property
    def operating_point(self) -> OperatingPoint:
        """The stored threshold that verdicts use."""
        return self.fusion.operating_points[self.fusion.default_operating_point]

    def score(self, path: Path, *, name: str = "") -> Verdict:
        """Judge a file.

        Args:
            path: A local image, video or audio file.
            name: What the verdict calls it; the path when left out.

        Returns:
            The verdict. A file that cannot be decoded or shows no face is "not scored" with the reason, never an error
            and never a probability of 0.5.

        Raises:
            InputError: There is no such file.
        """
        start = time.perf_counter()
        if not path.is_file():
            raise InputError(f"There is no file {path}.", "Check the path.")
        called = name or str(path)
        try:
            examined = examine(path, self.extract)
        except MediaError as error:
            modality = error.facts.modality if isinstance(error, UnmeasurableError) else None
            return self.refuse(called, modality, str(error), time.perf_counter() - start)
        verdict = self.judge(examined, name=called).verdict
        return verdict.model_copy(update={"seconds": time.perf_counter() - start})

    def judge(self, examined: Examined, *, name: str) -> Judgement:
        """Judge a file that was measured before.

        Args:
            examined: Measured with the settings of this bundle.
            name: What the verdict calls it.

        Returns:
            The verdict and what it rests on; ``seconds`` is the time of judging alone.
        """
        start = time.perf_counter()
        facts, measurement = examined.facts, examined.measurement
        logits, frames, by_crop = self._detector_logits(measurement.crops)
        by_window = self._listen(measurement.windows, logits, frames)
        combined, ensemble_p, agreements = apply_ensemble(self.ensemble, logits[None, :])
        crop_p = apply_ensemble(self.ensemble, by_crop)[1]
        logit, agreement = float(combined[0]), _known(agreements[0])
        probability = None if math.isnan(logit) else self._fuse(logit, measurement.features)
        point = self.operating_point
        verdict, reason = decide(probability, point.threshold, agreement, self.ensemble.agreement_threshold)
        if probability is None:
            reason = self._why_unscored(facts, measurement)
        pushes = self._pushes(logit, measurement.features) if probability is not None and self.fusion.used else {}
        answer = Verdict(
            file=name,
            modality=facts.modality,
            verdict=verdict,
            probability=probability,
            reason=reason,
            operating_point=point.name,
            threshold=point.threshold,
            agreement=agreement,
            ensemble_probability=_known(ensemble_p[0]),
            ensemble_contribution=pushes.get("ensemble"),
            detectors=self._detector_evidence(logits, frames),
            features=self._feature_evidence(measurement, pushes),
            timeline=[] if facts.modality == "image" else self._timeline(measurement, by_crop, by_window),
            method=None if probability is None else self.fusion.method,
            rules=self._rule_evidence(logit, measurement.features) if probability is not None else [],
            warnings=[*filter(None, [self.notice]), *cautions(facts, measurement, self.extract, self.reference, point)],
            model_version=self.version,
            seconds=time.perf_counter() - start,
        )
        return Judgement(answer, crop_p, pushes)

    def refuse(self, name: str, modality: Modality | None, reason: str, seconds: float) -> Verdict:
        """Answer about a file that could not be measured.

        Args:
            name: What the verdict calls it.
            modality: As far as known.
            reason: ``code: sentence``.
            seconds: Wall time so far.

        Returns:
            "not scored", without a probability.
        """
        point = self.operating_point
        return Verdict(
            file=name,
            modality=modality,
            verdict="not scored",
            probability=None,
            reason=reason,
            operating_point=point.name,
            threshold=point.threshold,
            model_version=self.version,
            seconds=seconds,
        )

    def _fuse(self, logit: float, features: Mapping[str, float | None]) -> float:
        columns = {name: np.array([np.nan if value is None else value]) for name, value in features.items()}
        return float(apply_fusion(self.fusion, np.array([logit]), columns)[0])

    def _pushes(self, logit: float, features: Mapping[str, float | None]) -> dict[str, float]:
        """Sum the contributions by input; that a feature is missing counts as the feature's."""
        pushes: dict[str, float] = {}
        for name, contribution in contributions(self.fusion, logit, features):
            key = name.removeprefix("missing:")
            pushes[key] = pushes.get(key, 0.0) + contribution
        return pushes

    def _rule_evidence(self, logit: float, features: Mapping[str, float | None]) -> list[RuleEvidence]:
        return [
            RuleEvidence(rule=effect.rule, sentence=effect.sentence, change=effect.change)
            for effect in rule_effects(self.fusion, logit, features)
        ]

    def _detector_logits(
        self, crops: Sequence[Crop]
    ) -> tuple[NDArray[np.float64], dict[str, int], NDArray[np.float64]]:
        """Score the crops with every detector; the verdict rests on those that training's evaluation would take.

        Returns:
            Video logits ``(D,)`` in the order of the ensemble, NaN without crops; detector name to crops used for
            them; and logits ``(N, D)`` of single crops, NaN where a detector did not look.
        """
        logits = np.full(len(self.ensemble.detectors), np.nan)
        by_crop = np.full((len(crops), len(self.ensemble.detectors)), np.nan)
        frames = {}
        images: dict[int, NDArray[np.uint8]] = {}
        faces = np.array([crop.face_index for crop in crops], np.int64)
        shown = evenly_spaced(faces, min(self.timeline_crops, len({int(crop.time_s) for crop in crops})))
        for position, name in enumerate(self.ensemble.detectors):
            if self.listens(name):
                continue
            chosen = evenly_spaced(faces, int(self.detectors[name].config["eval_frames_per_video"]))
            frames[name] = len(chosen)
            if not chosen:
                continue
            for index in {*chosen, *shown} - images.keys():
                images[index] = decode_crop(crops[index].jpeg)
            scored = self.frame_logits(name, [images[index] for index in chosen])
            logits[position] = _video_logit(faces[chosen], scored, self.detectors[name].aggregation)
            by_crop[chosen, position] = scored
            # A batch of their own: how crops share a batch may change the last bit, and the verdict must not depend
            # on what is looked at for the timeline.
            if further := sorted(set(shown) - set(chosen)):
                by_crop[further, position] = self.frame_logits(name, [images[index] for index in further])
        return logits, frames, by_crop

    def listens(self, name: str) -> bool:
        """Whether a detector judges sound, and not faces."""
        return self.manifest.preprocessing[name].modality == "audio"

    @property
    def modalities(self) -> list[Modality]:
        """What it can judge; a video by its faces or by its sound."""
        listening = {self.listens(name) for name in self.ensemble.detectors}
        judged: dict[Modality, bool] = {"image": False in listening, "video": True, "audio": True in listening}
        return [modality for modality, judges in judged.items() if judges]

    def _listen(
        self, windows: Sequence[Window], logits: NDArray[np.float64], frames: dict[str, int]
    ) -> NDArray[np.float64]:
        """Score the windows of sound with every detector that listens.

        Args:
            windows: Of the file.
            logits: Of the file ``(D,)``; those of these detectors are filled in.
            frames: Detector name to crops or windows used; these detectors are added.

        Returns:
            Logits ``(W, D)`` of single windows, NaN where a detector does not listen.
        """
        by_window = np.full((len(windows), len(logits)), np.nan)
        sounds = [window_samples(window.pcm) for window in windows]
        for position, name in enumerate(self.ensemble.detectors):
            if not self.listens(name):
                continue
            info = self.detectors[name]
            chosen = evenly_spaced(np.zeros(len(sounds), np.int64), int(info.config["eval_frames_per_video"]))
            frames[name] = len(chosen)
            if chosen:
                by_window[chosen, position] = self.frame_logits(name, [sounds[index] for index in chosen])
                scored = by_window[chosen, position]
                logits[position] = _video_logit(np.zeros(len(chosen), np.int64), scored, info.aggregation)
        return by_window

    def _timeline(
        self, measurement: Measurement, by_crop: NDArray[np.float64], by_window: NDArray[np.float64]
    ) -> list[TimelinePoint]:
        """Follow the faces second by second, or the sound where no detector saw a face."""
        if not np.isnan(by_crop).all():
            return _timeline(np.array([int(crop.time_s) for crop in measurement.crops]), by_crop, self.ensemble)
        seconds: list[int] = []
        rows: list[NDArray[np.float64]] = []
        for window, row in zip(measurement.windows, by_window, strict=True):
            end_s = window.time_s + len(window.pcm) / 2 / SAMPLE_RATE_HZ
            covered = range(int(window.time_s), math.ceil(end_s - LEAST_HEARD_S))
            seconds += covered
            rows += [row] * len(covered)
        return _timeline(np.array(seconds, np.int64), np.array(rows), self.ensemble) if rows else []

    def _why_unscored(self, facts: MediaFacts, measurement: Measurement) -> str:
        listening = [name for name in self.ensemble.detectors if self.listens(name)]
        if facts.modality == "audio" and not listening:
            return "audio: the detectors of this bundle judge faces, not sound"
        if facts.modality != "audio" and len(listening) < len(self.ensemble.detectors):
            return f"no_face: the detectors judge faces, and none was found in this {facts.modality}"
        return measurement.no_sound_reason or "no_sound: there is nothing to hear in it"

    def frame_logits(self, name: str, images: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Score single crops or windows of sound with one detector.

        Args:
            name: The detector.
            images: RGB crops ``(H, W, 3)``, uint8, or windows ``(L,)``, int16; at least one.

        Returns:
            Raw logits ``(N,)``.
        """
        preprocessing = self.manifest.preprocessing[name]
        parts = []
        for first in range(0, len(images), BATCH_SIZE):
            batch = to_input(images[first : first + BATCH_SIZE], preprocessing)
            (logits,) = self.sessions[name].run(None, {INPUT: batch})
            parts.append(logits.astype(np.float64))
        return np.concatenate(parts)

    def _detector_evidence(self, logits: NDArray[np.float64], frames: Mapping[str, int]) -> list[DetectorEvidence]:
        calibrated = calibrated_logits(self.ensemble, logits[None, :])[0]
        return [
            DetectorEvidence(
                name=name,
                probability=_known(expit(logit)),
                weight=weight,
                frames=frames[name],
                modality=self.manifest.preprocessing[name].modality,
            )
            for name, logit, weight in zip(self.ensemble.detectors, calibrated, self.ensemble.weights, strict=True)
        ]

    def _feature_evidence(self, measurement: Measurement, pushes: Mapping[str, float]) -> list[FeatureEvidence]:
        evidence = []
        for name, spec in CATALOGUE.items():
            usual = self.reference.features[name].real if name in self.reference.features else None
            evidence.append(
                FeatureEvidence(
                    name=name,
                    title=spec.title,
                    meaning=spec.meaning,
                    unit=spec.unit,
                    bias=spec.bias,
                    value=measurement.features.get(name),
                    usual_low=usual[0] if usual else None,
                    usual_high=usual[2] if usual else None,
                    contribution=pushes.get(name),
                    reason=_null_reason(measurement.null_reasons.get(name)),
                )
            )
        return evidence


def evenly_spaced(faces: NDArray[np.int64], frames_per_video: int) -> list[int]:
    """Pick evenly spaced crops of each face, in the middle of equal stretches of time.

    The same choice as training makes for val, calib and test (a test holds the two together): the calibration was
    fitted on means over so many crops.

    Args:
        faces: Number of the face of each crop ``(N,)``; the crops of a face in order of time.
        frames_per_video: At most so many a face.

    Returns:
        Positions, face by face.
    """
    chosen: list[int] = []
    for face in np.unique(faces):
        track = np.flatnonzero(faces == face)
        count = min(frames_per_video, len(track))
        middle = (np.arange(count) + 0.5) * len(track) / count
        chosen += track[middle.astype(np.int64)].tolist()
    return chosen


def _video_logit(faces: NDArray[np.int64], logits: NDArray[np.float64], aggregation: str) -> float:
    """Aggregate one file's crops with the function that the ensemble was fitted on."""
    frame = pd.DataFrame(
        {
            "sample_id": "file",
            "face_index": faces,
            "frame_index": np.arange(len(faces)),
            "label": None,
            "group_id": None,
            "split": None,
            "logit": logits,
        }
    )
    return float(video_logits(frame, aggregation)["logit"].iloc[0])


def _timeline(seconds: NDArray[np.int64], by_crop: NDArray[np.float64], ensemble: EnsembleInfo) -> list[TimelinePoint]:
    """Score each second with the mean logits of its crops or windows, as the verdict does with the whole file."""
    points = []
    for second in np.unique(seconds):
        rows = by_crop[seconds == second]
        seen = ~np.isnan(rows)
        n = seen.sum(axis=0)
        mean = np.divide(np.where(seen, rows, 0).sum(axis=0), n, out=np.full(len(n), np.nan), where=n > 0)
        probability = float(apply_ensemble(ensemble, mean[None, :])[1][0])
        if not math.isnan(probability):
            points.append(TimelinePoint(second=int(second), probability=probability, crops=int(n.max())))
    return points


def _known(value: Any) -> float | None:
    """Turn the NaN of an array into None."""
    return None if math.isnan(value) else float(value)


def _null_reason(code: str | None) -> str | None:
    """Put the sentence of the catalogue behind the code of a missing value."""
    return f"{code}: {NULL_REASONS[code]}" if code is not None and code in NULL_REASONS else code


def _session(content: bytes, threads: int, providers: list[str]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=providers)


def _check_extractor(manifest: Manifest, folder: Path) -> None:
    if manifest.extractor_version != EXTRACTOR_VERSION:
        raise ContractError(
            folder / MANIFEST,
            "extractor_version",
            f"is {manifest.extractor_version}; this unmask measures with {EXTRACTOR_VERSION}",
            f"Score with unmask {manifest.unmask_version}, or train and bundle anew with this version.",
        )


def _parse_extract(content: bytes, folder: Path) -> ExtractConfig:
    try:
        return ExtractConfig.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        raise ContractError(
            folder / EXTRACT, ".".join(map(str, first["loc"])), first["msg"], "Bundle anew with this version."
        ) from error
