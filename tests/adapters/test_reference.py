"""What a registered version leaves behind, and the retraining decision that is made with it, in a real registry."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import simplejpeg
from click.testing import CliRunner

pytest.importorskip("mlflow")

from unmask.adapters.reference import attach_reference, find_reference
from unmask.adapters.tracking import run_promote
from unmask.cli import cli
from unmask.config import PromoteConfig
from unmask.schemas import (
    FACES,
    FEATURES,
    SAMPLES,
    DatasetInfo,
    ExtractionInfo,
    RetrainingDecision,
    read_table,
    write_table,
)

N_KNOWN, N_NEW, CROPS = 120, 120, 2


def write_data(root: Path, parts: Any, made: ModuleType, n: int) -> Path:
    """Write data set, features and crops of ``n`` samples, each in a group of its own, half of them fake."""
    rng = np.random.default_rng(3)
    number = np.arange(n)
    ids = [hashlib.sha256(f"{index}".encode()).hexdigest()[:16] for index in number]
    common = {"sample_id": ids, "label": number % 2, "group_id": [f"g{index}" for index in number], "split": "train"}
    template = made.sample_rows().iloc[:1].reset_index(drop=True)
    samples = pd.concat([template] * n, ignore_index=True).assign(
        **common, sha256=[hashlib.sha256(f"file {index}".encode()).hexdigest() for index in number]
    )
    write_table(root / "dataset" / "samples.parquet", samples, SAMPLES)
    info = DatasetInfo.load(parts.root / "dataset" / "dataset.json")
    info.model_copy(update={"version": f"data-of-{n}"}).save(root / "dataset" / "dataset.json")
    row = read_table(parts.root / "features" / "features.parquet", FEATURES).to_pandas().iloc[:1]
    measured = {made.BLUR: rng.normal(2, 0.5, n), made.PULSE: rng.normal(-3, 1, n)}
    features = pd.concat([row] * n, ignore_index=True).assign(**common, **measured)
    write_table(root / "features" / "features.parquet", features, FEATURES)
    ExtractionInfo.load(parts.root / "features" / "extraction.json").save(root / "features" / "extraction.json")
    crops = pd.DataFrame(common).loc[np.repeat(number, CROPS)].reset_index(drop=True)
    size = made.EXTRACT.crop_size_px
    jpegs = [simplejpeg.encode_jpeg(rng.integers(0, 255, (size, size, 3), np.uint8)) for _ in range(len(crops))]
    box = dict.fromkeys(("time_s", "x0_px", "y0_px"), 0.0) | dict.fromkeys(("x1_px", "y1_px", "confidence"), 1.0)
    crops = crops.assign(frame_index=np.tile(np.arange(CROPS), n), face_index=0, **box, yaw_deg=None, jpeg=jpegs)
    write_table(root / "faces" / "part-00000.parquet", crops, FACES)
    return root


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, release_parts: ModuleType) -> Any:
    made = release_parts.write_parts(tmp_path_factory.mktemp("release"))
    made.write_bundle()
    return made


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory, parts: Any, release_parts: ModuleType) -> str:
    """A challenger that has seen the first samples."""
    root = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    run_promote(**parts.inputs(), tracking_uri=uri, out=root / "decision", config=PromoteConfig())
    known = write_data(root / "known", parts, release_parts, N_KNOWN)
    for _ in range(2):  # the second time it is there
        attach_reference(root / "decision", known / "dataset", known / "features")
    return uri


def test_a_version_leaves_samples_features_and_scores_behind(registry: str, release_parts: ModuleType) -> None:
    found = find_reference("unmask-detector", registry, PromoteConfig())
    assert found is not None
    assert (found.version, found.alias) == ("1", "challenger")
    assert found.age_days < 1
    assert found.dataset_version == release_parts.DATASET_VERSION
    assert found.known is not None
    assert len(found.known) == N_KNOWN
    assert found.features is not None
    assert {"label", "group_id", release_parts.BLUR, release_parts.PULSE} <= set(found.features.columns)
    assert found.scores is not None
    assert list(found.scores.columns) == ["label", "group_id", "score"]
    assert len(found.scores) == release_parts.N_TEST
    assert find_reference("another-model", registry, PromoteConfig()) is None


def decide(registry: str, data: Path, out: Path, *options: str) -> RetrainingDecision:
    folders = [f"--{name}={data / name}" for name in ("dataset", "features")]
    bounds = ["--set", "retraining.min_new_share=10", "--set", "extract.crops_per_video=12"]
    bounds += ["--set", "extract.crop_size_px=128", *options]
    done = CliRunner().invoke(
        cli, ["decide-retraining", *folders, "--tracking-uri", registry, "--out", str(out), *bounds]
    )
    assert done.exit_code == 0, done.output
    return RetrainingDecision.load(out / "retraining.json")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory, parts: Any, release_parts: ModuleType) -> Path:
    """The same samples and as many more; their features are alike, but their crops are noise."""
    return write_data(tmp_path_factory.mktemp("grown"), parts, release_parts, N_KNOWN + N_NEW)


def test_new_samples_are_scored_by_the_registered_version(registry: str, grown: Path, tmp_path: Path) -> None:
    decision = decide(registry, grown, tmp_path / "out", f"--faces={grown / 'faces'}")
    assert (decision.n_known, decision.n_new) == (N_KNOWN, N_NEW)
    scores = {entry.label: entry for entry in decision.drift if entry.name == "score"}
    assert {label: entry.n_new for label, entry in scores.items()} == {"real": N_NEW // 2, "fake": N_NEW // 2}
    assert all(entry.drifted for entry in scores.values())  # on test it was sure, on noise it cannot be
    assert not any(entry.drifted for entry in decision.drift if entry.name != "score")
    assert decision.retrain
    assert "the version's own score" in decision.reason


def test_without_crops_or_with_others_the_rest_still_decides(registry: str, grown: Path, tmp_path: Path) -> None:
    without = decide(registry, grown, tmp_path / "without")
    other = decide(registry, grown, tmp_path / "other", f"--faces={grown / 'faces'}", "--set", "extract.crop_scale=1.5")
    for decision in (without, other):
        assert not decision.retrain
        assert any("Drift of scores was not judged" in note for note in decision.notes)
    assert any("crop_scale" in note for note in other.notes)
