"""What manifests are built and judged with: kustomize, and the schemas of Kubernetes and of custom resources.

The schemas come from the projects' own source, as Go modules of fixed versions with fixed hashes; Go's module cache
keeps them. Nothing is copied into this repository.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

TOOLS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "unmask-tools"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.5.0"
KUBERNETES = ("k8s.io/kubernetes@v1.32.4", "h1:fRZeSjwVE+dMMSS7Qi6LxOOKpVL+1CPAT/b1Cuo4kns=")
CUSTOM = {
    "ServiceMonitor": (
        "github.com/prometheus-operator/prometheus-operator@v0.85.0",
        "h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s=",
        "example/prometheus-operator-crd-full/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "TrainJob": (
        "github.com/kubeflow/trainer/v2@v2.0.0",
        "h1:mnQSR9iPKItxyUR8mq66XsmxqKNVHwr9YYOB7BTU9dU=",
        "manifests/base/crds/trainer.kubeflow.org_trainjobs.yaml",
    ),
    "InferenceService": (
        "github.com/kserve/kserve@v0.15.2",
        "h1:uph7Umk331fvBMrHHpTJNDt6+lf3IAuyiskaQw8wIAk=",
        "config/crd/full/serving.kserve.io_inferenceservices.yaml",
    ),
}


@contextmanager
def alone() -> Iterator[None]:
    """Let one test process at a time download or build."""
    TOOLS.mkdir(parents=True, exist_ok=True)
    with (TOOLS / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def go(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("go")
    if program is None:
        pytest.skip("there is no go to fetch the schemas with")
    # The hashes above stand in for the public checksum database, which is not reachable from everywhere.
    settings = {"GONOSUMDB": "*", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", **environment}
    return subprocess.run(
        [program, *arguments], cwd=TOOLS, env={**os.environ, **settings}, capture_output=True, text=True, timeout=500
    )


@cache
def module(name: str, expected: str) -> Path:
    with alone():
        answer = json.loads(go("mod", "download", "-json", name).stdout)
    assert "Error" not in answer, answer
    assert answer["Sum"] == expected, f"{name} is not the one that was looked at"
    return Path(answer["Dir"])


@cache
def kustomize() -> tuple[str, ...]:
    if program := shutil.which("kubectl"):
        return (program, "kustomize")
    with alone():
        own = TOOLS / "bin" / "kustomize"
        if not own.is_file():
            built = go("install", KUSTOMIZE, GOBIN=str(own.parent))
            assert built.returncode == 0, built.stderr
    return (str(own), "build")


@cache
def build(folder: Path) -> tuple[dict[str, Any], ...]:
    done = subprocess.run([*kustomize(), str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return tuple(document for document in load_all(done.stdout) if document)


def load_all(text: str) -> list[Any]:
    return list(yaml.load_all(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


def strict(schema: Any) -> Any:
    """Refuse fields that a schema does not name, and spell what Kubernetes spells in its own way."""
    if isinstance(schema, list):
        return [strict(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string") or schema.get("format") == "int-or-string":
        return {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    result = {
        key: {name: strict(entry) for name, entry in value.items()}
        if key in ("properties", "definitions")
        else strict(value)
        for key, value in schema.items()
        if key not in ("default", "format", "example", "description")
    }
    if "properties" in result and "additionalProperties" not in result:
        result["additionalProperties"] = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    return result


@cache
def kubernetes_schemas() -> tuple[dict[str, Any], dict[tuple[str, str], str]]:
    """Definitions by name, and the name of the definition of each apiVersion and kind."""
    swagger = json.loads((module(*KUBERNETES) / "api" / "openapi-spec" / "swagger.json").read_text())
    names = {}
    for name, definition in swagger["definitions"].items():
        for kind in definition.get("x-kubernetes-group-version-kind", []):
            version = f"{kind['group']}/{kind['version']}" if kind["group"] else kind["version"]
            names[version, kind["kind"]] = name
    return {name: strict(definition) for name, definition in swagger["definitions"].items()}, names


@cache
def custom_schema(kind: str, version: str) -> dict[str, Any]:
    name, expected, path = CUSTOM[kind]
    (definition,) = [d for d in load_all((module(name, expected) / path).read_text()) if d]
    (found,) = [entry for entry in definition["spec"]["versions"] if entry["name"] == version]
    schema = found["schema"]["openAPIV3Schema"]
    # The API server itself checks these.
    for own in ("apiVersion", "kind", "metadata"):
        schema["properties"].setdefault(own, {})
    return dict(strict(schema))
