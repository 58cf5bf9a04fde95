"""An example of an answer for the description of the interface, made by the same code that makes real answers."""

from __future__ import annotations

from unmask.deployment.verdict import DetectorEvidence, FeatureEvidence, Verdict, decide
from unmask.features.catalogue import CATALOGUE, NULL_REASONS
from unmask.serving.answers import Analysis, FaceCrop, MediaSummary, Timing, in_words

_PROBABILITY = 0.8937
_THRESHOLD = 0.5
_AGREEMENT = 0.97
# Measured on one picture, with the usual range of real pictures and the push towards fake; the others need a film.
_MEASURED = {
    "quality.blur": (2.059, 1.31, 3.02, -0.06),
    "quality.brisque": (22.42, 9.8, 41.5, None),
    "quality.bitrate": (1.345, 0.62, 2.9, None),
    "forensics.codec": (0.222, 0.03, 0.41, None),
    "face.mouth_exag": (0.0236, 0.004, 0.31, None),
    "art.edge": (0.0143, 0.011, 0.052, None),
    "art.texture": (5.996, 4.1, 6.8, None),
    "art.color": (15.35, 6.2, 21.7, None),
    "art.freq": (-3.812, -3.31, -2.12, 0.34),
}
_DETECTORS = (("meso4", 0.86, 0.4), ("timm:resnet10t", 0.89, 0.6))


def example_answer() -> Analysis:
    """Make the example: a picture with one face, called a fake.

    Returns:
        An answer in which verdict, words and features fit each other; its numbers are of no real file.
    """
    decision, reason = decide(_PROBABILITY, _THRESHOLD, _AGREEMENT, 0.5)
    timing = Timing(waiting=0.0, measuring=0.058, judging=0.021, total=0.079)
    verdict = Verdict(
        file="portrait.jpg",
        modality="image",
        verdict=decision,
        probability=_PROBABILITY,
        reason=reason,
        operating_point="max_f1",
        threshold=_THRESHOLD,
        agreement=_AGREEMENT,
        ensemble_probability=0.8643,
        ensemble_contribution=1.85,
        detectors=[DetectorEvidence(name=name, probability=p, weight=w, frames=1) for name, p, w in _DETECTORS],
        features=[_feature(name) for name in CATALOGUE],
        method="fusion",
        model_version="unmask-detector version 3",
        seconds=timing.total,
    )
    return Analysis(
        **dict(verdict),
        id="VmuMs3NI_rR8qkBCZ7eWlo_Z",
        arm="champion",
        summary=in_words(verdict),
        media=MediaSummary(container="jpeg_pipe", codec="mjpeg", size_bytes=20804, width_px=256, height_px=256),
        faces=[FaceCrop(index=0, time_s=0.0, person=0, probability=verdict.ensemble_probability)],
        timing=timing,
    )


def _feature(name: str) -> FeatureEvidence:
    spec = CATALOGUE[name]
    value, low, high, push = _MEASURED.get(name, (None, None, None, None))
    return FeatureEvidence(
        name=name,
        title=spec.title,
        meaning=spec.meaning,
        unit=spec.unit,
        bias=spec.bias,
        value=value,
        usual_low=low,
        usual_high=high,
        contribution=push,
        reason=None if value is not None else f"single_image: {NULL_REASONS['single_image']}",
    )
