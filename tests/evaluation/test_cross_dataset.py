"""Training on parts and testing on what was not seen: real trainings on drawn faces, figures computed again."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from sklearn.metrics import brier_score_loss, roc_auc_score
from stage_folders import QUICK, Folders

from unmask.adapters.object_store import open_store
from unmask.cli import cli
from unmask.config import StorageConfig, TrainConfig
from unmask.errors import InputError, LeakError
from unmask.evaluation.cross_dataset import Part, Training, measure_cells, plan, run_cross_dataset, train_and_score
from unmask.evaluation.cross_table import cross_markdown, cross_rows
from unmask.evaluation.evaluate_stage import run_evaluate
from unmask.schemas import CROSS_DATASET, FRAME_SCORES, SAMPLES, CrossDatasetInfo, read_table, rows_for_choice
from unmask.training.train_stage import labelled_crops, run_train, taught

QUICK_TRAIN = TrainConfig(
    epochs=1, batch_size=16, train_frames_per_video=1, eval_frames_per_video=1, input_size_px=32, threads=1
)


@pytest.fixture(scope="module")
def samples(folders: Folders) -> pd.DataFrame:
    rows = read_table(folders.dataset / "samples.parquet", SAMPLES).to_pandas()
    return rows.loc[rows["split"].notna()]


def scored_rows(seed: int, skill: float, n: int = 60) -> pd.DataFrame:
    """What `train_and_score` gives, drawn."""
    rng = np.random.default_rng(seed)
    label = np.arange(n) % 2
    return pd.DataFrame(
        {
            "sample_id": [f"{k:03d}" for k in range(n)],
            "label": label,
            "group_id": [f"g{k // 4}" for k in range(n)],
            "source": np.where(np.arange(n) % 4 < 2, "a", "b"),
            "manipulation": np.where(label == 1, np.where(np.arange(n) % 3 == 0, "swap", "puppet"), None),
            "probability": 1 / (1 + np.exp(-(skill * (label - 0.5) + rng.standard_normal(n)))),
        }
    )


def test_what_is_trained_on_and_tested_on() -> None:
    rows = pd.DataFrame(
        {
            "source": ["a", "a", "b", "b", "c"],
            "label": [0, 1, 0, 1, 1],
            "manipulation": [None, "swap", None, "puppet", None],
            "split": ["train"] * 5,
        }
    )
    trainings, parts = plan(rows, ("source", "manipulation"))
    assert [training.name for training in trainings] == [
        "all", "source=a", "source=b", "not source=a", "not source=b", "not source=c",
        "not manipulation=puppet", "not manipulation=swap",
    ]  # fmt: skip
    assert [part.name for part in parts] == [
        "source=a", "source=b", "source=c", "manipulation=puppet", "manipulation=swap",
    ]  # fmt: skip
    unseen = {(t.name, p.name) for t in trainings for p in parts if p.concerns(t) and p.unseen_by(t)}
    assert ("source=a", "source=b") in unseen
    assert ("source=a", "source=a") not in unseen
    assert ("not source=b", "source=b") in unseen
    assert ("not manipulation=swap", "manipulation=swap") in unseen
    assert ("not manipulation=swap", "manipulation=puppet") not in unseen
    assert not any(name == "all" for name, _ in unseen)
    with pytest.raises(InputError, match="nothing can be left out"):
        plan(rows.loc[rows["source"] == "a"], ("source", "manipulation"))


def test_only_what_may_teach_is_in_train_and_val(folders: Folders, samples: pd.DataFrame) -> None:
    index = labelled_crops(folders.faces)
    config = QUICK_TRAIN.model_copy(update={"train_sources": ("studio",), "exclude_manipulations": ("Deepfakes",)})
    kept = taught(index, folders.dataset, config).frame
    about = samples.set_index("sample_id").loc[kept["sample_id"]]
    teaching = about["split"].isin(["train", "val"]).to_numpy()
    assert set(about.loc[teaching, "source"]) == {"studio"}
    assert set(about.loc[teaching, "manipulation"].dropna()) == {"Face2Face", "NeuralTextures"}
    assert about.loc[teaching, "label"].nunique() == 2
    # The rest is scored as before.
    others = index.frame["split"].isin(["calib", "test"]).sum()
    assert (~teaching).sum() == others
    assert len(taught(index, folders.dataset, QUICK_TRAIN).frame) == len(index.frame)
    with pytest.raises(InputError, match=r"no source nowhere.*studio"):
        taught(index, folders.dataset, QUICK_TRAIN.model_copy(update={"train_sources": ("nowhere",)}))


def test_calibration_sees_no_part_that_is_tested_as_unseen(
    folders: Folders, samples: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unmask.evaluation import cross_dataset

    seen: list[pd.DataFrame] = []

    def watch(rows: pd.DataFrame, allowed: set[str], chooser: str) -> pd.DataFrame:
        seen.append(rows)
        return rows_for_choice(rows, allowed, chooser)

    monkeypatch.setattr(cross_dataset, "rows_for_choice", watch)
    training = Training("not manipulation=Deepfakes", excluded=("Deepfakes",))
    where = (folders.dataset, folders.faces, folders.features)
    scored = train_and_score("meso4", training, where, samples, QUICK_TRAIN, 1, None)
    (calib,) = seen
    assert set(calib["split"]) == {"calib"}
    assert set(calib["manipulation"].dropna()) == {"Face2Face", "NeuralTextures"}
    assert set(scored["sample_id"]) < set(samples.loc[samples["split"] == "test", "sample_id"])
    assert "Deepfakes" in set(scored["manipulation"])
    with pytest.raises(LeakError):
        rows_for_choice(scored, {"calib"}, "test")


def test_cells_equal_scikit_learn() -> None:
    trainings = [Training("all"), Training("source=a", ("a",))]
    parts = [Part("source=a", "source", "a"), Part("source=b", "source", "b")]
    scored = {("m", "all"): scored_rows(1, 3.0), ("m", "source=a"): scored_rows(2, 1.0)}
    cells = measure_cells("m", trainings, parts, scored, resamples=200, seed=0)
    assert len(cells) == 4
    for cell in cells:
        rows = scored["m", cell.trained_on]
        own = rows.loc[rows["source"] == cell.tested_on[-1]]
        assert cell.figures["roc_auc"].value == pytest.approx(roc_auc_score(own["label"], own["probability"]))
        assert cell.figures["brier"].value == pytest.approx(brier_score_loss(own["label"], own["probability"]))
        assert (cell.n_reals, cell.n_fakes, cell.n_groups) == (15, 15, 15)
        assert cell.unseen == (cell.trained_on == "source=a" and cell.tested_on == "source=b")
        assert (cell.change is None) == (cell.trained_on == "all")
        assert (cell.p_value is None) == (not cell.unseen)
        low, high = cell.figures["ece_if_calibrated"].low, cell.figures["ece_if_calibrated"].high
        assert low is not None
        assert high is not None
        assert 0 < low < high
    unseen = next(cell for cell in cells if cell.unseen)
    reference = next(c for c in cells if c.trained_on == "all" and c.tested_on == unseen.tested_on)
    assert unseen.change.value == pytest.approx(unseen.figures["roc_auc"].value - reference.figures["roc_auc"].value)


def test_fakes_of_a_manipulation_meet_all_reals() -> None:
    rows = scored_rows(1, 2.0)
    part = Part("manipulation=swap", "manipulation", "swap").rows(rows)
    assert (part["label"] == 0).sum() == 30
    assert set(part["manipulation"].dropna()) == {"swap"}


def test_a_detector_that_overrates_another_source_drifts_there() -> None:
    """Probabilities that are right on one source and shifted on the other."""
    rng = np.random.default_rng(3)
    n = 2000
    logits = rng.normal(0, 1.5, n)
    rows = scored_rows(0, 1.0, n).assign(
        label=(rng.random(n) < 1 / (1 + np.exp(-logits))).astype(int), group_id=[f"g{k}" for k in range(n)]
    )
    shifted = np.where(rows["source"] == "b", 2 * logits + 1.5, logits)
    scored = {("m", "all"): rows.assign(probability=1 / (1 + np.exp(-shifted)))}
    parts = [Part("source=a", "source", "a"), Part("source=b", "source", "b")]
    good, bad = measure_cells("m", [Training("all")], parts, scored, resamples=200, seed=0)
    assert good.figures["ece"].value < good.figures["ece_if_calibrated"].high
    assert bad.figures["ece"].value > bad.figures["ece_if_calibrated"].high
    assert good.figures["calibration_slope"].low < 1 < good.figures["calibration_slope"].high
    assert bad.figures["calibration_slope"].value == pytest.approx(0.5, abs=0.08)
    assert good.figures["calibration_intercept"].value == pytest.approx(0, abs=0.2)
    assert bad.figures["calibration_intercept"].value < -1


@pytest.mark.slow
def test_the_whole_command(folders: Folders, tmp_path: Path) -> None:
    settings = json.dumps({"train": QUICK_TRAIN.model_dump(mode="json"), "evaluate": {"resamples": 100}})
    command = [
        "cross-dataset", "--dataset", str(folders.dataset), "--faces", str(folders.faces), "--features",
        str(folders.features), "--detector", "meso4", "--store", str(tmp_path / "store"), "--config-inline", settings,
    ]  # fmt: skip
    result = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / "one")], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    info = CrossDatasetInfo.load(tmp_path / "one" / "cross.json")
    assert info.trainings[:3] == ["all", "source=street", "source=studio"]
    assert len(info.cells) == 3 * 2 + 4 * 3
    assert {cell.trained_on for cell in info.cells if cell.unseen} == {*info.trainings} - {"all"}
    table = read_table(tmp_path / "one" / "cross.parquet", CROSS_DATASET).to_pandas()
    assert len(table) == len(cross_rows(info))
    assert "meso4: ROC AUC by manipulation" in result.output
    assert "all but Deepfakes" in result.output
    html = (tmp_path / "one" / "cross.html").read_text()
    assert not re.search(r"(src|href)=", html)
    assert html.count('class="unseen"') == 2 + 3 + 2  # two matrices, and the calibration rows of unseen sources
    assert "## meso4: calibration from source to source" in (tmp_path / "one" / "cross.md").read_text()

    # The training on all is that of `unmask train`.
    store = open_store(str(tmp_path / "store"), StorageConfig())
    run_train(
        "meso4", folders.dataset, folders.faces, folders.features, tmp_path / "plain",
        QUICK_TRAIN.model_copy(update={"models": {}}), 42, store,
    )  # fmt: skip
    plain = read_table(tmp_path / "plain" / "scores.parquet", FRAME_SCORES).to_pandas()
    test = plain.loc[plain["split"] == "test"].groupby("sample_id").agg(label=("label", "first"), z=("logit", "mean"))
    keep = read_table(folders.dataset / "samples.parquet", SAMPLES).to_pandas().set_index("sample_id")
    street = test.loc[keep.loc[test.index, "source"] == "street"]
    cell = next(c for c in info.cells if (c.trained_on, c.tested_on) == ("all", "source=street"))
    assert cell.figures["roc_auc"].value == pytest.approx(roc_auc_score(street["label"].astype(int), street["z"]))
    finished = {path.parent for path in (tmp_path / "store" / "checkpoints").rglob("last.safetensors")}
    assert len(finished) == len(info.trainings)  # `unmask train` found that of the training on all, and made no other


def test_results_of_another_data_set_are_not_put_into_a_report(folders: Folders, tmp_path: Path) -> None:
    of_another = CrossDatasetInfo(
        dataset_version="v0", detectors=[], trainings=[], sources=[], manipulations=[], cells=[]
    )
    of_another.save(tmp_path / "cross" / "cross.json")
    with pytest.raises(InputError, match="come from version v0 of the data set, not from v1"):
        run_evaluate(
            folders.dataset, folders.faces, folders.features, folders.trained, folders.ensemble, folders.fusion,
            tmp_path / "out", QUICK, 1, tmp_path / "cross",
        )  # fmt: skip


def test_what_cannot_be_trained_is_said_and_the_rest_goes_on(
    folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unmask.evaluation import cross_dataset

    def drawn(detector: str, training: Training, *_: object) -> pd.DataFrame:
        if training.name == "source=street":
            raise InputError("No labelled sample with a face is in val.", "Add media.")
        return scored_rows(len(training.name), 2.0).replace({"source": {"a": "street", "b": "studio"}})

    monkeypatch.setattr(cross_dataset, "train_and_score", drawn)
    outcome = run_cross_dataset(
        folders.dataset, folders.faces, folders.features, ["meso4"], tmp_path / "out", QUICK_TRAIN,
        by=("source",), resamples=100, seed=0,
    )  # fmt: skip
    info = CrossDatasetInfo.load(tmp_path / "out" / "cross.json")
    assert info.skipped == {"meso4, source=street": "No labelled sample with a face is in val."}
    assert {cell.trained_on for cell in info.cells} == {"all", "source=studio"}
    assert "Not trained: meso4, source=street" in cross_markdown(info)
    assert outcome.messages[0].startswith("meso4: on what a training had not seen")
