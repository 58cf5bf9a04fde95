"""Two runs on the same test samples: against independent computations, refused where they do not belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from stage_folders import operating_points

from unmask.config import EvaluateConfig
from unmask.errors import InputError
from unmask.evaluation.compare import ComparisonInfo, against_headline, run_compare
from unmask.evaluation.inputs import SystemScores
from unmask.schemas import VIDEO_SCORES, FusionInfo, write_table

CONFIG = EvaluateConfig(resamples=400)


def write_run(folder: Path, rows: pd.DataFrame, probability: np.ndarray) -> Path:
    table = rows.assign(logit=0.0, probability=probability, agreement=1.0, reason=None)
    write_table(folder / "scores.parquet", table, VIDEO_SCORES)
    FusionInfo(
        inputs=["ensemble"],
        impute=[0.0],
        center=[0.0],
        scale=[1.0],
        coefficients=[1.0],
        intercept=0.0,
        calibration_slope=1.0,
        calibration_offset=0.0,
        operating_points=operating_points(),
        default_operating_point="max_f1",
        importance={},
        used=True,
        decision="",
    ).save(folder / "fusion.json")
    return folder


def drawn(n: int = 120, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """Labels, a weak and a strong system; the train rows would turn the comparison round."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, n)
    rows = pd.DataFrame(
        {
            "sample_id": [f"{place:016x}" for place in range(n)],
            "label": label,
            "group_id": [f"g{place // 2}" for place in range(n)],
            "split": np.where(np.arange(n) < n // 4, "train", "test"),
        }
    )
    shared = rng.normal(0, 1, n)
    weak = 1 / (1 + np.exp(-(1.0 * (label - 0.5) + shared + rng.normal(0, 0.8, n))))
    strong = 1 / (1 + np.exp(-(3.0 * (label - 0.5) + shared + rng.normal(0, 0.8, n))))
    strong[: n // 4] = 1 - label[: n // 4]
    return rows, weak, strong


def test_the_better_run_is_named_with_its_figures(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    a, b = write_run(tmp_path / "a", rows, weak), write_run(tmp_path / "b", rows, strong)
    outcome = run_compare(a, b, tmp_path / "out", CONFIG, seed=1)
    info = ComparisonInfo.load(tmp_path / "out" / "comparison.json")
    test = (rows["split"] == "test").to_numpy()
    y = rows["label"].to_numpy()[test]
    assert info.auc_a == pytest.approx(roc_auc_score(y, weak[test]))
    assert info.auc_b == pytest.approx(roc_auc_score(y, strong[test]))
    assert info.difference.value == pytest.approx(info.auc_b - info.auc_a)
    assert info.difference.low is not None
    assert info.difference.low > 0
    right_a, right_b = ((scores[test] >= 0.46) == (y == 1) for scores in (weak, strong))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    assert (info.right_only_a, info.right_only_b) == (only_a, only_b)
    assert info.decision_p_value == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    assert (info.n, info.n_only_a, info.n_only_b) == (90, 0, 0)
    assert outcome.messages[0].startswith("B ranks better than A")
    assert outcome.metrics["difference"] == info.difference.value


def test_swapped_runs_give_the_mirrored_answer(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    a, b = write_run(tmp_path / "a", rows, weak), write_run(tmp_path / "b", rows, strong)
    run_compare(a, b, tmp_path / "ab", CONFIG, seed=1)
    run_compare(b, a, tmp_path / "ba", CONFIG, seed=1)
    one, other = (ComparisonInfo.load(tmp_path / name / "comparison.json") for name in ("ab", "ba"))
    assert one.difference.value == pytest.approx(-other.difference.value)  # type: ignore[operator]
    assert one.p_value == pytest.approx(other.p_value)
    assert one.decision_p_value == pytest.approx(other.decision_p_value)


def test_equal_runs_are_called_alike(tmp_path: Path) -> None:
    rows, weak, _ = drawn()
    a, b = write_run(tmp_path / "a", rows, weak), write_run(tmp_path / "b", rows, weak)
    outcome = run_compare(a, b, tmp_path / "out", CONFIG, seed=1)
    assert "rank alike" in outcome.messages[0]
    assert outcome.metrics["p_value"] == 1.0


def test_samples_that_one_run_could_not_score_are_counted(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    holed = strong.copy()
    holed[-3:] = np.nan
    a, b = write_run(tmp_path / "a", rows, weak), write_run(tmp_path / "b", rows, holed)
    outcome = run_compare(a, b, tmp_path / "out", CONFIG, seed=1)
    assert outcome.metrics["n"] == 87
    assert outcome.messages[1] == "Left out: 3 test samples that only A scored, 0 that only B scored."


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    a = write_run(tmp_path / "a", rows, weak)
    other = write_run(tmp_path / "b", rows.assign(sample_id="f" + rows["sample_id"].str[1:]), strong)
    with pytest.raises(InputError, match="share no scored test sample"):
        run_compare(a, other, tmp_path / "out", CONFIG, seed=1)
    flipped = write_run(tmp_path / "c", rows.assign(label=1 - rows["label"]), strong)
    with pytest.raises(InputError, match="90 of 90 common test samples different labels"):
        run_compare(a, flipped, tmp_path / "out", CONFIG, seed=1)
    one_class = rows.assign(split=np.where(rows["label"] == 1, "test", "train"))
    with pytest.raises(InputError, match="too few test samples"):
        run_compare(
            write_run(tmp_path / "d", one_class, weak),
            write_run(tmp_path / "e", one_class, strong),
            tmp_path,
            CONFIG,
            1,
        )


def test_systems_are_compared_on_the_samples_that_all_scored() -> None:
    rows, weak, strong = drawn()
    ids, y, groups = rows["sample_id"].to_numpy(object), rows["label"].to_numpy(), rows["group_id"].to_numpy(object)

    def system(name: str, scores: np.ndarray, kept: slice) -> SystemScores:
        return SystemScores(name, "detector", ids[kept], y[kept], scores[kept], groups[kept])

    headline, detector = system("fusion", strong, slice(30, None)), system("weak", weak, slice(40, 110))
    (found,) = against_headline(headline, [detector], seed=0, resamples=300)
    common = slice(40, 110)
    expected = roc_auc_score(y[common], weak[common]) - roc_auc_score(y[common], strong[common])
    assert found.difference.value == pytest.approx(expected)
    assert found.difference.n == 70
    assert found.p_value < 0.01
    assert against_headline(system("fusion", strong, slice(0, 0)), [system("weak", weak, slice(0, 0))], 0, 100) == []
