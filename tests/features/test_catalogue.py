"""The catalogue is complete, and nothing else than it says comes out of a measurement."""

from __future__ import annotations

import re

import pytest

from unmask.features import CATALOGUE, NULL_REASONS
from unmask.features.health import FIXES
from unmask.schemas import FEATURES

FAMILIES = {"quality": 2, "wm": 1, "forensics": 2, "face": 2, "art": 2, "temp": 2}


@pytest.mark.parametrize("spec", CATALOGUE.values(), ids=CATALOGUE.keys())
def test_every_entry_is_whole(spec):
    assert re.match(FEATURES.extra, spec.name)
    assert spec.name.startswith(spec.family + ".")
    assert spec.low < spec.high
    assert spec.direction in ("higher_fake", "higher_real", "none")
    assert set(spec.modalities) <= {"video", "image"}
    assert set(spec.nulls) <= set(NULL_REASONS)
    assert ("single_image" in spec.nulls) == ("image" not in spec.modalities)
    assert re.search(r"\d{4}", spec.citation)
    for text in (spec.title, spec.meaning, spec.unit, spec.method, spec.bias):
        assert len(text) > 3


def test_every_family_has_its_share():
    names = [spec.family for spec in CATALOGUE.values()]
    assert set(names) == set(FAMILIES)
    assert all(names.count(family) >= least for family, least in FAMILIES.items())


def test_every_null_reason_has_a_sentence_and_a_fix():
    assert set(FIXES) == set(NULL_REASONS)
    assert all(sentence.endswith(".") for sentence in (*NULL_REASONS.values(), *FIXES.values()))
