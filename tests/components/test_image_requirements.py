"""What the images install is what the tests run with, and enough for what runs in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from components.images import ROLES

LOCKS = Path(__file__).parents[2] / "requirements"


def pinned(name: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([\w.-]+)==([\w.!+]+)", (LOCKS / f"{name}.lock").read_text(), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


@pytest.mark.parametrize("role", ROLES)
def test_an_image_holds_the_versions_that_the_tests_ran_with(role):
    tested = pinned("dev")
    held = pinned(role)
    assert len(held) > 20
    assert {package: versions for package, versions in held.items() if versions != tested.get(package)} == {}


def test_the_image_that_promotes_can_log_detectors_and_has_no_torch():
    assert {"mlflow", "onnx", "onnxruntime"} <= set(pinned("pipeline"))
    assert "torch" not in pinned("pipeline")
