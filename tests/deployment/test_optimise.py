"""Smaller detectors: kept only inside the bound, calibrated anew, and never chosen on test."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import simplejpeg
from onnx import numpy_helper
from release_parts import DATASET_VERSION, EXTRACT, Parts, detector_info, make_detector, write_parts

from unmask.adapters.tracking_champion import Left, compare_with
from unmask.adapters.tracking_content import read_release
from unmask.config import BundleConfig, DistillConfig, EnsembleConfig, FusionConfig, TrainConfig
from unmask.deployment.bundle import read_manifest
from unmask.deployment.bundle_stage import run_bundle
from unmask.deployment.evidence import EvidenceInfo
from unmask.deployment.onnx_export import export_onnx, probe_images
from unmask.deployment.optimise import OptimisationInfo, Recalibration
from unmask.deployment.rescoring import CropScorer, onnx_logits, session
from unmask.deployment.runtime import Bundle
from unmask.deployment.shrinking import WEIGHTED, edge_layers, prune, quantise_dynamic, quantise_static
from unmask.detectors import score_images
from unmask.detectors.storage import save_detector
from unmask.ensemble.apply import apply_ensemble
from unmask.ensemble.ensemble_stage import run_ensemble
from unmask.errors import InputError
from unmask.features.catalogue import EXTRACTOR_VERSION
from unmask.fusion.apply import apply_fusion
from unmask.fusion.fuse_stage import run_fuse
from unmask.media.preprocessing import decode_crop, to_input
from unmask.schemas import (
    FACES,
    FEATURES,
    FRAME_SCORES,
    SAMPLES,
    SEEN_SAMPLES,
    TEST_SCORES,
    VIDEO_SCORES,
    DatasetInfo,
    Estimate,
    ExtractionInfo,
    FusionInfo,
    read_table,
    write_table,
)

SPLITS = {"train": 12, "val": 24, "calib": 24, "test": 24}
FRAMES = 2
BLUR = "quality.blur"


@dataclass(frozen=True)
class Run:
    """Folders of a small whole run whose detector tells its own two classes apart."""

    parts: Parts
    faces: Path
    recalibration: Recalibration

    def bundle(self, out: Path, config: BundleConfig) -> Path:
        root = self.parts.root
        run_bundle(
            self.parts.trained, root / "ensemble", root / "fusion", root / "features", EXTRACT, out, config,
            faces=self.faces, evaluation=root / "evaluation", recalibration=self.recalibration,
        )  # fmt: skip
        return out


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("run")
    parts = write_parts(root)
    rng = np.random.default_rng(4)
    detector = make_detector(0)
    jpegs = [
        bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality=90))
        for _ in range(sum(SPLITS.values()) * FRAMES // 8 + 1)
        for image in probe_images(rng, 8, 64)
    ][: sum(SPLITS.values()) * FRAMES]
    logits = score_images(detector, [decode_crop(jpeg) for jpeg in jpegs])
    samples = _samples(logits.reshape(-1, FRAMES).mean(axis=1), rng)
    write_table(root / "dataset" / "samples.parquet", samples, SAMPLES)
    frames = samples.loc[samples.index.repeat(FRAMES), ["sample_id", "label", "group_id", "split"]].reset_index(
        drop=True
    )
    frames = frames.assign(face_index=0, frame_index=np.tile(np.arange(FRAMES), len(samples)), logit=logits)
    write_table(parts.trained[0] / "scores.parquet", frames, FRAME_SCORES)
    info = detector_info("meso4", detector)
    save_detector(
        parts.trained[0], detector, info.model_copy(update={"config": {**info.config, "eval_frames_per_video": FRAMES}})
    )
    box = dict.fromkeys(("x0_px", "y0_px"), 0.0) | dict.fromkeys(("x1_px", "y1_px", "confidence"), 1.0)
    faces = frames.drop(columns="logit").assign(time_s=0.0, **box, yaw_deg=None, jpeg=jpegs)
    # A part may end in the middle of a sample.
    write_table(root / "faces" / "part-00000.parquet", faces.iloc[:45], FACES)
    write_table(root / "faces" / "part-00001.parquet", faces.iloc[45:], FACES)
    _features(root / "features", samples, rng)
    _dataset(root / "dataset")
    run_ensemble(root / "dataset", parts.trained, root / "ensemble-new", EnsembleConfig(trials=5), 1)
    (root / "ensemble").rename(root / "ensemble-old")
    (root / "ensemble-new").rename(root / "ensemble")
    run_fuse(root / "dataset", root / "ensemble", root / "features", root / "fusion-new", FusionConfig(), 1)
    (root / "fusion").rename(root / "fusion-old")
    (root / "fusion-new").rename(root / "fusion")
    anew = Recalibration(root / "dataset", root / "features", EnsembleConfig(trials=5), FusionConfig(), 1)
    return Run(parts, root / "faces", anew)


def _samples(logit: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:  # type: ignore[type-arg]
    """Call fake what the detector finds suspicious, with a little noise, so that its AUC is high and not 1."""
    noisy = logit + rng.normal(0, 0.4 * logit.std(), len(logit))
    split = np.repeat(list(SPLITS), list(SPLITS.values()))
    rows = []
    for index, part in enumerate(split):
        inside = noisy[split == part]
        row = dict.fromkeys(column.name for column in SAMPLES.columns)
        row |= {
            "sample_id": f"{index:016x}", "uri": f"/nowhere/{index}.jpg", "modality": "image", "source": "probes",
            "label": int(noisy[index] > np.median(inside)), "group_id": f"g{index}", "split": part,
            "sha256": f"{index:064x}", "size_bytes": 1, "status": "ok",
        }  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows)


def _features(folder: Path, samples: pd.DataFrame, rng: np.random.Generator) -> None:
    for file in folder.glob("*.parquet"):
        file.unlink()
    frame = samples[["sample_id", "label", "group_id", "split", "status"]].assign(
        reason=None, n_frames_expected=1, n_frames_decoded=1, face_share=1.0, n_crops=FRAMES,
        extractor_version=EXTRACTOR_VERSION, null_reasons=[[] for _ in range(len(samples))],
    )  # fmt: skip
    health = ExtractionInfo.load(folder / "extraction.json")
    for one in health.health:
        frame[one.name] = rng.normal(0, 1, len(samples))
    write_table(folder / "features.parquet", frame, FEATURES)


def _dataset(folder: Path) -> None:
    info = DatasetInfo.load(folder / "dataset.json")
    assert info.version == DATASET_VERSION


@pytest.fixture(scope="module")
def quantised(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("quantised") / "bundle"
    config = BundleConfig(quantise="static", prune=0.9, max_auc_loss=0.05, calibration_crops=16)
    return run.bundle(out, config)


@pytest.fixture(scope="module")
def plain(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run.bundle(tmp_path_factory.mktemp("plain") / "bundle", BundleConfig())


def test_what_is_kept_and_what_is_not(quantised: Path) -> None:
    info = OptimisationInfo.load(quantised / "optimisation.json")
    rows = {row.variant: row for row in info.rows}
    assert set(rows) == {"float32", "pruned", "static"}
    assert (rows["float32"].kept, rows["pruned"].kept, rows["static"].kept) == (False, False, True)
    loss = rows["static"].val_loss
    assert loss is not None
    assert loss.value is not None
    assert loss.value <= 0.05
    # Nine of ten weights gone: the ranking falls apart, and the reason gives the number.
    assert "0.05 is allowed" in rows["pruned"].reason
    assert rows["static"].size_mb < rows["float32"].size_mb / 2
    assert rows["pruned"].compressed_mb < rows["float32"].compressed_mb
    assert rows["static"].val_auc.n == SPLITS["val"]
    page = (quantised / "optimisation.html").read_text()
    assert "8 bit, ranges from crops" in page
    assert "pruning makes nothing quicker" in page


def test_the_bundle_is_whole_and_calibrated_anew(run: Run, quantised: Path) -> None:
    manifest = read_manifest(quantised)
    assert {"test_scores.parquet", "evidence.json"} <= set(manifest.files)
    # Times differ from run to run; the same parts must give the same manifest, by which a version is known.
    assert {"optimisation.json", "optimisation.html"}.isdisjoint(manifest.files)
    model = onnx.load(quantised / "meso4.onnx")
    assert {"QuantizeLinear", "DequantizeLinear"} <= {node.op_type for node in model.graph.node}
    Bundle.load(quantised)
    # Stored scores are those of what is served: the bundle itself gives the same on the same crops.
    scores = read_table(quantised / "test_scores.parquet", TEST_SCORES).to_pandas()
    assert len(scores) == SPLITS["test"]
    again = CropScorer(quantised).score(run.faces, run.parts.root / "features", set(scores["sample_id"]))
    assert np.allclose(scores["probability"], scores["sample_id"].map(again), atol=1e-9)
    before, after = (FusionInfo.load(folder / "fusion.json") for folder in (run.parts.root / "fusion", quantised))
    points = [info.operating_points[info.default_operating_point] for info in (before, after)]
    assert points[0].threshold != points[1].threshold


def test_turned_verdicts_are_counted(run: Run, quantised: Path, plain: Path) -> None:
    """Counted again by hand, from the scores of both bundles at their own thresholds."""
    info = OptimisationInfo.load(quantised / "optimisation.json")
    assert info.flipped is not None
    assert info.flipped_uncalibrated is not None
    assert info.test_difference is not None
    assert info.flipped.n == SPLITS["test"]
    features = run.parts.root / "features"
    samples = read_table(run.parts.root / "dataset" / "samples.parquet", SAMPLES).to_pandas()
    ids = samples.loc[samples["split"] == "test", "sample_id"].tolist()
    called = []
    for folder in (plain, quantised):
        scorer = CropScorer(folder)
        scored = scorer.score(run.faces, features, set(ids))
        called.append(np.array([scored[name] for name in ids]) >= scorer.threshold)
    assert info.flipped.value == pytest.approx(float((called[0] != called[1]).mean()))


def test_rescoring_is_what_the_parts_say(run: Run, plain: Path) -> None:
    """The same by hand: torch on decoded crops, mean, ensemble, fusion."""
    root = run.parts.root
    samples = read_table(root / "dataset" / "samples.parquet", SAMPLES).to_pandas()
    ids = samples.loc[samples["split"] == "test", "sample_id"].tolist()
    faces = read_table(run.faces, FACES).to_pandas()
    table = read_table(root / "features" / "features.parquet", FEATURES).to_pandas().set_index("sample_id").loc[ids]
    scorer = CropScorer(plain)
    video = []
    for name in ids:
        crops = [decode_crop(jpeg) for jpeg in faces.loc[faces["sample_id"] == name, "jpeg"]]
        video.append([score_images(make_detector(0), crops).mean()])
    logit, probability, _ = apply_ensemble(scorer.ensemble, np.array(video))
    columns = {name: table[name].to_numpy(float) for name in table.columns if "." in name}
    expected = apply_fusion(scorer.fusion, logit, columns)
    found = scorer.score(run.faces, root / "features", set(ids))
    assert np.allclose([found[name] for name in ids], expected, atol=1e-5)
    alone = scorer.score(run.faces, None, set(ids))
    assert np.allclose([alone[name] for name in ids], probability, atol=1e-5)
    dark = scorer.score(run.faces, None, set(ids), lambda image, key: np.zeros_like(image))
    assert len(set(np.round(list(dark.values()), 9))) == 1
    with pytest.raises(InputError, match="crop_size_px 64 instead of 128"):
        scorer.check_fits(EXTRACT.model_copy(update={"crop_size_px": 64}), EXTRACTOR_VERSION)


def test_nothing_is_kept_beyond_the_bound(run: Run, tmp_path: Path) -> None:
    """Everything pruned away: the original stays, and the page says what was tried."""
    out = run.bundle(tmp_path / "bundle", BundleConfig(prune=0.99, max_auc_loss=0.0))
    info = OptimisationInfo.load(out / "optimisation.json")
    assert [(row.variant, row.kept) for row in info.rows] == [("float32", True), ("pruned", False)]
    assert info.test_difference is None
    assert not (out / "test_scores.parquet").exists()
    assert "No smaller form was kept" in (out / "optimisation.html").read_text()
    assert not EvidenceInfo.load(out / "evidence.json").optimised


def test_a_plain_bundle_has_the_table_too_and_is_the_same_twice(run: Run, plain: Path, tmp_path: Path) -> None:
    info = OptimisationInfo.load(plain / "optimisation.json")
    (row,) = info.rows
    assert (row.detector, row.variant, row.kept) == ("meso4", "float32", True)
    assert row.size_mb == pytest.approx((plain / "meso4.onnx").stat().st_size / 1e6)
    assert row.p50_ms > 0
    assert row.val_auc.n == SPLITS["val"]
    assert "Nothing smaller was asked for" in (plain / "optimisation.html").read_text()
    again = run.bundle(tmp_path / "again", BundleConfig())
    assert (again / "manifest.json").read_bytes() == (plain / "manifest.json").read_bytes()


STUDENT = DistillConfig(student="meso4", max_auc_loss=0.5)
TRAINING = TrainConfig(
    epochs=2, batch_size=8, augment=False, train_frames_per_video=2, eval_frames_per_video=2, input_size_px=64,
    early_stopping_patience=9, device="cpu", threads=1, models={},
)  # fmt: skip


def with_student(run: Run, out: Path, distil: DistillConfig, *, perfect: bool = False, **config: object) -> Path:
    root, part = run.parts.root, read_table(run.parts.trained[0] / "scores.parquet", FRAME_SCORES).to_pandas()
    words = part.drop_duplicates("sample_id")[["sample_id", "label", "group_id", "split", "logit"]]
    if perfect:
        words = words.assign(logit=np.where(words["label"] == 1, 4.0, -4.0))
    words = words.assign(probability=1 / (1 + np.exp(-words["logit"])), agreement=1.0, reason=None)
    write_table(root / "ensemble" / "scores.parquet", words, VIDEO_SCORES)
    anew = replace(run.recalibration, distil=distil, training=TRAINING)
    return replace(run, recalibration=anew).bundle(out, BundleConfig(distil=True, **config))  # type: ignore[arg-type]


def test_a_student_takes_the_place_of_all(run: Run, tmp_path: Path) -> None:
    """And its form may be made smaller like any other's; promotion takes the bundle as it is."""
    out = with_student(run, tmp_path / "bundle", STUDENT, quantise="static", max_auc_loss=0.5, calibration_crops=16)
    info = OptimisationInfo.load(out / "optimisation.json")
    name = "student-meso4"
    assert [(row.detector, row.variant, row.kept) for row in info.rows] == [
        ("meso4", "float32", False), (name, "student", True), (name, "float32", False), (name, "static", True),
    ]  # fmt: skip
    assert "replaced by the student" in info.rows[0].reason
    assert info.test_difference is not None
    assert info.flipped_uncalibrated is None
    manifest = read_manifest(out)
    assert manifest.detectors == [name]
    assert set(manifest.parity) == {name}
    scores = read_table(out / "test_scores.parquet", TEST_SCORES).to_pandas()
    again = CropScorer(out).score(run.faces, run.parts.root / "features", set(scores["sample_id"]))
    assert np.allclose(scores["probability"], scores["sample_id"].map(again), atol=1e-9)
    Bundle.load(out)
    root = run.parts.root
    release = read_release(
        out, root / "evaluation", root / "dataset", root / "features", run.parts.trained, root / "ensemble",
        root / "fusion",
    )  # fmt: skip
    assert [info.name for info in release.detectors] == [name]
    assert "student of the ensemble" in (out / "optimisation.html").read_text()


def test_a_student_that_learned_too_little_is_dropped(run: Run, plain: Path, tmp_path: Path) -> None:
    """The labels are noisy, so nobody ranks val like a teacher who knows them."""
    out = with_student(run, tmp_path / "bundle", STUDENT.model_copy(update={"max_auc_loss": 0.0}), perfect=True)
    info = OptimisationInfo.load(out / "optimisation.json")
    assert [(row.variant, row.kept) for row in info.rows] == [("float32", True), ("student", False)]
    assert "0 is allowed" in info.rows[1].reason
    assert (out / "manifest.json").read_bytes() == (plain / "manifest.json").read_bytes()


def test_evidence_travels(quantised: Path) -> None:
    evidence = EvidenceInfo.load(quantised / "evidence.json")
    assert evidence.optimised
    assert evidence.figures["roc_auc"] == Estimate(value=0.8, low=0.6, high=0.95, n=20, method="bootstrap by group")
    assert "source=a/b" in evidence.slices


def test_what_it_needs_is_asked_for(run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs the face crops and the data set"):
        run.parts.write_bundle(tmp_path / "out", config=BundleConfig(quantise="static"))
    assert list(tmp_path.iterdir()) == []


def test_a_champion_that_was_tested_on_other_samples_is_scored_anew(
    run: Run, quantised: Path, plain: Path, tmp_path: Path
) -> None:
    """It left no scores behind and was fitted on four of the samples: those are left out, the rest is scored."""
    root = run.parts.root
    folders = {name: root / name for name in ("evaluation", "dataset", "features", "ensemble", "fusion")}
    release = read_release(quantised, trained=run.parts.trained, **folders)
    assert release.scores is not None
    fitted_on = release.scores["sha256"][:4].tolist()
    seen = pd.DataFrame({"sha256": fitted_on, "split": ["train", "val", "calib", "train"]})
    write_table(tmp_path / "seen_samples.parquet", seen, SEEN_SAMPLES)
    shutil.copy(root / "evaluation" / "metrics.json", tmp_path)

    def file(name: str) -> Path | None:
        return tmp_path / name if (tmp_path / name).is_file() else None

    champion = compare_with(Left("1", file, lambda: plain), release, run.faces)
    assert champion.paired is not None
    assert set(champion.paired["sha256"]) == set(release.scores["sha256"]) - set(fitted_on)
    expected = CropScorer(plain).score(run.faces, root / "features", set(champion.paired["sample_id"]))
    assert champion.paired["champion"].tolist() == champion.paired["sample_id"].map(expected).tolist()
    assert champion.source == (
        "20 of 24 test samples are compared; 20 of them scored anew with the champion's bundle; "
        "4 left out because the champion was fitted on them."
    )
    assert champion.damaged is not None
    assert {name: len(rows) for name, rows in champion.damaged.items()} == {"jpeg 3": 20, "gaussian_blur 3": 20}
    # Without the crops nothing can be compared, and the gate is told why.
    blind = compare_with(Left("1", file, lambda: plain), release, None)
    assert blind.paired is None
    assert "no face crops were given" in blind.source


# --- the forms themselves --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported() -> tuple[bytes, np.ndarray]:  # type: ignore[type-arg]
    detector = make_detector(0)
    inputs = to_input(probe_images(np.random.default_rng(2), 8), detector.preprocessing)
    return export_onnx(detector, detector.preprocessing), inputs


def test_static_form(exported: tuple[bytes, np.ndarray]) -> None:  # type: ignore[type-arg]
    content, inputs = exported
    made = quantise_static(content, inputs)
    assert quantise_static(content, inputs) == made
    model = onnx.load_from_string(made)
    edges = edge_layers(content)
    weighted = [node.name for node in onnx.load_from_string(content).graph.node if node.op_type in WEIGHTED]
    assert edges == [weighted[0], weighted[-1]]
    # The edges still have their weights in 32 bit.
    stored = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    kept = [node for node in model.graph.node if node.name in edges]
    assert {stored.get(node.input[1]) for node in kept} == {onnx.TensorProto.FLOAT}
    images = probe_images(np.random.default_rng(3), 8)
    preprocessing = make_detector(0).preprocessing
    exact, small = (onnx_logits(session(each), images, preprocessing) for each in (content, made))
    assert 0 < np.abs(exact - small).max() < 0.2 * np.ptp(exact)


def test_dynamic_form(exported: tuple[bytes, np.ndarray]) -> None:  # type: ignore[type-arg]
    content, _ = exported
    made = quantise_dynamic(content)
    assert len(made) < len(content) / 2
    images = probe_images(np.random.default_rng(3), 4)
    preprocessing = make_detector(0).preprocessing
    exact, small = (onnx_logits(session(each), images, preprocessing) for each in (content, made))
    assert 0 < np.abs(exact - small).max() < 0.5 * np.ptp(exact)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_pruned_form(exported: tuple[bytes, np.ndarray], share: float) -> None:  # type: ignore[type-arg]
    content, _ = exported
    before, after = (onnx.load_from_string(each) for each in (content, prune(content, share)))
    convolved = {node.input[1] for node in before.graph.node if node.op_type == "Conv"}
    assert convolved
    for old, new in zip(before.graph.initializer, after.graph.initializer, strict=True):
        first, second = numpy_helper.to_array(old), numpy_helper.to_array(new)
        if old.name not in convolved:
            assert np.array_equal(first, second)
            continue
        gone = second == 0
        assert gone.sum() == int(share * first.size)
        assert np.array_equal(first[~gone], second[~gone])
        if gone.any():
            assert np.abs(first[gone]).max() <= np.abs(first[~gone]).min()
