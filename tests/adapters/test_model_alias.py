"""The server follows the alias of a real registry, and keeps what it has when the alias is gone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from unmask.adapters.model_alias import AliasSource
from unmask.adapters.tracking import MANIFEST_TAG, connected
from unmask.cli import cli
from unmask.errors import InputError
from unmask.schemas import sha256_file
from unmask.serving.models import Follower

MODEL = "followed"


@pytest.fixture(scope="module")
def parts(release_parts: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = release_parts.write_parts(tmp_path_factory.mktemp("release"))
    made.write_bundle()
    return made


@pytest.fixture
def store(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def register(store: str, folder: Path, home: Path) -> str:
    """Register a bundle as a plain model version: files of an artifact folder and the tag with the hash."""
    with connected(store) as server:
        client = server.client
        if not client.search_registered_models(f"name = '{MODEL}'"):
            client.create_registered_model(MODEL)
        count = len(client.search_model_versions(f"name = '{MODEL}'"))
        source = home / f"source-{count}"
        shutil.copytree(folder, source / "artifacts" / "bundle")
        (source / "MLmodel").write_text("flavors: {}\n")
        tags = {MANIFEST_TAG: sha256_file(folder / "manifest.json")}
        return str(client.create_model_version(MODEL, source.as_uri(), tags=tags).version)


def move(store: str, number: str) -> None:
    with connected(store) as server:
        server.client.set_registered_model_alias(MODEL, "champion", number)


def test_a_moved_alias_is_followed(parts: Any, store: str, tmp_path: Path) -> None:
    other = parts.write_bundle(tmp_path / "other", features=parts.root / "features")
    first, second = register(store, parts.bundle, tmp_path), register(store, other, tmp_path)
    move(store, first)
    source = AliasSource(f"models:/{MODEL}@champion", store, tmp_path / "cache")
    follower = Follower(source, 1, 8)
    assert follower.check()
    assert follower.version is not None
    assert follower.version.name == f"{MODEL} version {first}"
    assert not follower.check()  # nothing has moved
    move(store, second)
    assert follower.check()
    assert follower.version.name == f"{MODEL} version {second}"
    # The alias is taken away: whoever answers goes on answering, and says what is the matter.
    with connected(store) as server:
        server.client.delete_registered_model_alias(MODEL, "champion")
    assert not follower.check()
    assert follower.version.name == f"{MODEL} version {second}"
    assert "no alias champion" in str(follower.problem)
    move(store, first)
    assert follower.check()
    assert follower.problem is None


def test_a_number_never_moves(store: str) -> None:
    source = AliasSource("models:/followed/7", store)
    assert source.current() == source.current()
    assert source.current().key == "7"
    with pytest.raises(InputError, match="names no registered model"):
        AliasSource("https://somewhere/model", store)


def test_the_command_says_what_is_missing_before_it_starts(store: str) -> None:
    result = CliRunner().invoke(cli, ["serve", "--model", f"models:/{MODEL}@champion", "--tracking-uri", store])
    assert isinstance(result.exception, InputError)
    assert f"No model {MODEL} is registered" in str(result.exception)
