"""The compiled tuning pipeline."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.compile import COMPILED
from unmask.config import TuneConfig


@pytest.fixture(scope="module")
def spec() -> dict[str, Any]:
    return next(yaml.safe_load_all((COMPILED / "tuning.yaml").read_text(encoding="utf-8")))


def test_detectors_are_tuned_side_by_side_on_gpus(spec: dict[str, Any]) -> None:
    assert sorted(spec["root"]["dag"]["tasks"]) == ["extract", "for-loop-1", "ingest"]
    (loop,) = (part for name, part in spec["components"].items() if name == "comp-for-loop-1")
    assert list(loop["dag"]["tasks"]) == ["tune"]
    resources = spec["deploymentSpec"]["executors"]["exec-tune"]["container"]["resources"]
    assert resources["accelerator"]["resourceCount"] == "1"


def test_parameters_are_described_and_take_the_configured_defaults(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert parameters["trials"]["defaultValue"] == TuneConfig().trials
    assert all(parameter["description"] for parameter in parameters.values())
    assert [name for name, parameter in parameters.items() if not parameter.get("isOptional")] == ["sources"]


def test_it_is_committed() -> None:
    assert Path(COMPILED / "tuning.yaml").is_file()
