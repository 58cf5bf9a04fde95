"""The command as people meet it: help, errors with a fix, exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from unmask.cli import cli
from unmask.config import UnmaskConfig, load_config

STAGES = ["ingest", "extract", "train", "ensemble", "fuse", "evaluate", "bundle", "promote"]


def unmask(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "unmask.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, check=False)


@pytest.mark.parametrize("command", [*STAGES, "compare", "score", "sample", "run", "detectors", "config"])
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(cli, [command, "--help"])
    assert result.exit_code == 0
    assert "executor-input" not in result.output  # written by machines only
    assert len(result.output.splitlines()[2].split()) >= 4  # a sentence, not a name


@pytest.mark.parametrize("command", STAGES)
def test_every_stage_takes_the_configuration(command: str) -> None:
    options = {option for parameter in cli.commands[command].params for option in parameter.opts}
    assert {"--config", "--config-inline", "--set", "--executor-input"} <= options


def test_errors_say_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    result = unmask("ingest", "--source", str(tmp_path / "absent"), "--out", str(tmp_path / "out"))
    assert result.returncode == 1
    assert "absent" in result.stderr
    assert "fix:" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_all_configuration_errors_are_shown_before_any_work(tmp_path: Path) -> None:
    result = unmask(
        "train", "--detector", "meso4", "--dataset", "d", "--faces", "f", "--features", "f", "--out", "o",
        "--set", "train.epochs=0", "--set", "train.speed=9", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 1
    assert "train.epochs" in result.stderr
    assert "train.speed: unknown setting" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_stage_names_the_input_that_is_missing(tmp_path: Path) -> None:
    result = unmask("extract", "--dataset", "nowhere", "--out-faces", "a", "--out-features", "b", cwd=tmp_path)
    assert result.returncode == 1
    assert "nowhere" in result.stderr
    assert "Run the stage that writes it first" in result.stderr


def test_ensemble_wants_a_detector(tmp_path: Path) -> None:
    result = unmask("ensemble", "--dataset", "d", "--out", "o", cwd=tmp_path)
    assert result.returncode == 1
    assert "--trained" in result.stderr


def test_scoring_without_a_bundle_says_how_to_get_one(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    result = unmask("score", "clip.mp4", cwd=tmp_path)
    assert result.returncode == 1
    assert "make run" in result.stderr


def test_config_init_writes_a_file_that_loads_and_never_overwrites(tmp_path: Path) -> None:
    file = tmp_path / "unmask.yaml"
    assert unmask("config", "init", "--out", str(file)).returncode == 0
    assert load_config(file) == UnmaskConfig()
    assert unmask("config", "check", str(file)).returncode == 0
    again = unmask("config", "init", "--out", str(file))
    assert again.returncode == 1
    assert "exists" in again.stderr


def test_usage_errors_exit_with_2() -> None:
    result = unmask("extract")
    assert result.returncode == 2
    assert "--dataset" in result.stderr
