"""Scoring with a bundle: equal to torch and to hand-made arithmetic, honest about what it cannot do, and torch-free."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from release_parts import BLUR, EVAL_FRAMES, EXTRACT, POINT, PULSE, Parts, fusion_info, make_detector

from unmask.deployment.bundle import FeatureRange, FeatureReference
from unmask.deployment.cautions import cautions
from unmask.deployment.examine import ANY_LENGTH
from unmask.deployment.runtime import Bundle, evenly_spaced
from unmask.deployment.verdict import Verdict, render_text
from unmask.detectors import score_images
from unmask.errors import ContractError, InputError
from unmask.features import CATALOGUE, EXTRACTOR_VERSION, Measurement, measure
from unmask.media.preprocessing import decode_crop
from unmask.media.probe import MediaFacts, probe
from unmask.schemas import DetectorCalibration, EnsembleInfo, Estimate, FusionRules, RealEvidence
from unmask.training.loader import evenly_spaced_rows


@pytest.fixture(scope="module")
def bundle(parts: Parts) -> Bundle:
    return Bundle.load(parts.bundle)


@pytest.fixture(scope="module")
def verdict(bundle: Bundle, clip: Path) -> Verdict:
    return bundle.score(clip)


@pytest.fixture(scope="module")
def measurement(clip: Path) -> Measurement:
    return measure(clip, "video", EXTRACT)


def sigmoid(logit: float) -> float:
    return float(1 / (1 + np.exp(-logit)))


def test_probability_is_that_of_torch_and_arithmetic(verdict: Verdict, measurement: Measurement) -> None:
    """Recompute everything from the crops on, with torch and written-out formulas."""
    crops = [crop for crop in measurement.crops if crop.face_index == 0]
    assert len(crops) == len(measurement.crops) == 12
    picked = [1, 3, 6, 8, 10]  # the middles of five equal stretches of twelve
    images = [decode_crop(crops[index].jpeg) for index in picked]
    logits = [score_images(make_detector(seed), images).mean() for seed in (0, 1)]
    combined = 0.5 * logits[0] / 1.5 + 0.5 * logits[1] / 1.5
    assert verdict.ensemble_probability == pytest.approx(sigmoid(combined / 0.8), abs=1e-5)
    info = fusion_info()
    blur, pulse = measurement.features[BLUR], measurement.features[PULSE]
    assert pulse is None
    values = [combined, blur, info.impute[2], 1.0]
    standard = [(value - center) / scale for value, center, scale in zip(values, info.center, info.scale, strict=True)]
    linear = info.intercept + sum(c * z for c, z in zip(info.coefficients, standard, strict=True))
    assert verdict.probability == pytest.approx(sigmoid(0.9 * linear - 0.1), abs=1e-5)
    assert [detector.probability for detector in verdict.detectors] == pytest.approx(
        [sigmoid(logit / 1.5) for logit in logits], abs=1e-5
    )
    assert [detector.frames for detector in verdict.detectors] == [EVAL_FRAMES, EVAL_FRAMES]


def test_calibration_of_a_detector_is_that_of_the_ensemble(bundle: Bundle, verdict: Verdict, clip: Path) -> None:
    platt = DetectorCalibration(kind="platt", slope=2.0, offset=-0.5)
    changed = bundle.ensemble.model_copy(update={"calibrations": [platt, platt]})
    other = dataclasses.replace(bundle, ensemble=changed).score(clip)
    for before, after in zip(verdict.detectors, other.detectors, strict=True):
        assert before.probability is not None
        logit = 1.5 * np.log(before.probability / (1 - before.probability))
        assert after.probability == pytest.approx(sigmoid(2 * logit - 0.5))


def test_verdict_holds_all_features(verdict: Verdict, measurement: Measurement) -> None:
    assert [feature.name for feature in verdict.features] == list(CATALOGUE)
    by_name = {feature.name: feature for feature in verdict.features}
    for name, value in measurement.features.items():
        assert by_name[name].value == (None if value is None else pytest.approx(value, rel=1e-6))
        assert (by_name[name].reason is None) == (value is not None)
    # Only the two features of the fusion push; for the missing one it is its absence that does.
    pushing = {name for name, feature in by_name.items() if feature.contribution is not None}
    assert pushing == {BLUR, PULSE}
    assert by_name[PULSE].contribution == pytest.approx(0.9 * 0.15 * (1 - 0.5) / 0.5)
    assert by_name[BLUR].usual_low is not None
    assert (by_name[PULSE].reason or "").startswith("too_short: ")


def test_contributions_sum_to_the_probability(verdict: Verdict) -> None:
    info = fusion_info()
    total = info.calibration_slope * info.intercept + info.calibration_offset
    total += verdict.ensemble_contribution or 0.0
    total += sum(feature.contribution or 0.0 for feature in verdict.features)
    assert sigmoid(total) == pytest.approx(verdict.probability)


def test_same_file_same_verdict(bundle: Bundle, verdict: Verdict, clip: Path) -> None:
    again = bundle.score(clip)
    assert again.probability == verdict.probability
    assert again.detectors == verdict.detectors
    assert again.warnings == verdict.warnings


def test_operating_point_is_the_stored_one(verdict: Verdict) -> None:
    assert (verdict.operating_point, verdict.threshold) == (POINT.name, POINT.threshold)
    assert verdict.probability is not None
    assert verdict.verdict == ("fake" if verdict.probability >= POINT.threshold else "real")


def test_disagreement_is_uncertain(bundle: Bundle, verdict: Verdict, clip: Path) -> None:
    """Two detectors are made equally sure of opposite sides, and then of the same side."""
    raw = [1.5 * np.log(one.probability / (1 - one.probability)) for one in verdict.detectors if one.probability]
    for wanted, agreement in (((2.0, -2.0), 0.5), ((2.0, 1.0), 1.0)):
        moved = bundle.ensemble.model_copy(
            update={"temperatures": [float(z / to) for z, to in zip(raw, wanted, strict=True)]}
        )
        judged = dataclasses.replace(bundle, ensemble=moved).score(clip)
        assert judged.agreement == pytest.approx(agreement)
        assert (judged.verdict == "uncertain") == (agreement < 0.8)
        assert (judged.reason or "").startswith("detectors_disagree: ") == (agreement < 0.8)


def test_a_rule_is_shown_with_what_it_did(bundle: Bundle, verdict: Verdict, clip: Path) -> None:
    """A cap by camera evidence: sharpness stands in for a sign that this clip has."""
    nothing = Estimate(value=None, n=0)
    rule = RealEvidence(bounds={BLUR: -10.0}, higher={BLUR: True}, count=1, cap=0.01, reals=nothing, fakes=nothing)
    ruled = bundle.fusion.model_copy(update={"rules": FusionRules(real_evidence=rule)})
    other = dataclasses.replace(bundle, fusion=ruled).score(clip)
    assert verdict.rules == []
    assert verdict.probability is not None
    assert other.probability == 0.01
    (shown,) = other.rules
    assert shown.rule == "real_evidence"
    assert shown.change == pytest.approx(0.01 - verdict.probability)
    text = " ".join(render_text(other).split())
    assert "1 strong sign of a camera (Sharpness): the probability is held at 1% or less." in text
    assert "Rules that changed the probability" not in render_text(verdict)


def test_the_fallback_is_named(bundle: Bundle, verdict: Verdict, clip: Path) -> None:
    assert verdict.method == "fusion"
    fallback = bundle.fusion.model_copy(update={"method": "fallback"})
    other = dataclasses.replace(bundle, fusion=fallback).score(clip)
    assert other.method == "fallback"
    assert "Rule-based fallback: no fusion was trained" in render_text(other)
    assert "Rule-based fallback" not in render_text(verdict)


def test_without_fusion_the_ensemble_stands_alone(bundle: Bundle, clip: Path) -> None:
    plain = fusion_info().model_copy(
        update={
            "inputs": ["ensemble"],
            "impute": [0.0],
            "center": [0.0],
            "scale": [1.0],
            "coefficients": [1.0],
            "intercept": 0.0,
            "calibration_slope": 1 / 0.8,
            "calibration_offset": 0.0,
            "used": False,
        }
    )
    verdict = dataclasses.replace(bundle, fusion=plain).score(clip)
    assert verdict.probability == pytest.approx(verdict.ensemble_probability)
    assert verdict.ensemble_contribution is None
    assert all(feature.contribution is None for feature in verdict.features)
    assert "rests on the detectors alone" in render_text(verdict)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.mp4", b"", "empty_file"),
        ("text.mp4", b"this is no film\n" * 50, "unsupported"),
        ("noise.mp4", np.random.default_rng(0).bytes(5000), "corrupt"),
    ],
)
def test_files_that_are_not_media(bundle: Bundle, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    verdict = bundle.score(path)
    assert (verdict.verdict, verdict.probability) == ("not scored", None)
    assert (verdict.reason or "").startswith(f"{reason}: ")
    assert "NOT SCORED" in render_text(verdict)


def test_cut_off_clip(bundle: Bundle, clip: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.mp4"
    content = clip.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    verdict = bundle.score(path)
    assert (verdict.verdict, verdict.probability) == ("not scored", None)
    assert verdict.reason


def test_picture_without_a_face(bundle: Bundle, tmp_path: Path) -> None:
    import cv2

    path = tmp_path / "shade.png"
    cv2.imwrite(str(path), np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    verdict = bundle.score(path)
    assert (verdict.verdict, verdict.probability, verdict.modality) == ("not scored", None, "image")
    assert (verdict.reason or "").startswith("no_face: ")


def test_picture_with_a_face(bundle: Bundle, measurement: Measurement, tmp_path: Path) -> None:
    path = tmp_path / "face.jpg"
    path.write_bytes(measure_wide_crop(measurement))
    verdict = bundle.score(path)
    assert verdict.modality == "image"
    assert verdict.probability is not None
    assert [detector.frames for detector in verdict.detectors] == [1, 1]


def measure_wide_crop(measurement: Measurement) -> bytes:
    import simplejpeg

    image = decode_crop(measurement.crops[0].jpeg)
    wide = np.pad(image, ((64, 64), (64, 64), (0, 0)), mode="edge")
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(wide), quality=95))


def test_sound_is_not_scored(bundle: Bundle, tmp_path: Path) -> None:
    import wave

    path = tmp_path / "tone.wav"
    tone = (np.sin(np.arange(48_000) / 16_000 * 2 * np.pi * 220) * 8000).astype("<i2")
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(16_000)
        stream.writeframes(tone.tobytes())
    verdict = bundle.score(path)
    assert (verdict.verdict, verdict.modality) == ("not scored", "audio")
    assert (verdict.reason or "").startswith("audio: ")


def test_no_such_file(bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        bundle.score(tmp_path / "nothing.mp4")
    with pytest.raises(InputError, match="no file"):
        bundle.score(Path("http://127.0.0.1:1/clip.mp4"))


def test_crops_are_chosen_as_in_training() -> None:
    rng = np.random.default_rng(3)
    for _ in range(200):
        faces = np.repeat(np.arange(3), rng.integers(0, 12, 3))
        wanted = int(rng.integers(1, 10))
        frame = pd.DataFrame({"sample_id": "s", "face_index": faces, "frame_index": np.arange(len(faces))})
        assert evenly_spaced(faces, wanted) == evenly_spaced_rows(frame, wanted).tolist()


# --- cautions --------------------------------------------------------------------------------------------------------


def warn(clip: Path, measurement: Measurement, **changes: object) -> list[str]:
    facts = dataclasses.replace(probe(clip, ANY_LENGTH), **changes)  # type: ignore[arg-type]
    return cautions(facts, measurement, EXTRACT, FeatureReference(splits=("train",), features={}), POINT)


def test_a_good_clip_needs_no_caution(clip: Path, measurement: Measurement) -> None:
    assert warn(clip, measurement) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [({"duration_s": 1.0}, "Short"), ({"fps": 5.0}, "Slow"), ({"bitrate_bps": 1000.0}, "Heavy compression")],
)
def test_cautions_about_the_file(clip: Path, measurement: Measurement, changes: dict[str, object], word: str) -> None:
    assert [text.partition(":")[0] for text in warn(clip, measurement, **changes)] == [word]


def test_cautions_about_the_measurement(clip: Path, measurement: Measurement) -> None:
    few = dataclasses.replace(measurement, face_share=0.2, n_frames_decoded=57)
    assert [text.partition(":")[0] for text in warn(clip, few)] == ["Incomplete", "Few faces"]
    small = [dataclasses.replace(crop, x1_px=crop.x0_px + 20, y1_px=crop.y0_px + 30) for crop in measurement.crops]
    assert warn(clip, dataclasses.replace(measurement, crops=small))[0].startswith("Small face: 30 pixels")
    two = dataclasses.replace(measurement, crops=measurement.crops[:2])
    assert "only 2 crops" in warn(clip, two)[0]


def test_caution_about_material_unlike_training(clip: Path, measurement: Measurement) -> None:
    facts: MediaFacts = probe(clip, ANY_LENGTH)
    blur = measurement.features[BLUR]
    assert blur is not None
    for low, expected in ((blur + 10, True), (blur + 0.5, False)):
        span = FeatureRange(n_real=5, n_fake=5, real=None, fake=None, low=low, high=low + 1)
        reference = FeatureReference(splits=("train",), features={BLUR: span})
        found = cautions(facts, measurement, EXTRACT, reference, POINT)
        assert [CATALOGUE[BLUR].title in text for text in found] == ([True] if expected else [])


def test_caution_about_a_threshold_that_cannot_be_resolved(clip: Path, measurement: Measurement) -> None:
    point = POINT.model_copy(update={"resolvable": False, "note": "only 9 reals"})
    reference = FeatureReference(splits=("train",), features={})
    found = cautions(probe(clip, ANY_LENGTH), measurement, EXTRACT, reference, point)
    assert found == ["The threshold is uncertain: only 9 reals"]


# --- loading ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(parts: Parts, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts.bundle, tmp_path / "copy"))


def test_a_flipped_bit_is_refused(copy: Path) -> None:
    content = bytearray((copy / "meso4.onnx").read_bytes())
    content[-20] ^= 1
    (copy / "meso4.onnx").write_bytes(content)
    with pytest.raises(ContractError, match=r"meso4\.onnx.*SHA-256"):
        Bundle.load(copy)


def test_another_extractor_is_refused(copy: Path) -> None:
    path = copy / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "extractor_version": "0"}))
    with pytest.raises(ContractError, match=f"extractor_version: is 0; this unmask measures with {EXTRACTOR_VERSION}"):
        Bundle.load(copy)


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle folder"):
        Bundle.load(tmp_path / "nothing")


def test_version_names_the_bundle(parts: Parts, bundle: Bundle) -> None:
    assert len(bundle.version) == 12
    assert Bundle.load(parts.bundle, version="champion").version == "champion"


def test_order_of_detectors_is_that_of_the_ensemble(bundle: Bundle, verdict: Verdict) -> None:
    info: EnsembleInfo = bundle.ensemble
    assert [detector.name for detector in verdict.detectors] == info.detectors


def test_scoring_imports_no_training_code(parts: Parts, clip: Path) -> None:
    """A fresh interpreter scores a clip and then looks at what it has imported."""
    code = (
        "import sys; from pathlib import Path\n"
        "from unmask.deployment.runtime import Bundle\n"
        "from unmask.deployment.verdict import render_text\n"
        "verdict = Bundle.load(Path(sys.argv[1])).score(Path(sys.argv[2]))\n"
        "render_text(verdict)\n"
        "heavy = ('torch', 'torchvision', 'timm', 'sklearn', 'optuna', 'mlflow', 'matplotlib', 'onnx', 'kfp')\n"
        "print(verdict.probability, [name for name in heavy if name in sys.modules])\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(parts.bundle), str(clip)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    probability, _, imported = done.stdout.strip().partition(" ")
    assert imported == "[]"
    assert float(probability) == Bundle.load(parts.bundle).score(clip).probability
