"""The manifests: every overlay builds, keeps the schemas of its cluster, and keeps to the rules of a safe one."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import jsonschema_rs
from cluster_tools import CUSTOM, build, custom_schema, kubernetes_schemas

from components import images
from pipelines.compile import COMPILED
from pipelines.resources import NOTIFICATION_KEYS, OBJECT_STORE_KEYS, SOURCE_KEYS, TRACKING_KEYS, read_cluster
from unmask.adapters.cron import parse_cron
from unmask.adapters.kfp_client import check_parameters
from unmask.cli import cli

MANIFESTS = Path(__file__).parents[2] / "manifests"
BUILT = ["overlays/kind", "overlays/kind-pipelines", "overlays/production", "kserve", "trainer"]
WORKLOADS = {"Deployment", "StatefulSet", "Job", "InferenceService"}


@pytest.fixture(params=BUILT)
def documents(request: pytest.FixtureRequest) -> tuple[dict[str, Any], ...]:
    return build(MANIFESTS / request.param)


def pods(documents: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for document in documents:
        if document["kind"] == "InferenceService":
            yield document["metadata"]["name"], document["spec"]["predictor"]
        elif document["kind"] in WORKLOADS:
            yield document["metadata"]["name"], document["spec"]["template"]["spec"]


def containers(documents: tuple[dict[str, Any], ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods(documents):
        for container in [*pod["containers"], *pod.get("initContainers", [])]:
            yield f"{name}/{container['name']}", container


@cache
def validator(kind: str, version: str) -> Any:
    if kind in CUSTOM:
        return jsonschema_rs.Draft4Validator(custom_schema(kind, version.rpartition("/")[2]))
    definitions, names = kubernetes_schemas()
    return jsonschema_rs.Draft4Validator({"$ref": f"#/definitions/{names[version, kind]}", "definitions": definitions})


def problems(document: dict[str, Any]) -> list[str]:
    errors = validator(document["kind"], document["apiVersion"]).iter_errors(document)
    return [f"{error.instance_path}: {error.message}" for error in errors]


def test_every_document_keeps_the_schema_of_its_cluster(documents: tuple[dict[str, Any], ...]) -> None:
    assert documents
    found = {f"{d['kind']} {d['metadata']['name']}": problems(d) for d in documents}
    assert {name: entry for name, entry in found.items() if entry} == {}


def test_a_misspelt_field_and_a_wrong_kind_of_value_are_noticed() -> None:
    deployment = next(d for d in build(MANIFESTS / "overlays/kind") if d["kind"] == "Deployment")
    spelt = {**deployment, "spec": {**deployment["spec"], "replica": 2}}
    assert any("replica" in problem for problem in problems(spelt))
    wrong = {**deployment, "spec": {**deployment["spec"], "replicas": "two"}}
    assert problems(wrong)
    service = next(d for d in build(MANIFESTS / "kserve") if d["kind"] == "InferenceService")
    assert problems({**service, "spec": {"predictor": {**service["spec"]["predictor"], "canary": 10}}})


def test_no_overlay_is_left_out() -> None:
    there = {path.parent.relative_to(MANIFESTS).as_posix() for path in MANIFESTS.rglob("kustomization.yaml")}
    assert {name for name in there if not name.startswith("base/")} == set(BUILT)


def test_pods_are_restricted(documents: tuple[dict[str, Any], ...]) -> None:
    for name, pod in pods(documents):
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, name
        assert context["runAsUser"] > 0, name
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
        assert pod.get("automountServiceAccountToken") is False, name
        volumes = {kind for volume in pod.get("volumes", []) for kind in set(volume) - {"name"}}
        assert volumes <= {"configMap", "emptyDir", "projected", "secret", "persistentVolumeClaim"}, name
    for name, container in containers(documents):
        context = container["securityContext"]
        assert context["allowPrivilegeEscalation"] is False, name
        assert context["readOnlyRootFilesystem"] is True, name
        assert context["capabilities"] == {"drop": ["ALL"]}, name
        assert not context.get("privileged"), name


def test_containers_have_requests_and_limits(documents: tuple[dict[str, Any], ...]) -> None:
    for name, container in containers(documents):
        for bound in ("requests", "limits"):
            assert {"cpu", "memory"} <= set(container["resources"][bound]), name


def test_servers_have_probes(documents: tuple[dict[str, Any], ...]) -> None:
    for document in documents:
        if document["kind"] in ("Deployment", "StatefulSet", "InferenceService"):
            for name, container in containers((document,)):
                assert {"livenessProbe", "readinessProbe"} <= set(container), name


def test_images_name_one_version(documents: tuple[dict[str, Any], ...]) -> None:
    for name, container in containers(documents):
        reference = container["image"]
        tag = reference.partition("@")[0].rpartition("/")[2].partition(":")[2]
        assert tag, f"{name}: {reference} has no tag"
        assert tag != "latest", name
        if "unmask/" in reference:
            role = reference.rpartition("/")[2].partition(":")[0]
            assert role in images.ROLES, name
            assert tag == images.IMAGES.tag, f"{name}: {reference} is not the version of components/images.json"


def test_no_secret_is_written_out(documents: tuple[dict[str, Any], ...]) -> None:
    assert not [d["metadata"]["name"] for d in documents if d["kind"] == "Secret"]
    telling = re.compile(r"(password|secret|token|accesskey|credential)", re.IGNORECASE)
    for name, container in containers(documents):
        for entry in container.get("env", []):
            if telling.search(entry["name"]) and not entry["name"].endswith(("_PATH", "_FILE")):
                assert "value" not in entry, f"{name}: {entry['name']}"
    for document in documents:
        if document["kind"] == "ConfigMap":
            for key, value in document["data"].items():
                assert not re.search(r"(password|secretkey)\s*[=:]\s*\S", value, re.IGNORECASE), key


def test_every_secret_that_is_used_is_described_and_made(documents: tuple[dict[str, Any], ...]) -> None:
    text = yaml.safe_dump_all(documents)
    used = set(re.findall(r"(?:secretKeyRef:\s+key: [\w.-]+\s+name|secretName): ([\w-]+)", text))
    page = (MANIFESTS / "secrets" / "README.md").read_text(encoding="utf-8")
    script = (MANIFESTS / "secrets" / "create.sh").read_text(encoding="utf-8")
    for name in used:
        assert f"`{name}`" in page
        assert f"generic {name} " in script
    for keys in (OBJECT_STORE_KEYS, TRACKING_KEYS, SOURCE_KEYS, NOTIFICATION_KEYS):
        assert all(f"`{key}`" in page for key in keys)


def test_the_script_that_makes_secrets_is_sound_shell() -> None:
    subprocess.run(["bash", "-n", str(MANIFESTS / "secrets" / "create.sh")], check=True)


def test_roles_name_what_they_need_and_no_more(documents: tuple[dict[str, Any], ...]) -> None:
    assert not [d for d in documents if d["kind"] in ("ClusterRole", "ClusterRoleBinding")]
    for role in (d for d in documents if d["kind"] == "Role"):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
            if "secrets" in rule["resources"]:
                assert rule["resourceNames"]
                assert rule["verbs"] == ["get"]


def test_selectors_meet_their_pods(documents: tuple[dict[str, Any], ...]) -> None:
    labels = [
        d["spec"]["template"]["metadata"]["labels"] for d in documents if d["kind"] in WORKLOADS - {"InferenceService"}
    ]
    for document in documents:
        selector = {
            "Service": lambda d: d["spec"].get("selector"),
            "PodDisruptionBudget": lambda d: d["spec"]["selector"]["matchLabels"],
            "NetworkPolicy": lambda d: d["spec"]["podSelector"].get("matchLabels"),
        }.get(document["kind"], lambda d: None)(document)
        if selector:
            name = document["metadata"]["name"]
            assert any(selector.items() <= pod.items() for pod in labels), f"{document['kind']} {name}"


def test_what_an_autoscaler_sizes_states_no_size(documents: tuple[dict[str, Any], ...]) -> None:
    """Else every `kubectl apply` would throw its pods away, or start some that nobody needs."""
    scaled = {d["spec"]["scaleTargetRef"]["name"] for d in documents if d["kind"] == "HorizontalPodAutoscaler"}
    for document in documents:
        if document["kind"] == "Deployment" and document["metadata"]["name"] in scaled:
            assert "replicas" not in document["spec"]


def test_services_lead_to_ports_that_are_there(documents: tuple[dict[str, Any], ...]) -> None:
    named = {port.get("name") for _, container in containers(documents) for port in container.get("ports", [])}
    for document in documents:
        if document["kind"] == "Service":
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= named
        if document["kind"] == "ServiceMonitor":
            services = [d for d in documents if d["kind"] == "Service"]
            (service,) = [
                d
                for d in services
                if document["spec"]["selector"]["matchLabels"].items() <= d["metadata"]["labels"].items()
            ]
            ports = {port["name"] for port in service["spec"]["ports"]}
            assert {endpoint["port"] for endpoint in document["spec"]["endpoints"]} <= ports


def test_commands_have_the_options_that_are_used(documents: tuple[dict[str, Any], ...]) -> None:
    for name, container in containers(documents):
        if container.get("command", [""])[0] != "unmask":
            continue
        command: Any = cli
        for word in container["command"][1:]:
            command = command.get_command(click.Context(command), word)
            assert command is not None, f"{name}: unmask has no command {word}"
        known = {option for parameter in command.params for option in parameter.opts}
        used = {argument.partition("=")[0] for argument in container["args"]}
        assert used <= known, f"{name}: {used - known}"


def test_the_training_job_calls_an_option_that_train_has() -> None:
    (job,) = [d for d in build(MANIFESTS / "trainer") if d["kind"] == "TrainJob"]
    trainer = job["spec"]["trainer"]
    assert trainer["image"] == images.TRAINING
    command = cli.get_command(click.Context(cli), trainer["args"][0])
    assert command is not None
    known = {option for parameter in command.params for option in parameter.opts}
    assert {argument.partition("=")[0] for argument in trainer["args"][1:]} <= known


@pytest.mark.parametrize("overlay", ["overlays/kind-pipelines", "overlays/production"])
def test_the_scheduled_pipeline_takes_its_parameters(overlay: str, tmp_path: Path) -> None:
    documents = build(MANIFESTS / overlay)
    (settings,) = [d for d in documents if d["metadata"]["name"].startswith("unmask-schedule") and "data" in d]
    assert check_parameters(COMPILED / "retraining.yaml", yaml.safe_load(settings["data"]["parameters.yaml"]))
    assert str(parse_cron(settings["data"]["CRON"])) == "at 02:00 on Sunday"
    # The schedule names the images that the overlay runs itself.
    file = tmp_path / "cluster.yaml"
    file.write_text(settings["data"]["cluster.yaml"], encoding="utf-8")
    (job,) = [container for name, container in containers(documents) if name == "unmask-schedule/schedule"]
    assert read_cluster(file).images.resolved().reference("pipeline") == job["image"]
    assert "--cluster=/etc/unmask/cluster.yaml" in job["args"]
    (volume,) = [
        volume["configMap"]
        for name, pod in pods(documents)
        if name == "unmask-schedule"
        for volume in pod["volumes"]
        if "configMap" in volume
    ]
    assert {item["key"] for item in volume["items"]} <= set(settings["data"])


def test_production_survives_the_loss_of_a_node() -> None:
    by_kind = {
        d["kind"]: d for d in build(MANIFESTS / "overlays/production") if d["metadata"]["name"] == "unmask-serving"
    }
    assert (
        by_kind["HorizontalPodAutoscaler"]["spec"]["minReplicas"]
        > by_kind["PodDisruptionBudget"]["spec"]["minAvailable"]
    )
    (namespace,) = [d for d in build(MANIFESTS / "overlays/production") if d["kind"] == "Namespace"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
