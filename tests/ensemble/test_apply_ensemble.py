"""The arithmetic of the ensemble, worked by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from unmask.ensemble.apply import agreement, apply_ensemble, sigmoid, video_logits
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
    logit, probability, agreed = apply_ensemble(INFO, logits)
    assert logit[0] == pytest.approx(0.5 * 2 - 0.3 * 1 + 0.2 * 1)
    assert logit[1] == pytest.approx((0.3 * 1 - 0.2 * 2) / 0.5)
    assert probability[:2] == pytest.approx(1 / (1 + np.exp(-logit[:2] / 0.5)))
    a, b, c = 0.5 * np.tanh(1), 0.3 * np.tanh(0.5), 0.2 * np.tanh(0.5)
    assert agreed[0] == pytest.approx((a + c) / (a + b + c))
    b, c = 0.3 * np.tanh(0.5), 0.2 * np.tanh(1)
    assert agreed[1] == pytest.approx(c / (b + c))
    assert agreed[3] == 1.0  # nobody takes a side
    assert np.isnan([logit[2], probability[2], agreed[2]]).all()
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


def _logit(p: float) -> float:
    return float(np.log(p / (1 - p)))


@pytest.mark.parametrize(
    ("first", "second", "agreed"),
    [
        (0.9, 0.9, 1.0),
        (0.9, 0.51, 1.0),
        (0.9, 0.45, 0.8 / 0.9),  # a detector that hardly leans the other way is no contradiction
        (0.9, 0.40, 0.8 / 1.0),
        (0.9, 0.20, 0.8 / 1.4),
        (0.1, 0.1, 1.0),
        (0.9, 0.1, 0.5),
    ],
)
def test_two_detectors_agree_as_far_as_they_are_sure(first: float, second: float, agreed: float) -> None:
    calibrated = np.array([[_logit(first), _logit(second)]])
    found = agreement(calibrated, [0.5, 0.5], calibrated.mean(axis=1))
    assert found == pytest.approx([agreed])


def test_one_detector_agrees_with_itself_and_a_negative_coefficient_speaks_for_the_other_side() -> None:
    alone = np.array([[-2.0, np.nan]])
    assert agreement(alone, [0.5, 0.5], np.array([-2.0])) == pytest.approx([1.0])
    stacked = INFO.model_copy(
        update={"detectors": ["a", "b"], "temperatures": [1.0, 1.0], "weights": [0.6, 0.4], "stacking": [1.5, -1.0, 0]}
    )
    _, _, found = apply_ensemble(stacked, np.array([[1.0, -1.0], [1.0, 1.0]]))
    assert found == pytest.approx([1.0, 0.6])


def test_the_order_of_samples_and_the_sign_of_all_logits_do_not_matter() -> None:
    z = np.random.default_rng(0).normal(0, 2, (200, 3))
    combined = z @ [0.5, 0.3, 0.2]
    found = agreement(z, [0.5, 0.3, 0.2], combined)
    assert agreement(-z, [0.5, 0.3, 0.2], -combined) == pytest.approx(found)
    assert agreement(z[::-1], [0.5, 0.3, 0.2], combined[::-1])[::-1] == pytest.approx(found)
    assert ((found >= 0) & (found <= 1)).all()
