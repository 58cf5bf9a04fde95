"""Checkpoints are judged by video on val, and by nothing else."""

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics

from unmask.errors import LeakError
from unmask.metrics import MEAN
from unmask.training.selection import (
    ValFigures,
    auc_error,
    choose_aggregation,
    val_auc_estimate,
    val_figures,
    video_means,
)


def val_frame(n_videos: int, frames: int, split: str = "val") -> pd.DataFrame:
    video = np.repeat(np.arange(n_videos), frames)
    return pd.DataFrame(
        {
            "sample_id": [f"v{number:02d}" for number in video],
            "label": video % 2,
            "group_id": [f"g{number // 2}" for number in video],
            "split": split,
        }
    )


def test_auc_is_of_the_mean_logit_of_each_video():
    frame = val_frame(12, 5)
    logits = np.random.default_rng(0).normal(frame["label"], 2)
    means = logits.reshape(12, 5).mean(axis=1)
    figures = val_figures(frame, logits)
    assert figures.auc == pytest.approx(sklearn.metrics.roc_auc_score(np.arange(12) % 2, means))
    p = 1 / (1 + np.exp(-logits))
    assert figures.loss == pytest.approx(sklearn.metrics.log_loss(frame["label"], p))
    estimate = val_auc_estimate(frame, logits, np.random.default_rng(0))
    assert estimate.value == pytest.approx(figures.auc)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.n == 12


@pytest.mark.parametrize("split", ["test", "calib", "train"])
def test_other_splits_are_refused(split):
    frame = pd.concat([val_frame(4, 2), val_frame(2, 2, split)], ignore_index=True)
    with pytest.raises(LeakError, match=split):
        val_figures(frame, np.zeros(len(frame)))


def better(new, best, peak=None):
    return new.better_than(best, peak or (new if new.tops(best) else best))


def test_better_is_higher_auc_then_lower_loss():
    assert better(ValFigures(0.9, 2.0, 0.9), ValFigures(0.8, 0.1, 0.8))
    assert better(ValFigures(0.9, 0.5, 0.9), ValFigures(0.9, 0.6, 0.9))
    assert not better(ValFigures(0.9, 0.6, 0.9), ValFigures(0.9, 0.6, 0.9))
    assert better(ValFigures(None, 0.5, None), ValFigures(None, 0.6, None))
    assert not better(ValFigures(0.7, 0.1, 0.7), ValFigures(0.8, 0.9, 0.8))
    assert better(ValFigures(0.1, 9.0, 0.1), None)


def test_within_one_standard_error_of_the_highest_the_loss_decides():
    lucky = ValFigures(1.0, 0.68, 1.0, noise=0.06)
    assert better(ValFigures(0.95, 0.61, 0.95, noise=0.07), lucky)
    assert not better(ValFigures(0.93, 0.61, 0.93, noise=0.07), lucky)
    # Step by step it cannot walk away from the highest.
    chosen = ValFigures(0.95, 0.61, 0.95, noise=0.07)
    assert not better(ValFigures(0.9, 0.5, 0.9, noise=0.08), chosen, lucky)
    # A new peak leaves the chosen one behind, though its loss is lower.
    peak = ValFigures(0.99, 0.7, 0.99, noise=0.01)
    assert better(peak, ValFigures(0.9, 0.6, 0.9, noise=0.1), peak)


def test_the_standard_error_is_that_of_hanley_and_mcneil():
    labels = np.repeat([0, 1], 50)
    # Q1 = .8/1.2, Q2 = 1.28/1.8: ((.16 + 49 · .026667 + 49 · .071111) / 2500) ** .5
    assert auc_error(0.8, labels) == pytest.approx(0.044503, abs=1e-5)
    assert auc_error(0.2, labels) == auc_error(0.8, labels)
    assert 0 < auc_error(1.0, labels) < auc_error(0.95, labels)
    assert auc_error(1.0, np.repeat([0, 1], 6)) > 0.02


def test_one_class_has_no_auc_but_a_loss():
    frame = val_frame(4, 2).assign(label=1)
    figures = val_figures(frame, np.zeros(8))
    assert figures.auc is None
    assert figures.loss == pytest.approx(np.log(2))


def test_other_figures_can_choose():
    frame = val_frame(8, 2)
    logits = np.random.default_rng(0).normal(0, 1, len(frame))
    videos = frame.assign(logit=logits).groupby("sample_id").agg({"label": "first", "logit": "mean"})
    labels, means = videos["label"], videos["logit"]
    assert val_figures(frame, logits, "pr_auc").chosen_by == pytest.approx(
        sklearn.metrics.average_precision_score(labels, means)
    )
    assert val_figures(frame, logits, "f1").chosen_by == pytest.approx(sklearn.metrics.f1_score(labels, means > 0))
    assert val_figures(frame, logits, "loss").chosen_by == pytest.approx(
        -sklearn.metrics.log_loss(labels, 1 / (1 + np.exp(-means)))
    )


def bursts(n_videos: int, frames: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Fakes that show in one frame of eight only, strongly; reals wander as much on average."""
    rng = np.random.default_rng(seed)
    frame = val_frame(n_videos, frames)
    logits = rng.normal(0, 1, len(frame))
    first = (np.arange(len(frame)) % frames == 0) & (frame["label"] == 1).to_numpy()
    logits[first] += 6
    logits[~first & (frame["label"] == 1).to_numpy()] -= 6 / (frames - 1)
    return frame, logits


def test_aggregation_follows_forgeries_that_show_in_few_frames():
    frame, logits = bursts(60, 8, 0)
    chosen = choose_aggregation(frame, logits, "auto", np.random.default_rng(1))
    assert chosen != MEAN
    labels = video_means(frame, logits)["label"]
    better, mean = (
        sklearn.metrics.roc_auc_score(labels, video_means(frame, logits, name)["logit"]) for name in (chosen, MEAN)
    )
    assert better > 0.95 > 0.7 > mean


def test_without_a_sure_gain_the_mean_is_kept():
    frame = val_frame(40, 8)
    logits = np.random.default_rng(0).normal(0, 1, len(frame)) + frame["label"].to_numpy()
    assert choose_aggregation(frame, logits, "auto", np.random.default_rng(1)) == MEAN
    few, strong = bursts(4, 8, 0)
    assert choose_aggregation(few, strong, "auto", np.random.default_rng(1)) == MEAN, "four videos prove nothing"
    assert choose_aggregation(frame, logits, "top_k", np.random.default_rng(1)).startswith("top_k:")
    assert choose_aggregation(frame, logits, "mean", np.random.default_rng(1)) == MEAN


def test_aggregation_is_not_chosen_on_other_splits():
    with pytest.raises(LeakError, match="test"):
        choose_aggregation(val_frame(4, 2, "test"), np.zeros(8), "auto", np.random.default_rng(0))
