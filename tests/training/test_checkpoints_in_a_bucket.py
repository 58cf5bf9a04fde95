"""A training whose checkpoints lie in a real bucket: killed on one machine, finished on another."""

import pandas as pd
import pytest

from unmask.adapters.object_store import open_store
from unmask.config import StorageConfig
from unmask.schemas import FRAME_SCORES, read_table
from unmask.training.step import Stepper
from unmask.training.train_stage import run_train
from unmask.training.trainer import Trainer


class Killed(BaseException):
    """Stands for the node that is drained."""


def test_a_training_goes_on_from_the_bucket(made, quick, tmp_path, bucket, monkeypatch):
    parts = (made.dataset, made.faces, made.features)
    run_train("meso4", *parts, tmp_path / "whole", quick, 1)
    monkeypatch.setitem(Trainer.__init__.__kwdefaults__, "checkpoint_every_s", 0.0)
    real = Stepper.step
    steps = []

    def step(self, *arguments):
        if len(steps) == 3:
            raise Killed
        steps.append(1)
        return real(self, *arguments)

    monkeypatch.setattr(Stepper, "step", step)
    store = open_store(f"{bucket}/work", StorageConfig())
    with pytest.raises(Killed):
        run_train("meso4", *parts, tmp_path / "out", quick, 1, store)
    keys = [item.key for item in store.objects("checkpoints/")]
    assert sum(key.endswith("/last.safetensors") for key in keys) == 1
    monkeypatch.setattr(Stepper, "step", lambda *arguments: (steps.append(1), real(*arguments))[1])
    run_train("meso4", *parts, tmp_path / "out", quick, 1, open_store(f"{bucket}/work", StorageConfig()))
    assert len(steps) == 6, "no step is done twice"
    scores = [read_table(tmp_path / name / "scores.parquet", FRAME_SCORES).to_pandas() for name in ("whole", "out")]
    pd.testing.assert_frame_equal(*scores, check_exact=True)
    assert sum("best-" in item.key for item in store.objects("checkpoints/")) == 1
