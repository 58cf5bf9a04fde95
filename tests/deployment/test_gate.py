"""The promotion matrix: each criterion fails alone, and only then is the alias refused."""

from __future__ import annotations

import dataclasses

import pytest

from unmask.config import PromoteConfig
from unmask.deployment.gate import CRITERIA, PARITY_LIMIT, Evidence, decide
from unmask.schemas import DatasetInfo, Estimate, EvaluationInfo, Manifest, OperatingPoint, Preprocessing

RATE = Estimate(value=0.5, low=0.1, high=0.9, n=10)


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
        operating_point=OperatingPoint(name="max_f1", threshold=0.5, fpr=RATE, tpr=RATE, resolvable=True),
        n_scored=20,
        n_unscored={"no_face": 2},
    )


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
    dataset = DatasetInfo(
        name="set", version="d1", counts={}, failed={}, groups={}, metadata_audit_auc=RATE, sources={}
    )
    plain = Evidence(
        manifest=manifest,
        evaluation=evaluation(Estimate(value=auc, low=low, high=1.0, n=20)),
        dataset=dataset,
        dataset_versions={"features": "d1", "detector meso4": "d1"},
        extractor_versions={"features": "1", "detector meso4": "1"},
    )
    return dataclasses.replace(plain, **changes)


def failed(given: Evidence, config: PromoteConfig | None = None) -> list[str]:
    result = decide(given, config or PromoteConfig())
    assert len(result.criteria) == len(CRITERIA)
    names = [criterion.name for criterion in result.criteria if not criterion.passed]
    assert result.promoted == (not names)
    return names


def test_all_is_well() -> None:
    result = decide(evidence(), PromoteConfig())
    assert result.promoted
    assert "0.900 [0.800, 1.000]" in result.summary
    assert "guessing" not in result.summary


def test_an_interval_that_includes_one_half_is_told() -> None:
    result = decide(evidence(0.7, low=0.45), PromoteConfig())
    assert result.promoted
    assert "not shown to be better than guessing" in result.summary


def test_a_missing_interval_is_told() -> None:
    result = decide(evidence(0.9, low=None), PromoteConfig())
    assert result.promoted
    assert "no interval" in result.summary


@pytest.mark.parametrize(
    ("auc", "bound", "passes"),
    [(0.9, 0.9, True), (0.8999, 0.9, False), (0.5, 0.5, True), (0.4, 0.5, False), (None, 0.0, False)],
)
def test_auc_against_its_bound(auc: float | None, bound: float, passes: bool) -> None:
    names = failed(evidence(auc), PromoteConfig(min_auc=bound))
    assert names == ([] if passes else ["test AUC of fusion"])


def test_no_auc_at_all() -> None:
    assert failed(evidence(evaluation=evaluation(None))) == ["test AUC of fusion"]


@pytest.mark.parametrize("confusion", [((0, 0), (2, 8)), ((9, 1), (0, 0)), ((0, 0), (0, 0))])
def test_a_class_without_test_samples(confusion: tuple[tuple[int, int], tuple[int, int]]) -> None:
    given = evidence(evaluation=evaluation(Estimate(value=0.9, n=10), confusion))
    assert failed(given) == ["test samples with a score"]


def test_damaged_files() -> None:
    result = decide(evidence(file_problems=["meso4.onnx is missing"]), PromoteConfig())
    assert not result.promoted
    assert result.summary == "No alias: bundle files did not pass."
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
