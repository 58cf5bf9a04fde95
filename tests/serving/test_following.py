"""Which version answers: following, self-test, A/B routing, shadow; under load, without losing a request."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from live_server import SETTINGS, Live, Running, seal, write_bundle, write_onnx

from unmask.deployment.example import check_example
from unmask.deployment.runtime import Bundle
from unmask.errors import ContractError, InputError, UnmaskError
from unmask.serving.models import FolderSource, Follower, Found, Models, in_share, self_test


class Listed:
    """A source whose current version the test moves, like an alias."""

    def __init__(self, **folders: Path) -> None:
        self.folders = folders
        self.now = next(iter(folders))
        self.broken: UnmaskError | None = None

    def current(self) -> Found:
        if self.broken is not None:
            raise self.broken
        return Found(self.now, f"detector version {self.now}")

    def fetch(self, found: Found) -> Path:
        return self.folders[found.key]


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("other") / "bundle", seed=7)


@pytest.fixture
def copy(bundle_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder, tmp_path / "copy"))


def test_the_example_travels_and_is_repeated(bundle_folder: Path, copy: Path) -> None:
    assert check_example(Bundle.load(bundle_folder))
    # Another network under the same name, hashed as it should be: only the example tells.
    write_onnx(copy / "small.onnx", seed=99)
    seal(copy)
    with pytest.raises(ContractError, match="small"):
        self_test(Bundle.load(copy))
    (copy / "example.json").unlink()
    seal(copy)
    assert not check_example(Bundle.load(copy))


def test_a_version_that_fails_changes_nothing(bundle_folder: Path, other_folder: Path, copy: Path) -> None:
    write_onnx(copy / "small.onnx", seed=99)
    seal(copy)
    changed = Path(shutil.copytree(other_folder, copy.with_name("changed")))
    (changed / "small.onnx").write_bytes(b"no network")
    silent = Path(shutil.copytree(other_folder, copy.with_name("silent")))
    write_onnx(silent / "small.onnx", seed=1, gain=float("nan"))
    (silent / "example.json").unlink()
    seal(silent)
    source = Listed(one=bundle_folder, bad=copy, changed=changed, silent=silent, two=other_folder)
    follower = Follower(source, 1, 8)
    assert follower.check()
    assert follower.version is not None
    kept = follower.version
    for bad in ("bad", "changed", "silent"):
        source.now = bad
        assert not follower.check()
        assert follower.version is kept
        assert follower.problem
    source.broken = InputError("The registry does not answer.")
    assert not follower.check()
    assert follower.version is kept
    source.broken = None
    source.now = "two"
    assert follower.check()
    assert follower.version.name == "detector version two"
    assert follower.problem is None


def test_without_any_version_it_says_why(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="does not exist"):
        Follower(FolderSource(tmp_path), 1, 8).check()


def test_callers_keep_their_side_and_shares_are_kept() -> None:
    callers = [f"caller-{index}" for index in range(4000)]
    inside = [caller for caller in callers if in_share(caller, 0.25)]
    assert len(inside) == pytest.approx(1000, abs=4 * (4000 * 0.25 * 0.75) ** 0.5)
    assert all(in_share(caller, 0.5) for caller in inside)
    assert not any(in_share(caller, 0) for caller in callers)
    assert all(in_share(caller, 1) for caller in callers)


def test_routing_and_shadow(bundle_folder: Path, other_folder: Path) -> None:
    first, second = (Follower(FolderSource(folder), 1, 8) for folder in (bundle_folder, other_folder))
    with pytest.raises(UnmaskError, match="No model"):
        Models(first, None, 0, False).choose("anybody")
    first.check()
    second.check()
    alone = Models(first, None, 0, True).choose("anybody")
    assert (alone.arm, alone.other) == ("champion", None)
    split = Models(first, second, 0.5, False)
    arms = {caller: split.choose(caller).arm for caller in map(str, range(50))}
    assert set(arms.values()) == {"champion", "challenger"}
    assert arms == {caller: split.choose(caller).arm for caller in arms}
    shadow = Models(first, second, 0, True).choose("anybody")
    assert (shadow.arm, shadow.other_arm, shadow.other) == ("champion", "challenger", second.version)


def ask(live: Live, face: Path, client: str = "") -> requests.Response:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        answer = live.post("/v1/analyze", face, client=client)
        if answer.status_code != 503:
            return answer
        assert int(answer.headers["retry-after"]) > 0  # declared, and the only refusal that is allowed
        time.sleep(0.1)
    raise AssertionError("busy for ever")


@pytest.mark.slow
def test_swap_and_killed_workers_under_load(
    bundle_folder: Path, other_folder: Path, face: Path, tmp_path: Path
) -> None:
    """The version changes and decoders die while sixteen callers ask: each gets a right answer of one of the two."""
    expected = {
        f"detector version {key}": Bundle.load(folder, threads=1).score(face).probability
        for key, folder in (("one", bundle_folder), ("two", other_folder))
    }
    source = Listed(one=bundle_folder, two=other_folder)
    with Running(source, tmp_path, SETTINGS) as live, ThreadPoolExecutor(16) as threads:
        half = threading.Event()

        def one(index: int) -> requests.Response:
            if index == 20:
                half.set()
            return ask(live, face)

        answers = [threads.submit(one, index) for index in range(48)]
        half.wait(60)
        source.now = "two"
        for pid in live.decoders():
            os.kill(pid, signal.SIGKILL)
        results = [answer.result() for answer in answers]
        deadline = time.monotonic() + 30
        while ask(live, face).json()["model_version"] != "detector version two":
            assert time.monotonic() < deadline
        assert len(live.decoders()) == 2
        assert live.leftovers() == []
    assert [answer.status_code for answer in results] == [200] * 48
    for answer in results:
        body = answer.json()
        assert body["probability"] == expected[body["model_version"]]
    assert expected["detector version one"] != expected["detector version two"]


def test_ab_and_shadow_are_recorded(bundle_folder: Path, other_folder: Path, face: Path, tmp_path: Path) -> None:
    settings = SETTINGS.model_copy(update={"workers": 1, "challenger_share": 0.5, "shadow": True, "poll_s": 60})
    one, two = Listed(one=bundle_folder), Listed(two=other_folder)
    with Running(one, tmp_path, settings, challenger=two) as live:
        arms = {caller: ask(live, face, caller).json()["arm"] for caller in ("a", "b", "c", "d", "e", "f")}
        assert arms == {caller: "challenger" if in_share(caller, 0.5) else "champion" for caller in arms}
        deadline = time.monotonic() + 20
        while len(records := live.services.store.judged()) < 12:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    answered = [each.record for each in records if each.record.answered]
    shadows = [each.record for each in records if not each.record.answered]
    assert {record.analysis_id for record in answered} == {record.analysis_id for record in shadows}
    assert sorted(record.arm for record in answered) == sorted(arms.values())
    for record in answered:
        (shadow,) = [each for each in shadows if each.analysis_id == record.analysis_id]
        assert shadow.version != record.version
        assert shadow.features == record.features
