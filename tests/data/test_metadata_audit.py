from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from unmask.data.audit import audit_metadata, metadata_fields
from unmask.errors import MissingExtraError


def samples(n_pairs: int, seed: int = 0) -> pd.DataFrame:
    """Pairs of a real and a fake, one group each, whose metadata say nothing about the class."""
    rng = np.random.default_rng(seed)
    n = 2 * n_pairs
    seconds = rng.uniform(3, 20, n)
    bit_rate = rng.lognormal(14, 0.5, n)
    return pd.DataFrame(
        {
            "label": [0, 1] * n_pairs,
            "group_id": [f"g{i // 2}" for i in range(n)],
            "codec": rng.choice(["h264", "vp9"], n),
            "size_bytes": seconds * bit_rate / 8,
            "width_px": rng.choice([640, 1280], n),
            "height_px": 480,
            "fps": rng.choice([25.0, 30.0], n),
            "duration_s": seconds,
            "n_frames": (25 * seconds).round(),
            "bitrate_bps": bit_rate,
            "sample_rate_hz": None,
            "has_audio": False,
            "rotation_deg": 0,
        }
    ).astype(object)


def audit(table: pd.DataFrame, limit: float = 0.7):  # type: ignore[no-untyped-def]
    return audit_metadata(table, limit, np.random.default_rng(1))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_metadata_that_say_nothing_give_one_half(seed: int) -> None:
    found = audit(samples(150, seed))
    assert found.auc.value == pytest.approx(0.5, abs=0.1)
    assert found.auc.low < 0.53
    assert found.auc.high > 0.47
    assert found.warnings == []


def test_a_difference_in_bit_rate_is_found_and_named() -> None:
    table = samples(60)
    fake = table["label"] == 1
    table.loc[fake, "bitrate_bps"] *= 3
    table.loc[fake, "size_bytes"] *= 3
    found = audit(table)
    assert found.auc.low > 0.8
    assert found.auc.n == 120
    assert next(iter(found.fields)) == "bitrate_bps"
    assert found.fields["fps"] < 0.65
    (warning,) = found.warnings
    assert "bitrate_bps (real 1." in warning
    assert "above the limit of 0.7" in warning


def test_a_difference_in_format_is_found_from_a_few_files() -> None:
    table = samples(15)
    table["codec"] = np.where(table["label"] == 1, "png", "mjpeg")
    found = audit(table)
    assert found.auc.value > 0.95
    assert "real mostly mjpeg, fake mostly png; alone AUC 1.00" in found.warnings[0]


def test_a_mixture_of_exact_sizes_is_found_although_its_order_says_nothing() -> None:
    table = samples(100)
    sizes = np.random.default_rng(2).choice([200, 600], len(table))
    table["width_px"] = np.where(table["label"] == 1, 400, sizes)
    found = audit(table)
    assert found.auc.value > 0.95
    assert found.fields["width_px"] > 0.95
    assert "width_px (real 600, 200 to 600; fake 400, 400 to 400; alone AUC 1.00)" in found.warnings[0]


def test_missing_values_are_a_difference_too() -> None:
    table = samples(40)
    table.loc[table["label"] == 1, "sample_rate_hz"] = 16000
    table.loc[table["label"] == 1, "has_audio"] = True
    assert audit(table).auc.value > 0.95


def test_the_classifier_sees_finite_numbers_and_neither_label_nor_group() -> None:
    table = samples(20)
    fields = metadata_fields(table)
    assert all(np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1 for values in fields.values())
    table["label"] = 1 - table["label"].astype(int)
    table["group_id"] = "other"
    again = metadata_fields(table)
    assert list(again) == list(fields)
    for name, values in fields.items():
        np.testing.assert_array_equal(again[name], values)


def test_metadata_that_are_all_the_same_give_exactly_one_half() -> None:
    table = samples(20)
    for name in table.columns.difference(["label", "group_id"]):
        table[name] = table[name].iloc[0]
    assert audit(table).auc.value == 0.5


def test_a_field_that_repeats_within_groups_only_cannot_be_learnt() -> None:
    """Each group has its own size and mostly one label: judged on its own group, a classifier would be perfect."""
    rng = np.random.default_rng(3)
    rows = samples(120)
    group = np.repeat(np.arange(24), 10)
    rows["group_id"] = [f"g{i}" for i in group]
    rows["label"] = rng.integers(0, 2, 24)[group]
    rows["width_px"] = rng.permutation(24)[group] * 16 + 320
    assert audit(rows).auc.value < 0.75


def test_the_same_seed_gives_the_same_figure() -> None:
    assert audit(samples(30)) == audit(samples(30))


def test_one_group_cannot_be_audited() -> None:
    table = samples(10)
    table["group_id"] = "g"
    found = audit(table)
    assert found.auc.value is None
    assert found.auc.n == 20
    assert found.warnings == []


def test_large_sets_are_audited_on_a_part_of_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unmask.data.audit.MAX_SAMPLES", 51)
    assert audit(samples(100)).auc.n == 50


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.model_selection", None)
    with pytest.raises(MissingExtraError, match=r"unmask\[analysis\]"):
        audit(samples(10))
