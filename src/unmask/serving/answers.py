"""What the server says about a file, beyond the verdict: in plain words, with times, faces and reliability."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from unmask.deployment.evidence import EVIDENCE, EvidenceInfo
from unmask.deployment.examine import Examined
from unmask.deployment.runtime import Bundle
from unmask.deployment.verdict import Verdict
from unmask.schemas import Document, Estimate, sha256_file
from unmask.serving.models import Version

SHOWN_FACES = 6
# A stretch is told of when the detectors alone would call it more likely fake than not.
SUSPICIOUS = 0.5


class MediaSummary(Document):
    """What the file is, by its content.

    Attributes:
        container: Format of the file.
        codec: Of picture or sound.
        size_bytes: Of the file.
        width_px: Displayed width.
        height_px: Displayed height.
        duration_s: Of a video or sound.
        fps: Frames a second of a video.
    """

    container: str
    codec: str
    size_bytes: int = Field(ge=0)
    width_px: int | None = None
    height_px: int | None = None
    duration_s: float | None = None
    fps: float | None = None


class Timing(Document):
    """Where the time went, in seconds of wall time.

    Attributes:
        waiting: For a free decoding process.
        measuring: Decoding, faces, features.
        judging: Detectors and fusion.
        total: All of it, without the upload.
    """

    waiting: float = Field(ge=0)
    measuring: float = Field(ge=0)
    judging: float = Field(ge=0)
    total: float = Field(ge=0)


class FaceCrop(Document):
    """A face crop that the answer rests on.

    Attributes:
        index: Of the crop in ``/v1/analyses/{id}/faces/{index}``.
        time_s: In the video; 0 for images.
        person: 0 is the face with the largest area over time.
        probability: P(fake) by the detectors alone; null where none looked.
    """

    index: int = Field(ge=0)
    time_s: float = Field(ge=0)
    person: int = Field(ge=0)
    probability: float | None = None


class Stretch(Document):
    """Seconds in a row in which the detectors alone see a fake.

    Attributes:
        start_s: First second.
        end_s: End of the last one.
        probability: The highest in it.
    """

    start_s: int = Field(ge=0)
    end_s: int = Field(ge=1)
    probability: float = Field(ge=0, le=1)


class Analysis(Verdict):
    """The verdict, and what a person or program needs besides.

    Attributes:
        id: Names this answer in feedback, faces and report.
        arm: Role of the version that answered.
        summary: Two or three sentences for people who are not engineers.
        media: What the file is.
        stretches: Suspicious parts of a video.
        faces: The crops that speak most for a fake, then those that speak least; at most six.
        timing: Where the time went.
        kept: Whether the upload is kept, because its sender agreed.
    """

    id: str
    arm: Literal["champion", "challenger"]
    summary: str
    media: MediaSummary | None = None
    stretches: list[Stretch] = Field(default_factory=list)
    faces: list[FaceCrop] = Field(default_factory=list)
    timing: Timing
    kept: bool = False


class PointInfo(Document):
    """A threshold and how it did on calibration material.

    Attributes:
        name: Of the operating point.
        threshold: Fake from this probability on.
        false_positive_rate: Of reals, with interval.
        true_positive_rate: Of fakes, with interval.
        note: What a reader must know.
    """

    name: str
    threshold: float
    false_positive_rate: Estimate
    true_positive_rate: Estimate
    note: str = ""


class FiguresOnTest(Document):
    """How a version did on test material, which nothing was fitted on.

    Attributes:
        n: Files with a score.
        false_positive_rate: Of reals at the threshold in use, with interval.
        true_positive_rate: Of fakes at the threshold in use, with interval.
        roc_auc: How well it ranks: 0.5 is guessing, 1 is perfect.
        slices: Kind of material, for example ``manipulation=FaceSwap``, to how well it ranks there.
        warnings: What a reader of the figures must know.
    """

    n: int
    false_positive_rate: Estimate
    true_positive_rate: Estimate
    roc_auc: Estimate
    slices: dict[str, Estimate] = Field(default_factory=dict)
    warnings: list[str] = Field(default_factory=list)


class ModelInfo(Document):
    """A version that answers.

    Attributes:
        arm: Its role.
        version: Its name.
        since: Seconds since the epoch when it began to answer.
        detectors: Their names.
        features: Inputs of fusion; empty when the verdict rests on the detectors alone.
        modalities: What it can judge.
        operating_point: The threshold that verdicts use, with the rates on calibration material.
        test: How it did on test material; null when the bundle does not carry it.
        dataset_version: Of the training data.
        unmask_version: That made it.
        problem: Why a newer version does not answer; null when all is well.
    """

    arm: Literal["champion", "challenger"]
    version: str
    since: float
    detectors: list[str]
    features: list[str]
    modalities: list[Literal["image", "video", "audio"]]
    operating_point: PointInfo
    test: FiguresOnTest | None = None
    dataset_version: str
    unmask_version: str
    problem: str | None = None


class ModelsInfo(Document):
    """All versions that answer.

    Attributes:
        models: The champion first.
        challenger_share: Share of callers that the challenger answers.
        shadow: Whether the other version judges too.
    """

    models: list[ModelInfo]
    challenger_share: float
    shadow: bool


def media_summary(examined: Examined) -> MediaSummary:
    """Sum up what the file is."""
    facts = examined.facts
    return MediaSummary(
        container=facts.container,
        codec=facts.codec,
        size_bytes=facts.size_bytes,
        width_px=facts.width_px,
        height_px=facts.height_px,
        duration_s=facts.duration_s,
        fps=facts.fps,
    )


def shown_faces(examined: Examined, probabilities: NDArray[np.float64]) -> list[FaceCrop]:
    """Choose the crops to show: mostly those that speak for a fake, and one or two of the others to compare."""
    order = [int(index) for index in np.argsort(-probabilities, kind="stable") if math.isfinite(probabilities[index])]
    chosen = order if len(order) <= SHOWN_FACES else order[: SHOWN_FACES - 2] + order[-2:]
    crops = examined.measurement.crops
    return [
        FaceCrop(
            index=index,
            time_s=crops[index].time_s,
            person=crops[index].face_index,
            probability=float(probabilities[index]),
        )
        for index in chosen
    ]


def suspicious_stretches(verdict: Verdict) -> list[Stretch]:
    """Join seconds in a row in which the detectors see a fake."""
    stretches: list[Stretch] = []
    for point in verdict.timeline:
        if point.probability < SUSPICIOUS:
            continue
        last = stretches[-1] if stretches else None
        if last is not None and last.end_s == point.second:
            highest = max(last.probability, point.probability)
            stretches[-1] = Stretch(start_s=last.start_s, end_s=point.second + 1, probability=highest)
        else:
            stretches.append(Stretch(start_s=point.second, end_s=point.second + 1, probability=point.probability))
    return stretches


def in_words(verdict: Verdict) -> str:
    """Say a verdict in plain words.

    Args:
        verdict: The verdict.

    Returns:
        Two or three sentences.
    """
    what = {"image": "picture", "video": "video", "audio": "recording"}.get(verdict.modality or "", "file")
    if verdict.probability is None:
        reason = (verdict.reason or "no reason given").partition(": ")[2] or verdict.reason
        return f"This {what} could not be judged: {reason}."
    chance = in_hundred(verdict.probability)
    if verdict.verdict == "uncertain":
        return (
            f"The detectors contradict each other about this {what}, so there is no verdict. Their joint estimate is "
            f"that {chance} such files are fakes. Do not rest a decision on it."
        )
    side = "at or above" if verdict.probability >= verdict.threshold else "below"
    seen = "shows traces of forgery" if verdict.verdict == "fake" else "shows no clear trace of forgery"
    meaning = f"Of files that look like this to the detectors, {chance} are fakes"
    if verdict.method == "fallback":
        meaning = (
            f"The estimate is {100 * verdict.probability:.0f} %, an average by written weights, because there were too "
            "few labelled files to learn what it means"
        )
    sentences = [f"This {what} {seen}. {meaning}; that is {side} the threshold of {100 * verdict.threshold:.0f} %."]
    if abs(verdict.probability - verdict.threshold) < 0.1:
        sentences.append("It is close to the threshold: small changes of the file could turn the verdict.")
    if verdict.verdict == "real":
        sentences.append("That nothing was found is no proof that it is genuine.")
    return " ".join(sentences)


def in_hundred(probability: float) -> str:
    """Say a probability as a frequency, which people read more rightly (Gigerenzer & Hoffrage 1995)."""
    count = round(100 * probability)
    if count <= 0:
        return "fewer than 1 in 100"
    return "more than 99 in 100" if count >= 100 else f"about {count} in 100"


def model_info(version: Version, arm: Literal["champion", "challenger"], problem: str | None) -> ModelInfo:
    """Describe a version."""
    bundle: Bundle = version.bundle
    point = bundle.operating_point
    fused = bundle.fusion.inputs if bundle.fusion.used else []
    return ModelInfo(
        arm=arm,
        version=version.name,
        since=version.since,
        detectors=list(bundle.ensemble.detectors),
        features=[name for name in fused if name != "ensemble" and not name.startswith("missing:")],
        modalities=bundle.modalities,
        operating_point=PointInfo(
            name=point.name,
            threshold=point.threshold,
            false_positive_rate=point.fpr,
            true_positive_rate=point.tpr,
            note=point.note,
        ),
        test=_test_figures(bundle),
        dataset_version=bundle.manifest.dataset_version,
        unmask_version=bundle.manifest.unmask_version,
        problem=problem,
    )


def _test_figures(bundle: Bundle) -> FiguresOnTest | None:
    """Read the evidence that a bundle carries, if it is still that of this bundle."""
    path = bundle.folder / EVIDENCE
    expected = bundle.manifest.files.get(EVIDENCE)
    if expected is None or not path.is_file() or sha256_file(path) != expected:
        return None
    evidence = EvidenceInfo.load(path)
    unknown = Estimate(value=None, n=0)
    return FiguresOnTest(
        n=evidence.n_scored,
        false_positive_rate=evidence.operating_point.fpr,
        true_positive_rate=evidence.operating_point.tpr,
        roc_auc=evidence.figures.get("roc_auc", unknown),
        slices={name: figures["roc_auc"] for name, figures in evidence.slices.items() if "roc_auc" in figures},
        warnings=evidence.warnings,
    )
