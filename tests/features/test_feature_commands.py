"""The commands around features: documentation, health against a reference, a picture over time."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from drawn_face import drawn, noisy, write_clip
from hand_made import dataset
from test_extract_stage import CONFIG

from unmask.cli import cli
from unmask.features import CATALOGUE, NULL_REASONS
from unmask.features.extract_stage import run_extract


def unmask(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("form", ["--markdown", "--html"])
def test_the_documentation_names_everything(form, tmp_path):
    text = unmask("features", form)
    unmask("features", form, "--out", tmp_path / "page")
    assert (tmp_path / "page").read_text() == text
    assert len(CATALOGUE) == 18
    for spec in CATALOGUE.values():
        assert spec.name in text
        assert spec.bias.replace("'", "&#x27;" if form == "--html" else "'") in text
    assert all(f"{code}" in text for code in NULL_REASONS)
    assert ("<html" in text) == (form == "--html")


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("run")
    clips = [
        write_clip(root / f"{n}.mp4", (noisy(drawn(0.2 * (n % 2)), np.random.default_rng(n)) for _ in range(75)))
        for n in range(2)
    ]
    dataset(root, clips)
    run_extract(root, root / "faces", root / "features", CONFIG)
    return root


def test_health_of_a_table_against_itself(measured, tmp_path):
    places = ("--dataset", measured, "--features", measured / "features")
    reference = ("--reference-dataset", measured, "--reference-features", measured / "features")
    text = unmask("health", *places, *reference, "--out", tmp_path / "health")
    report = json.loads((tmp_path / "health" / "health.json").read_text())
    assert [entry["name"] for entry in report["features"]] == list(CATALOGUE)
    assert "temp.rppg (warning): No value at all in 2 rows" in text
    assert "<svg" in (tmp_path / "health" / "health.html").read_text()
    assert (measured / "features" / "health.html").is_file()


def test_a_clip_is_drawn_over_time(measured, tmp_path):
    unmask("features", "--plot", measured / "0.mp4", "--plot", measured / "1.mp4", "--out", tmp_path / "x.png")
    picture = cv2.imread(str(tmp_path / "x.png"))
    assert picture.shape[0] > 1000
    # The mouth of one stays shut and that of the other stays open, but both columns hold curves.
    blue = (picture[..., 0].astype(int) - picture[..., 2] > 60).any(axis=0)
    middle = picture.shape[1] // 2
    assert blue[:middle].sum() > 100
    assert blue[middle:].sum() > 100
    result = CliRunner().invoke(cli, ["features", "--plot", str(measured / "0.mp4")])
    assert result.exit_code == 2
    assert "--out" in result.output
