from __future__ import annotations

import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from media_writers import write_picture, write_video

from unmask.config import IngestConfig
from unmask.data import inspection
from unmask.data.ingest_stage import run_ingest
from unmask.data.sources import Source
from unmask.errors import InputError
from unmask.objects import FolderStore
from unmask.schemas import SAMPLES, DatasetInfo, read_table, sha256_file
from unmask.schemas.tables import SPLITS

CONFIG = IngestConfig()


def folder(name: str, root: Path) -> Source:
    return Source(name, FolderStore(root))


def read(out: Path) -> pd.DataFrame:
    return read_table(out / "samples.parquet", SAMPLES).to_pandas()


def splits(out: Path) -> dict[str, str]:
    table = read(out)
    return dict(zip(table["sample_id"], table["split"], strict=True))


def test_faceforensics_folder_becomes_a_table(faceforensics: Path, tmp_path: Path) -> None:
    outcome = run_ingest([folder("ffpp", faceforensics)], tmp_path / "out", CONFIG, 42)
    table = read(tmp_path / "out")
    assert len(table) == 30
    assert set(table["status"]) == {"ok"}
    assert table["group_id"].nunique() == 5
    assert (table.groupby("group_id")["split"].nunique() == 1).all()
    assert dict(table.groupby("split")["label"].nunique()) == dict.fromkeys(SPLITS, 2)
    assert set(table["compression"]) == {"c23"}
    assert table["manipulation"].value_counts().to_dict() == {"Deepfakes": 10, "Face2Face": 10}
    assert (table["manipulation"].isna() == (table["label"] == 0)).all()
    first = table[table["uri"].str.endswith("fake/Deepfakes/000_001.mp4")].iloc[0]
    path = Path(first["uri"])
    assert first["sha256"] == sha256_file(path)
    assert first["size_bytes"] == path.stat().st_size
    assert (first["width_px"], first["height_px"], first["fps"], first["n_frames"]) == (64, 48, 16.0, 32)
    assert (first["modality"], first["codec"], first["duration_s"]) == ("video", "mpeg4", 2.0)
    assert outcome.metrics["real"] == 10
    assert outcome.metrics["fake"] == 20
    assert outcome.metrics["groups"] == 5


def test_info_adds_up(faceforensics: Path, tmp_path: Path) -> None:
    outcome = run_ingest([folder("ffpp", faceforensics)], tmp_path / "out", CONFIG, 42)
    info = DatasetInfo.load(tmp_path / "out" / "dataset.json")
    table = read(tmp_path / "out")
    for split in SPLITS:
        rows = table[table["split"] == split]
        assert info.counts[split] == {"real": sum(rows["label"] == 0), "fake": sum(rows["label"] == 1), "unknown": 0}
        assert info.groups[split] == rows["group_id"].nunique()
    assert info.sources == {"ffpp": str(faceforensics)}
    assert info.metadata_audit_auc.n == 30
    assert outcome.metrics["metadata_auc"] == info.metadata_audit_auc.value


def test_same_input_same_bytes(faceforensics: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "b"):  # anew, anew, and on top of an earlier result
        run_ingest([folder("ffpp", faceforensics)], tmp_path / name, CONFIG, 42)
    for name in ("samples.parquet", "dataset.json", "near_duplicates.parquet", "files.parquet", "ingest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_version_follows_content_and_not_place(faceforensics: Path, tmp_path: Path) -> None:
    def version(root: Path, out: str, seed: int = 42) -> str:
        run_ingest([folder("ffpp", root)], tmp_path / out, CONFIG, seed)
        return DatasetInfo.load(tmp_path / out / "dataset.json").version

    elsewhere = shutil.copytree(faceforensics, tmp_path / "elsewhere" / "ffpp_c23")
    first = version(faceforensics, "a")
    assert version(elsewhere, "b") == first
    write_video(elsewhere / "real/youtube/000.mp4", seed=999)
    assert version(elsewhere, "b") != first
    assert version(faceforensics, "c", seed=7) != first


def test_bad_files_become_rows_with_a_reason(faceforensics: Path, tmp_path: Path) -> None:
    real, fake = faceforensics / "real/youtube", faceforensics / "fake/Deepfakes"
    (real / "000.mp4").write_bytes((real / "000.mp4").read_bytes()[:3000])
    (real / "002.mp4").write_text("no film")
    (fake / "000_001.mp4").write_bytes(b"")
    write_picture(tmp_path / "p.jpg", 1).rename(fake / "001_000.mp4")
    write_video(fake / "002_003.mp4", n_frames=16)
    write_video(fake / "003_002.mp4", n_frames=20, fps=8)
    (real / "999.mp4").symlink_to(tmp_path / "nowhere.mp4")
    outcome = run_ingest([folder("ffpp", faceforensics)], tmp_path / "out", CONFIG, 42)
    table = read(tmp_path / "out")
    failed = table[table["status"] == "failed"]
    codes = {Path(uri).name: reason.split(":")[0] for uri, reason in zip(failed["uri"], failed["reason"], strict=True)}
    assert codes == {
        "000.mp4": "corrupt",
        "002.mp4": "unsupported",
        "000_001.mp4": "empty_file",
        "001_000.mp4": "wrong_type",
        "002_003.mp4": "too_short",
        "003_002.mp4": "too_slow",
        "999.mp4": "unreadable",
    }
    assert failed["split"].isna().all()
    assert failed["group_id"].notna().all()
    assert failed.loc[failed["uri"].str.endswith("999.mp4"), "sha256"].isna().all()
    assert failed.loc[failed["uri"].str.endswith("002_003.mp4"), "duration_s"].tolist() == [1.0]
    info = DatasetInfo.load(tmp_path / "out" / "dataset.json")
    assert sum(info.failed.values()) == 7
    assert outcome.metrics["failed"] == 7
    assert any(message.startswith("7 files cannot be used: ") for message in outcome.messages)


def test_too_many_failures_stop_with_the_reasons(faceforensics: Path, tmp_path: Path) -> None:
    for path in (faceforensics / "real/youtube").iterdir():
        path.write_text("no film")
    with pytest.raises(InputError, match=r"10 of 30 files cannot be used, .*: unsupported 10\. For example real/"):
        run_ingest(
            [folder("ffpp", faceforensics)], tmp_path / "out", CONFIG.model_copy(update={"max_failed_share": 0.2}), 42
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["real", "fake"])
def test_one_class_only_says_what_to_do(faceforensics: Path, tmp_path: Path, missing: str) -> None:
    shutil.rmtree(faceforensics / missing)
    with pytest.raises(InputError, match=f"No usable {missing} media: .*put {missing} media into {missing}/"):
        run_ingest([folder("ffpp", faceforensics)], tmp_path / "out", CONFIG, 42)


def test_a_class_of_which_nothing_is_usable_names_the_reasons(faceforensics: Path, tmp_path: Path) -> None:
    for path in (faceforensics / "real/youtube").iterdir():
        path.write_text("no film")
    with pytest.raises(InputError, match=r"10 files in real/ of which 0 are usable.*\(failed: unsupported 10\)"):
        run_ingest([folder("ffpp", faceforensics)], tmp_path / "out", CONFIG, 42)


def test_empty_folder_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="Put real media into real/"):
        run_ingest([folder("s", tmp_path / "empty")], tmp_path / "out", CONFIG, 42)


def test_too_few_groups_give_the_numbers(tmp_path: Path) -> None:
    for i in range(3):
        write_video(tmp_path / f"s/real/{i}a.mp4", seed=i)
        write_video(tmp_path / f"s/fake/{i}a_x.mp4", seed=10 + i)
    with pytest.raises(InputError, match="6 usable files form 3 groups; 3 of them hold reals and 3 hold fakes"):
        run_ingest([folder("s", tmp_path / "s")], tmp_path / "out", CONFIG, 42)


def test_unchanged_files_are_not_read_again(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_paths: list[str] = []
    original = inspection.examine
    monkeypatch.setattr(inspection, "examine", lambda path: read_paths.append(path.name) or original(path))
    source, out = [folder("s", pictures)], tmp_path / "out"
    (pictures / "real/broken.jpg").write_text("no picture")
    run_ingest(source, out, CONFIG, 42)
    assert len(read_paths) == 121
    read_paths.clear()
    before = read(out)
    run_ingest(source, out, CONFIG, 42)
    assert read_paths == []
    pd.testing.assert_frame_equal(read(out), before)

    write_picture(pictures / "real/new.jpg", 5000)
    write_picture(pictures / "real/portrait_3.jpg", 5001)
    os.utime(pictures / "real/portrait_3.jpg", ns=(0, 1))
    run_ingest(source, out, CONFIG, 42)
    assert sorted(read_paths) == ["new.jpg", "portrait_3.jpg"]
    table = read(out)
    changed = table[table["uri"].str.endswith("portrait_3.jpg")].iloc[0]
    assert changed["sha256"] == sha256_file(pictures / "real/portrait_3.jpg")


def test_other_limits_apply_without_reading_again(
    faceforensics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(faceforensics / "real/youtube/000.mp4", n_frames=24)
    source, out = [folder("s", faceforensics)], tmp_path / "out"
    run_ingest(source, out, CONFIG, 42)
    assert (read(out)["status"] == "failed").sum() == 1

    def not_again(path: Path) -> None:
        raise AssertionError(f"{path} was read again")

    monkeypatch.setattr(inspection, "examine", not_again)
    run_ingest(source, out, CONFIG.model_copy(update={"min_duration_s": 1.0}), 42)
    assert (read(out)["status"] == "failed").sum() == 0


def test_samples_keep_their_split_when_the_set_grows(pictures: Path, tmp_path: Path) -> None:
    source = [folder("s", pictures)]
    store = tmp_path / "store"
    run_ingest(source, tmp_path / "old", CONFIG, 42, FolderStore(store))
    before = splits(tmp_path / "old")
    for i in range(200, 240):
        write_picture(pictures / f"real/portrait_{i}.jpg", seed=i)
        write_picture(pictures / f"fake/Diffusion/sample_{2000 + i}.jpg", seed=2000 + i)
    run_ingest(source, tmp_path / "new", CONFIG, 42, FolderStore(store))
    after = splits(tmp_path / "new")
    assert len(after) == 200
    assert {sample: after[sample] for sample in before} == before

    run_ingest(source, tmp_path / "other", CONFIG, 43, FolderStore(store))
    assert splits(tmp_path / "other") != after  # another seed asks for other splits


def test_an_unreadable_earlier_result_is_no_obstacle(pictures: Path, tmp_path: Path) -> None:
    run_ingest([folder("s", pictures)], tmp_path / "out", CONFIG, 42)
    before = splits(tmp_path / "out")
    (tmp_path / "out/samples.parquet").write_bytes(b"PAR1")
    run_ingest([folder("s", pictures)], tmp_path / "out", CONFIG, 42)
    assert splits(tmp_path / "out") == before


def test_copies_share_a_group_and_a_contradiction_is_reported(pictures: Path, tmp_path: Path) -> None:
    shutil.copy(pictures / "real/portrait_1.jpg", pictures / "fake/GAN/wrong.jpg")
    shutil.copy(pictures / "real/portrait_2.jpg", pictures / "real/again.jpg")
    outcome = run_ingest([folder("s", pictures)], tmp_path / "out", CONFIG, 42)
    table = read(tmp_path / "out")
    for digest, copies in table.groupby("sha256"):
        assert copies["group_id"].nunique() == 1, digest
    messages = " ".join(outcome.messages)
    assert "4 files are only 2 different ones" in messages
    assert (
        "2 files are byte for byte the same and yet labelled both real and fake (wrong.jpg = portrait_1.jpg)"
        in messages
    )


def test_sources_that_give_away_the_class_are_reported(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    shutil.move(pictures / "real", tmp_path / "one/real")
    shutil.move(pictures / "fake", tmp_path / "two/fake")
    outcome = run_ingest(
        [folder("one", tmp_path / "one"), folder("two", tmp_path / "two")], tmp_path / "out", CONFIG, 42
    )
    assert any("only one class is there: one, two" in message for message in outcome.messages)


def test_official_splits_and_strays_are_reported(pictures: Path, tmp_path: Path) -> None:
    for label in ("real", "fake"):
        (pictures / "train").mkdir(exist_ok=True)
        shutil.move(pictures / label, pictures / "train" / label)
    write_picture(pictures / "stray.jpg", 1)
    outcome = run_ingest([folder("s", pictures)], tmp_path / "out", CONFIG, 42)
    messages = " ".join(outcome.messages)
    assert "s comes divided into train, val or test" in messages
    assert "1 media files have no label" in messages


def test_a_confounder_is_warned_about(pictures: Path, tmp_path: Path) -> None:
    for i in range(60):
        write_picture(pictures / f"fake/GAN/sample_{1000 + i}.jpg", seed=1000 + i, quality=60)
    outcome = run_ingest([folder("s", pictures)], tmp_path / "out", CONFIG, 42)
    assert outcome.metrics["metadata_auc"] > 0.95
    assert any("size_bytes (real " in message for message in outcome.messages)
    assert any("AUC" in warning for warning in DatasetInfo.load(tmp_path / "out/dataset.json").warnings)


def test_the_output_folder_of_someone_else_is_not_touched(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="not written by unmask"):
        run_ingest([folder("s", pictures)], tmp_path / "out", CONFIG, 42)
    assert (tmp_path / "out/thesis.txt").read_text() == "mine"


@pytest.mark.skipif("UNMASK_DEV_DATA" not in os.environ, reason="UNMASK_DEV_DATA names no folder of development media")
def test_development_data(tmp_path: Path) -> None:
    root = Path(os.environ["UNMASK_DEV_DATA"])
    groups = {"ffpp_c23_videos": 6, "ffpp_c40_videos": 5, "hifigan_demo": 15, "vits_demo": 10, "wavefake_pairs": 22}
    for name, expected in groups.items():
        run_ingest([folder(name, root / name)], tmp_path / name, CONFIG, 42)
        assert read(tmp_path / name)["group_id"].nunique() == expected
