"""The hand-made release and a rendered clip, each made once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from release_parts import Parts, write_clips, write_parts

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))  # sounds made by code


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Two detectors, their documents and their bundle; read only."""
    made = write_parts(tmp_path_factory.mktemp("release"), ("meso4", "meso4:other"))
    made.write_bundle()
    return made


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered talking face, 2.4 s."""
    return write_clips(tmp_path_factory.mktemp("clips"))[0]
