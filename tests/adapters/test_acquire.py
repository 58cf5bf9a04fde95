"""Sources that lie elsewhere: fetched and unpacked once, whole or not at all."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import zipfile

import pytest
from servers.http_server import BadServer, Page

from unmask.adapters import download
from unmask.adapters.sources import open_sources
from unmask.config import UnmaskConfig
from unmask.data.addresses import parse_source
from unmask.errors import InputError, StorageError

CONFIG = UnmaskConfig.model_validate({"download": {"attempts": 2, "timeout_s": 2}})


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(download, "LONGEST_WAIT_S", 0.01)


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def opened(text, tmp_path):
    return open_sources([parse_source(text)], tmp_path / "downloads", CONFIG)[0]


def files_of(source):
    return {stored.key: source.files.read(stored.key) for stored in source.files.objects()}


def left_over(tmp_path):
    """What lies in the folders of downloads besides media and notes."""
    return [
        path.name
        for folder in (tmp_path / "downloads").iterdir()
        for path in folder.iterdir()
        if path.name not in ("media", "acquired.json", ".lock")
    ]


def test_an_archive_becomes_a_source_and_is_fetched_once(bad_server, tmp_path):
    content = zipped({"real/a.png": b"1", "fake/b.png": b"2"})
    bad_server.pages["/set.zip"] = Page(content, cuts=[60])
    text = f"mine={bad_server.url}/set.zip#sha256={hashlib.sha256(content).hexdigest()}"
    source = opened(text, tmp_path)
    assert source.name == "mine"
    assert files_of(source) == {"fake/b.png": b"2", "real/a.png": b"1"}
    assert left_over(tmp_path) == []
    asked = len(bad_server.asked)
    again = opened(text, tmp_path)
    without_hash = opened(text.partition("#")[0], tmp_path)
    assert [again.files.uri, without_hash.files.uri] == [source.files.uri] * 2
    assert len(bad_server.asked) == asked, "nothing was asked for again"


def test_seven_parts_fill_one_folder_and_only_missing_ones_are_fetched_again(bad_server, tmp_path):
    for number in range(1, 8):
        content = zipped({f"set/real/{number}.png": b"%d" % number, "set/licence.txt": b"the same in all parts"})
        bad_server.pages[f"/part{number}.zip"] = Page(content, forever=500 if number == 5 else None)
    text = f"set={bad_server.url}/part{{1..7}}.zip"
    with pytest.raises(StorageError, match=r"part5\.zip.*status 500"):
        opened(text, tmp_path)
    bad_server.pages["/part5.zip"].forever = None
    bad_server.asked.clear()
    source = opened(text, tmp_path)
    assert [key for key in files_of(source) if key.endswith("png")] == [f"set/real/{n}.png" for n in range(1, 8)]
    assert "/part5.zip" in {path for path, _ in bad_server.asked}
    assert len(bad_server.asked) < 7, "what had come was not asked for again"
    assert left_over(tmp_path) == []


def test_pieces_of_one_archive_are_joined(bad_server, tmp_path):
    content = zipped({"real/a.png": os.urandom(5000)})
    for number in range(3):
        bad_server.pages[f"/set.zip.00{number + 1}"] = Page(content[number * 2000 : (number + 1) * 2000])
    source = opened(f"set={bad_server.url}/set.zip.{{001..003}}", tmp_path)
    assert list(files_of(source)) == ["real/a.png"]
    assert left_over(tmp_path) == []


def test_a_run_killed_while_files_were_moved_goes_on(bad_server, tmp_path, monkeypatch):
    content = zipped({f"real/{n}.png": b"%d" % n for n in range(20)})
    bad_server.pages["/set.zip"] = Page(content)
    moved, replace = [], os.replace

    def dies_after_some(source, target):
        if str(target).endswith(".png"):
            moved.append(target)
            if len(moved) == 7:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", dies_after_some)
    with pytest.raises(KeyboardInterrupt):
        opened(f"set={bad_server.url}/set.zip", tmp_path)
    monkeypatch.setattr(os, "replace", replace)
    assert len(files_of(opened(f"set={bad_server.url}/set.zip", tmp_path))) == 20
    assert len(bad_server.asked) == 1, "the archive was still there"
    assert left_over(tmp_path) == []


def test_parts_that_contradict_each_other_are_refused(bad_server, tmp_path):
    bad_server.pages["/a.zip"] = Page(zipped({"real/a.png": b"1"}))
    bad_server.pages["/b.zip"] = Page(zipped({"real/a.png": b"2"}))
    with pytest.raises(InputError, match=r"holds real/a\.png, and so does another part"):
        opened(f"set={bad_server.url}/a.zip,{bad_server.url}/b.zip", tmp_path)


def test_a_refused_archive_leaves_nothing_that_looks_like_a_source(bad_server, tmp_path):
    bad_server.pages["/set.zip"] = Page(zipped({"real/a.png": b"1", "../evil.png": b"2"}))
    with pytest.raises(InputError, match="leads out of the folder"):
        opened(f"set={bad_server.url}/set.zip", tmp_path)
    assert list(tmp_path.rglob("*.png")) == []


def test_a_login_page_instead_of_the_file_is_said_so(bad_server, tmp_path):
    bad_server.pages["/set.zip"] = Page(b"<html>Please log in</html>")
    with pytest.raises(InputError, match="neither a zip nor a tar") as caught:
        opened(f"set={bad_server.url}/set.zip", tmp_path)
    assert "login" in caught.value.fix


DATASET = "/v1/datasets.DatasetApiService/DownloadDataset"
COMPETITION = "/v1/competitions.CompetitionApiService/DownloadDataFiles"


@pytest.fixture
def kaggle_server(bad_server, monkeypatch, tmp_path):
    """Kaggle's own client talks to the loopback; archives lie on another host, as they do there."""
    from kagglesdk.kaggle_env import KaggleEnv, _env_to_endpoint

    monkeypatch.setitem(_env_to_endpoint, KaggleEnv.PROD, bad_server.url)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name, raising=False)
    return bad_server


@pytest.fixture
def storage():
    server = BadServer()
    yield server
    server.close()


def stored(storage, name):
    return f"{storage.url.replace('127.0.0.1', 'localhost')}/{name}"


def test_kaggle_data_sets_and_competitions(kaggle_server, storage, tmp_path, monkeypatch):
    basic = "Basic " + base64.b64encode(b"me:key").decode()
    kaggle_server.pages[DATASET] = Page(
        redirect=stored(storage, "set.zip?signed=secret"), wants=("Authorization", basic)
    )
    storage.pages["/set.zip"] = Page(zipped({"real/a.png": b"1"}), cuts=[0, 50])  # the client's own look, then ours
    kaggle_server.pages[COMPETITION] = Page(
        redirect=stored(storage, "data.zip"), wants=("Authorization", "Bearer token"), status=[503]
    )
    storage.pages["/data.zip"] = Page(zipped({"fake/b.mp4": b"2"}))
    with pytest.raises(StorageError, match="KAGGLE_API_TOKEN nor KAGGLE_USERNAME and KAGGLE_KEY"):
        opened("kaggle:owner/set@3", tmp_path)
    monkeypatch.setenv("KAGGLE_USERNAME", "me")
    monkeypatch.setenv("KAGGLE_KEY", "key")
    assert files_of(opened("kaggle:owner/set@3", tmp_path)) == {"real/a.png": b"1"}
    wanted = json.loads(kaggle_server.posted[-1])
    assert (wanted["ownerSlug"], wanted["datasetSlug"], wanted["datasetVersionNumber"]) == ("owner", "set", 3)
    assert all("Authorization" not in headers for _, headers in storage.asked), "credentials stay with Kaggle"
    with pytest.raises(StorageError, match="status 401") as caught:
        opened("kaggle-competition:some-name", tmp_path)
    assert "settings page" in caught.value.fix
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    assert files_of(opened("kaggle-competition:some-name", tmp_path)) == {"fake/b.mp4": b"2"}


def test_a_kaggle_archive_is_resumed_under_another_link_and_not_asked_for_when_it_is_there(
    kaggle_server, storage, tmp_path, monkeypatch
):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    content = zipped({"real/a.png": os.urandom(300_000)})
    kaggle_server.pages[DATASET] = Page(redirect=stored(storage, "set.zip?signed=1"))
    storage.pages["/set.zip"] = Page(content, cuts=[0, 200_000, 0])
    with pytest.raises(StorageError, match=r"200000 of \d+ bytes are here") as caught:
        opened("kaggle:owner/set", tmp_path)
    assert "signed" not in str(caught.value)
    kaggle_server.pages[DATASET] = Page(redirect=stored(storage, "set.zip?signed=2"))
    first = opened("kaggle:owner/set", tmp_path)
    assert storage.asked[-1][1]["Range"] == "bytes=200000-"
    kaggle_server.pages.clear()
    assert opened("kaggle:owner/set", tmp_path).files.uri == first.files.uri


def test_kaggle_that_is_away_is_said_so(kaggle_server, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    kaggle_server.pages[DATASET] = Page(forever=503)
    with pytest.raises(StorageError, match=r"Kaggle does not answer after 2 tries \(status 503\)"):
        opened("kaggle:owner/set", tmp_path)
    assert len(kaggle_server.asked) == 2


def test_rules_that_were_not_accepted_are_named(kaggle_server, tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "token")
    kaggle_server.pages[COMPETITION] = Page(forever=403)
    with pytest.raises(StorageError) as caught:
        opened("kaggle-competition:some-name", tmp_path)
    assert caught.value.fix == "Accept the rules with your account at https://www.kaggle.com/c/some-name/rules."


@pytest.fixture
def faces(bad_server, monkeypatch):
    monkeypatch.setenv("UNMASK_FACEFORENSICS_URL", f"{bad_server.url}/v3/")
    pages = bad_server.pages
    pages["/v3/misc/filelist.json"] = Page(json.dumps([["000", "003"], ["001", "870"]]).encode())
    actors = {"actors": ["01__talking"], "DeepFakesDetection": ["01_02__talking__XYZ"]}
    pages["/v3/misc/deepfake_detection_filenames.json"] = Page(json.dumps(actors).encode())
    for place, names in {
        "original_sequences/youtube": ["000", "003", "001", "870"],
        "manipulated_sequences/Deepfakes": ["000_003", "003_000", "001_870", "870_001"],
        "original_sequences/actors": actors["actors"],
        "manipulated_sequences/DeepFakeDetection": actors["DeepFakesDetection"],
    }.items():
        for name in names:
            pages[f"/v3/{place}/c40/videos/{name}.mp4"] = Page(f"{place} {name}".encode())
    return bad_server


def test_faceforensics_comes_in_its_own_layout_and_only_what_is_missing_again(faces, tmp_path):
    missing = "/v3/manipulated_sequences/Deepfakes/c40/videos/870_001.mp4"
    page = faces.pages.pop(missing)
    text = "faceforensics:c40?manipulations=Deepfakes"
    with pytest.raises(StorageError, match=r"870_001\.mp4.*404"):
        opened(text, tmp_path)
    faces.pages[missing] = page
    faces.asked.clear()
    found = files_of(opened(text, tmp_path))
    assert len(found) == 8
    assert found["manipulated_sequences/Deepfakes/c40/videos/003_000.mp4"].endswith(b"003_000")
    assert [path for path, _ in faces.asked] == ["/v3/misc/filelist.json", missing]


def test_a_part_of_faceforensics_keeps_forgeries_beside_their_originals(faces, tmp_path):
    names = [
        key.rpartition("/")[2]
        for key in files_of(opened("faceforensics:c40?manipulations=Deepfakes&videos=2", tmp_path))
    ]
    assert names == ["000_003.mp4", "003_000.mp4", "000.mp4", "003.mp4"]
    found = files_of(opened("dfd=faceforensics:c40?manipulations=DeepFakeDetection", tmp_path))
    assert [key.split("/")[1] for key in found] == ["DeepFakeDetection", "actors"]


def test_faceforensics_asks_for_the_signed_terms(faces, tmp_path, monkeypatch):
    faces.pages["/v3/misc/filelist.json"] = Page(json.dumps([["../evil", "003"]]).encode())
    with pytest.raises(StorageError, match="another form"):
        opened("faceforensics:c40", tmp_path)
    monkeypatch.delenv("UNMASK_FACEFORENSICS_URL")
    with pytest.raises(StorageError, match="sign its terms; UNMASK_FACEFORENSICS_URL is not set") as caught:
        opened("faceforensics:c40", tmp_path)
    assert "https://github.com/ondyari/FaceForensics" in caught.value.fix
