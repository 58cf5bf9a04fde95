"""The verdict and how it reads."""

from __future__ import annotations

import pytest

from unmask.deployment.verdict import WIDTH, DetectorEvidence, FeatureEvidence, Verdict, decide, render_text

LONG = "a reason that goes on and on, with numbers such as 12.5 and 99, so that it must be wrapped " * 3


def full(**changes: object) -> Verdict:
    values: dict[str, object] = {
        "file": "clip.mp4",
        "modality": "video",
        "verdict": "fake",
        "probability": 0.9312,
        "operating_point": "max_f1",
        "threshold": 0.42,
        "agreement": 1.0,
        "ensemble_probability": 0.88,
        "ensemble_contribution": 1.25,
        "detectors": [
            DetectorEvidence(name="meso4", probability=0.81, weight=0.25, frames=8),
            DetectorEvidence(name="timm:" + "long_name_" * 6, probability=None, weight=0.75, frames=0),
        ],
        "features": [
            FeatureEvidence(
                name="quality.blur",
                title="Sharpness",
                meaning="High is sharp, low is blurred.",
                unit="log10 of grey levels squared",
                value=2.5,
                usual_low=1.0,
                usual_high=3.0,
                contribution=-0.4,
            ),
            FeatureEvidence(
                name="temp.rppg",
                title="Pulse in the skin",
                meaning="High is sharp, low is blurred.",
                unit="dB",
                value=None,
                reason="too_short: 2.1 s of a usable face, 5 s are needed",
            ),
            FeatureEvidence(
                name="face.eye_blink",
                title="Blinks",
                meaning="High is sharp, low is blurred.",
                unit="1/min",
                value=None,
                reason="too_short: 2.1 s of a usable face, 5 s are needed",
            ),
        ],
        "warnings": [LONG],
        "model_version": "abc",
        "seconds": 1.234,
    }
    return Verdict.model_validate({**values, **changes})


@pytest.mark.parametrize(
    ("probability", "agreement", "expected"),
    [
        (0.6, 1.0, "fake"),
        (0.5, 1.0, "fake"),
        (0.4999, 1.0, "real"),
        (0.9, 0.79, "uncertain"),
        (0.1, 0.5, "uncertain"),
        (0.9, 0.8, "fake"),
        (0.9, None, "fake"),
        (None, None, "not scored"),
        (None, 1.0, "not scored"),
    ],
)
def test_decision(probability: float | None, agreement: float | None, expected: str) -> None:
    verdict, reason = decide(probability, 0.5, agreement, 0.8)
    assert verdict == expected
    assert (reason is not None) == (expected == "uncertain")


def test_text_says_what_the_document_says() -> None:
    text = render_text(full())
    assert "FAKE" in text
    assert "93.1%" in text
    assert "42.0%" in text
    assert "'max_f1'" in text
    assert "at or above" in text
    assert "real -0.40" in text
    assert "1 … 3" in text
    assert "Sharpness: High is sharp" in text
    assert "answered in 1.2 s" in text


def test_a_probability_just_below_the_threshold_does_not_read_as_equal() -> None:
    text = render_text(full(verdict="real", probability=0.50066, threshold=0.50131))
    assert "50.07%" in text
    assert "50.13%" in text


def test_text_fits_a_terminal() -> None:
    for verdict in (
        full(),
        full(reason=LONG, verdict="uncertain"),
        full(probability=None, verdict="not scored", reason=LONG),
    ):
        assert max(map(len, render_text(verdict).splitlines())) <= WIDTH


def test_one_cause_is_told_once() -> None:
    text = render_text(full())
    assert text.count("5 s are needed") == 1
    assert "Pulse in the skin, Blinks" in text


def test_not_scored_shows_no_probability() -> None:
    bare = Verdict(
        file="x",
        modality=None,
        verdict="not scored",
        probability=None,
        reason="corrupt: no known media format",
        operating_point="max_f1",
        threshold=0.5,
        model_version="abc",
        seconds=0.1,
    )
    text = render_text(bare)
    assert "NOT SCORED — no known media format [corrupt]" in text
    assert "%" not in text


@pytest.mark.parametrize("probability", [0.0, 1.0])
def test_extremes(probability: float) -> None:
    text = render_text(full(probability=probability, threshold=probability, ensemble_probability=probability))
    assert f"{probability:.1%}" in text


def test_json_round_trip() -> None:
    verdict = full()
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
