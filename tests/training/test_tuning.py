"""Searching settings: on val alone, resumed after a kill, with the settings as they were among the trials."""

import pytest

from unmask.config import TuneConfig, load_config
from unmask.errors import InputError
from unmask.objects import FolderStore
from unmask.schemas import TuningInfo
from unmask.training import tuning
from unmask.training.comparison import facts_of_folder, render_comparison
from unmask.training.range_test import find_learning_rate
from unmask.training.train_stage import prepare, run_train
from unmask.training.tuning import run_tune

FEW = TuneConfig(trials=4, epochs=1, batch_sizes=(8,), learning_rate=(1e-5, 1e-2))


def test_search_keeps_the_settings_as_they_were_and_writes_a_configuration(made, quick, tmp_path):
    outcome = run_tune("meso4", made.dataset, made.faces, made.features, tmp_path / "out", quick, FEW, 3)
    info = TuningInfo.load(tmp_path / "out" / "tuning.json")
    assert [trial.number for trial in info.trials] == [0, 1, 2, 3]
    first = info.trials[0].settings
    assert {name: getattr(quick, name) for name in first} == first
    values = [trial.value for trial in info.trials if trial.value is not None]
    assert info.trials[info.best].value == max(values)
    chosen = load_config(tmp_path / "out" / "best.yaml").train.resolved_for("meso4")
    assert chosen.learning_rate == info.trials[info.best].settings["learning_rate"]
    assert any("optimistic" in message for message in outcome.messages)
    again = run_tune("meso4", made.dataset, made.faces, made.features, tmp_path / "again", quick, FEW, 3)
    assert TuningInfo.load(tmp_path / "again" / "tuning.json") == info
    assert again.metrics == outcome.metrics


def test_test_and_calib_labels_do_not_touch_the_search(made, make_faces, quick, tmp_path):
    turned = make_faces(tmp_path, relabel=lambda split, label: 1 - label if split in ("calib", "test") else label)
    for folder, data in (("a", made), ("b", turned)):
        run_tune("meso4", data.dataset, data.faces, data.features, tmp_path / folder, quick, FEW, 3)
    assert (tmp_path / "a" / "tuning.json").read_text() == (tmp_path / "b" / "tuning.json").read_text()


def test_a_killed_search_goes_on(made, quick, tmp_path, monkeypatch):
    parts = (made.dataset, made.faces, made.features)
    real = tuning._try
    done = []

    def die_at_third(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        real(*arguments)
        done.append(1)

    monkeypatch.setattr(tuning, "_try", die_at_third)
    with pytest.raises(KeyboardInterrupt):
        run_tune("meso4", *parts, tmp_path / "out", quick, FEW, 3, FolderStore(tmp_path / "store"))
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(tuning, "_try", lambda *arguments: (done.append(1), real(*arguments))[1])
    run_tune("meso4", *parts, tmp_path / "out", quick, FEW, 3, FolderStore(tmp_path / "store"))
    assert len(done) == 4
    assert len(TuningInfo.load(tmp_path / "out" / "tuning.json").trials) == 4


def test_trainings_that_diverge_are_results_and_not_the_end(made, quick, tmp_path):
    wild = FEW.model_copy(update={"learning_rate": (1e20, 1e30), "optimizers": ("sgd",)})
    base = quick.model_copy(update={"optimizer": "sgd", "learning_rate": 1e25, "warmup_share": 0.0})
    with pytest.raises(InputError, match="None of 4 trainings could be finished: The training of meso4 diverged"):
        run_tune("meso4", made.dataset, made.faces, made.features, tmp_path / "out", base, wild, 3)


def test_ranges_must_rise():
    with pytest.raises(ValueError, match="learning_rate is"):
        TuneConfig(learning_rate=(1e-2, 1e-5))


def test_range_test_finds_a_rate_at_which_meso4_learns(made, quick):
    settings = quick.model_copy(update={"augment": False})
    prepared = prepare("meso4", made.dataset, made.faces, made.features, settings, 1, threads=1)
    found = find_learning_rate(prepared.trainer(settings), steps=60)
    assert 1e-5 < found.suggestion < 0.3
    assert found.learning_rates == sorted(found.learning_rates)
    assert min(found.losses) < found.losses[0]


def test_two_runs_side_by_side(made, quick, tmp_path):
    for folder, config in (("a", quick), ("b", quick.model_copy(update={"learning_rate": 0.01}))):
        run_train("meso4", made.dataset, made.faces, made.features, tmp_path / folder, config, 1)
    text = render_comparison(facts_of_folder(tmp_path / "a"), facts_of_folder(tmp_path / "b"))
    lines = {line.split("  ")[0]: line for line in text.splitlines()}
    assert "0.001" in lines["learning_rate"]
    assert "0.01" in lines["learning_rate"]
    assert "epochs" not in lines, "only what differs"
    assert "[" in lines["video AUC on val"]
