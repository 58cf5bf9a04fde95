"""One set of stage folders for all tests of the room, because making it takes seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stage_folders import Folders, build_folders


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    """Folders of all stages, and what `evaluate` made of them; never changed."""
    built = build_folders(Folders(tmp_path_factory.mktemp("stages")))
    built.evaluate(built.root / "evaluation")
    return built


@pytest.fixture(scope="session")
def evaluation(folders: Folders) -> Path:
    """What `evaluate` wrote."""
    return folders.root / "evaluation"


@pytest.fixture
def copied(folders: Folders, tmp_path: Path) -> Folders:
    """A copy of the folders that a test may change."""
    shutil.copytree(folders.root, tmp_path / "stages", ignore=shutil.ignore_patterns("evaluation*"))
    return Folders(tmp_path / "stages")
