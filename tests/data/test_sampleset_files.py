"""The sample set as files: names, truth, encoding, determinism, growth, and what is refused."""

import os
import shutil
from collections import Counter

import av
import pytest

from unmask.data.conventions import identity_keys
from unmask.data.listing import list_sources
from unmask.data.sampleset import TRUTH_FILE, SampleSetTruth, generate, generation
from unmask.data.sources import Source
from unmask.errors import InputError
from unmask.objects import FolderStore
from unmask.schemas import sha256_file

SMALL = {"size_px": 192, "duration_s": 1.0}


def hashes(folder):
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*.mp4"))}


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "sample"
    outcome = generate(out, 16, seed=7, workers=2, **SMALL)
    assert outcome.metrics == {"n_videos": 16.0, "n_groups": 4.0}
    return out


def test_ingest_reads_labels_manipulations_compressions_and_groups_from_the_names(small_set):
    listing = list_sources([Source("sample", FolderStore(small_set))])
    assert Counter(file.label for file in listing.files) == {0: 8, 1: 8}
    assert Counter(file.compression for file in listing.files) == {"c23": 8, "c40": 8}
    kinds = Counter(file.manipulation for file in listing.files if file.label)
    assert set(kinds) == {"FaceBlend", "FrozenFace", "GridUpsample"}
    keys = identity_keys(listing.files)
    truth = {clip.path: clip for clip in SampleSetTruth.load(small_set / TRUTH_FILE).clips}
    assert len(truth) == len(listing.files) == 16
    members = Counter(
        frozenset().union(*(keys[f.sample_id] for f in listing.files if truth[f.relative].group == g)) for g in range(4)
    )
    assert all(len(group) == 2 for group in members)
    assert len(members) == 4


def test_the_truth_is_of_these_files_and_hidden_from_ingest(small_set):
    truth = SampleSetTruth.load(small_set / TRUTH_FILE)
    assert {clip.path: clip.sha256 for clip in truth.clips} == hashes(small_set)
    for clip in truth.clips:
        assert clip.label == int(clip.path.startswith("fake/"))
        assert (clip.manipulation is None) == (clip.label == 0)
        assert (clip.pulse_bpm is None) == (clip.label == 1)
        assert (clip.face_identity == clip.identity) == (clip.label == 0)
        assert all(0 <= start_s < truth.duration_s for start_s in clip.blink_times_s)
    listing = list_sources([Source("sample", FolderStore(small_set))])
    assert not [reason for reason in listing.ignored if "real" in reason]
    assert sum(listing.ignored.values()) == 2  # truth.json and the marker of the folder


def test_real_and_fake_are_encoded_alike(small_set):
    seen = {"real": set(), "fake": set()}
    for path in small_set.rglob("*.mp4"):
        label = path.relative_to(small_set).parts[0]
        with av.open(str(path)) as container:
            video, audio = container.streams.video[0], container.streams.audio[0]
            frames = list(container.decode(video))
            # x264 writes its settings into the stream; they are the same bytes but for the rate factor.
            settings = path.read_bytes().split(b"x264 - core", 1)[1].split(b"\0", 1)[0]
            picture = (video.width, video.height, video.average_rate, video.codec.name, video.profile, len(frames))
            sound = (audio.codec.name, audio.rate, audio.layout.name)
            seen[label].add((picture, sound, container.duration, path.parent.name, settings))
    assert seen["real"] == seen["fake"]
    assert len(seen["real"]) == 2  # one for each compression
    assert {(picture[0], picture[1], picture[-1]) for picture, *_ in seen["real"]} == {(192, 192, 25)}


def test_the_bytes_depend_on_the_seed_and_not_on_the_number_of_processes(small_set, tmp_path):
    generate(tmp_path / "one", 16, seed=7, workers=1, **SMALL)
    assert hashes(tmp_path / "one") == hashes(small_set)
    assert (tmp_path / "one" / TRUTH_FILE).read_bytes() == (small_set / TRUTH_FILE).read_bytes()


def test_a_complete_set_is_left_alone_and_a_damaged_one_is_mended(small_set, tmp_path):
    out = tmp_path / "sample"
    shutil.copytree(small_set, out)
    whole = hashes(out)
    before = {path: os.stat(out / path).st_mtime_ns for path in whole}
    assert "already complete" in generate(out, 16, seed=7, **SMALL).messages[0]
    assert {path: os.stat(out / path).st_mtime_ns for path in whole} == before
    victim = out / next(iter(whole))
    victim.write_bytes(victim.read_bytes()[:1000])
    generate(out, 16, seed=7, workers=1, **SMALL)
    assert hashes(out) == whole


def test_a_larger_set_begins_with_the_smaller_one(small_set, tmp_path, monkeypatch):
    out = tmp_path / "sample"
    shutil.copytree(small_set, out)
    rendered = []
    render = generation.render
    monkeypatch.setattr(generation, "render", lambda job, folder: rendered.append(job.target) or render(job, folder))
    generate(out, 20, seed=7, workers=1, **SMALL)
    assert rendered == [8, 9]
    larger, smaller = hashes(out), hashes(small_set)
    assert len(larger) == 20
    assert smaller.items() <= larger.items()
    generate(out, 16, seed=7, workers=1, **SMALL)
    assert hashes(out) == smaller


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"videos": 12}, "16 to 2000"),
        ({"videos": 2004}, "16 to 2000"),
        ({"videos": 17}, "16 or 20"),
        ({"videos": 50}, "48 or 52"),
        ({"seed": -1}, "0 or more"),
        ({"size_px": 200}, "multiple of 16"),
        ({"size_px": 96}, "192 to 720"),
        ({"duration_s": 0.5}, "1 to 60"),
        ({"duration_s": float("nan")}, "1 to 60"),
    ],
)
def test_impossible_wishes_are_refused_with_what_is_possible(tmp_path, arguments, words):
    with pytest.raises(InputError, match=words):
        generate(tmp_path / "sample", **arguments)
    assert not (tmp_path / "sample").exists()


def test_a_folder_with_other_things_is_not_touched(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not written by unmask"):
        generate(tmp_path, 16, seed=7, workers=1, **SMALL)
    assert (tmp_path / "notes.txt").read_text() == "mine"
