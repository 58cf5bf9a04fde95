"""Records and what is made of them, against independent arithmetic; in SQLite and, where there is one, PostgreSQL."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from live_server import SETTINGS, Running
from scipy import stats
from servers.postgres_server import running_postgres

from unmask.errors import InputError, StorageError
from unmask.fusion.rules import FeedbackCount
from unmask.serving.export import export_labelled
from unmask.serving.models import FolderSource
from unmask.serving.monitoring import compare, population_stability, report
from unmask.serving.store import FeedbackStore, Judged, Record

DAY_S = 86_400.0


def record(number: int, **changes: Any) -> Record:
    values: dict[str, Any] = {
        "analysis_id": f"id{number}",
        "version": "one",
        "arm": "champion",
        "answered": True,
        "at": float(number),
        "caller": "lab",
        "modality": "video",
        "verdict": "fake",
        "reason": None,
        "probability": 0.8,
        "threshold": 0.5,
        "operating_point": "max_f1",
        "seconds": 0.1,
        "features": {"quality.blur": 1.5, "temp.rppg": None},
        "pushes": {"ensemble": 0.7, "quality.blur": -0.2},
    }
    return Record(**{**values, **changes})


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A real PostgreSQL of our own."""
    with running_postgres() as address:
        yield f"postgresql+pg8000://unmask:secret-of-tests@{address}/unmask"


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FeedbackStore]:
    if request.param == "sqlite":
        made = FeedbackStore(f"sqlite:///{tmp_path / 'deep' / 'feedback.db'}")
    else:
        pytest.importorskip("pg8000", reason="pg8000 is not installed (extra postgres)")
        made = FeedbackStore(request.getfixturevalue("postgres"))
    yield made
    made.close()


def test_what_is_recorded_comes_back(store: FeedbackStore) -> None:
    known = [record(1), record(2, version="two", arm="challenger", probability=None, capped=True, artefact_factor=0.25)]
    store.add([*known, record(1, version="two", arm="challenger", answered=False)])
    judged = store.judged()
    assert judged[0].record.features == {"quality.blur": 1.5, "temp.rppg": None}
    assert store.answered("id1") == known[0]
    assert store.answered("id2") == known[1]
    assert store.answered("id3") is None
    assert not store.say("id3", "lab", "real", True)

    assert store.say("id1", "a", "real", False)
    assert store.say("id1", "b", "fake", False)
    assert {each.label for each in store.judged() if each.record.analysis_id == "id1"} == {None}  # a tie
    assert store.say("id1", "b", "real", False)  # changed the mind
    assert store.say("id1", "c", "fake", True)  # checked: outweighs feelings
    labels = {(each.record.version, each.label, each.verified) for each in store.judged() if each.record.at == 1}
    assert labels == {("one", "fake", True), ("two", "fake", True)}
    assert store.feedback_counts("one") == {"ensemble": FeedbackCount(1, 0), "quality.blur": FeedbackCount(0, 1)}


def test_databases_that_do_not_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be opened"):
        FeedbackStore("no-such-database://x")
    with pytest.raises(StorageError) as raised:
        FeedbackStore("postgresql+pg8000://unmask:secret@127.0.0.1:1/x")
    assert "secret" not in str(raised.value)


def test_rates_rest_on_checked_material_only() -> None:
    judged = [
        *(Judged(record(n, verdict="fake"), "real", True) for n in range(2)),
        *(Judged(record(n, verdict="real"), "real", True) for n in range(2, 20)),
        *(Judged(record(n, verdict="fake"), "fake", True) for n in range(20, 29)),
        Judged(record(29, verdict="uncertain"), "fake", True),
        *(Judged(record(n, verdict="fake"), "real", False) for n in range(30, 40)),
        Judged(record(40, verdict="not scored", probability=None), "fake", True),
    ]
    (one,) = report(judged, {}, 41.0, 7).versions
    expected = stats.binomtest(2, 20).proportion_ci(method="exact")
    rate = one.false_positive_rate
    assert (rate.value, rate.n) == (0.1, 20)
    assert (rate.low, rate.high) == pytest.approx((expected.low, expected.high))
    assert (one.true_positive_rate.value, one.true_positive_rate.n) == (0.9, 10)
    assert (one.right.value, one.right.n) == (27 / 40, 40)
    assert one.verdicts["not scored"] == 1


def test_rules_are_summed_up() -> None:
    judged = [Judged(record(n, capped=n < 3, artefact_factor=0.4 + 0.1 * (n % 2))) for n in range(10)]
    (one,) = report(judged, {}, 10.0, 7).versions
    assert (one.override_rate.value, one.override_rate.n) == (0.3, 10)
    values = [0.4, 0.5] * 5
    interval = stats.t.interval(0.95, 9, np.mean(values), stats.sem(values))
    assert one.artefact_factor.value == pytest.approx(0.45)
    assert (one.artefact_factor.low, one.artefact_factor.high) == pytest.approx(interval)
    (none,) = report([Judged(record(1))], {}, 2.0, 7).versions
    assert (none.override_rate.n, none.artefact_factor.n) == (0, 0)


def test_psi_is_the_written_out_sum() -> None:
    rng = np.random.default_rng(4)
    before, recent = rng.normal(0, 1, 500), rng.normal(0.7, 1, 300)
    edges = np.quantile(before, np.arange(1, 10) / 10)
    e, f = (
        (np.histogram(values, [-np.inf, *edges, np.inf])[0] + 0.5) / (len(values) + 5) for values in (before, recent)
    )
    assert population_stability(before, recent) == (pytest.approx(sum((f - e) * np.log(f / e))), 10)
    assert population_stability(before, before)[0] == pytest.approx(0, abs=1e-3)
    assert population_stability(np.zeros(50), np.zeros(50)) == (pytest.approx(0), 2)


def test_psi_by_chance_holds_its_level() -> None:
    """Without any drift, the bound is passed in about one case of twenty."""
    rng = np.random.default_rng(9)
    passed = 0
    for _ in range(400):
        drift = compare("x", rng.normal(size=200), rng.normal(size=150))
        assert drift.psi is not None
        assert drift.psi_by_chance is not None
        passed += drift.psi > drift.psi_by_chance
    assert 6 <= passed <= 36


def test_drift_is_found_where_it_is_and_nowhere_else() -> None:
    rng = np.random.default_rng(2)
    now = 100 * DAY_S
    judged = []
    for n in range(400):
        late = n >= 250
        features = {"quality.blur": float(rng.normal(1.5 if late else 0, 1)), "art.edge": float(rng.normal())}
        at = now - (3 if late else 30) * DAY_S
        judged.append(Judged(record(n, at=at, features=features, probability=float(rng.beta(2, 2)))))
    (one,) = report(judged, {}, now, 7).versions
    states = {each.name: each.state for each in one.drift}
    assert states == {"probability": "stable", "quality.blur": "shifted", "art.edge": "stable"}
    blur = next(each for each in one.drift if each.name == "quality.blur")
    assert (blur.n_before, blur.n_recent) == (250, 150)
    assert compare("x", np.zeros(5), np.zeros(50)).state == "too few"


def test_kept_uploads_become_a_data_set(face: Path, clip: Path, tmp_path: Path) -> None:
    from click.testing import CliRunner

    from unmask.cli import cli

    work = tmp_path / "serve"
    (work / "kept").mkdir(parents=True)
    store = FeedbackStore(f"sqlite:///{work / 'feedback.db'}")
    for number, source in enumerate((face, clip, face, clip, face)):
        kept = number != 2
        store.add([record(number, upload=f"id{number}" if kept else None)])
        if kept:
            shutil.copyfile(source, work / "kept" / f"id{number}")
    with pytest.raises(InputError, match="nothing to export"):
        export_labelled(store, work / "kept", tmp_path / "none")
    for number, (label, verified) in enumerate([("real", True), ("fake", True), ("real", True), ("real", False)]):
        store.say(f"id{number}", "lab", label, verified)  # type: ignore[arg-type]
    store.close()
    out = tmp_path / "learned"
    result = CliRunner().invoke(cli, ["feedback-export", "--work", str(work), "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "1 real and 1 fake" in result.output
    assert "1 (nobody checked it)" in result.output
    assert (out / "real" / "id0.jpg").read_bytes() == face.read_bytes()
    assert (out / "fake" / "id1.mp4").read_bytes() == clip.read_bytes()
    rows = list(csv.DictReader((out / "labels.csv").open()))
    assert [(row["file"], row["label"]) for row in rows] == [("real/id0.jpg", "real"), ("fake/id1.mp4", "fake")]
    # `ingest` takes it as it is; two files are too few to split, which is all that it may complain of.
    ingest = [sys.executable, "-m", "unmask.cli", "ingest", "--source", f"learned={out}", "--out", str(tmp_path / "d")]
    ingest += ["--set", "ingest.min_duration_s=0.5"]
    done = subprocess.run(ingest, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 or "split" in done.stderr or "group" in done.stderr, done.stderr


def test_uploads_are_kept_only_where_both_sides_agree(live: Any, face: Path) -> None:
    kept = live.work / "kept"
    before = set(kept.glob("*"))
    assert not live.post("/v1/analyze", face).json()["kept"]
    assert set(kept.glob("*")) == before
    analysis = live.post("/v1/analyze", face, keep="true").json()
    assert analysis["kept"]
    assert (kept / analysis["id"]).read_bytes() == face.read_bytes()
    assert kept.stat().st_mode & 0o077 == 0


def test_feedback_weighs_the_inputs_of_the_next_answers(bundle_folder: Path, face: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"workers": 1, "feedback_weights": True, "poll_s": 0.05})
    with Running(FolderSource(bundle_folder), tmp_path, settings) as live:
        first = live.post("/v1/analyze", face).json()
        assert first["rules"] == []
        said = {"analysis_id": first["id"], "right": False, "verified": True}
        requests.post(live.url + "/v1/feedback", json=said, timeout=10)
        time.sleep(0.6)
        second = live.post("/v1/analyze", face).json()
    assert [rule["rule"] for rule in second["rules"]] == ["feedback"]
    assert "feedback" in second["rules"][0]["sentence"]
    # What had pushed the wrong way counts half as much now.
    assert abs(second["ensemble_contribution"]) in (
        pytest.approx(abs(first["ensemble_contribution"]) * 0.5),
        pytest.approx(abs(first["ensemble_contribution"]) * 2),
    )


def test_a_slow_store_holds_nobody_up(
    bundle_folder: Path, face: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The figures of a long history, and weights from it, are read beside the answers and not before them."""
    read = FeedbackStore.judged

    def slow(self: FeedbackStore, **options: Any) -> list[Judged]:
        time.sleep(1.5)
        return read(self, **options)

    settings = SETTINGS.model_copy(update={"workers": 1, "feedback_weights": True, "poll_s": 0.05})
    with Running(FolderSource(bundle_folder), tmp_path, settings) as live, ThreadPoolExecutor(1) as thread:
        monkeypatch.setattr(FeedbackStore, "judged", slow)
        figures = thread.submit(requests.get, live.url + "/v1/monitoring", timeout=30)
        waits = []
        for _ in range(20):
            start = time.monotonic()
            assert requests.get(live.url + "/health", timeout=10).status_code == 200
            waits.append(time.monotonic() - start)
            time.sleep(0.05)
        assert figures.result().status_code == 200
    assert max(waits) < 1
