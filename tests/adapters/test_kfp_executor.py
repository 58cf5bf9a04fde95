"""The executor contract, read back with kfp's own readers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unmask.adapters.kfp_executor import MAX_ROC_POINTS, ExecutorIO
from unmask.errors import InputError
from unmask.schemas import StageOutcome


def executor_input(folder: Path) -> dict[str, Any]:
    def output(name: str, schema: str) -> dict[str, Any]:
        return {"artifacts": [{"type": {"schemaTitle": schema}, "uri": str(folder / name)}]}

    return {
        "inputs": {
            "parameterValues": {"seed": 3},
            "artifacts": {
                "detectors": {
                    "artifacts": [
                        {"name": "trained", "uri": "/runs/train-0/trained"},
                        {"name": "trained", "uri": "minio://bucket/a b/trained"},
                        {"name": "trained", "uri": "s3://bucket/trained"},
                        {"name": "trained", "uri": "gs://bucket/trained", "customPath": "/mine"},
                    ]
                }
            },
        },
        "outputs": {
            "artifacts": {
                "dataset": output("dataset", "system.Dataset"),
                "metrics": output("metrics", "system.Metrics"),
                "roc": output("roc", "system.ClassificationMetrics"),
            },
            "outputFile": str(folder / "deep" / "executor_output.json"),
        },
    }


def finished(folder: Path, outcome: StageOutcome, **parameters: str) -> Any:
    """Finish a step and parse its output file as kfp's backend and local runner do."""
    from google.protobuf import json_format
    from kfp.pipeline_spec import pipeline_spec_pb2

    ExecutorIO.from_json(json.dumps(executor_input(folder))).finish(outcome, parameters)
    text = (folder / "deep" / "executor_output.json").read_text(encoding="utf-8")
    return json_format.Parse(text, pipeline_spec_pb2.ExecutorOutput())


def test_list_inputs_become_local_paths(tmp_path: Path) -> None:
    io = ExecutorIO.from_json(json.dumps(executor_input(tmp_path)))
    expected = ["/runs/train-0/trained", "/minio/bucket/a b/trained", "/s3/bucket/trained", "/mine"]
    assert [str(path) for path in io.input_paths("detectors")] == expected


def test_unknown_input_names_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="detectors"):
        ExecutorIO.from_json(json.dumps(executor_input(tmp_path))).input_paths("faces")


@pytest.mark.parametrize("text", ["{{$}}", "[1]", '{"inputs": {}}'])
def test_text_that_is_no_executor_input_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="--executor-input"):
        ExecutorIO.from_json(text)


def test_output_parameters_and_every_artifact_are_registered(tmp_path: Path) -> None:
    message = finished(tmp_path, StageOutcome(), dataset_version="abc")
    assert message.parameter_values["dataset_version"].string_value == "abc"
    assert {name: entry.artifacts[0].uri for name, entry in message.artifacts.items()} == {
        name: str(tmp_path / name) for name in ("dataset", "metrics", "roc")
    }


def test_an_artifact_keeps_the_name_it_was_given_and_gets_none_otherwise(tmp_path: Path) -> None:
    """On a cluster names are unique in the metadata store, so that an invented one fails in the second run."""
    assert finished(tmp_path, StageOutcome()).artifacts["dataset"].artifacts[0].name == ""
    named = executor_input(tmp_path)
    named["outputs"]["artifacts"]["dataset"]["artifacts"][0]["name"] = "mine"
    ExecutorIO.from_json(json.dumps(named)).finish(StageOutcome())
    message = json.loads((tmp_path / "deep" / "executor_output.json").read_text(encoding="utf-8"))
    assert message["artifacts"]["dataset"]["artifacts"][0]["name"] == "mine"


def test_metrics_are_numbers_and_undefined_ones_are_left_out(tmp_path: Path) -> None:
    message = finished(tmp_path, StageOutcome(metrics={"auc": 0.75, "n": 8, "brier": float("nan")}))
    assert dict(message.artifacts["metrics"].artifacts[0].metadata) == {"auc": 0.75, "n": 8.0}
    assert json.loads((tmp_path / "metrics").read_text(encoding="utf-8")) == {"auc": 0.75, "n": 8.0}
    assert dict(message.artifacts["dataset"].artifacts[0].metadata) == {}
    assert not (tmp_path / "dataset").exists()


def test_roc_and_confusion_equal_what_the_kfp_sdk_logs(tmp_path: Path) -> None:
    from google.protobuf import json_format
    from kfp import dsl

    outcome = StageOutcome(roc=((0.9, 0.0, 0.5), (0.2, 0.5, 1.0), (float("inf"), 0, 0)), confusion=((3, 1), (2, 4)))
    message = finished(tmp_path, outcome)
    expected = dsl.ClassificationMetrics()
    expected.log_roc_curve(fpr=[0.0, 0.5], tpr=[0.5, 1.0], threshold=[0.9, 0.2])
    expected.log_confusion_matrix(["real", "fake"], [[3, 1], [2, 4]])
    assert json_format.MessageToDict(message.artifacts["roc"].artifacts[0].metadata) == expected.metadata


def test_a_long_roc_curve_is_thinned_and_keeps_its_ends(tmp_path: Path) -> None:
    n = 10 * MAX_ROC_POINTS
    message = finished(tmp_path, StageOutcome(roc=tuple((1 - i / n, i / n, i / n) for i in range(n + 1))))
    points = list(message.artifacts["roc"].artifacts[0].metadata["confidenceMetrics"])
    assert len(points) == MAX_ROC_POINTS
    assert (points[0]["recall"], points[-1]["recall"]) == (0.0, 1.0)
