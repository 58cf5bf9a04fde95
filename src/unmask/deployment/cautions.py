"""What a reader of a verdict must know about the file: too short, few faces, heavy compression, unlike the training."""

from __future__ import annotations

from unmask.config import ExtractConfig, IngestConfig
from unmask.deployment.bundle import FeatureReference
from unmask.features import CATALOGUE, Measurement
from unmask.media.probe import MediaFacts
from unmask.media.sound import SAMPLE_RATE_HZ
from unmask.schemas import OperatingPoint

FEW_FACES_SHARE = 0.5
FEW_CROPS = 4
SMALL_FACE_PX = 64
# H.264 video at c40 of FaceForensics++ has about 0.01 to 0.03 bits per pixel, at c23 about 0.1.
HEAVY_BITS_PER_PIXEL = 0.03
COMPLETE_SHARE = 0.98
SHORT_SOUND_S = 2.0


def cautions(
    facts: MediaFacts,
    measurement: Measurement,
    extract: ExtractConfig,
    reference: FeatureReference,
    point: OperatingPoint,
) -> list[str]:
    """List the cautions for one file.

    Args:
        facts: What the container says.
        measurement: What was decoded and measured.
        extract: How it was measured.
        reference: What training saw.
        point: The operating point of the verdict.

    Returns:
        Sentences; empty when there is nothing to say.
    """
    found = [*_length(facts, measurement), *_faces(facts, measurement, extract), *_compression(facts)]
    found += _sound(facts, measurement)
    found += _unlike_training(measurement, reference)
    if not point.resolvable and point.note:
        found.append(f"The threshold is uncertain: {point.note}")
    return found


def _length(facts: MediaFacts, measurement: Measurement) -> list[str]:
    usual = IngestConfig()
    found = []
    if facts.modality == "image":
        return []
    if facts.duration_s is not None and facts.duration_s < usual.min_duration_s:
        found.append(
            f"Short: {facts.duration_s:.1f} s; below {usual.min_duration_s:g} s the measures over time say little."
        )
    if facts.modality == "video" and facts.fps is not None and facts.fps < usual.min_fps:
        found.append(f"Slow: {facts.fps:.1f} frames per second; motion and pulse need {usual.min_fps:g}.")
    expected, decoded = measurement.n_frames_expected, measurement.n_frames_decoded
    if expected and decoded and decoded < COMPLETE_SHARE * expected:
        found.append(f"Incomplete: {decoded} of {expected} frames could be decoded; the rest was not judged.")
    return found


def _faces(facts: MediaFacts, measurement: Measurement, extract: ExtractConfig) -> list[str]:
    if facts.modality == "audio" or not measurement.crops:
        return []
    found = []
    share = measurement.face_share
    if facts.modality == "video" and share is not None and share < FEW_FACES_SHARE:
        found.append(f"Few faces: one was found in {share:.0%} of the examined frames.")
    if facts.modality == "video" and len(measurement.crops) < min(FEW_CROPS, extract.crops_per_video):
        found.append(f"Few faces: the detectors saw only {len(measurement.crops)} crops.")
    sides = sorted(max(crop.x1_px - crop.x0_px, crop.y1_px - crop.y0_px) for crop in measurement.crops)
    side = sides[len(sides) // 2]
    if side < SMALL_FACE_PX:
        found.append(f"Small face: {side:.0f} pixels; below {SMALL_FACE_PX} fine traces of forgery are lost.")
    return found


def _sound(facts: MediaFacts, measurement: Measurement) -> list[str]:
    if facts.modality != "audio" or not measurement.windows:
        return []
    heard_s = len(measurement.windows[0].pcm) / 2 / SAMPLE_RATE_HZ
    if len(measurement.windows) > 1 or heard_s >= SHORT_SOUND_S:
        return []
    return [f"Little sound: {heard_s:.1f} s; it was repeated to fill the window that the detectors listen to."]


def _compression(facts: MediaFacts) -> list[str]:
    if facts.modality != "video" or not (facts.bitrate_bps and facts.width_px and facts.height_px and facts.fps):
        return []
    bits = facts.bitrate_bps / (facts.width_px * facts.height_px * facts.fps)
    if bits >= HEAVY_BITS_PER_PIXEL:
        return []
    return [f"Heavy compression: {bits:.3f} bits per pixel; it hides traces of forgery and makes traces of its own."]


def _unlike_training(measurement: Measurement, reference: FeatureReference) -> list[str]:
    outside = []
    for name, value in measurement.features.items():
        known = reference.features.get(name)
        if value is None or known is None or known.low is None or known.high is None:
            continue
        # A small set sees a small range: leave its width again on either side before calling a file unlike it.
        margin = known.high - known.low
        if not known.low - margin <= value <= known.high + margin:
            outside.append(CATALOGUE[name].title if name in CATALOGUE else name)
    if not outside:
        return []
    return [f"Unlike the training material in: {', '.join(outside)}. The probability may be off."]
