"""The hand-made release of the deployment tests, for the tests of tracking."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def release_parts() -> ModuleType:
    """The module that makes the release."""
    return sys.modules.get("release_parts") or _load(
        "release_parts", Path(__file__).parents[1] / "deployment" / "release_parts.py"
    )
