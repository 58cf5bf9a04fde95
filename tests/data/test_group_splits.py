from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unmask.config import SplitFractions
from unmask.data.splits import assign_splits
from unmask.errors import InputError
from unmask.schemas.tables import SPLITS

FRACTIONS = SplitFractions()
Row = tuple[int, int, int]  # group, label, manipulation


def table(rows: list[Row]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sample_id": [f"{group}-{i}" for i, (group, _, _) in enumerate(rows)],
            "group_id": [f"g{group}" for group, _, _ in rows],
            "label": [label for _, label, _ in rows],
            "source": ["s" for _ in rows],
            "modality": ["video" for _ in rows],
            "manipulation": [f"m{kind}" if label else None for _, label, kind in rows],
        }
    )


def pairs(n: int, first: int = 0) -> pd.DataFrame:
    """n groups of one real and one fake, the fakes of three kinds in turn."""
    return table([(i, label, i % 3) for i in range(first, first + n) for label in (0, 1)])


def split_of_samples(samples: pd.DataFrame, split: dict[str, str]) -> dict[str, str]:
    return dict(zip(samples["sample_id"], samples["group_id"].map(split), strict=True))


def has_four_of_each(samples: pd.DataFrame) -> bool:
    return all(samples.loc[samples["label"] == label, "group_id"].nunique() >= 4 for label in (0, 1))


def assert_complete(samples: pd.DataFrame, split: dict[str, str]) -> None:
    assert set(split) == set(samples["group_id"])
    held = samples.assign(split=samples["group_id"].map(split)).groupby("split")["label"].nunique()
    assert dict(held) == dict.fromkeys(SPLITS, 2)


rows = st.lists(st.tuples(st.integers(0, 14), st.integers(0, 1), st.integers(0, 2)), min_size=1, max_size=40)
divisible = st.builds(
    lambda rows, reals, fakes: [*rows, *((g, 0, 0) for g in reals), *((g, 1, 1) for g in fakes)],
    rows,
    *[st.sets(st.integers(0, 14), min_size=4, max_size=5)] * 2,
)
fractions = st.tuples(*[st.integers(1, 10)] * 4).map(
    lambda n: SplitFractions(train=n[0] / sum(n), val=n[1] / sum(n), calib=n[2] / sum(n), test=n[3] / sum(n))
)


@settings(max_examples=80, deadline=None)
@given(rows, fractions, st.integers(0, 2**32))
def test_every_split_gets_both_classes_exactly_when_that_is_possible(
    rows: list[Row], fractions: SplitFractions, seed: int
) -> None:
    samples = table(rows)
    if has_four_of_each(samples):
        assert_complete(samples, assign_splits(samples, fractions, seed).split)
    else:
        with pytest.raises(InputError, match="Too few groups for four splits"):
            assign_splits(samples, fractions, seed)


@settings(max_examples=80, deadline=None)
@given(divisible, st.integers(0, 5), st.randoms())
def test_the_order_of_the_rows_does_not_matter(rows: list[Row], seed: int, random) -> None:  # type: ignore[no-untyped-def]
    samples = table(rows)
    shuffled = samples.iloc[random.sample(range(len(samples)), len(samples))]
    once = assign_splits(samples, FRACTIONS, seed)
    assert assign_splits(shuffled, FRACTIONS, seed) == once


@settings(max_examples=80, deadline=None)
@given(divisible, rows, st.integers(0, 5))
def test_no_sample_moves_when_data_are_added(old: list[Row], new: list[Row], seed: int) -> None:
    before = table(old)
    earlier = split_of_samples(before, assign_splits(before, FRACTIONS, seed).split)
    after = table([*old, *new])  # more samples of old groups, and new groups
    result = assign_splits(after, FRACTIONS, seed, earlier)
    now = split_of_samples(after, result.split)
    assert {sample: now[sample] for sample in earlier} == earlier
    assert result.moved == 0
    assert_complete(after, result.split)


@settings(max_examples=80, deadline=None)
@given(divisible, st.tuples(st.integers(0, 14), st.integers(0, 14)), st.integers(0, 5))
def test_groups_that_prove_to_be_one_never_move_towards_test(old: list[Row], one: tuple[int, int], seed: int) -> None:
    before = table(old)
    earlier = split_of_samples(before, assign_splits(before, FRACTIONS, seed).split)
    after = before.assign(group_id=before["group_id"].replace(f"g{one[0]}", f"g{one[1]}"))
    try:
        result = assign_splits(after, FRACTIONS, seed, earlier)
    except InputError:
        return  # the merger left a split without a class, and all else is kept where it was
    now = split_of_samples(after, result.split)
    moved = {sample: (earlier[sample], now[sample]) for sample in earlier if now[sample] != earlier[sample]}
    assert all(SPLITS.index(new) < SPLITS.index(old) for old, new in moved.values())
    assert result.moved == len(moved)


@pytest.mark.parametrize("n", [6, 12, 24, 60])
def test_growth_in_many_steps_keeps_every_sample_and_stays_balanced(n: int) -> None:
    earlier: dict[str, str] = {}
    for size in range(n, 4 * n, max(1, n // 6)):
        samples = pairs(size)
        now = split_of_samples(samples, assign_splits(samples, FRACTIONS, 3, earlier).split)
        assert {sample: now[sample] for sample in earlier} == earlier
        earlier = now
    counts = Counter(earlier.values())
    for split in SPLITS:
        assert counts[split] >= 2 * np.floor(0.8 * getattr(FRACTIONS, split) * (len(earlier) // 2))


def test_without_the_earlier_table_few_samples_move_and_fewer_the_larger_the_set() -> None:
    shares = []
    for n in (20, 100, 1000):
        moved = []
        for seed in range(8):
            before = assign_splits(pairs(n), FRACTIONS, seed).split
            after = assign_splits(pairs(n + n // 5), FRACTIONS, seed).split
            moved.append(np.mean([before[group] != after[group] for group in before]))
        shares.append(float(np.mean(moved)))
    assert shares[0] < 0.15
    assert shares[1] < 0.05
    assert shares[2] < 0.005


def test_sizes_follow_the_fractions() -> None:
    counts = Counter(assign_splits(pairs(2000), FRACTIONS, 0).split.values())
    for split in SPLITS:
        assert counts[split] / 2000 == pytest.approx(getattr(FRACTIONS, split), abs=0.03)


@pytest.mark.parametrize("n", [20, 50, 200])
def test_no_split_is_far_below_its_share_of_any_stratum(n: int) -> None:
    for seed in range(10):
        samples = pairs(n)
        split = samples["group_id"].map(assign_splits(samples, FRACTIONS, seed).split)
        strata = {"real": samples["label"] == 0, "fake": samples["label"] == 1}
        strata |= {kind: samples["manipulation"] == kind for kind in ("m0", "m1", "m2")}
        for stratum in strata.values():
            for name in SPLITS:
                least = np.floor(0.8 * getattr(FRACTIONS, name) * stratum.sum())
                assert (split[stratum] == name).sum() >= least


def test_another_seed_gives_another_division() -> None:
    first, second = (assign_splits(pairs(100), FRACTIONS, seed).split for seed in (1, 2))
    assert first != second


def test_a_giant_group_goes_to_the_largest_split() -> None:
    rows = [(0, label, 0) for label in (0, 1) for _ in range(100)] + [(i, x, 0) for i in range(1, 30) for x in (0, 1)]
    for seed in range(10):
        assert assign_splits(table(rows), FRACTIONS, seed).split["g0"] == "train"


def test_the_error_gives_the_numbers() -> None:
    samples = table([(group, label, 0) for group in range(3) for label in (0, 1, 1)])
    with pytest.raises(InputError, match=r"9 usable files form 3 groups; 3 of them hold reals and 3 hold fakes"):
        assign_splits(samples, FRACTIONS, 0)


def test_removed_files_that_empty_a_split_are_an_error_and_not_a_move() -> None:
    samples = pairs(6)
    split = assign_splits(samples, FRACTIONS, 0).split
    earlier = split_of_samples(samples, split)
    without_test = samples[samples["group_id"].map(split) != "test"]
    assert has_four_of_each(without_test)
    with pytest.raises(InputError, match="test without reals, test without fakes"):
        assign_splits(without_test, FRACTIONS, 0, earlier)
