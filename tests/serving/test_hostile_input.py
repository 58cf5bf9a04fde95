"""The interface as it describes itself, and damaged uploads: no 500, nothing left; the big runs are in benchmarks."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema_rs
import numpy as np
import pytest
import requests
from live_server import Live

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_serve", ROOT / "benchmarks" / "serve.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_damaged_uploads(live: Live, bench: ModuleType, clip: Path, face: Path) -> None:
    rng = np.random.default_rng(8)
    statuses = Counter[int]()
    for index in range(40):
        content = bench.mutated((clip if index % 6 == 0 else face).read_bytes(), rng)
        answer = live.post("/v1/analyze", content)
        statuses[answer.status_code] += 1
        assert answer.status_code in (200, 413, 415, 422), answer.text
        assert answer.headers["content-type"] in ("application/json", "application/problem+json")
    assert statuses[200] > 5
    assert statuses[422] + statuses[415] > 5
    assert live.leftovers() == []
    assert requests.get(live.url + "/ready", timeout=10).status_code == 200


def test_a_stream_of_unknown_coding_costs_no_decoder(live: Live, clip: Path) -> None:
    """One damaged byte in the code of the video's coding is enough; 3 of 1,000 damaged files had it."""
    content = clip.read_bytes()
    assert content.count(b"avc1") >= 1
    before = sorted(live.decoders())
    answer = live.post("/v1/analyze", content.replace(b"avc1", b"av\xb11"))
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported")
    assert sorted(live.decoders()) == before


@pytest.mark.slow
def test_the_interface_keeps_its_description(live: Live) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis is not installed (extra dev)")
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", live.url + "/openapi.json"]
    command += ["--max-examples", "3", "--seed", "1", "--no-color", "--phases", "examples,fuzzing"]
    # A schema cannot say that bytes are a picture: requests that it allows are rightly refused.
    command += ["--exclude-checks", "positive_data_acceptance"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, cwd=live.work, env=os.environ | {"CI": "1"}
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert live.leftovers() == []


def test_the_description_has_examples_and_problems(live: Live, face: Path) -> None:
    schema = requests.get(live.url + "/openapi.json", timeout=10).json()
    paths = {
        *("/health", "/ready", "/metrics", "/v1/analyze", "/v1/analyze/batch", "/inference/analyze-frame", "/v1/jobs"),
        *("/v1/jobs/{job_id}", "/v1/feedback", "/v1/model", "/v1/monitoring", "/v2/models/{name}/infer"),
    }
    assert paths <= set(schema["paths"])
    for path, operations in schema["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            problems = [status for status in operation["responses"] if status >= "400"]
            assert problems, path
    assert "example" in schema["components"]["schemas"]["Problem"]
    example = schema["components"]["schemas"]["Analysis"]["example"]
    # It reads as an answer does: same fields, same features, words and verdict that its numbers give.
    answer = live.post("/v1/analyze", face).json()
    assert set(example) == set(answer)
    for ours, real in zip(example["features"], answer["features"], strict=True):
        assert [ours[key] for key in ("name", "title", "unit")] == [real[key] for key in ("name", "title", "unit")]
        assert (ours["value"] is None) == (real["value"] is None), ours["name"]
        assert ours["reason"] == real["reason"]
    jsonschema_rs.validate({"$ref": "#/components/schemas/Analysis", "components": schema["components"]}, example)
    assert example["verdict"] == ("fake" if example["probability"] >= example["threshold"] else "real")
    assert f"about {round(100 * example['probability'])} in 100" in example["summary"]


@pytest.mark.parametrize(
    ("data", "field"),
    [({"keep": "perhaps"}, "keep"), ({"client": "a" * 201}, "client"), ({"client": ["a", "b"]}, "client")],
    ids=["keep", "long", "twice"],
)
@pytest.mark.parametrize("path", ["/v1/analyze", "/v1/jobs"])
def test_fields_beside_the_file_are_checked(
    live: Live, face: Path, path: str, data: dict[str, Any], field: str
) -> None:
    files = {"file": ("face.jpg", face.read_bytes())}
    answer = requests.post(live.url + path, files=files, data=data, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_field")
    assert field in answer.json()["detail"]
    assert live.leftovers() == []


def test_a_field_that_should_be_text_is_no_file(live: Live, face: Path) -> None:
    files = [("file", ("face.jpg", face.read_bytes())), ("client", ("name", b"me"))]
    answer = requests.post(live.url + "/v1/analyze/batch", files=files, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_field")
    assert live.leftovers() == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/feedback", {"analysis_id": "x", "right": "no"}),
        ("/v1/feedback", {"analysis_id": "x", "right": True, "verified": 1}),
        *(
            (
                "/v2/models/unmask-detector/infer",
                {"inputs": [{"name": "media", "shape": shape, "datatype": "BYTES", "data": ["eA=="]}]},
            )
            for shape in (["1"], [True])
        ),
    ],
)
def test_values_of_another_type_are_not_reinterpreted(live: Live, path: str, body: dict[str, Any]) -> None:
    answer = requests.post(live.url + path, json=body, timeout=30)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")


def test_a_wrong_method_is_told_all_right_ones(live: Live) -> None:
    """Two routes share this path; the answer names the methods of both (RFC 9110, 15.5.6)."""
    answer = requests.put(live.url + "/v1/jobs/some", timeout=10)
    assert answer.status_code == 405
    assert answer.headers["allow"] == "DELETE, GET"
    assert requests.get(live.url + "/v1/feedback", timeout=10).headers["allow"] == "POST"
