"""The compiled training pipeline: what a cluster gets."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines import compile as compiling
from pipelines.resources import NEEDS
from unmask.config import UnmaskConfig

STAGES = ["ingest", "extract", "train", "ensemble", "fuse", "evaluate", "bundle", "promote"]


@pytest.fixture(scope="module")
def documents() -> tuple[dict[str, Any], dict[str, Any]]:
    pipeline, platform = yaml.safe_load_all((compiling.COMPILED / "training.yaml").read_text(encoding="utf-8"))
    return pipeline, platform


@pytest.fixture(scope="module")
def spec(documents: Any) -> dict[str, Any]:
    return documents[0]


@pytest.fixture(scope="module")
def tasks(spec: dict[str, Any]) -> dict[str, Any]:
    return {**spec["root"]["dag"]["tasks"], **spec["components"]["comp-for-loop-1"]["dag"]["tasks"]}


@pytest.fixture(scope="module")
def containers(spec: dict[str, Any]) -> dict[str, Any]:
    return {
        name.removeprefix("exec-"): entry["container"] for name, entry in spec["deploymentSpec"]["executors"].items()
    }


def test_the_committed_pipeline_is_what_the_code_compiles_to() -> None:
    assert compiling.stale() == []


def test_a_changed_pipeline_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (compiling.COMPILED / "training.yaml").read_text(encoding="utf-8")
    for file in compiling.COMPILED.glob("*.yaml"):
        shutil.copy(file, tmp_path)
    (tmp_path / "training.yaml").write_text(text.replace("kfp-2.17.0", "kfp-9.9.9"), encoding="utf-8")
    monkeypatch.setattr(compiling, "COMPILED", tmp_path)
    assert compiling.stale() == []
    (tmp_path / "training.yaml").write_text(text.replace("maxRetryCount: 2", "maxRetryCount: 3"), encoding="utf-8")
    assert compiling.stale() == ["training.yaml"]
    assert compiling.main(["--check"]) == 1


def test_task_ids_are_stable(spec: dict[str, Any], tasks: dict[str, Any]) -> None:
    assert sorted(spec["root"]["dag"]["tasks"]) == sorted([*(s for s in STAGES if s != "train"), "for-loop-1"])
    assert sorted(tasks) == sorted([*STAGES, "for-loop-1"])


def test_detectors_are_trained_side_by_side(tasks: dict[str, Any]) -> None:
    loop = tasks["for-loop-1"]
    assert loop["parameterIterator"]["items"] == {"inputParameter": "pipelinechannel--detectors"}
    assert "iteratorPolicy" not in loop
    for consumer in ("ensemble", "evaluate", "bundle", "promote"):
        source = tasks[consumer]["inputs"]["artifacts"]["detectors"]["taskOutputArtifact"]
        assert source == {"outputArtifactKey": "pipelinechannel--train-trained", "producerTask": "for-loop-1"}


def test_parameters_are_few_typed_described_and_take_the_configured_defaults(spec: dict[str, Any]) -> None:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    assert len(parameters) <= 12
    assert all(entry["description"] for entry in parameters.values())
    assert all("\n" not in entry["description"] for entry in parameters.values())
    config = UnmaskConfig()
    defaults = {name: entry["defaultValue"] for name, entry in parameters.items() if "defaultValue" in entry}
    assert set(parameters) - set(defaults) == {"sources", "tracking_uri"}
    assert defaults["detectors"] == list(config.detectors)
    assert defaults["epochs"] == config.train.epochs
    assert defaults["target_fpr"] == config.fusion.target_fpr
    assert defaults["operating_point"] == config.fusion.operating_point
    assert defaults["registered_model"] == config.promote.registered_model
    assert defaults["seed"] == config.seed
    kinds = {name: entry["parameterType"] for name, entry in parameters.items()}
    assert kinds["detectors"] == kinds["sources"] == "LIST"
    assert kinds["epochs"] == kinds["seed"] == "NUMBER_INTEGER"
    assert kinds["target_fpr"] == "NUMBER_DOUBLE"


def test_every_placeholder_is_one_that_the_backend_resolves() -> None:
    """kfp leaves a channel in the text of an f-string if its type is written as list[str]."""
    assert "{{channel" not in (compiling.COMPILED / "training.yaml").read_text(encoding="utf-8")


def test_every_step_knows_in_its_cache_key_what_its_inputs_were_made_from(tasks: dict[str, Any]) -> None:
    """Kubeflow's key leaves the bytes of artifacts out, so that a new upstream result would go unnoticed."""
    upstream = {name: tasks[name]["inputs"]["parameters"]["upstream"] for name in STAGES if name != "ingest"}
    dataset_version = {"outputParameterKey": "dataset_version", "producerTask": "ingest"}
    assert upstream["extract"]["taskOutputParameter"] == dataset_version
    assert upstream["train"]["componentInputParameter"] == "pipelinechannel--ingest-dataset_version"
    for name in ("ensemble", "fuse", "evaluate", "bundle", "promote"):
        text = upstream[name]["runtimeValue"]["constant"]
        assert all(
            f"pipelinechannel--{key}" in text for key in ("ingest-dataset_version", "detectors", "epochs", "seed")
        )
    for name in ("evaluate", "bundle", "promote"):
        text = upstream[name]["runtimeValue"]["constant"]
        assert all(f"pipelinechannel--{key}" in text for key in ("target_fpr", "operating_point"))
    assert all("config" in tasks[name]["inputs"]["parameters"] for name in STAGES)


def test_caching_and_retries(tasks: dict[str, Any]) -> None:
    assert all(tasks[name]["cachingOptions"] == {"enableCache": True} for name in STAGES)
    assert tasks["ingest"]["inputs"]["parameters"]["data_version"] == {"componentInputParameter": "data_version"}
    for name in STAGES:
        policy = tasks[name].get("retryPolicy", {})
        assert policy.get("maxRetryCount", 0) == NEEDS[name].retries
        if name != "promote":
            assert (policy["backoffDuration"], policy["backoffFactor"]) == ("60s", 2.0)
    assert "retryPolicy" not in tasks["promote"]


def test_resources(containers: dict[str, Any]) -> None:
    assert sorted(containers) == sorted(STAGES)
    for name in STAGES:
        needs = NEEDS[name]
        resources = containers[name]["resources"]
        assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == needs.cpu
        assert (resources["resourceMemoryRequest"], resources["resourceMemoryLimit"]) == needs.memory
    accelerated = {name: entry["resources"].get("accelerator") for name, entry in containers.items()}
    assert accelerated.pop("train")["resourceType"] == "nvidia.com/gpu"
    assert not any(accelerated.values())


def test_secrets_are_named_optional_and_given_only_to_steps_that_need_them(documents: Any) -> None:
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    secrets = {name: entry.get("secretAsEnv", []) for name, entry in executors.items()}
    assert {name: [secret["secretName"] for secret in entry] for name, entry in secrets.items() if entry} == {
        "exec-ingest": ["unmask-object-store", "unmask-sources"],
        "exec-extract": ["unmask-object-store"],
        "exec-train": ["unmask-object-store", "unmask-tracking"],
        "exec-promote": ["unmask-object-store", "unmask-tracking"],
    }
    assert all(secret["optional"] for entry in secrets.values() for secret in entry)
    shared = executors["exec-train"]["emptyDirMounts"]
    assert [(mount["mountPath"], mount["medium"]) for mount in shared] == [("/dev/shm", "Memory")]


def test_the_committed_files_cannot_be_overwritten_for_another_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        compiling.main(["--gpus", "0"])
    assert "--out" in capsys.readouterr().err
