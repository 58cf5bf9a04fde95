"""Bundles on the test files of a data set: the probabilities of `score`, each file decoded once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from release_parts import Parts

from unmask.cli import cli
from unmask.deployment import bundle_scores
from unmask.deployment.bundle_scores import score_bundles
from unmask.deployment.runtime import Bundle
from unmask.errors import InputError
from unmask.schemas import SAMPLES, write_table


@pytest.fixture
def dataset(clip: Path, tmp_path: Path) -> Path:
    """Four labelled test files of which one is not media, and one of train."""
    rows = []
    for place, (label, split) in enumerate(((0, "test"), (1, "test"), (0, "test"), (1, "test"), (1, "train"))):
        path = tmp_path / f"{place}.mp4"
        shutil.copyfile(clip, path)
        rows.append({"sample_id": f"{place:016x}", "uri": str(path), "label": label, "split": split})
    (tmp_path / "3.mp4").write_text("no media")
    table = pd.DataFrame(rows).assign(modality="video", source="made", size_bytes=1, status="ok")
    table["group_id"] = [f"g{place}" for place in range(len(rows))]
    columns = [column.name for column in SAMPLES.columns]
    write_table(tmp_path / "data" / "samples.parquet", table.reindex(columns=columns), SAMPLES)
    return tmp_path / "data"


def test_scores_are_those_of_the_bundle_and_files_are_decoded_once(
    parts: Parts, clip: Path, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(parts.bundle, tmp_path / "other"))
    decoded = []

    def counted(path: Path, *arguments: object) -> object:
        decoded.append(path.name)
        return examine(path, *arguments)  # type: ignore[arg-type]

    examine = bundle_scores.examine
    monkeypatch.setattr(bundle_scores, "examine", counted)
    scored = score_bundles([parts.bundle, other], dataset)
    assert decoded == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    expected = Bundle.load(parts.bundle).score(clip).probability
    for rows in scored.values():
        assert rows["split"].tolist() == ["test"] * 4
        assert rows["probability"].isna().tolist() == [False, False, False, True]
        assert rows["probability"].iloc[:3].to_numpy(float) == pytest.approx(np.full(3, expected))


def test_the_command_takes_bundles_with_a_data_set_only(parts: Parts, dataset: Path, tmp_path: Path) -> None:
    command = ["compare", str(parts.bundle), str(parts.bundle), "--out", str(tmp_path / "out")]
    refused = CliRunner().invoke(cli, command)
    assert isinstance(refused.exception, InputError)
    assert "--dataset" in str(refused.exception)
    (tmp_path / "3.mp4").write_bytes((tmp_path / "1.mp4").read_bytes())
    settings = json.dumps({"evaluate": {"resamples": 100}})
    result = CliRunner().invoke(
        cli, [*command, "--dataset", str(dataset), "--config-inline", settings], catch_exceptions=False
    )
    assert "B and A rank alike" in result.output
    assert (tmp_path / "out" / "comparison.html").is_file()


def test_files_that_are_gone_are_named(parts: Parts, dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "2.mp4").unlink()
    with pytest.raises(InputError, match=r"1 test files are gone.*2\.mp4"):
        score_bundles([parts.bundle], dataset)
