from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmask.data.conventions import identity_keys
from unmask.data.groups import UnionFind, group_samples, largest_group
from unmask.data.listing import list_sources
from unmask.data.sources import Source, SourceFile
from unmask.errors import InputError
from unmask.objects import FolderStore


def make_tree(root: Path, names: Iterable[str]) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return root


def files_of(root: Path, source: str = "s") -> dict[str, SourceFile]:
    return {file.relative: file for file in list_sources([Source(source, FolderStore(root))]).files}


def groups_of(*sources: tuple[str, Path]) -> dict[str, str]:
    """Group of each file, by source and path."""
    files = list_sources([Source(name, FolderStore(root)) for name, root in sources]).files
    keys = identity_keys(files)
    groups = group_samples([keys[file.sample_id] for file in files], [None] * len(files))
    return {f"{file.source}/{file.relative}": group for file, group in zip(files, groups, strict=True)}


def parts(groups: dict[str, str]) -> set[frozenset[str]]:
    """The division into groups, whatever their names."""
    return {frozenset(name for name, group in groups.items() if group == one) for one in set(groups.values())}


def test_label_manipulation_and_compression_come_from_folders(tmp_path: Path) -> None:
    root = make_tree(
        tmp_path,
        [
            "REAL/c40/videos/1.mp4",
            "part/fake/Deepfakes/c23/videos/2.mp4",
            "part/fake/raw/FaceSwap/3.mp4",
            "fake/4.wav",
        ],
    )
    files = files_of(root)
    told = {name: (file.label, file.manipulation, file.compression) for name, file in files.items()}
    assert told == {
        "REAL/c40/videos/1.mp4": (0, None, "c40"),
        "part/fake/Deepfakes/c23/videos/2.mp4": (1, "Deepfakes", "c23"),
        "part/fake/raw/FaceSwap/3.mp4": (1, "FaceSwap", "c0"),
        "fake/4.wav": (1, None, None),
    }


def test_compression_may_stand_in_the_name_of_the_source(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "ffpp_c23_videos", ["real/1.mp4", "fake/c40/2.mp4"])
    assert [file.compression for file in files_of(root).values()] == ["c40", "c23"]


def test_a_folder_below_real_too_is_no_manipulation(tmp_path: Path) -> None:
    root = make_tree(tmp_path, ["real/alice/1.mp4", "fake/alice/1.mp4", "fake/vits/alice/2.mp4"])
    assert [file.manipulation for file in files_of(root).values() if file.label] == [None, "vits"]


def test_sample_ids_do_not_depend_on_the_place_of_the_source(tmp_path: Path) -> None:
    here = files_of(make_tree(tmp_path / "here", ["real/1.mp4"]))
    there = files_of(make_tree(tmp_path / "there", ["real/1.mp4"]))
    assert here["real/1.mp4"].sample_id == there["real/1.mp4"].sample_id
    assert here["real/1.mp4"].sample_id != files_of(tmp_path / "here", "other")["real/1.mp4"].sample_id


def test_what_is_no_media_is_passed_over_and_counted(tmp_path: Path) -> None:
    names = ["real/1.mp4", "fake/2.mp4", "fake/2.mp4.crdownload", ".x/real/3.mp4", "real/.hidden.mp4", "real/Thumbs.db"]
    names += ["SOURCE.md", "fake/notes.txt", "metadata.json", "stray.mp4"]
    listing = list_sources([Source("s", FolderStore(make_tree(tmp_path, names)))])
    assert [file.relative for file in listing.files] == ["fake/2.mp4", "real/1.mp4"]
    assert listing.ignored == {
        "hidden, system or unfinished files": 4,
        "no media suffix (.md)": 1,
        "no media suffix (.txt)": 1,
        "no media suffix (.json)": 1,
        "media without a label": 1,
    }


def test_links_are_followed_but_not_in_a_circle(tmp_path: Path) -> None:
    make_tree(tmp_path / "store", ["1.mp4"])
    make_tree(tmp_path / "s", ["fake/2.mp4"])
    (tmp_path / "s/real").symlink_to(tmp_path / "store")
    (tmp_path / "store/again").symlink_to(tmp_path / "s")
    (tmp_path / "s/fake/gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    names = set(files_of(tmp_path / "s"))
    assert {"real/1.mp4", "fake/2.mp4", "fake/gone.mp4"} <= names
    assert all(name.count("again") <= 1 for name in names)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no labelled media"),
        (["real/readme.md", "fake/readme.md"], "no labelled media"),
        (["a.mp4", "b.mp4"], "2 media files without a label"),
    ],
)
def test_a_folder_without_labelled_media_is_refused(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_sources([Source("s", FolderStore(make_tree(tmp_path, names)))])


def test_sources_need_different_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="share a name: s"):
        list_sources([Source("s", FolderStore(tmp_path))] * 2)
    with pytest.raises(InputError, match="No source"):
        list_sources([])


def test_faceforensics_pairs_join_targets_and_sources_over_all_manipulations(tmp_path: Path) -> None:
    fakes = [f"fake/{m}/{p}.mp4" for m in ("Deepfakes", "FaceSwap") for p in ("000_003", "003_000", "001_870")]
    reals = [f"real/youtube/{n}.mp4" for n in ("000", "003", "001", "870", "500")]
    found = parts(groups_of(("s", make_tree(tmp_path, [*fakes, *reals]))))
    first = {"real/youtube/000.mp4", "real/youtube/003.mp4"} | {f for f in fakes if "000" in f}
    second = {"real/youtube/001.mp4", "real/youtube/870.mp4"} | {f for f in fakes if "870" in f}
    expected = [first, second, {"real/youtube/500.mp4"}]
    assert found == {frozenset(f"s/{name}" for name in group) for group in expected}


def test_chains_of_pairs_are_one_group(tmp_path: Path) -> None:
    root = make_tree(tmp_path, ["real/001.mp4", "fake/X/001_002.mp4", "fake/Y/002_003.mp4", "fake/Z/004_003.mp4"])
    assert len(set(groups_of(("s", root)).values())) == 1


def test_one_video_in_two_compressions_is_one_group_across_sources(tmp_path: Path) -> None:
    for compression in ("c23", "c40"):
        make_tree(tmp_path / compression, ["real/001.mp4", "fake/Deepfakes/001_002.mp4"])
    assert len(set(groups_of(("a", tmp_path / "c23"), ("b", tmp_path / "c40")).values())) == 1


def test_numbers_of_other_data_sets_mean_other_videos(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make_tree(tmp_path / name, ["real/001.mp4", "fake/blend/001_002.mp4"])
    assert len(set(groups_of(("one", tmp_path / "one"), ("two", tmp_path / "two")).values())) == 2


def test_numbered_pairs_that_fit_no_real_are_no_pairs(tmp_path: Path) -> None:
    root = make_tree(tmp_path, ["real/a.jpg", "fake/gan/100_200.jpg", "fake/gan/200_300.jpg"])
    assert len(set(groups_of(("s", root)).values())) == 3


def test_frames_in_folders_belong_to_their_video(tmp_path: Path) -> None:
    frames = [
        f"{folder}/{i:04d}.png" for folder in ("real/035", "real/036", "fake/Deepfakes/035_036") for i in range(3)
    ]
    other = [f"{folder}/{i:04d}.png" for folder in ("real/055", "fake/Deepfakes/055_147") for i in range(3)]
    found = parts(groups_of(("s", make_tree(tmp_path, [*frames, *other]))))
    assert found == {frozenset(f"s/{name}" for name in frames), frozenset(f"s/{name}" for name in other)}


@pytest.mark.parametrize(
    ("real", "fakes"),
    [
        ("real/LJ040-00{}.wav", ["fake/LJ040-00{}_gen.wav"]),
        ("real/ms_0{}_gt.wav", ["fake/ms_0{}_vits.wav", "fake/ms_0{}_ghf.wav"]),
        ("real/ms_gt_{}.wav", ["fake/WG/ms_wg_{}.wav", "fake/HGAN_V1/ms_hgan_v1_{}.wav"]),
        ("real/clip{}.mp4", ["fake/Swap/clip{}.mp4", "fake/Gan/clip{}.mp4"]),
        ("real/clip{}.mp4", ["fake/swapped_clip{}.mp4"]),
        ("real/p225/00{}.wav", ["fake/vits/p225/00{}.wav"]),
        ("real/00{}.png", ["fake/00{}.jpg"]),
    ],
)
def test_fakes_are_found_to_belong_to_their_real(tmp_path: Path, real: str, fakes: list[str]) -> None:
    expected = {frozenset("s/" + name.format(i) for name in (real, *fakes)) for i in range(5)}
    root = make_tree(tmp_path, [name.format(i) for name in (real, *fakes) for i in range(5)])
    assert parts(groups_of(("s", root))) == expected


def test_a_stray_real_does_not_undo_the_relation(tmp_path: Path) -> None:
    names = [n.format(i) for n in ("real/ms_gt_{}.wav", "fake/ms_wg_{}.wav") for i in range(5)]
    found = parts(groups_of(("s", make_tree(tmp_path, [*names, "real/hello.wav"]))))
    assert len(found) == 6
    assert frozenset({"s/real/ms_gt_3.wav", "s/fake/ms_wg_3.wav"}) in found


def test_fakes_of_a_missing_real_meet_without_it(tmp_path: Path) -> None:
    names = ["real/a1.wav", "real/a2.wav", "fake/a1_x.wav", "fake/a2_x.wav", "fake/a1_y.wav", "fake/a2_y.wav"]
    found = parts(groups_of(("s", make_tree(tmp_path, [*names, "fake/a3_x.wav", "fake/a3_y.wav"]))))
    assert frozenset({"s/fake/a3_x.wav", "s/fake/a3_y.wav"}) in found


def test_numbers_alone_are_no_tag(tmp_path: Path) -> None:
    """Otherwise every fake of seed 7 would belong to the real number 7."""
    names = [f"real/{i}.png" for i in range(5)] + [f"fake/{seed}_{i}.png" for seed in range(5) for i in range(10, 15)]
    assert len(parts(groups_of(("s", make_tree(tmp_path, names))))) == len(names)


def test_unrelated_names_stay_apart(tmp_path: Path) -> None:
    names = [f"real/real_{i:05d}.jpg" for i in range(20)] + [f"fake/easy_{i}_1111.jpg" for i in range(20)]
    assert len(parts(groups_of(("s", make_tree(tmp_path, names))))) == 40


pairs = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=60)


@given(pairs)
def test_union_find_agrees_with_graph_search(edges: list[tuple[int, int]]) -> None:
    sets = UnionFind()
    for a, b in edges:
        sets.join(a, b)
    neighbours: dict[int, set[int]] = {i: {i} for i in range(31)}
    for a, b in edges:
        neighbours[a].add(b)
        neighbours[b].add(a)
    for start in range(31):
        reached, frontier = {start}, [start]
        while frontier:
            new = neighbours[frontier.pop()] - reached
            reached |= new
            frontier += new
        assert {i for i in range(31) if sets.find(i) == sets.find(start)} == reached


key_sets = st.lists(
    st.tuples(st.sets(st.sampled_from("abcdefghij"), min_size=1, max_size=3), st.sampled_from([None, "x", "y"])),
    min_size=1,
    max_size=12,
)


@given(key_sets, st.randoms())
def test_groups_join_exactly_what_shares_and_do_not_depend_on_order(samples, random) -> None:  # type: ignore[no-untyped-def]
    keys, content = [s[0] for s in samples], [s[1] for s in samples]
    groups = group_samples(keys, content)
    for i, j in combinations(range(len(samples)), 2):
        if keys[i] & keys[j] or (content[i] is not None and content[i] == content[j]):
            assert groups[i] == groups[j]
    for group in set(groups):
        members = [i for i in range(len(samples)) if groups[i] == group]
        assert group == min(min(keys[i]) for i in members)
    order = random.sample(range(len(samples)), len(samples))
    assert group_samples([keys[i] for i in order], [content[i] for i in order]) == [groups[i] for i in order]


def test_largest_group() -> None:
    assert largest_group(["a", "b", "b", "c"]) == ("b", 2, 0.5)
