"""The retraining pipeline and the pipelines for described clusters, in their compiled form."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from kfp import components as kfp_components

from components import images
from pipelines import compile as compiling
from pipelines import presets
from pipelines.resources import NEEDS, Cluster, read_cluster
from unmask.cli import cli
from unmask.config import load_config
from unmask.errors import ConfigError, InputError

CLUSTER = Path(compiling.__file__).with_name("cluster.yaml")


def load(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    pipeline, platform = yaml.load_all(file.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader"))  # noqa: B009
    return pipeline, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


@pytest.fixture(scope="module")
def retraining() -> tuple[dict[str, Any], dict[str, Any]]:
    return load(compiling.COMPILED / "retraining.yaml")


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compiled")
    compiling.compile_all(folder, read_cluster(CLUSTER))
    return folder


def tasks(spec: dict[str, Any], dag: str) -> dict[str, Any]:
    found: dict[str, Any] = spec["components"][dag]["dag"]["tasks"]
    return found


def test_every_compiled_pipeline_loads_with_the_sdk() -> None:
    for file in sorted(compiling.COMPILED.glob("*.yaml")):
        kfp_components.load_component_from_file(str(file))


def test_a_message_is_sent_whatever_happens(retraining: Any) -> None:
    spec, _ = retraining
    root = spec["root"]["dag"]["tasks"]
    assert sorted(root) == ["exit-handler-1", "notify"]
    assert root["notify"]["triggerPolicy"] == {"strategy": "ALL_UPSTREAM_TASKS_COMPLETED"}
    status = root["notify"]["inputs"]["parameters"]["status"]
    assert status == {"taskFinalStatus": {"producerTask": "exit-handler-1"}}


def test_prerequisites_come_first_and_training_only_when_it_is_asked_for(retraining: Any) -> None:
    spec, _ = retraining
    watched = tasks(spec, "comp-exit-handler-1")
    assert {"check-prerequisites", "check-gpu"} <= set(watched["ingest"]["dependentTasks"])
    assert "dependentTasks" not in watched["check-prerequisites"]
    condition = watched["condition-2"]
    assert "decide-retraining" in condition["dependentTasks"]
    assert condition["triggerPolicy"]["condition"].endswith("== 'yes'")
    trained = tasks(spec, "comp-condition-2")
    assert {"ensemble", "fuse", "evaluate", "bundle", "promote"} <= set(trained)
    assert not {"train", "promote"} & set(watched)


def test_what_depends_on_the_world_outside_is_never_answered_from_the_cache(retraining: Any) -> None:
    spec, _ = retraining
    found = {**spec["root"]["dag"]["tasks"], **tasks(spec, "comp-exit-handler-1")}
    for name in ("notify", "check-prerequisites", "check-gpu", "ingest", "decide-retraining"):
        assert not found[name]["cachingOptions"].get("enableCache"), name
    assert tasks(spec, "comp-condition-2")["ensemble"]["cachingOptions"] == {"enableCache": True}


def test_secrets_of_messages_go_to_the_step_that_sends_them(retraining: Any) -> None:
    _, executors = retraining
    with_mail = [
        name
        for name, entry in executors.items()
        if any(secret["secretName"] == "unmask-notifications" for secret in entry.get("secretAsEnv", []))
    ]
    assert with_mail == ["exec-notify"]


def test_forms_are_short_and_described() -> None:
    for file in (compiling.COMPILED / name for name in ("retraining.yaml", "training-smoke.yaml")):
        parameters = load(file)[0]["root"]["inputDefinitions"]["parameters"]
        assert len(parameters) <= 13
        assert all(entry["description"] for entry in parameters.values())
        needed = {name for name, entry in parameters.items() if "defaultValue" not in entry}
        assert needed == {"sources", "tracking_uri"}


def test_the_smoke_form_shows_the_preset_and_only_defaults_differ() -> None:
    smoke, full = (load(compiling.COMPILED / name)[0] for name in ("training-smoke.yaml", "training.yaml"))
    shown = {name: entry.get("defaultValue") for name, entry in smoke["root"]["inputDefinitions"]["parameters"].items()}
    for name, value in presets.preset("smoke").items():
        assert shown[name] == value
    assert load_config(inline=str(shown["config"])).evaluate.resamples == 200
    assert smoke["deploymentSpec"] == full["deploymentSpec"]
    assert smoke["components"] == full["components"]


def test_presets_are_valid_and_an_unknown_one_is_told() -> None:
    for name in presets.names():
        presets.preset(name)
    with pytest.raises(InputError, match="smoke"):
        presets.preset("quick")


def test_detectors_go_to_their_own_nodes(described: Path) -> None:
    spec, executors = load(described / "training.yaml")
    cluster = read_cluster(CLUSTER)
    loops = {name: entry for name, entry in spec["components"].items() if name.startswith("comp-for-loop")}
    learning = {name: entry["dag"]["tasks"] for name, entry in loops.items()}
    trained = {name: task for found in learning.values() for name, task in found.items() if name.startswith("train")}
    assert sorted(trained) == ["train", "train-2", "train-3"]
    containers = {name: entry["container"] for name, entry in spec["deploymentSpec"]["executors"].items()}
    gpu = {name: containers[f"exec-{name}"]["resources"].get("accelerator") for name in trained}
    assert (gpu["train"]["resourceType"], gpu["train"]["resourceCount"]) == ("nvidia.com/gpu", "1")
    assert gpu["train-2"] is None
    assert gpu["train-3"]["resourceCount"] == "2"
    assert executors["exec-train"]["nodeSelector"]["labels"] == {"unmask.io/pool": "gpu"}
    assert {"key": "unmask.io/spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"} in [
        {key: value for key, value in toleration.items() if isinstance(value, str)}
        for toleration in executors["exec-train"]["tolerations"]
    ]
    assert "nodeSelector" not in executors["exec-train-2"]
    sizes = {name: executors[f"exec-{name}"]["emptyDirMounts"][0]["sizeLimit"] for name in trained}
    assert sizes == {"train": "8Gi", "train-2": "2Gi", "train-3": "16Gi"}
    assert containers["exec-train-3"]["resources"]["resourceMemoryLimit"] == cluster.models[1].memory[1]  # type: ignore[index]
    assert trained["train"]["retryPolicy"]["maxRetryCount"] == 5
    raw = json.dumps(spec["root"]["dag"]["tasks"])
    assert "mesoinception4" in raw
    for consumer in ("ensemble", "evaluate", "bundle", "promote"):
        given = spec["root"]["dag"]["tasks"][consumer]["inputs"]["artifacts"]
        producers = {given[key]["taskOutputArtifact"]["producerTask"] for key in given if key.startswith("detectors")}
        assert len(producers) == 3


def test_images_of_a_cluster_with_digests(tmp_path: Path) -> None:
    digest = "sha256:" + "ab" * 32
    file = tmp_path / "cluster.yaml"
    given = {"images": {"registry": "registry.example/team/", "tag": "2.0", "digests": {"training": digest}}}
    file.write_text(yaml.safe_dump({**given, "training": {"count": 0}}))
    compiling.compile_all(tmp_path / "out", read_cluster(file))
    spec, _ = load(tmp_path / "out" / "training.yaml")
    executors = spec["deploymentSpec"]["executors"]
    assert executors["exec-train"]["container"]["image"] == f"registry.example/team/training:2.0@{digest}"
    assert executors["exec-ingest"]["container"]["image"] == "registry.example/team/pipeline:2.0"
    assert "accelerator" not in executors["exec-train"]["container"]["resources"]
    retraining, _ = load(tmp_path / "out" / "retraining.yaml")
    assert "check-gpu" not in tasks(retraining, "comp-exit-handler-1")
    assert retraining["root"]["inputDefinitions"]["parameters"]["need_gpu"]["defaultValue"] is False


def test_no_step_runs_as_root() -> None:
    for file in sorted(compiling.COMPILED.glob("*.yaml")):
        spec, executors = load(file)
        assert set(executors) == set(spec["deploymentSpec"]["executors"])
        contexts = [entry["securityContext"] for entry in executors.values()]
        assert all(int(context["runAsUser"]) == 1000 and context["runAsNonRoot"] for context in contexts)
    for file in (Path(compiling.__file__).parents[1] / "images").glob("*.Dockerfile"):
        assert "\nUSER 1000\n" in file.read_text(encoding="utf-8"), file.name


def test_files_are_divided_among_as_many_pods_as_the_cluster_says(described: Path) -> None:
    shards = read_cluster(CLUSTER).shards
    for name, around in (("training", "root"), ("retraining", "comp-exit-handler-1"), ("tuning", "root")):
        spec, executors = load(described / f"{name}.yaml")
        root = spec["root"]["dag"]["tasks"] if around == "root" else tasks(spec, around)
        loops = [entry for entry in root.values() if entry["taskInfo"]["name"].startswith("each-shard")]
        assert len(loops) == 2
        for loop in loops:
            assert json.loads(loop["parameterIterator"]["items"]["raw"]) == [
                f"{number}/{shards}" for number in range(1, shards + 1)
            ]
        assert {"ingest-inspected", "merge-extract"} <= set(root)
        assert not {"ingest", "extract"} & set(root)
        given = root["merge-extract"]["inputs"]["artifacts"]
        assert {"shard_faces", "shard_features"} <= set(given)
        secrets = [secret["secretName"] for secret in executors["exec-inspect-shard"]["secretAsEnv"]]
        assert secrets == ["unmask-object-store", "unmask-sources"]
        assert "secretAsEnv" not in executors["exec-merge-extract"]
        if name == "retraining":
            first = next(loop for loop in loops if loop["taskInfo"]["name"] == "each-shard-inspected")
            assert first["dependentTasks"] == ["check-gpu", "check-prerequisites"]


def test_steps_that_talk_to_servers_find_the_certificates_to_trust(described: Path) -> None:
    spec, executors = load(described / "training.yaml")
    mounted = {name for name, entry in executors.items() if entry.get("configMapAsVolume")}
    assert {"exec-train", "exec-promote", "exec-inspect-shard"} <= mounted
    assert not {"exec-ensemble", "exec-fuse"} & mounted
    (volume,) = executors["exec-promote"]["configMapAsVolume"]
    assert (volume["configMapName"], volume["mountPath"]) == ("company-ca", "/etc/unmask-ca")
    environment = spec["deploymentSpec"]["executors"]["exec-promote"]["container"]["env"]
    assert {"name": "MLFLOW_TRACKING_SERVER_CERT_PATH", "value": "/etc/unmask-ca/ca.crt"} in environment
    committed = compiling.COMPILED / "training.yaml"
    assert "configMapAsVolume" not in committed.read_text(encoding="utf-8")


def test_sizes_of_steps_and_names_of_secrets_can_be_changed(described: Path, tmp_path: Path) -> None:
    spec, _ = load(described / "training.yaml")
    resources = spec["deploymentSpec"]["executors"]["exec-ingest-inspected"]["container"]["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == NEEDS["ingest-inspected"].cpu
    sizes = [
        entry["container"]["resources"]["resourceMemoryLimit"]
        for name, entry in spec["deploymentSpec"]["executors"].items()
        if name.startswith("exec-extract")
    ]
    assert "32Gi" in sizes
    cluster = Cluster.model_validate({"secrets": {"object_store": "their-bucket"}})
    compiling.compile_all(tmp_path, cluster)
    _, executors = load(tmp_path / "training.yaml")
    assert executors["exec-ingest"]["secretAsEnv"][0]["secretName"] == "their-bucket"


def test_everything_wrong_with_a_cluster_file_is_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "training: {accelerator: gpu, colour: red}\nsteps: {fly: {}}\nimages: {tag: latest}\n"
        "models: [{detectors: [a]}, {detectors: []}]\n"
    )
    with pytest.raises(ConfigError) as caught:
        read_cluster(file)
    for word in ("training.accelerator", "training.colour", "images", "models.1.detectors"):
        assert word in str(caught.value)
    file.write_text("steps: {fly: {}}\n")
    with pytest.raises(ConfigError, match="unknown steps: fly"):
        read_cluster(file)


def test_references_are_written_in_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "images.json"
    images.write(images.IMAGES, file)
    monkeypatch.setattr(images, "FILE", file)
    monkeypatch.setattr(images.read, "__defaults__", (file,))
    digest = "sha256:" + "0" * 64
    images.main(["--registry", "registry.example/x", "--tag", "1.2", "--digest", f"serving={digest}"])
    assert images.read(file).reference("serving") == f"registry.example/x/serving:1.2@{digest}"
    images.main(["--digest", f"pipeline={digest}"])
    assert images.read(file).digests == {"pipeline": digest, "serving": digest, "training": ""}
    images.main(["--tag", "1.3"])  # other images: what was known of the old ones no longer counts
    assert set(images.read(file).digests.values()) == {""}
    for wrong in (["--tag", "latest"], ["--digest", "serving=sha256:12"], ["--digest", f"gpu={digest}"]):
        with pytest.raises(SystemExit):
            images.main(wrong)


@pytest.mark.parametrize("name", ["check_prerequisites", "check_gpu", "decide_retraining", "notify"])
def test_the_new_steps_call_commands_with_options_that_exist(name: str) -> None:
    component = getattr(importlib.import_module(f"components.{name}"), name)
    container = component.component_spec.implementation.container
    assert container.command == ["unmask", name.replace("_", "-")]
    command = cli.get_command(click.Context(cli), container.command[1])
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    required = {parameter.opts[0] for parameter in command.params if parameter.required}
    used = {text for text in container.args if isinstance(text, str) and text.startswith("--")}
    assert required <= used <= known
    inputs = component.component_spec.inputs
    assert all(entry.description for entry in inputs.values())
    text = " ".join(map(str, container.args))
    assert {key for key in inputs if f"['{key}']" not in text} <= {"upstream"}
