"""Attacks: within their bound, through the true preprocessing, and strong enough to tell something."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from stage_folders import QUICK, Folders, draw_face

from unmask.config import EvaluateConfig
from unmask.detectors import Detector, build, load_detector, score_images
from unmask.errors import MissingExtraError
from unmask.evaluation.attack_study import _spread, study_attacks
from unmask.evaluation.attacks import ATTACKS, Attacker, CropClassifier
from unmask.evaluation.inputs import Inputs, load_inputs
from unmask.media.preprocessing import decode_crop, to_input
from unmask.schemas import FACES, ROBUSTNESS, read_table


def first_crops(folders: Folders) -> pd.DataFrame:
    """The first crop of each test sample."""
    faces = read_table(folders.faces, FACES).to_pandas()
    rows = faces.loc[faces["split"] == "test"].groupby("sample_id").head(1)
    return rows.assign(image=[decode_crop(jpeg) for jpeg in rows["jpeg"]]).reset_index(drop=True)


@pytest.fixture(scope="module")
def crops(folders: Folders) -> pd.DataFrame:
    return first_crops(folders)


def drawn_faces(n: int, first_identity: int) -> list[np.ndarray]:
    """Reals and, at odd places, fakes that are easy to see."""
    rng = np.random.default_rng(first_identity)
    return [draw_face(rng, first_identity + k // 2, 1.4 * (k % 2), k % 3, 64) for k in range(n)]


@pytest.fixture(scope="module")
def learnt() -> Detector:
    """A detector that was trained here and knows these fakes."""
    torch.manual_seed(0)
    detector = build("meso4", input_size_px=64)
    inputs = torch.from_numpy(to_input(drawn_faces(48, 0), detector.preprocessing))
    labels = (torch.arange(48) % 2).float()
    optimizer = torch.optim.Adam(detector.parameters(), 3e-3)
    detector.train()
    for _ in range(40):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(detector(inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return detector.eval()


@pytest.fixture(scope="module")
def inputs(folders: Folders) -> Inputs:
    return load_inputs(
        folders.dataset, folders.faces, folders.features, folders.trained, folders.ensemble, folders.fusion
    )


def attacked(folders: Folders, crops: pd.DataFrame, name: str, epsilon: int, steps: int = 8) -> list[np.ndarray]:
    attacker = Attacker(load_detector(folders.trained[0])[0], steps=steps)
    return attacker.craft(list(crops["image"]), crops["label"].astype(int).tolist(), name, epsilon, seed=3)


def towards_wrong(folders: Folders, crops: pd.DataFrame, images: list[np.ndarray]) -> np.ndarray:
    """How far the logit of each crop moved to the wrong side."""
    detector = load_detector(folders.trained[0])[0]
    moved = score_images(detector, images) - score_images(detector, list(crops["image"]))
    return moved * np.where(crops["label"] == 1, -1, 1)


@pytest.mark.parametrize("size_px", [64, 96, 128])
@pytest.mark.parametrize("name", ["meso4", "custom_cnn"])
def test_the_differentiable_preprocessing_is_the_true_one(crops: pd.DataFrame, size_px: int, name: str) -> None:
    """Shrinking by area, no resizing, and enlarging; other mean and deviation."""
    detector = build(name, input_size_px=size_px)
    images = list(crops["image"])[:4]
    levels = torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).astype(np.float32))
    model = CropClassifier(detector, *images[0].shape[:2])
    expected = to_input(images, detector.preprocessing)
    # Half-way values may be rounded to either side; enlarging by a third makes many of them.
    off = np.abs(model.inputs(levels).numpy() - expected) * 255 * np.array(detector.preprocessing.std)[:, None, None]
    assert off.max() < 1.01
    assert np.mean(off > 0.01) < (0.2 if size_px == 128 else 0.01)
    with torch.no_grad():
        both = model(levels)
    difference = (both[:, 1] - both[:, 0]).numpy()
    np.testing.assert_allclose(difference, score_images(detector, images), atol=0.05)


def test_the_gradient_is_that_of_the_crop() -> None:
    """Against finite differences of the whole way, without the rounding that has no derivative."""
    torch.manual_seed(0)
    detector = build("custom_cnn", input_size_px=32).eval().double()
    model = CropClassifier(detector, 40, 40).double()
    levels = torch.rand(1, 3, 40, 40, dtype=torch.float64) * 255

    def smooth(x: torch.Tensor) -> torch.Tensor:
        return detector((model.rows @ x @ model.columns.T - model.mean) / model.std)[0]

    levels.requires_grad_()
    (through,) = torch.autograd.grad(model(levels)[0, 1] * 2, levels)
    expected = torch.autograd.functional.jacobian(smooth, levels.detach())
    cosine = torch.nn.functional.cosine_similarity(through.flatten(), expected.flatten(), dim=0)
    assert cosine > 0.95  # only the point at which the gradient is taken is rounded


@pytest.mark.parametrize("name", ATTACKS)
@pytest.mark.parametrize("epsilon", [1, 4])
def test_no_level_changes_by_more_than_epsilon(folders: Folders, crops: pd.DataFrame, name: str, epsilon: int) -> None:
    few = crops.iloc[:6].copy()
    # Levels at both ends of their range, beyond which an attack must not go.
    few["image"] = [np.clip(image.astype(int) * 3 - 250, 0, 255).astype(np.uint8) for image in few["image"]]
    images = attacked(folders, few, name, epsilon, steps=2)
    change = np.abs(np.stack(images).astype(int) - np.stack(few["image"]).astype(int))
    assert all(image.dtype == np.uint8 and image.shape == (96, 96, 3) for image in images)
    assert change.max() == epsilon
    assert towards_wrong(folders, few, images).mean() > 0
    again = attacked(folders, few, name, epsilon, steps=2)
    assert all(np.array_equal(a, b) for a, b in zip(images, again, strict=True))


def test_crops_of_several_sizes_keep_their_places(folders: Folders, crops: pd.DataFrame) -> None:
    few = crops.iloc[:4].copy()
    few["image"] = [image[:80, :80] if place % 2 else image for place, image in enumerate(few["image"])]
    images = attacked(folders, few, "fgsm", 2)
    for image, before in zip(images, few["image"], strict=True):
        assert image.shape == before.shape
        assert np.abs(image.astype(int) - before.astype(int)).max() == 2


def test_epsilon_zero_changes_nothing(folders: Folders, crops: pd.DataFrame) -> None:
    for name in ATTACKS:
        images = attacked(folders, crops, name, 0)
        assert all(np.array_equal(a, b) for a, b in zip(images, crops["image"], strict=True))


def test_fgsm_and_pgd_lower_the_auc_and_pgd_no_less(learnt: Detector) -> None:
    images = drawn_faces(40, 100)
    labels = np.arange(40) % 2
    before = score_images(learnt, images)
    assert roc_auc_score(labels, before) > 0.95
    attacker = Attacker(learnt, steps=8)
    for epsilon in (2, 6):
        moved, auc = {}, {}
        for name in ("fgsm", "pgd"):
            after = score_images(learnt, attacker.craft(images, labels.tolist(), name, epsilon, seed=3))
            moved[name] = np.mean((after - before) * np.where(labels == 1, -1, 1))
            auc[name] = roc_auc_score(labels, after)
        assert moved["pgd"] >= 0.95 * moved["fgsm"] > 0
        assert auc["pgd"] <= auc["fgsm"] + 0.02
        assert auc["pgd"] < 0.9
    assert auc["fgsm"] < 0.9


def test_apgd_goes_as_far_as_pgd_and_square_less_far(folders: Folders, crops: pd.DataFrame) -> None:
    few = crops.iloc[:6]
    moved = {
        name: towards_wrong(folders, few, attacked(folders, few, name, 4, steps=steps)).mean()
        for name, steps in (("pgd", 10), ("apgd", 10), ("square", 4))
    }
    assert moved["apgd"] > 0.9 * moved["pgd"]
    assert 0 < moved["square"] < moved["pgd"]


def test_the_table_has_every_system_under_every_attack(folders: Folders, inputs: Inputs) -> None:
    config = QUICK.model_copy(update={"attacks": ("fgsm", "pgd"), "epsilons": (2, 6), "attack_steps": 3})
    study = study_attacks(inputs, config, seed=1)
    table = study.table
    assert set(table["crafted_on"]) == {"meso4", "meso4-b"}
    assert set(table["system"]) == {"meso4", "meso4-b", "ensemble"}
    assert len(table) == 2 * 2 * 3 * 3 * 4  # attacked, attacks, epsilons with 0, systems, figures
    keyed = table.set_index(["perturbation", "crafted_on", "system", "severity", "metric"])["value"]
    for attack in ("fgsm", "pgd"):
        for on in ("meso4", "meso4-b"):
            other = {"meso4": "meso4-b", "meso4-b": "meso4"}[on]
            clean = keyed[attack, on, on, 0, "roc_auc"]
            assert keyed[attack, on, on, 2, "roc_auc"] < clean
            assert keyed[attack, on, on, 0, "roc_auc_change"] == 0
            change = keyed[attack, on, on, 2, "roc_auc_change"]
            assert change == pytest.approx(keyed[attack, on, on, 2, "roc_auc"] - clean)
            # What was made for one detector moves the other less.
            assert keyed[attack, on, other, 2, "roc_auc_change"] >= change
    assert study.n_samples == study.n_frames == 20  # of 23, capped on a CPU


def test_clean_rows_are_the_plain_scores_of_the_same_frames(folders: Folders, inputs: Inputs) -> None:
    config = QUICK.model_copy(update={"attack_frames_per_video": 2, "max_attack_samples_cpu": 200})
    study = study_attacks(inputs, config, seed=1)
    assert (study.n_samples, study.n_frames) == (23, 46)
    rows = study.table.set_index(["system", "severity", "metric", "crafted_on"])["value"]
    for detector in inputs.detectors:
        videos = detector.frames.groupby("sample_id").agg(label=("label", "first"), logit=("logit", "mean"))
        expected = roc_auc_score(videos["label"].astype(int), videos["logit"])
        for on in ("meso4", "meso4-b"):
            assert rows[detector.info.name, 0, "roc_auc", on] == pytest.approx(expected)


def test_the_stage_writes_attacks_beside_damages(evaluation: Path) -> None:
    table = read_table(evaluation / "robustness.parquet", ROBUSTNESS).to_pandas()
    of_attacks = table.loc[table["crafted_on"].notna()]
    assert set(of_attacks["perturbation"]) == {"fgsm"}
    assert set(of_attacks["epsilon"]) == {0.0, 4.0}
    assert set(table.loc[table["crafted_on"].isna(), "perturbation"]) == {"clean", "jpeg", "gaussian_blur"}


def test_no_attack_is_no_row(inputs: Inputs) -> None:
    study = study_attacks(inputs, QUICK.model_copy(update={"attacks": ()}), seed=1)
    assert (len(study.table), study.n_samples) == (0, 0)


def test_attacked_frames_are_spread_over_the_largest_face() -> None:
    frames = pd.DataFrame(
        {
            "sample_id": ["a"] * 10 + ["b"] * 3,
            "face_index": [0] * 8 + [1] * 2 + [0] * 3,
            "frame_index": [*range(0, 80, 10), 0, 10, 0, 10, 20],
        }
    )
    kept = _spread(frames, 2)
    assert kept.loc[kept["sample_id"] == "a", "frame_index"].tolist() == [20, 60]
    assert len(_spread(frames, 1)) == 2
    assert len(_spread(frames, 50)) == 11


def test_without_the_library_the_extra_is_named(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    true_import = builtins.__import__

    def refuse(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("art."):
            raise ImportError(name)
        return true_import(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"unmask\[analysis\]"):
        Attacker(load_detector(folders.trained[0])[0])


def test_settings_out_of_range_are_refused() -> None:
    for bad in ((0,), (4, 2), (256,), (2, 2)):
        with pytest.raises(ValueError, match="epsilons"):
            EvaluateConfig(epsilons=bad)
