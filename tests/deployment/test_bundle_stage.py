"""The bundle: complete, hashed, the same bytes each time, and refused when an export is wrong."""

from __future__ import annotations

import json
import shutil
from functools import lru_cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pandas as pd
import pytest
import torch
from onnx import numpy_helper
from release_parts import BLUR, DATASET_VERSION, EXTRACT, PULSE, Parts, make_detector, write_parts

from unmask.config import BundleConfig, ExtractConfig
from unmask.deployment import onnx_export
from unmask.deployment.bundle import (
    FeatureReference,
    feature_reference,
    file_problems,
    file_safe,
    read_checked,
    read_manifest,
)
from unmask.deployment.onnx_export import OPSET, check_parity, export_onnx, parity, probe_images
from unmask.detectors import score_images
from unmask.errors import ContractError, InputError, LeakError
from unmask.schemas import DetectorInfo, ExtractionInfo, sha256_file


def test_everything_is_there_and_hashed(parts: Parts) -> None:
    manifest = read_manifest(parts.bundle)
    assert manifest.onnx == {"meso4": "meso4.onnx", "meso4:other": "meso4-other.onnx"}
    assert manifest.dataset_version == DATASET_VERSION
    assert set(manifest.files) == {
        "meso4.onnx", "meso4.json", "meso4-other.onnx", "meso4-other.json",
        "ensemble.json", "fusion.json", "extract.json", "reference.json", "example.json",
    }  # fmt: skip
    for name, digest in manifest.files.items():
        assert sha256_file(parts.bundle / name) == digest
    assert file_problems(parts.bundle, manifest) == []
    assert ExtractConfig.model_validate_json((parts.bundle / "extract.json").read_bytes()) == EXTRACT


def test_same_input_same_bytes_whatever_the_order_of_the_folders(parts: Parts, tmp_path: Path) -> None:
    again = parts.write_bundle(tmp_path / "again", trained=parts.trained[::-1])
    assert sha256_file(again / "manifest.json") == sha256_file(parts.bundle / "manifest.json")


def test_onnx_tells_nothing_of_the_machine_that_wrote_it(parts: Parts) -> None:
    content = (parts.bundle / "meso4.onnx").read_bytes()
    assert str(Path(onnx_export.__file__).parents[3]).encode() not in content
    assert str(Path(torch.__file__).parent).encode() not in content
    assert b"stack_trace" not in content
    model = onnx.load_from_string(content)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]


@pytest.mark.parametrize("n", [1, 2, 7])
def test_any_number_of_images(parts: Parts, n: int) -> None:
    session = onnxruntime.InferenceSession(str(parts.bundle / "meso4.onnx"))
    (logits,) = session.run(None, {"images": np.zeros((n, 3, 256, 256), np.float32)})
    assert logits.shape == (n,)
    assert logits.dtype == np.float32


def test_parity_is_small_but_measured(parts: Parts) -> None:
    """The logits of the probe pictures differ from one another, so agreeing on them says something."""
    manifest = read_manifest(parts.bundle)
    assert all(0 <= value < 1e-5 for value in manifest.parity.values())
    detector = make_detector(0)
    images = probe_images(np.random.default_rng(0))
    assert np.ptp(score_images(detector, images)) > 0.1


@lru_cache
def wrong_onnx() -> bytes:
    """Export a detector and disturb the weights of its last layer."""
    detector = make_detector(0)
    model = onnx.load_from_string(export_onnx(detector, detector.preprocessing))
    (head,) = (each for each in model.graph.initializer if each.name.startswith("head") and len(each.dims) == 2)
    head.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(head) * np.float32(1.2), head.name))
    return bytes(model.SerializeToString())


def test_wrong_onnx_is_refused_with_the_number(parts: Parts) -> None:
    detector = make_detector(0)
    images = probe_images(np.random.default_rng(0))
    right = parity(detector, (parts.bundle / "meso4.onnx").read_bytes(), images, detector.preprocessing)
    wrong = parity(detector, wrong_onnx(), images, detector.preprocessing)
    assert right < 1e-5
    assert wrong > 1e-3
    check_parity("meso4", right, 1e-3)
    with pytest.raises(InputError, match=f"{wrong:.2e}"):
        check_parity("meso4", wrong, 1e-3)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(InputError):
        check_parity("meso4", float("nan"), 1e-3)


def test_the_stage_refuses_a_wrong_export(parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "export_onnx", lambda detector, preprocessing: wrong_onnx())
    with pytest.raises(InputError, match="differs from torch"):
        parts.write_bundle(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_tolerance_is_the_configured_one(parts: Parts, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="parity_tolerance"):
        parts.write_bundle(tmp_path / "out", config=BundleConfig(parity_tolerance=1e-12))


@pytest.mark.parametrize("which", ["missing", "unknown", "twice"])
def test_detectors_must_be_those_of_the_ensemble(parts: Parts, tmp_path: Path, which: str) -> None:
    extra = write_parts(tmp_path / "extra", ("something",)).trained
    trained = {
        "missing": parts.trained[:1],
        "unknown": (*parts.trained, *extra),
        "twice": (*parts.trained, parts.trained[0]),
    }[which]
    with pytest.raises(InputError, match="twice" if which == "twice" else "The ensemble joins meso4, meso4:other"):
        parts.write_bundle(tmp_path / "out", trained=trained)


@pytest.mark.parametrize("field", ["dataset_version", "extractor_version"])
def test_parts_of_different_origin_are_refused(tmp_path: Path, field: str) -> None:
    made = write_parts(tmp_path / "parts")
    path = made.root / "features" / "extraction.json"
    ExtractionInfo.load(path).model_copy(update={field: "other"}).save(path)
    with pytest.raises(InputError, match=f"different {field.replace('_', ' ')}s: features other, meso4"):
        made.write_bundle()


def test_names_that_give_the_same_file_are_refused(tmp_path: Path) -> None:
    made = write_parts(tmp_path, ("timm:a", "timm-a"))
    with pytest.raises(InputError, match="same file names"):
        made.write_bundle()


@pytest.mark.parametrize(
    ("name", "safe"),
    [("meso4", "meso4"), ("timm:resnet10t", "timm-resnet10t"), ("../../etc/passwd", "etc-passwd"), ("::", "detector")],
)
def test_file_safe(name: str, safe: str) -> None:
    assert file_safe(name) == safe


def test_reference_is_made_of_train_only(parts: Parts) -> None:
    reference = FeatureReference.model_validate_json((parts.bundle / "reference.json").read_bytes())
    blur, pulse = reference.features[BLUR], reference.features[PULSE]
    assert (blur.n_real, blur.n_fake) == (12, 12)
    assert blur.high is not None
    assert blur.high < 100
    assert blur.real is not None
    table = pd.read_parquet(parts.root / "features" / "features.parquet")
    reals = table[(table["split"] == "train") & (table["label"] == 0)][BLUR]
    assert blur.real == pytest.approx(tuple(reals.quantile([0.05, 0.5, 0.95])))
    # Eight values of a class are too few to call anything usual.
    assert (pulse.n_real, pulse.real) == (8, None)


def test_reference_refuses_test_rows(parts: Parts) -> None:
    table = pd.read_parquet(parts.root / "features" / "features.parquet")
    with pytest.raises(LeakError, match="1 of test"):
        feature_reference(table, [BLUR])


@pytest.fixture
def copy(parts: Parts, tmp_path: Path) -> Path:
    return Path(shutil.copytree(parts.bundle, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["meso4.onnx", "meso4.json", "ensemble.json", "fusion.json", "extract.json"])
def test_one_flipped_bit_is_found(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    manifest = read_manifest(copy)
    with pytest.raises(ContractError, match=rf"{name}.*SHA-256"):
        read_checked(copy, manifest)
    assert file_problems(copy, manifest) == [f"{name} is not the file that was bundled"]


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "fusion.json").unlink()
    manifest = read_manifest(copy)
    with pytest.raises(ContractError, match=r"fusion\.json.*missing"):
        read_checked(copy, manifest)
    assert file_problems(copy, manifest) == ["fusion.json is missing"]


def change_manifest(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), **changes}))


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_format_is_refused(copy: Path, version: object) -> None:
    change_manifest(copy, format_version=version)
    with pytest.raises(ContractError, match="this unmask reads 1"):
        read_manifest(copy)


def test_manifest_cannot_point_outside(copy: Path) -> None:
    files = json.loads((copy / "manifest.json").read_bytes())["files"]
    change_manifest(copy, files={**files, "../secret": "0" * 64})
    with pytest.raises(ContractError, match="plain file name"):
        read_manifest(copy)


def test_onnx_without_a_hash_is_refused(copy: Path) -> None:
    files = json.loads((copy / "manifest.json").read_bytes())["files"]
    del files["meso4.onnx"]
    change_manifest(copy, files=files)
    with pytest.raises(ContractError, match=r"no hash for meso4\.onnx"):
        read_manifest(copy)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"{}"])
def test_manifest_that_is_none(copy: Path, content: bytes) -> None:
    (copy / "manifest.json").write_bytes(content)
    with pytest.raises(ContractError):
        read_manifest(copy)


def test_detector_document_travels_with_the_bundle(parts: Parts) -> None:
    trained = DetectorInfo.load(parts.trained[0] / "detector.json")
    assert DetectorInfo.load(parts.bundle / "meso4.json") == trained
