"""Native layouts, with files made by code where the data sets have them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest

from unmask.data.conventions import identity_keys
from unmask.data.groups import group_samples
from unmask.data.layouts import LAYOUTS
from unmask.data.listing import list_sources
from unmask.data.sources import Listing, Source, SourceFile
from unmask.errors import ConfigError, InputError
from unmask.objects import FolderStore


def make(root: Path, names: Iterable[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")


def listed(root: Path, layout: str = "auto") -> Listing:
    return list_sources([Source("s", FolderStore(root))], {"s": layout})


def files_of(root: Path, layout: str = "auto") -> dict[str, SourceFile]:
    return {file.relative: file for file in listed(root, layout).files}


def groups_of(files: dict[str, SourceFile], relate: str = "all") -> dict[str, str]:
    keys = identity_keys(files.values(), relate)
    names = group_samples([keys[file.sample_id] for file in files.values()], [None] * len(files))
    return dict(zip(files, names, strict=True))


FACEFORENSICS = "FaceForensics++"


@pytest.fixture
def faceforensics(tmp_path: Path) -> Path:
    methods = ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures", "FaceShifter")
    names = [f"original_sequences/youtube/c23/videos/{n}.mp4" for n in ("071", "054", "087", "081", "500")]
    names += [f"manipulated_sequences/{m}/c40/videos/{p}.mp4" for m in methods for p in ("071_054", "054_071")]
    names += ["manipulated_sequences/Deepfakes/masks/videos/071_054.mp4"]
    names += ["manipulated_sequences/Deepfakes/raw/images/087_081/0003.png"]
    names += ["original_sequences/actors/c23/videos/01__exit_phone_room.mp4"]
    names += ["manipulated_sequences/DeepFakeDetection/c23/videos/01_02__exit_phone_room__YVGY8LOK.mp4"]
    make(tmp_path, names)
    (tmp_path / "splits").mkdir()
    for split, pairs in (("train", [["071", "054"]]), ("val", [["087", "081"]]), ("test", [["500", "501"]])):
        (tmp_path / f"splits/{split}.json").write_text(json.dumps(pairs))
    return tmp_path


def test_faceforensics_is_read_as_published(faceforensics: Path) -> None:
    listing = listed(faceforensics)
    files = {file.relative: file for file in listing.files}
    assert listing.layouts == {"s": "faceforensics"}
    assert not [name for name in files if "masks" in name]
    fake = files["manipulated_sequences/FaceShifter/c40/videos/071_054.mp4"]
    assert (fake.label, fake.manipulation, fake.compression, fake.official_split) == (1, "FaceShifter", "c40", "train")
    real = files["original_sequences/youtube/c23/videos/087.mp4"]
    assert (real.label, real.manipulation, real.compression, real.official_split) == (0, None, "c23", "val")
    frame = files["manipulated_sequences/Deepfakes/raw/images/087_081/0003.png"]
    assert (frame.compression, frame.official_split) == ("c0", "val")
    groups = groups_of(files)
    pair = {group for name, group in groups.items() if "071" in name or "054" in name}
    assert len(pair) == 1
    # The official list joins two reals of which no forgery is there.
    assert groups["original_sequences/youtube/c23/videos/081.mp4"] == groups[real.relative]
    actors = {group for name, group in groups.items() if "exit_phone" in name}
    assert len(actors) == 1
    assert not actors & pair


def test_a_broken_pair_list_is_named(faceforensics: Path) -> None:
    (faceforensics / "splits/val.json").write_text('{"a": 1}')
    with pytest.raises(InputError, match=r"val\.json is not a list of pairs"):
        listed(faceforensics)


def test_celeb_df(tmp_path: Path) -> None:
    fakes = ["Celeb-synthesis/id0_id1_0000.mp4", "Celeb-synthesis/id2_id3_0001.mp4"]
    reals = ["Celeb-real/id0_0000.mp4", "Celeb-real/id1_0000.mp4", "YouTube-real/00000.mp4", "YouTube-real/00170.mp4"]
    make(tmp_path, [*fakes, *reals])
    (tmp_path / "List_of_testing_videos.txt").write_text(
        "1 YouTube-real/00170.mp4\n0 Celeb-synthesis/id2_id3_0001.mp4\n"
    )
    files = files_of(tmp_path)
    assert [file.label for file in files.values()] == [0, 0, 1, 1, 0, 0]
    assert {name for name, f in files.items() if f.official_split == "test"} == {
        "YouTube-real/00170.mp4",
        "Celeb-synthesis/id2_id3_0001.mp4",
    }
    groups = groups_of(files)
    assert groups["Celeb-real/id0_0000.mp4"] == groups["Celeb-real/id1_0000.mp4"] == groups[fakes[0]]
    assert len(set(groups.values())) == 4
    by_target = groups_of(files, "target")
    assert by_target["Celeb-real/id0_0000.mp4"] == by_target[fakes[0]] != by_target["Celeb-real/id1_0000.mp4"]


def test_dfdc_parts_group_forgeries_with_their_original(tmp_path: Path) -> None:
    for part, entries in (
        (0, {"aaa.mp4": ("FAKE", "rrr.mp4"), "rrr.mp4": ("REAL", None), "bbb.mp4": ("FAKE", "rrr.mp4")}),
        (1, {"ccc.mp4": ("FAKE", "zzz.mp4"), "zzz.mp4": ("REAL", None)}),
    ):
        folder = tmp_path / f"dfdc_train_part_{part}"
        make(folder, entries)
        content = {
            name: {"label": label, "split": "train", **({"original": original} if original else {})}
            for name, (label, original) in entries.items()
        }
        (folder / "metadata.json").write_text(json.dumps(content))
    listing = listed(tmp_path)
    assert listing.layouts == {"s": "metadata"}
    files = {file.relative: file for file in listing.files}
    assert {name.split("/")[1]: file.label for name, file in files.items()} == {
        "aaa.mp4": 1, "bbb.mp4": 1, "rrr.mp4": 0, "ccc.mp4": 1, "zzz.mp4": 0,
    }  # fmt: skip
    groups = groups_of(files)
    assert groups["dfdc_train_part_0/aaa.mp4"] == groups["dfdc_train_part_0/rrr.mp4"]
    assert len(set(groups.values())) == 2


def test_metadata_labels_win_over_folders_and_the_contradiction_is_reported(tmp_path: Path) -> None:
    make(tmp_path, ["image1.jpg", "image2.jpg", "real/image3.jpg", "fake/image4.jpg"])
    entries = {
        "image1.jpg": {"label": 0, "source": "real"},
        "image2.jpg": {"label": 1, "source": "stylegan"},
        "real/image3.jpg": {"label": "fake"},
        "gone.jpg": {"label": 0},
    }
    (tmp_path / "metadata.json").write_text(json.dumps(entries))
    listing = listed(tmp_path)
    told = {file.relative: (file.label, file.manipulation) for file in listing.files}
    assert told == {
        "image1.jpg": (0, None),
        "image2.jpg": (1, "stylegan"),
        "real/image3.jpg": (1, None),
        "fake/image4.jpg": (1, None),
    }
    assert any("1 rows" in text and "gone.jpg" in text for text in listing.remarks)
    assert any("the list was believed" in text for text in listing.remarks)


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet", "semicolon.csv"])
def test_tables_give_labels_identities_groups_and_splits(tmp_path: Path, suffix: str) -> None:
    names = [f"clips/{i}.mp4" for i in range(6)]
    make(tmp_path, names)
    table = pd.DataFrame(
        {
            "filename": names,
            "label": ["real", "fake", "bonafide", "spoof", "0", "1"],
            "speaker": ["anna", "anna;bert", "carl", "dora", None, None],
            "group": [None, None, "g", "g", None, None],
            "subset": ["train", "train", "dev", "eval", "test", "test"],
            "attack": [None, "A07", None, "A08", None, None],
            "source": ["one", "one", "two", "two", "two", "two"],
        }
    )
    if suffix == "parquet":
        table.to_parquet(tmp_path / "labels.parquet")
    else:
        separator = {"csv": ",", "tsv": "\t"}.get(suffix, ";")
        table.replace("anna;bert", "anna" if separator == ";" else "anna;bert").to_csv(
            tmp_path / f"labels.{suffix}", index=False, sep=separator
        )
    listing = listed(tmp_path)
    assert listing.layouts == {"s": "table"}
    files = {file.relative: file for file in listing.files}
    assert [file.label for file in files.values()] == [0, 1, 0, 1, 0, 1]
    assert [file.official_split for file in files.values()] == ["train", "train", "val", "test", "test", "test"]
    assert [file.manipulation for file in files.values()] == [None, "A07", None, "A08", None, "two"]
    assert {file.part for file in files.values()} == {"one", "two"}
    groups = groups_of(files)
    assert groups[names[0]] == groups[names[1]]
    assert groups[names[2]] == groups[names[3]]
    assert len(set(groups.values())) == 4


def test_a_label_that_is_none_is_named_with_its_row(tmp_path: Path) -> None:
    make(tmp_path, ["a.mp4", "b.mp4"])
    (tmp_path / "labels.csv").write_text("path,label\na.mp4,real\nb.mp4,perhaps\n")
    with pytest.raises(InputError, match=r"labels\.csv: row 1: label 'perhaps' is neither real nor fake"):
        listed(tmp_path)


def test_divided_folders_tell_their_split_and_numbering_begins_anew(tmp_path: Path) -> None:
    make(
        tmp_path,
        [f"{s}/{label}/{i:03d}.jpg" for s in ("train", "test") for label in ("real", "fake") for i in range(3)],
    )
    listing = listed(tmp_path)
    files = {file.relative: file for file in listing.files}
    assert listing.official_splits == {"s"}
    assert all(file.official_split == name.split("/")[0] for name, file in files.items())
    groups = groups_of(files)
    assert groups["train/real/001.jpg"] == groups["train/fake/001.jpg"] != groups["test/real/001.jpg"]


def test_dfd_from_kaggle(tmp_path: Path) -> None:
    make(tmp_path, ["DFD_original sequences/01__hugging_happy.mp4", "DFD_original sequences/05__talking.mp4"])
    make(tmp_path, ["DFD_manipulated_sequences/DFD_manipulated_sequences/01_02__hugging_happy__ABCDEF12.mp4"])
    files = files_of(tmp_path)
    assert sorted(file.label for file in files.values()) == [0, 0, 1]
    assert len(set(groups_of(files).values())) == 2


def test_deeperforensics(tmp_path: Path) -> None:
    make(tmp_path, ["source_videos/M101/light_down/camera_front.mp4", "source_videos/W009/light_up/camera_left.mp4"])
    make(
        tmp_path, ["manipulated_videos/end_to_end/000_M101.mp4", "manipulated_videos/reenact_postprocess/003_W009.mp4"]
    )
    make(tmp_path, ["manipulated_videos/end_to_end/003_W123.mp4"])
    (tmp_path / "lists/splits").mkdir(parents=True)
    (tmp_path / "lists/splits/test.txt").write_text("000_M101.mp4\n")
    listing = listed(tmp_path)
    files = {file.relative: file for file in listing.files}
    assert listing.layouts == {"s": "deeperforensics"}
    assert files["manipulated_videos/end_to_end/000_M101.mp4"].official_split == "test"
    assert files["manipulated_videos/reenact_postprocess/003_W009.mp4"].manipulation == "reenact_postprocess"
    groups = groups_of(files)
    assert (
        groups["source_videos/M101/light_down/camera_front.mp4"] == groups["manipulated_videos/end_to_end/000_M101.mp4"]
    )
    # Both show video 003 of FaceForensics++.
    assert groups["manipulated_videos/end_to_end/003_W123.mp4"] == groups["source_videos/W009/light_up/camera_left.mp4"]
    assert len(set(groups.values())) == 2


def test_wavefake_meets_its_corpora_across_sources(tmp_path: Path) -> None:
    make(tmp_path / "a", ["generated_audio/ljspeech_melgan/LJ001-0001_gen.wav", "LJSpeech-1.1/wavs/LJ001-0001.wav"])
    make(
        tmp_path / "a",
        ["generated_audio/jsut_parallel_wavegan/BASIC5000_0001_gen.wav", "LJSpeech-1.1/wavs/LJ001-0002.wav"],
    )
    make(tmp_path / "a", ["jsut_ver1.1/basic5000/wav/BASIC5000_0001.wav"])
    make(tmp_path / "b", ["real/LJ001-0002.wav", "fake/LJ001-0002_gen.wav"])
    listing = list_sources([Source(name, FolderStore(tmp_path / name)) for name in "ab"])
    files = {f"{file.source}/{file.relative}": file for file in listing.files}
    assert listing.layouts == {"a": "wavefake", "b": "folders"}
    assert files["a/generated_audio/ljspeech_melgan/LJ001-0001_gen.wav"].manipulation == "melgan"
    groups = groups_of(files)
    assert len(set(groups.values())) == 3
    assert groups["a/LJSpeech-1.1/wavs/LJ001-0002.wav"] == groups["b/fake/LJ001-0002_gen.wav"]


PROTOCOLS = {
    "2019": (
        "ASVspoof2019_LA_cm_protocols/ASVspoof2019.LA.cm.{}.txt",
        {
            "train.trn": "LA_0079 LA_T_1138215 - - bonafide\nLA_0079 LA_T_1271820 - A01 spoof\n",
            "dev.trl": "LA_0069 LA_D_1047731 - - bonafide\n",
            "eval.trl": "LA_0039 LA_E_2834763 - A11 spoof\n",
        },
        {"LA_T_1138215": "train", "LA_T_1271820": "train", "LA_D_1047731": "val", "LA_E_2834763": "test"},
        "A11",
    ),
    "2021 LA": (
        "keys/LA/CM/{}.txt",
        {
            "trial_metadata": "LA_0039 LA_E_2834763 alaw ita_tx A11 spoof notrim eval\n"
            "LA_0040 LA_E_1000001 none - bonafide bonafide notrim progress\n"
        },
        {"LA_E_2834763": "test", "LA_E_1000001": "test"},
        "A11",
    ),
    "2021 DF": (
        "keys/DF/CM/{}.txt",
        {
            "trial_metadata": "LA_0039 DF_E_2000011 low_mp3 asvspoof A14 spoof notrim progress vocoder - - -\n"
            "LA_0040 DF_E_2000013 nocodec asvspoof - bonafide notrim eval bonafide - - -\n"
        },
        {"DF_E_2000011": "test", "DF_E_2000013": "test"},
        "A14",
    ),
}


@pytest.mark.parametrize("edition", PROTOCOLS)
def test_asvspoof_protocols(tmp_path: Path, edition: str) -> None:
    pattern, protocols, splits, attack = PROTOCOLS[edition]
    make(tmp_path, [f"flac/{name}.flac" for name in [*splits, "LA_E_9999999"]])
    for name, lines in protocols.items():
        make(tmp_path, [pattern.format(name)])
        (tmp_path / pattern.format(name)).write_text(lines + "LA_0001 LA_T_0000000 - - - bonafide\n")
    listing = listed(tmp_path)
    files = {file.stem: file for file in listing.files}
    assert listing.layouts == {"s": "asvspoof"}
    assert {name: file.official_split for name, file in files.items()} == splits
    fakes = [file for file in files.values() if file.label]
    assert attack in {file.manipulation for file in fakes}
    assert all(file.manipulation is None for file in files.values() if not file.label)
    compressions = {file.compression for file in files.values()} - {None}
    assert compressions == {"2019": set(), "2021 LA": {"alaw"}, "2021 DF": {"low_mp3"}}[edition]
    assert listing.ignored["media without a label"] == 1
    assert any("are not there" in text for text in listing.remarks)
    speakers = {key for file in files.values() for key in file.keys}
    assert len(speakers) == len(set(groups_of({f.relative: f for f in files.values()}).values()))


def test_a_broken_protocol_is_named_with_its_line(tmp_path: Path) -> None:
    make(tmp_path, ["flac/LA_T_1138215.flac"])
    (tmp_path / "ASVspoof2019.LA.cm.train.trn.txt").write_text("LA_0079 LA_T_1138215 - - bonafide\nhello world\n")
    with pytest.raises(InputError, match=r"train\.trn\.txt: line 2 is no line"):
        listed(tmp_path)


def test_a_layout_may_be_named(tmp_path: Path) -> None:
    make(tmp_path, ["real/original_sequences/1.mp4", "fake/2.mp4"])
    assert set(files_of(tmp_path, "folders")) == {"real/original_sequences/1.mp4", "fake/2.mp4"}
    with pytest.raises(ConfigError, match=r"no layout 'folder'.*Use auto, faceforensics"):
        listed(tmp_path, "folder")
    with pytest.raises(InputError, match="names sources that are not given: t"):
        list_sources([Source("s", FolderStore(tmp_path))], {"t": "folders"})
    assert len({layout.name for layout in LAYOUTS}) == len(LAYOUTS)
