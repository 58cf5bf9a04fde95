"""What the server answers: equal to the bundle itself, honest about what it cannot judge, and nothing left behind."""

from __future__ import annotations

import base64
import json
import time
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest
import requests
from live_server import Live

from unmask.deployment.runtime import Bundle
from unmask.features import CATALOGUE


@pytest.fixture(autouse=True)
def nothing_is_left(live: Live) -> object:
    """No test leaves an upload behind."""
    yield
    assert live.leftovers() == []
    return None


@pytest.fixture(scope="module")
def tone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(16_000)
        stream.writeframes((np.sin(np.arange(16_000) / 16_000 * 1400) * 8000).astype("<i2").tobytes())
    return path


def problem(answer: requests.Response, status: int, code: str) -> dict[str, object]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert (body["status"], body["code"]) == (status, code)
    assert body["detail"]
    return body  # type: ignore[no-any-return]


@pytest.mark.parametrize("which", ["clip", "face"])
def test_the_answer_is_that_of_the_bundle(
    live: Live, bundle_folder: Path, which: str, request: pytest.FixtureRequest
) -> None:
    """Decoded elsewhere, sent through a pipe, judged in a thread: every number is the same bit for bit."""
    path: Path = request.getfixturevalue(which)
    answer = live.post("/v1/analyze", path)
    assert answer.status_code == 200, answer.text
    analysis = answer.json()
    expected = json.loads(Bundle.load(bundle_folder, threads=1).score(path, name="upload.bin").model_dump_json())
    for name in expected:
        if name != "seconds":
            assert analysis[name] == expected[name], name
    assert [feature["name"] for feature in analysis["features"]] == list(CATALOGUE)
    assert all((feature["value"] is None) == bool(feature["reason"]) for feature in analysis["features"])
    assert analysis["summary"]
    assert analysis["timing"]["total"] >= analysis["timing"]["measuring"] > 0
    assert analysis["media"]["width_px"] == 256
    if which == "clip":
        assert [point["second"] for point in analysis["timeline"]] == [0, 1]
        assert any("Short" in text for text in analysis["warnings"])


def test_the_short_route(live: Live, face: Path) -> None:
    answer = live.post("/inference/analyze-frame", face, "image").json()
    full = live.post("/v1/analyze", face).json()
    assert answer["prediction"] == full["verdict"]
    assert answer["probability"] == full["probability"]
    assert answer["is_deepfake"] == (full["verdict"] == "fake")
    assert answer["confidence"] == max(full["probability"], 1 - full["probability"])


def test_sound_is_not_measurable(live: Live, tone: Path) -> None:
    body = problem(live.post("/v1/analyze", tone), 422, "not_measurable")
    assert "Not measurable by this model" in str(body["detail"])


def test_a_picture_without_a_face_is_not_scored(live: Live) -> None:
    shade = np.tile(np.linspace(0, 255, 200, dtype=np.uint8)[None, :, None], (200, 1, 3))
    answer = live.post("/v1/analyze", cv2.imencode(".png", shade)[1].tobytes())
    assert answer.status_code == 200
    assert (answer.json()["verdict"], answer.json()["probability"]) == ("not scored", None)
    assert answer.json()["reason"].startswith("no_face: ")


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 422, "empty_file"),
        (b"this is no film\n" * 50, 415, "unsupported"),
        (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/secret.ts\n", 415, "unsupported"),
        (b"PK\x03\x04" + bytes(500), 415, "unsupported"),
        (np.random.default_rng(0).bytes(5000), 422, "corrupt"),
    ],
)
def test_files_that_are_not_media(live: Live, content: bytes, status: int, code: str) -> None:
    problem(live.post("/v1/analyze", content), status, code)


def test_a_cut_off_clip_is_told(live: Live, clip: Path) -> None:
    content = clip.read_bytes()
    answer = live.post("/v1/analyze", content[: len(content) // 2])
    assert answer.status_code == 422
    assert answer.json()["code"] in ("corrupt", "truncated")


def test_the_type_is_that_of_the_content(live: Live, face: Path) -> None:
    files = {"file": ("film.mp4", face.read_bytes(), "video/mp4")}
    answer = requests.post(live.url + "/v1/analyze", files=files, timeout=60)
    assert answer.json()["modality"] == "image"


def test_too_many_bytes(live: Live) -> None:
    problem(live.post("/v1/analyze", bytes(5 << 20)), 413, "too_large")


def test_too_many_bytes_without_saying_so(live: Live) -> None:
    """Chunked: no header tells the length."""
    boundary = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    def body() -> object:
        yield boundary
        for _ in range(40):
            yield bytes(1 << 18)

    try:
        answer = requests.post(
            live.url + "/v1/analyze",
            data=body(),  # type: ignore[arg-type]
            headers={"content-type": "multipart/form-data; boundary=x"},
            timeout=60,
        )
    except requests.ConnectionError:
        return  # cut off before the whole body was sent
    problem(answer, 413, "too_large")


def test_too_many_pixels(live: Live) -> None:
    content = cv2.imencode(".png", np.zeros((2100, 2100, 3), np.uint8))[1].tobytes()
    problem(live.post("/v1/analyze", content), 413, "too_large")


def test_too_long(live: Live, tmp_path: Path) -> None:
    import av

    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=1)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(30):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())
    body = problem(live.post("/v1/analyze", path), 413, "too_long")
    assert "job" in str(body["fix"])


@pytest.mark.parametrize(
    "name", ["<img src=x onerror=alert(1)>.jpg", "../../etc/passwd", "a\x00b\u202egpj.exe", "é" * 500]
)
def test_names_are_only_names(live: Live, face: Path, name: str) -> None:
    boundary = "xxBOUNDARYxx"
    quoted = name.replace('"', "%22").encode()
    body = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="'.encode()
        + quoted
        + b'"\r\n\r\n'
        + face.read_bytes()
        + f"\r\n--{boundary}--\r\n".encode()
    )
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}
    answer = requests.post(live.url + "/v1/analyze", data=body, headers=headers, timeout=60)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        shown = answer.json()["file"]
        assert len(shown) <= 120
        assert not any(character in shown for character in "/\x00\u202e")


@pytest.mark.parametrize(
    ("headers", "data", "code"),
    [
        ({}, b"", "no_form"),
        ({"content-type": "multipart/form-data"}, b"abc", "bad_form"),
        ({"content-type": "multipart/form-data; boundary=x"}, b"abc", "bad_form"),
        ({"content-type": "application/json"}, b"{}", "no_form"),
    ],
)
def test_bodies_that_are_no_forms(live: Live, headers: dict[str, str], data: bytes, code: str) -> None:
    problem(requests.post(live.url + "/v1/analyze", data=data, headers=headers, timeout=60), 400, code)


def test_a_form_without_a_file(live: Live) -> None:
    answer = requests.post(live.url + "/v1/analyze", files={"other": ("a", b"b")}, timeout=60)
    problem(answer, 422, "no_file")
    # An address in place of a file is a text like any other: nothing is fetched.
    answer = requests.post(live.url + "/v1/analyze", files={"file": (None, "http://127.0.0.1:9/x.mp4")}, timeout=60)
    problem(answer, 422, "no_file")


def test_a_batch_tells_each_file_apart(live: Live, face: Path) -> None:
    files = [("files", ("good.jpg", face.read_bytes())), ("files", ("bad.jpg", b"no picture at all, only words"))]
    items = requests.post(live.url + "/v1/analyze/batch", files=files, timeout=60).json()["items"]
    assert [item["file"] for item in items] == ["good.jpg", "bad.jpg"]
    assert items[0]["result"]["probability"] is not None
    assert items[1]["problem"]["code"] == "unsupported"
    many = [("files", (f"{index}.jpg", face.read_bytes())) for index in range(4)]
    problem(requests.post(live.url + "/v1/analyze/batch", files=many, timeout=60), 400, "bad_form")


def test_a_job_tells_its_progress_and_then_its_result(live: Live, clip: Path) -> None:
    started = live.post("/v1/jobs", clip)
    assert started.status_code == 202
    job = started.json()
    assert started.headers["location"] == f"/v1/jobs/{job['id']}"
    seen = [job["progress"]]
    deadline = time.monotonic() + 60
    while job["status"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        job = requests.get(live.url + started.headers["location"], timeout=10).json()
        seen.append(job["progress"])
    assert job["status"] == "done"
    assert seen == sorted(seen)
    assert job["result"]["probability"] == live.post("/v1/analyze", clip).json()["probability"]
    assert requests.delete(live.url + started.headers["location"], timeout=10).status_code == 204
    problem(requests.get(live.url + started.headers["location"], timeout=10), 404, "unknown_job")


def test_a_job_that_fails_says_why(live: Live) -> None:
    job = live.post("/v1/jobs", b"only words, no film " * 9).json()
    deadline = time.monotonic() + 60
    while job["status"] in ("waiting", "running"):
        assert time.monotonic() < deadline
        time.sleep(0.05)
        job = requests.get(f"{live.url}/v1/jobs/{job['id']}", timeout=10).json()
    assert (job["status"], job["problem"]["code"]) == ("failed", "unsupported")


def test_faces_and_heat_maps_can_be_asked_for(live: Live, clip: Path) -> None:
    analysis = live.post("/v1/analyze", clip).json()
    probabilities = [face["probability"] for face in analysis["faces"]]
    assert 1 <= len(probabilities) <= 6
    assert probabilities == sorted(probabilities, reverse=True)
    base = f"{live.url}/v1/analyses/{analysis['id']}"
    assert requests.get(base, timeout=10).json() == analysis
    index = analysis["faces"][0]["index"]
    for path in (f"{base}/faces/{index}", f"{base}/faces/{index}/heatmap"):
        answer = requests.get(path, timeout=60)
        assert answer.headers["content-type"] == "image/jpeg"
        assert cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR) is not None
    problem(requests.get(f"{base}/faces/99", timeout=10), 404, "unknown_face")
    problem(requests.get(f"{live.url}/v1/analyses/nothing", timeout=10), 404, "unknown_analysis")


def test_kserve_gives_the_same_scores(live: Live, face: Path) -> None:
    expected = live.post("/v1/analyze", face).json()
    data = [base64.b64encode(content).decode() for content in (face.read_bytes(), b"only words, no picture")]
    body = {"id": "seven", "inputs": [{"name": "media", "shape": [2], "datatype": "BYTES", "data": data}]}
    answer = requests.post(live.url + "/v2/models/unmask-detector/infer", json=body, timeout=60).json()
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert answer["id"] == "seven"
    assert outputs["probability"] == [expected["probability"], None]
    assert outputs["verdict"] == [expected["verdict"], "not scored"]
    assert json.loads(outputs["details"][0])["features"] == expected["features"]
    assert outputs["reason"][1].startswith("unsupported: ")
    assert requests.get(live.url + "/v2/health/live", timeout=10).json() == {"live": True}
    assert requests.get(live.url + "/v2/health/ready", timeout=10).json() == {"ready": True}
    assert requests.get(live.url + "/v2/models/unmask-detector", timeout=10).json()["name"] == "unmask-detector"
    problem(requests.get(live.url + "/v2/models/other", timeout=10), 404, "unknown_model")
    body["inputs"][0]["data"] = ["*", "*"]  # type: ignore[index]
    problem(requests.post(live.url + "/v2/models/unmask-detector/infer", json=body, timeout=10), 422, "no_base64")


def test_feedback_is_recorded_and_counted(live: Live, face: Path) -> None:
    analysis = live.post("/v1/analyze", face).json()
    said = {"analysis_id": analysis["id"], "right": False, "verified": True}
    answer = requests.post(live.url + "/v1/feedback", json=said, timeout=10).json()
    truth = {"real": "fake", "fake": "real"}[analysis["verdict"]]
    assert (answer["label"], answer["right"]) == (truth, False)
    report = requests.get(live.url + "/v1/monitoring", timeout=10).json()["versions"][0]
    rate = report["false_positive_rate" if truth == "real" else "true_positive_rate"]
    assert rate["n"] == 1
    assert rate["value"] == (1.0 if truth == "real" else 0.0)
    assert rate["low"] < rate["high"]
    # The inputs that pushed the wrong way count less by what was said: (0 + 1) / (1 + 1).
    assert report["feedback_weights"]["ensemble"] in (0.5, 2.0)
    # Saying otherwise replaces what was said.
    requests.post(live.url + "/v1/feedback", json={**said, "right": True}, timeout=10)
    report = requests.get(live.url + "/v1/monitoring", timeout=10).json()["versions"][0]
    assert report["right"]["value"] == 1.0
    problem(
        requests.post(live.url + "/v1/feedback", json={**said, "analysis_id": "no"}, timeout=10),
        404,
        "unknown_analysis",
    )
    problem(requests.post(live.url + "/v1/feedback", json={"analysis_id": "no"}, timeout=10), 422, "invalid")


def test_state_routes(live: Live) -> None:
    assert requests.get(live.url + "/health", timeout=10).json()["status"] == "ok"
    assert requests.get(live.url + "/ready", timeout=10).json()["model_version"]
    model = requests.get(live.url + "/v1/model", timeout=10).json()["models"][0]
    assert model["detectors"] == ["small", "small:other"]
    assert model["features"] == ["quality.blur"]
    assert model["operating_point"]["false_positive_rate"]["n"] == 10
    figures = requests.get(live.url + "/metrics", timeout=10).text
    assert 'unmask_model{arm="champion"' in figures
    assert "unmask_request_seconds_bucket" in figures


def test_every_answer_carries_the_safety_headers(live: Live) -> None:
    for path in ("/", "/health", "/v1/model", "/nothing", "/page/app.js", "/page/..%2fapp.py"):
        answer = requests.get(live.url + path, timeout=10)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["x-request-id"]
    assert requests.get(live.url + "/page/..%2fapp.py", timeout=10).status_code == 404


def test_pages_of_other_sites_are_refused(live: Live, face: Path) -> None:
    files = {"file": ("a.jpg", face.read_bytes())}
    headers = {"origin": "https://elsewhere.example"}
    answer = requests.post(live.url + "/v1/analyze", files=files, headers=headers, timeout=10)
    problem(answer, 403, "foreign_origin")
