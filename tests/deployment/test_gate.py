"""The promotion matrix: what may go on trial, and what may replace the champion, with the reason in plain words."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest

from unmask import metrics
from unmask.config import PromoteConfig
from unmask.deployment.decision_document import render_html, render_markdown
from unmask.deployment.gate import CRITERIA, PARITY_LIMIT, Champion, Evidence, GateResult, decide
from unmask.deployment.paired import leaks, pair, parts, unseen
from unmask.schemas import (
    Criterion,
    DatasetInfo,
    Estimate,
    EvaluationInfo,
    Manifest,
    OperatingPoint,
    Preprocessing,
    PromotionDecision,
)

RATE = Estimate(value=0.5, low=0.1, high=0.9, n=10)
THRESHOLD = 0.5


def evaluation(
    auc: Estimate | None, confusion: tuple[tuple[int, int], tuple[int, int]] = ((9, 1), (2, 8))
) -> EvaluationInfo:
    return EvaluationInfo(
        dataset_version="d1",
        headline="fusion",
        video={"fusion": {"roc_auc": auc}} if auc else {"fusion": {}},
        frame={},
        slices={},
        confusion=confusion,
        operating_point=OperatingPoint(name="max_f1", threshold=THRESHOLD, fpr=RATE, tpr=RATE, resolvable=True),
        n_scored=20,
        n_unscored={"no_face": 2},
    )


def made_scores(n: int, strength: float, seed: int = 1) -> pd.DataFrame:
    """Calibrated scores of n samples in pairs of a real and a fake, two sources and two manipulations."""
    index = np.arange(n)
    label = index % 2
    logit = strength * (strength * (label - 0.5) + np.random.default_rng(seed).standard_normal(n))
    manipulation = np.where(index % 4 == 1, "swap", "reenactment").astype(object)
    manipulation[label == 0] = None
    return pd.DataFrame(
        {
            "sample_id": [f"{i:016x}" for i in index],
            "sha256": [f"{i:064x}" for i in index],
            "label": label.astype("int8"),
            "group_id": [f"g{i // 2}" for i in index],
            "source": np.where(index < n // 2, "a", "b"),
            "manipulation": manipulation,
            "compression": None,
            "probability": 1 / (1 + np.exp(-logit)),
        }
    )


def versus(scores: pd.DataFrame, champion: pd.DataFrame, **changes: object) -> Champion:
    paired = scores.assign(champion=champion["probability"].to_numpy())
    table = pd.DataFrame(
        [{"system": "ensemble", "perturbation": "jpeg", "severity": 3, "metric": "roc_auc", "value": 0.8}]
    )
    made = Champion("1", THRESHOLD, paired, f"{len(paired)} test samples are compared.", robustness=table)
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


def evidence(auc: float | None = 0.9, low: float | None = 0.8, **changes: object) -> Evidence:
    manifest = Manifest(
        unmask_version="0",
        detectors=["meso4"],
        onnx={"meso4": "meso4.onnx"},
        preprocessing={"meso4": Preprocessing(size_px=256, mean=(0, 0, 0), std=(1, 1, 1))},
        parity={"meso4": 1e-6},
        files={"meso4.onnx": "0" * 64},
        dataset_version="d1",
        extractor_version="1",
    )
    audit = Estimate(value=0.55, low=0.4, high=0.7, n=100)
    dataset = DatasetInfo(
        name="set", version="d1", counts={}, failed={}, groups={}, metadata_audit_auc=audit, sources={}
    )
    plain = Evidence(
        manifest=manifest,
        evaluation=evaluation(Estimate(value=auc, low=low, high=1.0, n=20)),
        dataset=dataset,
        dataset_versions={"features": "d1", "detector meso4": "d1"},
        extractor_versions={"features": "1", "detector meso4": "1"},
        scores=made_scores(600, 4.0),
        threshold=THRESHOLD,
        robustness=pd.DataFrame(
            [{"system": "ensemble", "perturbation": "jpeg", "severity": 3, "metric": "roc_auc", "value": 0.79}]
        ),
        leaks=[],
    )
    return dataclasses.replace(plain, **changes)  # type: ignore[arg-type]


def verdicts(result: GateResult) -> dict[str, str]:
    return {each.name: each.verdict for each in result.criteria if not each.passed}


def failed(given: Evidence, config: PromoteConfig | None = None) -> list[str]:
    result = decide(given, config or PromoteConfig())
    assert len(result.criteria) == len(CRITERIA)
    names = [criterion.name for criterion in result.criteria if not criterion.passed]
    assert result.ready == (not names)
    assert all(criterion.sentence for criterion in result.criteria)
    return names


def page(result: GateResult, champion: str | None = "1") -> str:
    """Render the document; everything that was found must stand in both forms."""
    decision = PromotionDecision(
        model="m",
        version="2",
        alias="challenger" if result.sound else None,
        run_id="r",
        tracking_uri="u",
        criteria=result.criteria,
        promoted=result.sound,
        summary=result.summary,
        champion=champion,
        ready=result.ready,
        decided_at="2026-01-01T00:00:00Z",
    )
    markdown, html = render_markdown(decision), render_html(decision)
    for each in result.criteria:
        assert each.sentence in markdown
        assert each.name in html
    assert html.count("<tr>") == len(result.criteria) + 2
    return markdown


# --- against a champion ----------------------------------------------------------------------------------------------


def test_better() -> None:
    weak = made_scores(600, 1.5)
    strong = made_scores(600, 4.0)
    result = decide(evidence(scores=strong, champion=versus(strong, weak)), PromoteConfig())
    assert result.ready
    assert result.summary.endswith("may replace champion version 1. It ranks better than the champion.")
    assert "version 1" in page(result) or "Champion at that time: version 1" in page(result)
    assert "Version 2: may become champion" in page(result)


def test_equal() -> None:
    scores = made_scores(600, 4.0)
    result = decide(evidence(scores=scores, champion=versus(scores, scores)), PromoteConfig())
    assert result.ready
    assert "ranks the same samples exactly as the champion does" in result.summary


def test_worse() -> None:
    weak, strong = made_scores(600, 2.0), made_scores(600, 4.0)
    assert verdicts(decide(evidence(scores=strong, champion=versus(strong, weak)), PromoteConfig())) == {}
    config = PromoteConfig(max_fpr=1)
    result = decide(evidence(scores=weak, champion=versus(weak, strong)), config)
    assert verdicts(result)["ranking"] == "failed"
    assert not result.ready
    assert result.sound
    assert result.summary.startswith("Version 1 stays champion; not passed: ranking")
    assert "on trial, must not replace the champion" in page(result)
    assert "| ranking |" in page(result)
    assert "NOT PASSED | It ranks worse than the champion. |" in page(result)


def test_better_on_average_but_one_slice_collapsed() -> None:
    champion, challenger = made_scores(600, 1.0), made_scores(600, 4.0, seed=2)
    collapsed = (challenger["manipulation"] == "swap").to_numpy() & (np.arange(600) % 8 == 1)
    challenger.loc[collapsed, "manipulation"] = "makeup"
    # To the challenger, these fakes look like reals.
    reals = challenger.loc[challenger["label"] == 0, "probability"].to_numpy()
    challenger.loc[collapsed, "probability"] = reals[: collapsed.sum()]
    config = PromoteConfig(max_fpr=1, margin_ece=1)
    result = decide(evidence(scores=challenger, champion=versus(challenger, champion)), config)
    assert verdicts(result) == {"slices": "failed"}
    assert "manipulation=makeup collapses, whatever the average says." in page(result)
    overall = next(each for each in result.criteria if each.name == "ranking")
    assert overall.sentence == "It ranks better than the champion."


def test_a_slice_too_small_is_named_and_not_judged() -> None:
    scores = made_scores(600, 4.0)
    scores.loc[[1, 3], "manipulation"] = "rare"
    result = decide(evidence(scores=scores, champion=versus(scores, scores)), PromoteConfig())
    assert result.ready
    assert "too small to judge: manipulation=rare" in page(result)


def test_tiny_n_cannot_decide_and_the_champion_stays() -> None:
    """Even with every sample right: ten groups show nothing about a margin of 0.02."""
    scores = made_scores(20, 8.0)
    assert metrics.roc_auc(scores["label"], scores["probability"]) == 1.0
    result = decide(evidence(scores=scores, champion=versus(scores, scores)), PromoteConfig())
    assert not result.ready
    assert verdicts(result) == {"size of the comparison": "undecided", "false alarms": "undecided"}
    assert result.summary.startswith("Version 1 stays champion; too few samples to decide:")
    assert "n = 20 cannot decide" in page(result)
    assert "10 reals cannot show that false alarms are in bounds; without a single one it takes 36." in page(result)


def test_the_number_of_reals_needed_is_exact() -> None:
    for n, passes in ((35, False), (36, True)):
        high = metrics.clopper_pearson(0, n).high
        assert high is not None
        assert (high <= 0.1) == passes


def test_false_alarms_out_of_bounds() -> None:
    scores = made_scores(600, 4.0)
    wrong = scores.index[scores["label"] == 0][:60]
    scores.loc[wrong, "probability"] = 0.55
    config = PromoteConfig(margin_ece=1, margin_brier=1, margin_auc=0.4, max_slice_drop=1)
    given = evidence(scores=scores, champion=versus(scores, made_scores(600, 4.0)))
    result = decide(given, config)
    assert verdicts(result) == {"false alarms": "failed"}
    found = next(each for each in result.criteria if each.name == "false alarms")
    rate = float((scores.loc[scores["label"] == 0, "probability"] >= THRESHOLD).mean())
    assert found.value.startswith(f"{rate:.1%} [")
    assert "calls too many reals fake" in page(result)
    # The same scores at a higher threshold are in bounds.
    assert failed(dataclasses.replace(given, threshold=0.6), config) == []


@pytest.mark.parametrize("what", ["no scores of the champion", "no own scores"])
def test_missing_evidence_keeps_the_champion(what: str) -> None:
    scores = made_scores(600, 4.0)
    champion = versus(scores, scores, paired=None, robustness=None, source="Version 1 left nothing to compare with.")
    result = decide(evidence(champion=champion, scores=None if what == "no own scores" else scores), PromoteConfig())
    missing = {"size of the comparison", "ranking", "Brier score", "robustness", "slices"}
    missing |= {"false alarms", "calibration"} if what == "no own scores" else set()
    assert verdicts(result) == dict.fromkeys(missing, "missing")
    assert result.summary.startswith("Version 1 stays champion; evidence is missing:")
    assert "Version 1 left nothing to compare with. Without it the champion stays." in page(result)


def test_probabilities_that_are_not_calibrated() -> None:
    good = made_scores(600, 1.5)
    bold = good.assign(probability=np.where(good["probability"] > 0.5, 0.9999, 0.0001))
    bold["probability"] += (good["probability"] - 0.5) * 1e-6  # the same ranking
    result = decide(evidence(scores=bold, champion=versus(bold, good)), PromoteConfig(max_fpr=1))
    assert verdicts(result) == {"calibration": "failed", "Brier score": "failed"}
    assert "further off than chance explains" in page(result)


def test_fallen_robustness_from_tables_and_from_damaged_crops() -> None:
    scores = made_scores(600, 4.0)
    fallen = versus(scores, scores).robustness
    assert fallen is not None
    result = decide(
        evidence(champion=versus(scores, scores, robustness=fallen.assign(value=0.9)), scores=scores), PromoteConfig()
    )
    assert verdicts(result) == {"robustness": "failed"}
    assert "worst -0.110 (jpeg 3)" in page(result)
    hurt = made_scores(600, 2.0).assign(champion=scores["probability"])
    same = scores.assign(champion=scores["probability"])
    for damaged, expected in (
        ({"jpeg 3": same, "gaussian_blur 3": hurt}, {"robustness": "failed"}),
        ({"jpeg 3": same}, {}),
    ):
        result = decide(evidence(champion=versus(scores, scores, damaged=damaged), scores=scores), PromoteConfig())
        assert verdicts(result) == expected


# --- data checks, and the first champion -----------------------------------------------------------------------------


def test_data_checks() -> None:
    given = evidence()
    audit = Estimate(value=0.95, low=0.9, high=0.99, n=100)
    dataset = given.dataset.model_copy(update={"metadata_audit_auc": audit})
    assert failed(dataclasses.replace(given, dataset=dataset)) == ["file metadata"]
    unknown = given.dataset.model_copy(update={"metadata_audit_auc": Estimate(value=None, n=3)})
    assert verdicts(decide(dataclasses.replace(given, dataset=unknown), PromoteConfig())) == {
        "file metadata": "missing"
    }
    assert failed(dataclasses.replace(given, leaks=["3 groups lie in more than one split"])) == ["leaks between splits"]
    assert failed(dataclasses.replace(given, leaks=None)) == ["leaks between splits"]


def test_first_champion_must_be_better_than_guessing() -> None:
    result = decide(evidence(), PromoteConfig())
    assert result.ready
    assert "first champion" in result.summary
    assert {each.name for each in result.criteria if each.verdict == "not applicable"} == {"Brier score", "robustness"}
    guess = decide(evidence(scores=made_scores(600, 0.05)), PromoteConfig(max_fpr=1))
    assert verdicts(guess) in ({"ranking": "undecided"}, {"ranking": "failed"})
    assert "become" in page(guess, None)


def test_first_champion_with_a_slice_below_guessing() -> None:
    scores = made_scores(600, 4.0)
    inside = scores["source"] == "b"
    scores.loc[inside, "probability"] = 1 - scores.loc[inside, "probability"]
    result = decide(evidence(scores=scores), PromoteConfig(max_fpr=1, margin_ece=1))
    assert verdicts(result)["slices"] == "failed"


# --- on trial --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("auc", "bound", "passes"),
    [(0.9, 0.9, True), (0.8999, 0.9, False), (0.5, 0.5, True), (0.4, 0.5, False), (None, 0.0, False)],
)
def test_auc_against_its_bound(auc: float | None, bound: float, passes: bool) -> None:
    result = decide(evidence(auc), PromoteConfig(min_auc=bound))
    assert result.sound == passes
    assert failed(evidence(auc), PromoteConfig(min_auc=bound)) == ([] if passes else ["test AUC of fusion"])


def test_no_auc_at_all() -> None:
    assert failed(evidence(evaluation=evaluation(None))) == ["test AUC of fusion"]


@pytest.mark.parametrize("confusion", [((0, 0), (2, 8)), ((9, 1), (0, 0)), ((0, 0), (0, 0))])
def test_a_class_without_test_samples(confusion: tuple[tuple[int, int], tuple[int, int]]) -> None:
    given = evidence(evaluation=evaluation(Estimate(value=0.9, n=10), confusion))
    assert failed(given) == ["test samples with a score"]


def test_damaged_files() -> None:
    result = decide(evidence(file_problems=["meso4.onnx is missing"]), PromoteConfig())
    assert not result.sound
    assert result.summary == "No alias. It does not become champion; not passed: bundle files."
    assert [c.value for c in result.criteria if not c.passed] == ["meso4.onnx is missing"]


@pytest.mark.parametrize("parity", [{}, {"meso4": PARITY_LIMIT * 1.01}, {"meso4": float("nan")}])
def test_onnx_that_was_not_checked_or_differs(parity: dict[str, float]) -> None:
    given = evidence()
    changed = given.manifest.model_copy(update={"parity": parity})
    assert failed(dataclasses.replace(given, manifest=changed)) == ["ONNX equals torch"]


@pytest.mark.parametrize("where", ["features", "detector meso4"])
def test_another_data_set_or_extractor(where: str) -> None:
    given = evidence()
    other = dataclasses.replace(given, dataset_versions={**given.dataset_versions, where: "d2"})
    assert failed(other) == ["data set version"]
    other = dataclasses.replace(given, extractor_versions={**given.extractor_versions, where: "2"})
    assert failed(other) == ["extractor version"]
    value = next(c.value for c in decide(other, PromoteConfig()).criteria if not c.passed)
    assert where in value


def test_every_failure_is_listed() -> None:
    given = dataclasses.replace(evidence(0.2), file_problems=["x is missing"], dataset_versions={"features": "d9"})
    assert failed(given) == ["test AUC of fusion", "bundle files", "data set version"]


# --- pairing ---------------------------------------------------------------------------------------------------------


def test_samples_are_matched_by_their_bytes_once() -> None:
    scores = pd.concat([made_scores(8, 1.0), made_scores(8, 1.0).iloc[:2].assign(sample_id=["x", "y"])])
    champion = {f"{i:064x}": 0.1 * i for i in range(2, 12)}
    paired = pair(scores, champion, {f"{3:064x}": 0})
    # 0 and 1 have no score of the champion, 3 has another label there.
    assert paired["sha256"].tolist() == [f"{i:064x}" for i in (2, 4, 5, 6, 7)]
    assert paired["champion"].tolist() == pytest.approx([0.2, 0.4, 0.5, 0.6, 0.7])


def test_what_the_champion_was_fitted_on_is_left_out() -> None:
    scores = made_scores(8, 1.0)
    splits = ["test", "train", "val", "calib"]
    seen = pd.DataFrame({"sha256": [f"{i:064x}" for i in range(4)], "split": splits})
    assert unseen(scores, seen)["sha256"].tolist() == [f"{i:064x}" for i in (0, 4, 5, 6, 7)]


def test_leaks_are_found() -> None:
    samples = pd.DataFrame(
        {
            "sha256": ["a", "a", "b", "c", "d"],
            "group_id": ["g", "h", "i", "i", None],
            "split": ["train", "test", "val", "calib", "test"],
        }
    )
    assert leaks(samples) == [
        "1 files with the same bytes lie in more than one split",
        "1 groups lie in more than one split",
    ]
    assert leaks(samples.assign(split="test")) == []


def test_a_manipulation_meets_all_reals_and_a_single_source_is_no_slice() -> None:
    scores = made_scores(40, 1.0)
    found = parts(scores)
    assert set(found) == {"source=a", "source=b", "manipulation=swap", "manipulation=reenactment"}
    assert (found["manipulation=swap"]["label"] == 0).sum() == 20
    assert (found["manipulation=swap"]["label"] == 1).sum() == 10
    assert "source=a" not in parts(scores.assign(source="a"))


def test_a_page_survives_hostile_words() -> None:
    line = Criterion(name="<script>x</script>", value="a | b\nc", bound="<b>", passed=False, verdict="failed")
    decision = PromotionDecision(
        model="<m>",
        version="1",
        alias=None,
        run_id="",
        tracking_uri="",
        criteria=[line],
        promoted=False,
        summary="<img src=x>",
    )
    html = render_html(decision)
    assert not re.search(r"<(script|img|m)>|<img", html)
    assert "a \\| b c" in render_markdown(decision)
    assert "refused" in html
