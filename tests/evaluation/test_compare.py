"""Two runs on the same test samples: against independent computations, refused where they do not belong together."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from stage_folders import operating_points
from statsmodels.stats.multitest import multipletests

from unmask.config import EvaluateConfig
from unmask.errors import InputError
from unmask.evaluation.compare import against_headline, run_compare
from unmask.evaluation.comparison_report import ComparisonInfo
from unmask.evaluation.inputs import SystemScores
from unmask.metrics import delong
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
    outcome = run_compare([a, b], tmp_path / "out", CONFIG, seed=1)
    whole = ComparisonInfo.load(tmp_path / "out" / "comparison.json")
    (info,) = whole.pairs
    test = (rows["split"] == "test").to_numpy()
    y = rows["label"].to_numpy()[test]
    assert info.a.auc.value == pytest.approx(roc_auc_score(y, weak[test]))
    assert info.b.auc.value == pytest.approx(roc_auc_score(y, strong[test]))
    assert info.difference.value == pytest.approx(info.b.auc.value - info.a.auc.value)
    assert info.difference.low is not None
    assert info.difference.low > 0
    right_a, right_b = ((scores[test] >= 0.46) == (y == 1) for scores in (weak, strong))
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    assert (info.right_only_a, info.right_only_b) == (only_a, only_b)
    assert info.decision_p_value == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue)
    called = [scores[test] >= 0.46 for scores in (weak, strong)]
    assert info.b.tpr.value == pytest.approx(called[1][y == 1].mean())
    assert info.a.fpr.value == pytest.approx(called[0][y == 0].mean())
    assert info.accuracy_difference.value == pytest.approx(right_b.mean() - right_a.mean())
    assert info.accuracy_difference.value == pytest.approx((only_b - only_a) / 90)
    assert info.p_value_corrected == info.p_value
    assert (info.n, whole.n, whole.n_groups, whole.left_out) == (90, 90, 45, [])
    assert outcome.messages[0].startswith("B is better than A at telling fakes from reals (ROC AUC 0.")
    assert "effect (d' +" in outcome.messages[0]
    assert f"B alone is right on {only_b} samples and A alone on {only_a}" in outcome.messages[1]
    assert outcome.metrics["difference"] == info.difference.value


def test_swapped_runs_give_the_mirrored_answer(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    a, b = write_run(tmp_path / "a", rows, weak), write_run(tmp_path / "b", rows, strong)
    run_compare([a, b], tmp_path / "ab", CONFIG, seed=1)
    run_compare([b, a], tmp_path / "ba", CONFIG, seed=1)
    one, other = (ComparisonInfo.load(tmp_path / name / "comparison.json").pairs[0] for name in ("ab", "ba"))
    assert one.difference.value == pytest.approx(-other.difference.value)  # type: ignore[operator]
    assert one.p_value == pytest.approx(other.p_value)
    assert one.decision_p_value == pytest.approx(other.decision_p_value)


def test_equal_runs_are_called_alike(tmp_path: Path) -> None:
    rows, weak, _ = drawn()
    a, b = write_run(tmp_path / "a", rows, weak), write_run(tmp_path / "b", rows, weak)
    outcome = run_compare([a, b], tmp_path / "out", CONFIG, seed=1)
    assert "rank alike" in outcome.messages[0]
    assert outcome.metrics["p_value"] == 1.0


def test_samples_that_one_run_could_not_score_are_counted(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    holed = strong.copy()
    holed[-3:] = np.nan
    a, b = write_run(tmp_path / "a", rows, weak), write_run(tmp_path / "b", rows, holed)
    outcome = run_compare([a, b], tmp_path / "out", CONFIG, seed=1)
    assert outcome.metrics["n"] == 87
    assert outcome.messages[-1] == "Left out: 3 test samples that A scored and not all others."


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    a = write_run(tmp_path / "a", rows, weak)
    other = write_run(tmp_path / "b", rows.assign(sample_id="f" + rows["sample_id"].str[1:]), strong)
    with pytest.raises(InputError, match="share no scored test sample"):
        run_compare([a, other], tmp_path / "out", CONFIG, seed=1)
    flipped = write_run(tmp_path / "c", rows.assign(label=1 - rows["label"]), strong)
    with pytest.raises(InputError, match="90 of 90 common test samples different labels"):
        run_compare([a, flipped], tmp_path / "out", CONFIG, seed=1)
    one_class = rows.assign(split=np.where(rows["label"] == 1, "test", "train"))
    with pytest.raises(InputError, match="too few test samples"):
        run_compare(
            [write_run(tmp_path / "d", one_class, weak), write_run(tmp_path / "e", one_class, strong)],
            tmp_path / "out",
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


def test_systems_that_share_no_sample_are_still_compared_with_the_headline() -> None:
    """A detector of sounds and one of faces score no file in common; fusion scored them all."""
    rows, weak, strong = drawn(200)
    ids, y, groups = rows["sample_id"].to_numpy(object), rows["label"].to_numpy(), rows["group_id"].to_numpy(object)

    def system(name: str, scores: np.ndarray, kept: slice) -> SystemScores:
        return SystemScores(name, "detector", ids[kept], y[kept], scores[kept], groups[kept])

    headline = system("fusion", strong, slice(0, 200))
    parts = {"faces": slice(0, 100), "sounds": slice(100, 190), "silent": slice(0, 0), "one": slice(190, 191)}
    found = against_headline(headline, [system(name, weak, kept) for name, kept in parts.items()], 0, 300)
    assert [(one.name, one.difference.n) for one in found] == [("faces", 100), ("sounds", 90)]
    raw = [delong(y[part], strong[part], weak[part], groups[part]).p_value for part in (slice(0, 100), slice(100, 190))]
    assert [one.p_value for one in found] == pytest.approx(list(multipletests(raw, method="holm")[1]))


def test_several_are_compared_with_the_first_and_corrected(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    rng = np.random.default_rng(5)
    noise = 1 / (1 + np.exp(-rng.standard_normal(len(rows))))
    folders = [
        write_run(tmp_path / name, rows, scores)
        for name, scores in (("weak", weak), ("strong", strong), ("same", weak), ("noise", noise))
    ]
    outcome = run_compare(folders, tmp_path / "out", CONFIG, seed=1)
    info = ComparisonInfo.load(tmp_path / "out" / "comparison.json")
    assert [(pair.a.name, pair.b.name) for pair in info.pairs] == [("A", "B"), ("A", "C"), ("A", "D")]
    for raw, corrected in (("p_value", "p_value_corrected"), ("decision_p_value", "decision_p_value_corrected")):
        plain = [getattr(pair, raw) for pair in info.pairs]
        expected = multipletests(plain, method="holm")[1]
        assert [getattr(pair, corrected) for pair in info.pairs] == pytest.approx(list(expected))
    assert "corrected for 3 comparisons" in outcome.messages[0]
    assert info.pairs[1].sentences[1].startswith("At their thresholds both decide every sample alike")
    assert outcome.metrics["auc_b_C"] == outcome.metrics["auc_a_C"]


def test_a_sure_interval_is_not_enough_after_correction(tmp_path: Path) -> None:
    """One difference that would be called real alone is not, when nine others were looked at too."""
    rows, weak, _ = drawn(seed=3)
    label = rows["label"].to_numpy()
    logit = np.log(weak / (1 - weak))
    folders = [write_run(tmp_path / "a", rows, weak)]
    rng = np.random.default_rng(1)
    for k in range(10):
        shifted = logit + (0.55 * (label - 0.5) if k == 0 else 0) + 0.5 * rng.standard_normal(len(rows))
        folders.append(write_run(tmp_path / f"b{k}", rows, 1 / (1 + np.exp(-shifted))))
    run_compare(folders, tmp_path / "out", CONFIG, seed=1)
    pairs = ComparisonInfo.load(tmp_path / "out" / "comparison.json").pairs
    for pair in pairs:
        called = pair.sentences[0].startswith(f"{pair.b.name} is ")
        assert called <= (pair.p_value_corrected < 0.05)
    assert all(pair.p_value_corrected >= pair.p_value for pair in pairs)


def test_what_so_few_samples_could_have_shown_is_said(tmp_path: Path) -> None:
    rows, weak, _ = drawn(n=60, seed=2)
    other = 1 / (1 + np.exp(-(np.log(weak / (1 - weak)) + 0.8 * np.random.default_rng(3).standard_normal(60))))
    a, b = write_run(tmp_path / "a", rows, weak), write_run(tmp_path / "b", rows, other)
    outcome = run_compare([a, b], tmp_path / "out", CONFIG, seed=1)
    (pair,) = ComparisonInfo.load(tmp_path / "out" / "comparison.json").pairs
    assert outcome.messages[0].startswith("The data do not show which of A and B is better")
    assert f"difference of {pair.detectable:.2f} or more in four of five tries" in outcome.messages[2]
    # At that true difference a normal test statistic is centred at 2.8 and passes 1.96 in 80 % of tries.
    assert stats.norm.sf(1.96 - 2.80) == pytest.approx(0.8, abs=0.005)


def test_page_and_markdown_carry_the_answer_and_escape_names(tmp_path: Path) -> None:
    rows, weak, strong = drawn()
    a, b = write_run(tmp_path / "a<b>", rows, weak), write_run(tmp_path / "b", rows, strong)
    outcome = run_compare([a, b], tmp_path / "out", CONFIG, seed=1)
    page = (tmp_path / "out" / "comparison.html").read_text()
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert outcome.messages[0] in text
    assert "a&lt;b&gt;" in page
    assert "a<b>" not in page
    assert not re.search(r"(src|href)=", page)
    root = ElementTree.fromstring(re.search(r"<svg.*?</svg>", page)[0])
    assert "Difference in ROC AUC, B minus A" in root.attrib["aria-label"]


def test_one_system_alone_is_refused(tmp_path: Path) -> None:
    rows, weak, _ = drawn()
    with pytest.raises(InputError, match="only one system"):
        run_compare([write_run(tmp_path / "a", rows, weak)], tmp_path / "out", CONFIG, seed=1)
