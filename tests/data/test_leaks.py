"""The leak detector on tables that leak, as published splits do, and on tables that do not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from media_writers import write_picture, write_video

from unmask.cli import cli
from unmask.config import IngestConfig
from unmask.data.ingest_stage import run_ingest
from unmask.data.leaks import Leak, LeakReport, find_leaks, read_audited
from unmask.data.sources import Source
from unmask.objects import FolderStore


def faceforensics_table(by_pair: bool, native: bool) -> pd.DataFrame:
    """Names of all of FaceForensics++: 500 reciprocal pairs; 720, 140 and 140 ids in train, val and test."""
    rng = np.random.default_rng(6)
    ids = [f"{i:03d}" for i in rng.permutation(1000)]
    pairs = list(zip(ids[::2], ids[1::2], strict=True))
    units = pairs if by_pair else [(name,) for name in rng.permutation(ids)]
    share = len(units) // 1000 or 0.5
    split_of = {}
    for place, unit in enumerate(units):
        for name in unit:
            split_of[name] = "train" if place < 720 * share else "val" if place < 860 * share else "test"
    real = "original_sequences/youtube/c23/videos/{}.mp4" if native else "real/{}.mp4"
    fake = "manipulated_sequences/{}/c23/videos/{}_{}.mp4" if native else "fake/{}/{}_{}.mp4"
    rows = [(real.format(name), "real", split_of[name]) for name in ids]
    for method in ("Deepfakes", "Face2Face", "FaceSwap", "NeuralTextures"):
        for a, b in [*pairs, *((b, a) for a, b in pairs)]:
            rows.append((fake.format(method, a, b), "fake", split_of[a]))
    return pd.DataFrame(rows, columns=["file", "label", "split"])


def leak(report: LeakReport, kind: str) -> Leak:
    return next(leak for leak in report.leaks if leak.kind == kind)


@pytest.mark.parametrize("native", [True, False])
def test_faceforensics_split_by_single_ids_leaks_as_known(tmp_path: Path, native: bool) -> None:
    """The source identity of 72 to 74 % of the test fakes was in train (see the splits of published systems)."""
    table = faceforensics_table(by_pair=False, native=native)
    table.to_csv(tmp_path / "ff.csv", index=False)
    report = find_leaks(read_audited(tmp_path / "ff.csv", {}))
    assert report.leaking
    fakes = table[table["label"] == "fake"]
    ids = fakes["file"].str.extract(r"(\d{3})_(\d{3})\.mp4")
    trained_on = set(ids[fakes["split"] == "train"].to_numpy().ravel())
    known = ids[fakes["split"] == "test"].isin(trained_on).any(axis=1).mean()
    assert leak(report, "identities").exposed_fakes["test"] == pytest.approx(known)
    assert 0.68 < known < 0.78
    assert any("do not lie below" in text for text in report.unchecked)


def test_faceforensics_split_by_pairs_does_not_leak(tmp_path: Path) -> None:
    faceforensics_table(by_pair=True, native=True).to_csv(tmp_path / "ff.csv", index=False)
    report = find_leaks(read_audited(tmp_path / "ff.csv", {}))
    assert not report.leaking
    assert leak(report, "identities").checked == 1000


@pytest.fixture
def divided(tmp_path: Path) -> Path:
    root = tmp_path / "divided"
    for i in range(4):
        for split, first in (("train", 0), ("test", 100)):
            write_picture(root / split / "real" / f"{i}.png", seed=first + i)
            write_picture(root / split / "fake" / f"{i}.png", seed=first + 50 + i)
    return root


def test_a_divided_folder_is_clean_until_a_copy_crosses(divided: Path) -> None:
    assert not find_leaks(read_audited(divided, {})).leaking
    shutil.copy(divided / "train/real/1.png", divided / "test/fake/9.png")
    report = find_leaks(read_audited(divided, {}))
    found = leak(report, "copies")
    assert (found.shared, found.across_labels) == (1, 1)
    assert found.exposed == {"test": pytest.approx(1 / 9)}
    assert found.exposed_fakes == {"test": pytest.approx(1 / 5)}


def test_what_ingest_writes_is_clean_and_a_moved_row_is_found(faceforensics: Path, tmp_path: Path) -> None:
    run_ingest([Source("ffpp", FolderStore(faceforensics))], tmp_path / "out", IngestConfig(), 42)
    report = find_leaks(read_audited(tmp_path / "out", {}))
    assert not report.leaking
    assert {found.kind for found in report.leaks} == {"groups", "identities", "copies", "near_duplicates"}
    assert report.unchecked == ()
    table = pd.read_parquet(tmp_path / "out/samples.parquet")
    place = table.index[table["split"] == "train"][0]
    table.loc[place, "split"] = "test"
    table.to_parquet(tmp_path / "moved.parquet")
    moved = find_leaks(read_audited(tmp_path / "moved.parquet", {}))
    assert leak(moved, "groups").shared == 1
    assert leak(moved, "identities").shared == 2


def test_columns_of_a_foreign_table_are_mapped_and_people_found(tmp_path: Path) -> None:
    rows = [("a.mp4", 0, "A", "anna"), ("b.mp4", 1, "A", "bert"), ("c.mp4", 0, "B", "anna"), ("d.mp4", 1, "B", "carl")]
    pd.DataFrame(rows, columns=["clip", "y", "fold", "who"]).to_csv(tmp_path / "t.csv", index=False)
    columns = [f"--column={pair}" for pair in ("path=clip", "label=y", "split=fold", "identity=who")]
    run = CliRunner().invoke(cli, ["audit", str(tmp_path / "t.csv"), *columns, "--json"])
    assert run.exit_code == 3
    report = LeakReport.model_validate(json.loads(run.output))
    assert leak(report, "identities").shared == 1
    assert "identity anna: A a.mp4; B c.mp4" in leak(report, "identities").examples


def test_the_command_writes_pages_and_tells_by_its_exit_status(divided: Path, tmp_path: Path) -> None:
    clean = CliRunner().invoke(cli, ["audit", str(divided), "--page", str(tmp_path / "page.md")])
    assert clean.exit_code == 0
    assert "No leak was found." in clean.output
    assert (tmp_path / "page.md").read_text() == clean.output
    shutil.copy(divided / "train/real/1.png", divided / "test/real/<b>.png")
    leaking = CliRunner().invoke(cli, ["audit", str(divided), "--page", str(tmp_path / "page.html")])
    assert leaking.exit_code == 3
    page = (tmp_path / "page.html").read_text()
    assert "&lt;b&gt;.png" in page
    assert "<b>" not in page


def test_what_cannot_be_audited_is_said(divided: Path, tmp_path: Path) -> None:
    pd.DataFrame({"path": ["a"], "label": [1]}).to_csv(tmp_path / "t.csv", index=False)
    for arguments, text in (
        ([str(tmp_path / "t.csv")], "no column for split; it has path, label"),
        ([str(tmp_path / "t.csv"), "--column", "split=fold"], "has no column fold"),
        ([str(tmp_path / "t.csv"), "--column", "colour=fold"], "Write MEANING=NAME"),
        ([str(tmp_path / "nothing")], "neither a table nor a folder"),
        ([str(divided / "train")], "does not come divided"),
    ):
        run = CliRunner().invoke(cli, ["audit", *arguments])
        assert run.exit_code == 1
        assert text in str(run.exception)


def test_a_re_encoded_video_across_splits_is_found(tmp_path: Path) -> None:
    pytest.importorskip("av")
    first = write_video(tmp_path / "m/a.mp4", seed=1, bit_rate=2_000_000)
    (tmp_path / "m/b.mp4").write_bytes(first.read_bytes() + b"\0" * 64)  # other bytes, same pictures
    write_video(tmp_path / "m/c.mp4", seed=2)
    table = pd.DataFrame({"path": ["a.mp4", "b.mp4", "c.mp4"], "label": [0, 1, 1], "split": ["train", "test", "test"]})
    table.to_csv(tmp_path / "t.csv", index=False)
    found = leak(find_leaks(read_audited(tmp_path / "t.csv", {}, tmp_path / "m")), "near_duplicates")
    assert (found.shared, found.across_labels) == (1, 1)
    assert found.exposed == {"test": 0.5}
