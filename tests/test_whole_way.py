"""From a folder to a registered detector: the command that users run, with the accidents that happen to them."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from unmask.data.sampleset import generate
from unmask.schemas import SAMPLES, EvaluationInfo, PromotionDecision, read_table

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

# Enough to go through every part; figures are not looked at here.
QUICK = ["train.epochs=2", "promote.min_auc=0", "ensemble.trials=15"]
QUICK += ["evaluate.resamples=200", "evaluate.severities=[3]"]


def arguments(data: Path, work: Path) -> list[str]:
    settings = [text for setting in QUICK for text in ("--set", setting)]
    return [sys.executable, "-m", "unmask.cli", "run", "--data", str(data), "--work", str(work), *settings]


def run(data: Path, work: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments(data, work), capture_output=True, text=True, timeout=900, check=False)


def faceless_clip(path: Path, frames: int = 75) -> None:
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 256, 256, "yuv420p"
        base = np.linspace(40, 200, 256, dtype=np.float32)[None, :, None] * np.ones((256, 1, 3), np.float32)
        for _ in range(frames):
            noisy = np.clip(base + rng.normal(0, 3, base.shape), 0, 255).astype(np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def truncate(source: Path, target: Path) -> None:
    """Cut a clip whose index lies in front, as an interrupted download of a streaming file does."""
    fast = target.with_suffix(".full.mp4")
    with av.open(str(source)) as reader, av.open(str(fast), "w", options={"movflags": "faststart"}) as writer:
        stream = writer.add_stream_from_template(reader.streams.video[0])
        for packet in reader.demux(reader.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                writer.mux(packet)
    data = fast.read_bytes()
    fast.unlink()
    target.write_bytes(data[: len(data) // 2])


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small rendered set with one truncated clip, one text file and one faceless clip among the rest."""
    folder = tmp_path_factory.mktemp("media") / "set"
    generate(folder, videos=24, seed=7)
    good = sorted((folder / "real").rglob("*.mp4"))[0]
    truncate(good, folder / "real" / "cut_short.mp4")
    (folder / "real" / "letter.mp4").write_text("Dear reader, this is not a video.\n" * 50)
    faceless_clip(folder / "real" / "wall.mp4")
    return folder


@dataclass(frozen=True)
class Done:
    data: Path
    work: Path
    output: str
    log: str

    @property
    def latest(self) -> Path:
        return self.work / "latest"


@pytest.fixture(scope="module")
def done(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    work = tmp_path_factory.mktemp("undisturbed") / "work"
    result = run(media, work)
    assert result.returncode == 0, result.stderr[-4000:] + result.stdout[-2000:]
    return Done(media, work, result.stdout, result.stderr)


def results(work: Path) -> dict[str, object]:
    """Everything that a user would compare between two runs."""
    latest = work / "latest"
    fusion = json.loads((latest / "bundle" / "fusion.json").read_text())
    ensemble = json.loads((latest / "bundle" / "ensemble.json").read_text())
    metrics = json.loads((latest / "evaluation" / "metrics.json").read_text())
    robustness = pd.read_parquet(latest / "evaluation" / "robustness.parquet").to_dict("records")
    return {"fusion": fusion, "ensemble": ensemble, "metrics": metrics, "robustness": repr(robustness)}


def test_the_run_ends_with_what_came_out(done: Done) -> None:
    assert "Video-level ROC-AUC on test" in done.output
    assert "95 % interval" in done.output
    assert "report.html" in done.output
    assert "unmask-detector version 1" in done.output
    assert "unmask score" in done.output
    assert "mlflow ui --backend-store-uri sqlite:///" in done.output
    assert not list(Path.cwd().glob("mlflow.db"))


def test_bad_files_are_rows_with_a_reason_and_show_in_the_report(done: Done) -> None:
    evaluation = EvaluationInfo.load(done.latest / "evaluation" / "metrics.json")
    assert evaluation.n_scored > 0
    html = (done.latest / "evaluation" / "report.html").read_text()
    for name in ("cut_short.mp4", "letter.mp4", "wall.mp4"):
        assert name in html
    for words in ("no face", "truncated", "the file holds text, not media"):
        assert words in html


def test_the_registry_holds_a_challenger_with_its_evidence(done: Done) -> None:
    mlflow = pytest.importorskip("mlflow")
    decision = PromotionDecision.load(done.latest / "decision" / "decision.json")
    client = mlflow.MlflowClient(tracking_uri=decision.tracking_uri, registry_uri=decision.tracking_uri)
    version = client.get_model_version_by_alias("unmask-detector", "challenger")
    assert str(version.version) == decision.version == "1"
    artifacts = {item.path for item in client.list_artifacts(decision.run_id)}
    assert any("report.html" in path or path == "evaluation" for path in artifacts)
    assert client.get_run(decision.run_id).data.metrics


def test_a_second_run_is_answered_from_the_cache(done: Done) -> None:
    before = results(done.work)
    start = time.monotonic()
    again = run(done.data, done.work)
    seconds = time.monotonic() - start
    assert again.returncode == 0, again.stderr[-4000:]
    assert "unmask-detector version 1" in again.stdout  # nothing was registered twice
    assert results(done.work) == before
    # Not a speed test: a run that trains again takes many times as long.
    assert seconds < 60


def test_a_file_is_scored_with_the_bundle_of_the_run(done: Done) -> None:
    fake = sorted((done.data / "fake").rglob("*.mp4"))[0]
    command = [sys.executable, "-m", "unmask.cli", "score", "--bundle", str(done.latest / "bundle")]
    text = subprocess.run([*command, str(fake)], capture_output=True, text=True, check=True, timeout=120).stdout
    for word in ("meso4", "probability of a fake", "threshold", "Sharpness"):
        assert word.lower() in text.lower()
    files = [str(fake), str(done.data / "real" / "wall.mp4")]
    lines = subprocess.run([*command, "--json", *files], capture_output=True, text=True, check=True, timeout=120).stdout
    scored, faceless = map(json.loads, lines.splitlines())
    assert 0 <= scored["probability"] <= 1
    assert faceless["probability"] is None  # never a silent 0.5


def test_scoring_alone_equals_the_score_in_the_pipeline(done: Done) -> None:
    """The bundle decodes, crops and calibrates like the pipeline did."""
    evaluation = json.loads((done.latest / "evaluation" / "metrics.json").read_text())
    assert evaluation["n_scored"] > 0
    datasets = [path.parent for path in done.work.rglob("samples.parquet")]
    samples = read_table(datasets[0] / "samples.parquet", SAMPLES).to_pandas()
    test = samples[(samples["split"] == "test") & (samples["status"] == "ok")].head(2)
    fused = [path.parent / "scores.parquet" for path in done.work.rglob("fusion.json") if path.parent.name != "bundle"]
    fused = [path for path in fused if path.is_file()]
    stored = pd.read_parquet(fused[0]).set_index("sample_id")["probability"]
    command = [sys.executable, "-m", "unmask.cli", "score", "--json", "--bundle", str(done.latest / "bundle")]
    lines = subprocess.run([*command, *test["uri"]], capture_output=True, text=True, check=True, timeout=240).stdout
    for line, sample_id in zip(lines.splitlines(), test["sample_id"], strict=True):
        # The pipeline scores eval_frames_per_video of the crops, the bundle the same ones, torch against ONNX.
        assert json.loads(line)["probability"] == pytest.approx(stored[sample_id], abs=2e-3)


def kill_when(data: Path, work: Path, reached: Callable[[], bool]) -> None:
    """Start a run and kill it and its steps with SIGKILL as soon as it has reached a state."""
    process = subprocess.Popen(
        arguments(data, work), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 600
    try:
        while not reached():
            assert process.poll() is None, "the run ended before the state was reached"
            assert time.monotonic() < deadline, "the state was never reached"
            time.sleep(0.05)
    finally:
        kill_tree(process.pid)
        process.wait()


def kill_tree(pid: int) -> None:
    """Kill a process and all its descendants at once, whatever group they are in."""
    family, position = [pid], 0
    while position < len(family):
        children = Path(f"/proc/{family[position]}/task/{family[position]}/children")
        family += [int(child) for child in children.read_text().split()] if children.exists() else []
        position += 1
    for member in family:
        try:
            os.kill(member, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_killed_in_extraction_and_in_training_it_goes_on_and_ends_the_same(
    done: Done, tmp_path_factory: pytest.TempPathFactory
) -> None:
    work = tmp_path_factory.mktemp("disturbed") / "work"
    store = work / "store"

    def files(kind: str) -> list[Path]:
        return [path for path in (store / kind).rglob("*") if path.is_file() and not path.name.startswith(".")]

    kill_when(done.data, work, lambda: len(files("extract")) >= 5)
    extracted = {path: path.stat().st_mtime_ns for path in files("extract")}
    kill_when(done.data, work, lambda: len(files("checkpoints")) >= 1)
    again = {path: path.stat().st_mtime_ns for path in extracted}
    assert again == extracted, "a sample that was complete was measured again"
    finished = run(done.data, work)
    assert finished.returncode == 0, finished.stderr[-4000:]
    assert results(work) == results(done.work)


def test_one_class_only_stops_in_ingest_with_a_sentence(media: Path, tmp_path: Path) -> None:
    shutil.copytree(media / "real", tmp_path / "data" / "real", ignore=shutil.ignore_patterns("letter*"))
    result = run(tmp_path / "data", tmp_path / "work")
    assert result.returncode != 0
    assert "fake" in result.stderr
    last = "\n".join(result.stderr.strip().splitlines()[-6:])
    assert "fix:" in last
    assert "ingest" in last


def test_an_empty_folder_stops_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    result = run(tmp_path / "data", tmp_path / "work")
    assert result.returncode != 0
    assert "real/" in result.stderr
