"""The arithmetic of the ensemble, worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmask.ensemble.apply import apply_ensemble, sigmoid, video_logits
from unmask.schemas import EnsembleInfo

INFO = EnsembleInfo(
    detectors=["a", "b", "c"],
    temperatures=[1.0, 2.0, 4.0],
    weights=[0.5, 0.3, 0.2],
    temperature=0.5,
    method="bayesian",
    decision="",
    candidates={},
    agreement_threshold=0.8,
)


def test_worked_by_hand() -> None:
    logits = np.array([[2.0, -2.0, 4.0], [np.nan, 2.0, -8.0], [np.nan, np.nan, np.nan], [0.0, 0.0, 0.0]])
    logit, probability, agreement = apply_ensemble(INFO, logits)
    assert logit[0] == pytest.approx(0.5 * 2 - 0.3 * 1 + 0.2 * 1)
    assert logit[1] == pytest.approx((0.3 * 1 - 0.2 * 2) / 0.5)
    assert probability[:2] == pytest.approx(1 / (1 + np.exp(-logit[:2] / 0.5)))
    assert agreement[:2] == pytest.approx([2 / 3, 1 / 2])
    assert np.isnan([logit[2], probability[2], agreement[2]]).all()
    assert probability[3] == 0.5


def test_wrong_number_of_detectors_is_refused() -> None:
    with pytest.raises(ValueError, match="3 detectors"):
        apply_ensemble(INFO, np.zeros((2, 2)))


def test_sigmoid_does_not_overflow() -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        assert sigmoid(np.array([-1e4, 0.0, 1e4])).tolist() == [0.0, 0.5, 1.0]


def test_video_logit_is_the_mean_of_its_frames() -> None:
    frames = pd.DataFrame(
        {
            "sample_id": ["b", "a", "b", "b"],
            "face_index": [0, 0, 0, 1],
            "frame_index": [0, 0, 5, 5],
            "label": [1, 0, 1, 1],
            "group_id": ["y", "x", "y", "y"],
            "split": ["test", "calib", "test", "test"],
            "logit": [1.0, -2.0, 3.0, 5.0],
        }
    )
    videos = video_logits(frames)
    assert videos.to_dict("list") == {
        "sample_id": ["a", "b"],
        "label": [0, 1],
        "group_id": ["x", "y"],
        "split": ["calib", "test"],
        "logit": [-2.0, 3.0],
    }
