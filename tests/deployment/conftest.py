"""The hand-made release, written once."""

from __future__ import annotations

import pytest
from release_parts import Parts, write_parts


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Two detectors, their documents and their bundle; read only."""
    made = write_parts(tmp_path_factory.mktemp("release"), ("meso4", "meso4:other"))
    made.write_bundle()
    return made
