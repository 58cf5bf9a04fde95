"""Test rows choose nothing: every function that chooses refuses them, and other test labels change no choice at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from stage_folders import FEATURE_NAMES, QUICK, Folders

from unmask.config import EnsembleConfig, FusionConfig, TrainConfig
from unmask.ensemble.calibrate import choose_calibration
from unmask.ensemble.ensemble_stage import run_ensemble
from unmask.ensemble.selection import choose_weights
from unmask.errors import LeakError
from unmask.evaluation.evaluate_stage import run_evaluate
from unmask.fusion.analysis import analyse
from unmask.fusion.fallback import average_by_rule
from unmask.fusion.fit import fit_fusion, usable_features
from unmask.fusion.fuse_stage import run_fuse
from unmask.fusion.rules import fit_rules
from unmask.fusion.thresholds import choose_operating_points
from unmask.schemas import FACES, FEATURES, FRAME_SCORES, SAMPLES, DetectorInfo, TableSpec, read_table, write_table
from unmask.training.selection import choose_aggregation, val_figures
from unmask.training.train_stage import run_train

RULES = FusionConfig(rules=("real_evidence", "artefact_scale"))
HALVES = [(np.arange(30), np.arange(30, 60)), (np.arange(30, 60), np.arange(30))]


def rows_of(split: str, n: int = 60) -> pd.DataFrame:
    """Rows with everything that any chooser looks at."""
    rng = np.random.default_rng(0)
    label = np.arange(n) % 2
    logits = {name: 2.0 * label - 1 + rng.standard_normal(n) for name in ("a", "b", "logit")}
    features = {name: rng.standard_normal(n) for name in FEATURE_NAMES}
    keys = {"sample_id": [f"{k:04d}" for k in range(n)], "group_id": [f"g{k // 2}" for k in range(n)]}
    probability = 1 / (1 + np.exp(-logits["logit"]))
    return pd.DataFrame(keys | {"label": label, "split": split, "probability": probability} | logits | features)


def generator() -> np.random.Generator:
    return np.random.default_rng(1)


CHOOSERS: dict[str, Callable[[pd.DataFrame], object]] = {
    "calibration": lambda rows: choose_calibration(rows, "a", folds=3, rng=generator()),
    "weights": lambda rows: choose_weights(rows, ["a", "b"], EnsembleConfig(trials=2, folds=2), generator()),
    "fusion": lambda rows: fit_fusion(rows, list(FEATURE_NAMES), 1.0, FusionConfig(), generator()),
    "rules": lambda rows: fit_rules(rows, dict.fromkeys(FEATURE_NAMES, "higher_fake"), RULES, list(FEATURE_NAMES)),
    "features": lambda rows: usable_features(rows, list(FEATURE_NAMES)),
    "analysis": lambda rows: analyse(rows, list(FEATURE_NAMES), HALVES, FusionConfig(), generator()),
    "operating points": lambda rows: choose_operating_points(rows, 0.05),
}


@pytest.mark.parametrize("chooser", CHOOSERS)
def test_what_chooses_on_calib_takes_calib_and_nothing_else(chooser: str) -> None:
    calib = rows_of("calib")
    CHOOSERS[chooser](calib)
    for split in ("test", "train", "val"):
        one_of_another = calib.copy()
        one_of_another.loc[7, "split"] = split
        with pytest.raises(LeakError, match=f"1 of {split}"):
            CHOOSERS[chooser](one_of_another)


def test_checkpoint_and_aggregation_are_chosen_on_val_only() -> None:
    val = rows_of("val")
    logits = val["a"].to_numpy()
    val_figures(val, logits)
    choose_aggregation(val, logits, "auto", generator())
    val.loc[7, "split"] = "test"
    with pytest.raises(LeakError, match="1 of test"):
        val_figures(val, logits)
    with pytest.raises(LeakError, match="1 of test"):
        choose_aggregation(val, logits, "auto", generator())


def test_the_fallback_is_written_without_test_rows() -> None:
    rows, directions = rows_of("train"), dict.fromkeys(FEATURE_NAMES, "higher_fake")
    average_by_rule(rows, directions, 1.0)
    rows.loc[7, "split"] = "test"
    with pytest.raises(LeakError, match="1 of test"):
        average_by_rule(rows, directions, 1.0)


def other_test_labels(folders: Folders) -> None:
    """Give the test samples random labels, in every table that carries one."""
    samples = read_table(folders.dataset / "samples.parquet", SAMPLES).to_pandas()
    test = samples.loc[samples["split"] == "test", "sample_id"].tolist()
    drawn = dict(zip(test, np.random.default_rng(9).permutation(np.arange(len(test), dtype=np.int8) % 2), strict=True))
    tables: list[tuple[Path, TableSpec]] = [
        (folders.dataset / "samples.parquet", SAMPLES),
        (folders.features / "features.parquet", FEATURES),
        *((part, FACES) for part in sorted(folders.faces.glob("*.parquet"))),
        *((folder / "scores.parquet", FRAME_SCORES) for folder in folders.trained),
    ]
    for path, spec in tables:
        rows = read_table(path, spec).to_pandas()
        of_test = rows["split"] == "test"
        rows.loc[of_test, "label"] = rows.loc[of_test, "sample_id"].map(drawn).astype(np.int8)
        write_table(path, rows, spec)


def choose_everything(folders: Folders) -> dict[str, str]:
    """Run every stage that chooses; return what was chosen, as the text of the documents."""
    root = folders.root
    config = TrainConfig(
        epochs=2, batch_size=16, train_frames_per_video=1, eval_frames_per_video=1, input_size_px=32, threads=1
    )
    run_train("meso4", folders.dataset, folders.faces, folders.features, root / "fresh", config, 3)
    trained = DetectorInfo.load(root / "fresh" / "detector.json")
    run_ensemble(folders.dataset, folders.trained, root / "ensemble2", EnsembleConfig(trials=10), 3)
    run_fuse(folders.dataset, root / "ensemble2", folders.features, root / "fusion2", RULES, 3)
    run_evaluate(
        folders.dataset, folders.faces, folders.features, folders.trained, root / "ensemble2", root / "fusion2",
        root / "evaluation2", QUICK.model_copy(update={"attacks": (), "perturbations": ()}), 3,
    )  # fmt: skip
    return {
        "ensemble": (root / "ensemble2" / "ensemble.json").read_text(),
        "fusion": (root / "fusion2" / "fusion.json").read_text(),
        "checkpoint": f"{trained.best_epoch} {trained.weights_sha256} {trained.val_auc}",
        "figures": (root / "evaluation2" / "metrics.json").read_text(),
    }


@pytest.mark.slow
def test_other_test_labels_change_figures_and_no_choice(folders: Folders, tmp_path: Path) -> None:
    for name in ("true", "drawn"):
        shutil.copytree(folders.root, tmp_path / name, ignore=shutil.ignore_patterns("evaluation*"))
    with_true = choose_everything(Folders(tmp_path / "true"))
    other_test_labels(Folders(tmp_path / "drawn"))
    with_drawn = choose_everything(Folders(tmp_path / "drawn"))
    for choice in ("ensemble", "fusion", "checkpoint"):
        assert with_drawn[choice] == with_true[choice], choice
    assert with_drawn["figures"] != with_true["figures"]
