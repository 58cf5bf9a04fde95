"""One server for all tests of the room; what changes it makes its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from live_server import SETTINGS, Live, Running, write_bundle, write_media

from unmask.serving.models import FolderSource


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real bundle; read only."""
    return write_bundle(tmp_path_factory.mktemp("release") / "bundle")


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A clip and a picture of a drawn face."""
    return write_media(tmp_path_factory.mktemp("media"))


@pytest.fixture(scope="session")
def clip(media: tuple[Path, Path]) -> Path:
    return media[0]


@pytest.fixture(scope="session")
def face(media: tuple[Path, Path]) -> Path:
    return media[1]


@pytest.fixture(scope="session")
def live(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server that answers with the bundle."""
    with Running(FolderSource(bundle_folder), tmp_path_factory.mktemp("serve"), SETTINGS) as running:
        yield running
