"""A bundle with a detector that listens: recordings get a verdict, and videos are judged by what there is of them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import simplejpeg
from release_parts import Parts, make_detector, write_parts
from scipy.special import expit
from sounds import tone, write_sound

from unmask.deployment.examine import examine
from unmask.deployment.example import check_example
from unmask.deployment.rescoring import CropScorer
from unmask.deployment.runtime import Bundle
from unmask.deployment.verdict import render_text
from unmask.detectors import score_images
from unmask.ensemble.apply import apply_ensemble, part_of
from unmask.features import Measurement
from unmask.media.probe import MediaFacts
from unmask.media.sound import WINDOW_SAMPLES
from unmask.schemas import FACES, WINDOWS, SoundPreprocessing, write_table
from unmask.serving.decoder import from_json, to_json
from unmask.serving.heatmap import occlusion_map
from unmask.serving.models import self_test

SECONDS = 10.0
FACTS = MediaFacts("audio", "wav", 1, None, None, None, SECONDS, None, "pcm_s16le", None, 16_000, True, 0)


def speech(seconds: float = SECONDS) -> np.ndarray:
    rng = np.random.default_rng(4)
    samples = tone(seconds, 180).astype(float) + tone(seconds, 540) / 3 + 900 * rng.standard_normal(len(tone(seconds)))
    return np.int16(np.clip(samples, -32767, 32767))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    parts = write_parts(tmp_path_factory.mktemp("both"), ("lcnn", "meso4"))
    parts.write_bundle()
    return parts


@pytest.fixture(scope="module")
def bundle(both: Parts) -> Bundle:
    return Bundle.load(both.bundle)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_sound(tmp_path_factory.mktemp("sound") / "voice.wav", speech())


def test_a_recording_gets_the_verdict_of_the_detectors_that_listen(bundle: Bundle, recording: Path) -> None:
    verdict = bundle.score(recording)
    starts = [round(share * (160_000 - WINDOW_SAMPLES)) for share in (0, 0.5, 1)]
    windows = [speech()[start : start + WINDOW_SAMPLES] for start in starts]
    logit = score_images(make_detector(0, "lcnn"), windows).mean()
    assert verdict.modality == "audio"
    assert verdict.verdict in ("real", "fake")
    assert verdict.ensemble_probability == pytest.approx(expit(logit / 1.5 / 0.8), abs=1e-4)
    assert verdict.agreement == 1
    evidence = {one.name: one for one in verdict.detectors}
    assert (evidence["lcnn"].modality, evidence["lcnn"].frames) == ("audio", 3)
    assert evidence["lcnn"].probability == pytest.approx(expit(logit / 1.5), abs=1e-4)
    assert (evidence["meso4"].probability, evidence["meso4"].frames) == (None, 0)
    assert [point.second for point in verdict.timeline] == list(range(10))
    assert "lcnn" in render_text(verdict)


def test_a_video_without_sound_is_judged_by_its_faces_alone(bundle: Bundle, clip: Path) -> None:
    verdict = bundle.score(clip)
    assert verdict.probability is not None
    known = {one.name for one in verdict.detectors if one.probability is not None}
    assert known == {"meso4"} if not has_sound(clip) else {"meso4", "lcnn"}


def has_sound(path: Path) -> bool:
    with av.open(str(path)) as container:
        return bool(container.streams.audio)


def test_what_cannot_be_heard_is_not_scored(bundle: Bundle, tmp_path: Path) -> None:
    silent = bundle.score(write_sound(tmp_path / "a.wav", np.zeros(40_000, np.int16)))
    assert (silent.verdict, silent.probability) == ("not scored", None)
    assert (silent.reason or "").startswith("silent: ")
    short = bundle.score(write_sound(tmp_path / "b.wav", speech(1.0)))
    assert short.probability is not None
    assert any("repeated" in warning for warning in short.warnings)


def test_the_bundle_says_what_it_can_judge_and_proves_that_it_arrived_whole(bundle: Bundle, both: Parts) -> None:
    assert bundle.modalities == ["image", "video", "audio"]
    assert isinstance(bundle.manifest.preprocessing["lcnn"], SoundPreprocessing)
    assert max(bundle.manifest.parity.values()) < 1e-3
    assert check_example(bundle)
    example = json.loads((both.bundle / "example.json").read_text())
    assert len(example["sounds"]) == len(example["logits"]["lcnn"]) == 2
    self_test(bundle)


def test_a_bundle_that_only_listens_judges_recordings_and_the_sound_of_videos(
    tmp_path: Path, recording: Path, clip: Path
) -> None:
    parts = write_parts(tmp_path, ("lcnn",))
    bundle = Bundle.load(parts.write_bundle())
    assert bundle.modalities == ["video", "audio"]
    assert bundle.score(recording).probability is not None
    self_test(bundle)
    film = bundle.score(clip)
    assert (film.probability is not None) == has_sound(clip)
    assert (film.reason is None) == has_sound(clip)
    picture = bundle._why_unscored(dataclasses.replace(FACTS, modality="image"), Measurement({}, {}))
    assert picture.startswith("no_sound: ")


def test_a_heat_map_asks_those_that_look(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    jpeg = simplejpeg.encode_jpeg(rng.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    assert np.isfinite(occlusion_map(bundle, jpeg, 3)).all()


def test_windows_survive_the_way_out_of_the_decoder(bundle: Bundle, recording: Path) -> None:
    examined = examine(recording, bundle.extract)
    assert len(examined.measurement.windows) == 3
    assert from_json(json.loads(json.dumps(to_json(examined)))) == examined


def test_stored_windows_give_the_scores_of_the_file(
    bundle: Bundle, both: Parts, recording: Path, tmp_path: Path
) -> None:
    identity = {"sample_id": "a" * 16, "label": 0, "group_id": "g", "split": "test"}
    rows = [identity | window.__dict__ for window in examine(recording, bundle.extract).measurement.windows]
    write_table(tmp_path / "part-00000.parquet", FACES.empty(), FACES)
    write_table(tmp_path / "windows" / "part-00000.parquet", pd.DataFrame(rows), WINDOWS)
    scores = CropScorer(both.bundle).score(tmp_path, None, ["a" * 16, "b" * 16])
    assert scores == {"a" * 16: pytest.approx(bundle.score(recording).ensemble_probability, abs=1e-6)}


def test_part_of_an_ensemble_is_the_ensemble_without_the_others_scores(bundle: Bundle) -> None:
    logits = np.array([[1.3, np.nan], [-2.0, np.nan]])
    whole = apply_ensemble(bundle.ensemble, logits)[1]
    part = apply_ensemble(part_of(bundle.ensemble, ["lcnn"]), logits[:, :1])[1]
    np.testing.assert_allclose(part, whole, rtol=1e-12)
