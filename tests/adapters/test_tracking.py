"""MLflow for real, on a database file: runs, the registered bundle, aliases, and the way back."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pandas as pd
import pytest

mlflow = pytest.importorskip("mlflow")

from unmask.adapters import tracking, tracking_content  # noqa: E402
from unmask.adapters.tracking import RUNTIME_PACKAGES, connected, resolve_model, run_promote  # noqa: E402
from unmask.adapters.tracking_content import read_release  # noqa: E402
from unmask.config import PromoteConfig  # noqa: E402
from unmask.deployment.runtime import Bundle  # noqa: E402
from unmask.errors import ConfigError, ContractError, InputError, MissingExtraError  # noqa: E402
from unmask.schemas import EvaluationInfo, PromotionDecision, sha256_file  # noqa: E402

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow') / 'deeper' / 'mlflow.db'}"


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, release_parts: ModuleType) -> Any:
    made = release_parts.write_parts(tmp_path_factory.mktemp("release"))
    made.write_bundle()
    return made


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, release_parts: ModuleType) -> Path:
    path: Path = release_parts.write_clips(tmp_path_factory.mktemp("clips"))[0]
    return path


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in an empty folder that must still be empty at the end, and leave MLflow's settings as they were."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")}
    yield folder
    assert list(folder.iterdir()) == []
    assert {name: value for name, value in os.environ.items() if name.startswith("MLFLOW")} == before


def promote(
    parts: Any, store: str, out: Path, config: PromoteConfig | None = None, **changes: object
) -> PromotionDecision:
    inputs = {**parts.inputs(), **changes}
    run_promote(**inputs, tracking_uri=store, out=out, config=config or PromoteConfig())
    return PromotionDecision.load(out / "decision.json")


@pytest.fixture(scope="module")
def decision(parts: Any, store: str, tmp_path_factory: pytest.TempPathFactory) -> PromotionDecision:
    return promote(parts, store, tmp_path_factory.mktemp("out") / "promoted")


@pytest.fixture
def client(store: str) -> Any:
    return mlflow.MlflowClient(tracking_uri=store, registry_uri=store)


def test_a_version_is_registered_with_its_alias(decision: PromotionDecision, client: Any, parts: Any) -> None:
    assert decision.promoted
    assert (decision.model, decision.version, decision.alias) == ("unmask-detector", "1", "challenger")
    version = client.get_model_version_by_alias("unmask-detector", "challenger")
    assert str(version.version) == "1"
    assert version.run_id == decision.run_id
    assert version.tags["unmask.manifest_sha256"] == sha256_file(parts.bundle / "manifest.json")
    assert version.tags["unmask.gate"] == "passed"
    assert re.fullmatch(r"[0-9a-f]{40}|unknown", version.tags["unmask.git_commit"])
    assert "may become the first champion" in version.tags["unmask.decision"]
    assert "0.800 [0.600, 0.950]" in version.description


def test_the_run_holds_the_evidence(decision: PromotionDecision, client: Any, parts: Any, tmp_path: Path) -> None:
    run = client.get_run(decision.run_id)
    assert run.info.status == "FINISHED"
    assert client.get_experiment(run.info.experiment_id).name == "unmask"
    metrics = run.data.metrics
    assert (metrics["test/fusion/roc_auc"], metrics["test/fusion/roc_auc_low"]) == (0.8, 0.6)
    assert metrics["test/fusion/roc_auc_high"] == 0.95
    assert metrics["test_slices/source-a-b/roc_auc"] == 0.8
    assert not any("blended" in name for name in metrics)  # it has no value
    assert run.data.params["extract.crop_size_px"] == "128"
    assert run.data.params["promote.min_auc"] == "0.5"
    assert run.data.tags["unmask.dataset_version"] == "d" * 16
    assert run.inputs.dataset_inputs[0].dataset.digest == "d" * 16
    names = {entry.path for entry in client.list_artifacts(decision.run_id)}
    assert names == {
        "report.html", "summary.md", "metrics.json", "robustness.parquet", "dataset.json", "manifest.json",
        "decision.json", "decision.md", "decision.html", "test_scores.parquet", "seen_samples.parquet",
        "optimisation.json", "optimisation.html",
    }  # fmt: skip
    attached = client.download_artifacts(decision.run_id, "decision.json", str(tmp_path))
    assert PromotionDecision.load(Path(attached)) == decision
    report = client.download_artifacts(decision.run_id, "report.html", str(tmp_path))
    assert Path(report).read_bytes() == (parts.root / "evaluation" / "report.html").read_bytes()


def test_figures_are_not_asked_back_one_by_one(parts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # MLflow copies what a run holds to a model that is logged in it, with a request for each of hundreds of figures:
    # minutes on a server that checks a password each time.
    asked = []
    ask = mlflow.MlflowClient.get_metric_history
    monkeypatch.setattr(
        mlflow.MlflowClient,
        "get_metric_history",
        lambda self, run_id, key: asked.append(key) or ask(self, run_id, key),
    )
    promote(parts, f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "out")
    assert asked == []


def test_each_detector_has_a_child_run_with_its_curve(decision: PromotionDecision, client: Any) -> None:
    parent = client.get_run(decision.run_id)
    children = client.search_runs([parent.info.experiment_id], f"tags.mlflow.parentRunId = '{decision.run_id}'")
    assert [child.info.run_name for child in children] == ["meso4"]
    child = children[0]
    assert child.info.status == "FINISHED"
    assert child.data.metrics["best/val_auc"] == 0.8
    assert child.data.params["train.epochs"] == "10"
    curve = [(point.step, point.value) for point in client.get_metric_history(child.info.run_id, "train/loss")]
    assert curve == [(1, 0.7), (2, 0.6), (3, 0.5)]
    # An epoch without a value leaves a gap, not a zero.
    val = [(point.step, point.value) for point in client.get_metric_history(child.info.run_id, "val/loss")]
    assert val == [(1, 0.69), (3, 0.62)]


def test_a_training_that_logged_itself_is_not_logged_again(parts: Any, store: str, client: Any, tmp_path: Path) -> None:
    experiment = client.create_experiment("live", artifact_location=(tmp_path / "artifacts").as_uri())
    live = client.create_run(experiment, run_name="meso4").info.run_id
    client.log_metric(live, "step/loss", 0.5, step=1)
    client.set_terminated(live)
    inputs = parts.inputs()
    release = read_release(**inputs)
    info = release.detectors[0].model_copy(update={"tracking_run": live})
    release = dataclasses.replace(release, detectors=(info,))
    config = PromoteConfig(experiment="live", registered_model="live")
    with connected(store) as server:
        first = server.register(release, config)
        # A run belongs to one release; what is promoted with it later gets a run of its own.
        second = server.register(release, config)
        away = server._adopt("elsewhere", info.model_copy(update={"tracking_run": "0" * 32}))
    assert away is None
    children = {
        parent: [run.info.run_id for run in client.search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'")]
        for parent in (first.run_id, second.run_id)
    }
    assert children[first.run_id] == [live]
    assert len(children[second.run_id]) == 1
    assert children[second.run_id] != [live]
    run = client.get_run(live)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["step/loss"] == 0.5
    assert "train/loss" not in run.data.metrics  # nothing was written twice
    assert {model.source_run_id for model in client.search_logged_models([experiment]) if model.name == "meso4"} == {
        live, children[second.run_id][0],
    }  # fmt: skip


def test_each_detector_is_a_model_of_its_own(decision: PromotionDecision, store: str, client: Any, parts: Any) -> None:
    experiment = client.get_run(decision.run_id).info.experiment_id
    models = {model.name: model for model in client.search_logged_models([experiment])}
    assert set(models) == {"hand-made", "meso4"}
    assert {metric.key: metric.value for metric in models["meso4"].metrics}["best/val_auc"] == 0.8
    assert {metric.key for metric in models["hand-made"].metrics} >= {"test/fusion/roc_auc", "test/fusion/roc_auc_low"}
    crops = np.random.default_rng(0).random((2, 3, 256, 256), dtype=np.float32)
    (expected,) = onnxruntime.InferenceSession(str(parts.bundle / "meso4.onnx")).run(None, {"images": crops})
    with connected(store) as server:
        answer = server.mlflow.pyfunc.load_model(models["meso4"].model_uri).predict({"images": crops})
    assert np.allclose(answer["logits"], expected, atol=1e-5)


def test_promoting_again_finds_the_version(
    decision: PromotionDecision, parts: Any, store: str, client: Any, tmp_path: Path
) -> None:
    again = promote(parts, store, tmp_path / "again")
    assert again.model_copy(update={"decided_at": decision.decided_at}) == decision
    assert len(client.search_model_versions("name = 'unmask-detector'")) == 1
    experiment = client.get_experiment_by_name("unmask").experiment_id
    assert len(client.search_runs([experiment])) == 2  # the run and its one child


def test_new_figures_for_the_same_bundle_reach_its_run(
    decision: PromotionDecision, parts: Any, store: str, client: Any, tmp_path: Path
) -> None:
    """A better alias is refused for worse figures, and the run shows the figures that refused it."""
    evaluation = Path(shutil.copytree(parts.root / "evaluation", tmp_path / "evaluation"))
    info = EvaluationInfo.load(evaluation / "metrics.json")
    auc = info.video["fusion"]["roc_auc"].model_copy(update={"value": 0.4, "low": 0.3, "high": 0.5})
    changed = info.model_copy(update={"video": {"fusion": {"roc_auc": auc}}})
    changed.save(evaluation / "metrics.json")
    config = PromoteConfig(alias="best")
    worse = promote(parts, store, tmp_path / "worse", config, evaluation=evaluation)
    assert (worse.promoted, worse.alias, worse.version) == (False, None, decision.version)
    assert [criterion.name for criterion in worse.criteria if not criterion.passed] == ["test AUC of fusion"]
    assert worse.summary.startswith("No alias. ")
    assert "best" not in client.get_registered_model("unmask-detector").aliases
    assert client.get_run(decision.run_id).data.metrics["test/fusion/roc_auc"] == 0.4
    assert client.get_model_version("unmask-detector", "1").tags["unmask.gate"] == "failed"
    promote(parts, store, tmp_path / "back")
    assert client.get_run(decision.run_id).data.metrics["test/fusion/roc_auc"] == 0.8


def test_another_bundle_is_another_version(
    decision: PromotionDecision, parts: Any, store: str, client: Any, release_parts: ModuleType, tmp_path: Path
) -> None:
    other = release_parts.Parts(tmp_path / "other", parts.trained)
    shutil.copytree(parts.root, other.root, ignore=shutil.ignore_patterns("bundle"))
    path = other.root / "fusion" / "fusion.json"
    path.write_text(path.read_text().replace('"set by hand"', '"set by another hand"'))
    other.write_bundle()
    second = promote(other, store, tmp_path / "second", PromoteConfig(alias="other"))
    assert second.version == "2"
    assert second.run_id != decision.run_id
    aliases = client.get_registered_model("unmask-detector").aliases
    assert {name: str(version) for name, version in aliases.items()} == {"challenger": "1", "other": "2"}


def test_pyfunc_answers_like_the_bundle_bit_for_bit(
    decision: PromotionDecision, parts: Any, store: str, clip: Path
) -> None:
    expected = Bundle.load(parts.bundle).score(clip)
    with connected(store) as server:
        model = server.mlflow.pyfunc.load_model("models:/unmask-detector@challenger")
        allowed = server.mlflow.pyfunc.load_model(
            "models:/unmask-detector@challenger", model_config={"allow_paths": True}
        )
    answer = model.predict(pd.DataFrame({"media": [clip.read_bytes(), b"no media"], "name": ["a.mp4", "b.mp4"]}))
    assert list(answer["file"]) == ["a.mp4", "b.mp4"]
    assert answer["probability"][0] == expected.probability
    assert answer["verdict"][0] == expected.verdict
    assert answer["verdict"][1] == "not scored"
    assert pd.isna(answer["probability"][1])
    details = json.loads(answer["details"][0])
    assert [each["probability"] for each in details["detectors"]] == [d.probability for d in expected.detectors]
    by_path = allowed.predict(pd.DataFrame({"path": [str(clip)]}))
    assert by_path["probability"][0] == expected.probability
    with pytest.raises(InputError, match="allow_paths"):
        model.predict(pd.DataFrame({"path": [str(clip)]}))


def test_the_registered_model_needs_nothing_of_this_checkout(
    decision: PromotionDecision, store: str, clip: Path, parts: Any, tmp_path: Path
) -> None:
    """Load it in an interpreter that cannot see the installed package or the face networks, without torch."""
    expected = Bundle.load(parts.bundle).score(clip).probability
    with connected(store) as server:
        folder = server.mlflow.artifacts.download_artifacts("models:/unmask-detector/1", dst_path=str(tmp_path / "m"))
    # A file of code is a request to the server.
    rooms = {entry.name for entry in (Path(folder) / "code" / "unmask").iterdir() if entry.is_dir()}
    assert rooms == set(tracking.RUNTIME_ROOMS)
    code = """
import importlib.abc, sys
import json
class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in ("torch", "sklearn", "optuna", "timm"):
            raise ImportError(name)
sys.meta_path = [Hidden()] + [finder for finder in sys.meta_path if "editable" not in str(finder).lower()]
folder, clip, root = sys.argv[1:]
sys.path = [path for path in sys.path if not path.startswith(root) or "site-packages" in path]
import mlflow
import pandas as pd
answer = mlflow.pyfunc.load_model(folder).predict(pd.DataFrame({"media": [open(clip, "rb").read()]}))
print(json.dumps([answer["probability"][0], answer["reason"][0], sys.modules["unmask"].__file__]))
"""
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, folder, str(clip), str(ROOT)], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    probability, reason, origin = json.loads(done.stdout)
    assert reason is None
    assert probability == expected
    assert origin.startswith(folder)


def test_requirements_are_those_of_the_package(decision: PromotionDecision, store: str, tmp_path: Path) -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(RUNTIME_PACKAGES) == {text.partition(">")[0] for text in project["dependencies"]}
    with connected(store) as server:
        path = server.mlflow.artifacts.download_artifacts(
            "models:/unmask-detector/1/requirements.txt", dst_path=str(tmp_path)
        )
    lines = Path(path).read_text().split()
    assert {line.partition("==")[0] for line in lines} == {"mlflow", *RUNTIME_PACKAGES}
    assert all("==" in line for line in lines)


def test_resolve_gives_the_bundle_back(decision: PromotionDecision, parts: Any, store: str, tmp_path: Path) -> None:
    folder = resolve_model("models:/unmask-detector@challenger", store, tmp_path / "cache")
    digest = sha256_file(parts.bundle / "manifest.json")
    assert folder == tmp_path / "cache" / digest
    assert sha256_file(folder / "manifest.json") == digest
    Bundle.load(folder)
    # The same version by its number comes out of the cache; a damaged cache is fetched anew.
    assert resolve_model("models:/unmask-detector/1", store, tmp_path / "cache") == folder
    (folder / "meso4.onnx").write_bytes(b"damaged")
    resolve_model("models:/unmask-detector/1", store, tmp_path / "cache")
    Bundle.load(folder)


@pytest.mark.parametrize(
    ("uri", "problem", "fix"),
    [
        ("models:/unmask-detector@champion", "no alias champion", r"challenger \(version 1\)"),
        ("models:/unmask-detector/99", "no version 99", "Versions: 1"),
        ("models:/nothing@champion", "No model nothing", "unmask-detector"),
        ("unmask-detector", "names no registered model", "models:/NAME@ALIAS"),
    ],
)
def test_what_is_not_there_is_named(
    decision: PromotionDecision, store: str, tmp_path: Path, uri: str, problem: str, fix: str
) -> None:
    with pytest.raises(InputError, match=f"{problem}.*{fix}"):
        resolve_model(uri, store, tmp_path)


def test_a_changed_bundle_on_the_server_is_refused(
    parts: Any, release_parts: ModuleType, tmp_path: Path, store: str, decision: PromotionDecision
) -> None:
    artifacts = Path(store.removeprefix("sqlite:///")).parent / "mlflow-artifacts"
    (path,) = [p for p in artifacts.glob("**/bundle/fusion.json") if "another" not in p.read_text()]
    content = path.read_bytes()
    try:
        path.write_bytes(content.replace(b"0.05", b"0.95", 1))
        with pytest.raises(InputError, match="not the one that was registered"):
            resolve_model("models:/unmask-detector/1", store, tmp_path)
    finally:
        path.write_bytes(content)


def test_a_damaged_bundle_is_not_registered(parts: Any, store: str, client: Any, tmp_path: Path) -> None:
    bundle = Path(shutil.copytree(parts.bundle, tmp_path / "bundle"))
    (bundle / "meso4.onnx").write_bytes((bundle / "meso4.onnx").read_bytes()[:-1] + b"\0\0")
    with pytest.raises(ContractError, match=r"meso4\.onnx.*SHA-256"):
        promote(parts, store, tmp_path / "out", PromoteConfig(registered_model="damaged"), bundle=bundle)
    assert not (tmp_path / "out").exists()
    assert not [model for model in client.search_registered_models() if model.name == "damaged"]


def test_a_failure_on_the_way_leaves_no_version_and_a_failed_run(
    parts: Any, store: str, client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk() -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tracking, "_signature", full_disk)
    config = PromoteConfig(experiment="accident", registered_model="accident")
    with pytest.raises(OSError, match="disk full"):
        promote(parts, store, tmp_path / "out", config)
    assert not (tmp_path / "out").exists()
    experiment = client.get_experiment_by_name("accident").experiment_id
    assert {run.info.run_name: run.info.status for run in client.search_runs([experiment])} == {
        "meso4": "FINISHED",
        f"hand-made {sha256_file(parts.bundle / 'manifest.json')[:8]}": "FAILED",
    }
    monkeypatch.undo()
    assert not [model for model in client.search_registered_models() if model.name == "accident"]


def test_nothing_is_printed(
    parts: Any, store: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        promote(parts, store, tmp_path / "out", PromoteConfig(registered_model="quiet", experiment="quiet"))
    printed = capfd.readouterr()
    assert printed.out == ""
    assert [line for line in printed.err.splitlines() if "XNNPACK" not in line] == []


def test_a_reserved_alias_is_refused(parts: Any, store: str, tmp_path: Path) -> None:
    for alias in ("latest", "v1"):
        with pytest.raises(ConfigError, match="keeps for itself"):
            promote(parts, store, tmp_path / "out", PromoteConfig(alias=alias))
    with pytest.raises(ConfigError, match="both 'champion'"):
        promote(parts, store, tmp_path / "out", PromoteConfig(alias="champion"))


def test_a_deleted_experiment_is_told(parts: Any, store: str, client: Any, tmp_path: Path) -> None:
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(InputError, match="experiment gone is deleted"):
        promote(parts, store, tmp_path / "out", PromoteConfig(experiment="gone", registered_model="gone"))


@pytest.mark.parametrize("uri", ["", "mlruns", "ftp://host/x"])
def test_what_is_no_tracking_uri(parts: Any, tmp_path: Path, uri: str) -> None:
    with pytest.raises(InputError, match="neither an MLflow server nor a database"):
        promote(parts, uri, tmp_path / "out")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def test_a_server_that_is_not_there_is_told_quickly(parts: Any, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(InputError, match=r"does not answer: .*Connection refused"):
        promote(parts, f"http://127.0.0.1:{free_port()}", tmp_path / "out")
    assert time.monotonic() - start < 15
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_server_that_stays_silent_is_told_quickly(parts: Any, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        start = time.monotonic()
        with pytest.raises(InputError, match="does not answer"):
            promote(parts, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path / "out")
    assert time.monotonic() - start < 40


def test_no_database_file(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is no database, but a text that is long enough to have a header\n" * 10)
    with pytest.raises(InputError, match=r"does not work: .*file is not a database"), connected(f"sqlite:///{path}"):
        pass


def test_without_mlflow(parts: Any, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'unmask\[tracking\]'"):
        promote(parts, store, tmp_path / "out")


@pytest.mark.slow
def test_a_real_server(server: str, parts: Any, clip: Path, tmp_path: Path) -> None:
    config = PromoteConfig(registered_model="on-a-server", experiment="on a server")
    first = promote(parts, server, tmp_path / "first", config)
    assert (first.version, first.alias) == ("1", "challenger")
    again = promote(parts, server, tmp_path / "second", config)
    assert again.model_copy(update={"decided_at": first.decided_at}) == first
    folder = resolve_model("models:/on-a-server@challenger", server, tmp_path / "cache")
    assert Bundle.load(folder).score(clip).probability == Bundle.load(parts.bundle).score(clip).probability
    with pytest.raises(InputError, match="no alias champion"):
        resolve_model("models:/on-a-server@champion", server, tmp_path / "cache")


def test_the_commit_is_found_in_every_kind_of_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path / "one", check=True, capture_output=True, text=True)
        return done.stdout.strip()

    (tmp_path / "one").mkdir()
    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "first")
    git("worktree", "add", "-q", "-b", "side", str(tmp_path / "two"))
    for checkout in ("one", "two"):
        monkeypatch.setattr(tracking_content.unmask, "__file__", str(tmp_path / checkout / "unmask" / "__init__.py"))
        assert tracking_content.git_commit() == git("rev-parse", "HEAD")
