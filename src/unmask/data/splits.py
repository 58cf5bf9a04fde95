"""Four splits by group: stratified, seeded, and stable when data are added.

Two wishes pull against each other. A sample that was once in test must never turn up in train, however the data grow;
and a set of six groups must still fill four splits with both classes. They are reconciled in three steps:

1. Groups that an earlier table already placed stay where they are, whatever else happens.
2. Every other group goes where a hash of seed and group name points. This does not look at the other groups, so it
   gives the same answer in a set twice as large, even if the earlier table is lost.
3. What the hash leaves undone is mended by moving as few new groups as possible: first until each split has both
   classes, then until no split is far below its share of any label, source or manipulation. In large sets there is
   nothing to mend; in small ones this step does most of the work, and only the earlier table (step 1) keeps it stable.

New files can reveal that two groups were one all along (a fake ``A_B`` joins A and B). If these lay in different
splits, all of them go to the first of train, val, calib, test that held one: a sample may be lost to test, but nothing
that a model was fitted on ever gets into test.

A division that the publishers of a data set made can be honoured. What it puts into val, calib or test goes there; what
it puts into train is divided between train and those splits that it does not know (always calib), by the hash.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from unmask.config import SplitFractions
from unmask.errors import InputError
from unmask.schemas.tables import SPLITS

Floats = NDArray[np.float64]
# A split may fall this far below its share of a stratum before a group is moved for it.
TOLERATED_SHARE = 0.8
# Weight of a split that lacks a class, far above what all strata together can weigh.
MISSING_CLASS = 1e6
SMALLEST_GAIN = 1e-9
MAX_STRATA = 64  # of one kind; the rest are left to the hash
LABELS = (0, 1)


@dataclass(frozen=True)
class SplitResult:
    """Which group went where.

    Attributes:
        split: Group to split.
        moved: Samples that an earlier table had placed elsewhere, because groups turned out to be one.
        against_official: Samples that are not where the official division puts them, because what it divides belongs
            together or was placed earlier.
    """

    split: dict[str, str]
    moved: int
    against_official: int = 0


@dataclass
class _Strata:
    """What the groups hold, as numbers.

    Attributes:
        amounts: ``(G, S)``: how much of each stratum a group holds, as a share of the whole stratum.
        wanted: ``(S, 4)``: the least share of each stratum that each split should hold.
        has_label: ``(G, 2)``: whether a group holds reals, fakes.
    """

    amounts: Floats
    wanted: Floats
    has_label: NDArray[np.bool_]


def assign_splits(
    samples: pd.DataFrame,
    fractions: SplitFractions,
    seed: int,
    earlier: Mapping[str, str] | None = None,
    official: Mapping[str, str] | None = None,
) -> SplitResult:
    """Place each group in one split.

    Args:
        samples: Usable samples with columns ``sample_id``, ``group_id``, ``label`` (0, 1), ``source``, ``modality`` and
            ``manipulation``.
        fractions: Shares of the splits.
        seed: Changes every hash.
        earlier: Sample id to split, of an earlier table that is kept to.
        official: Sample id to split, of the publishers' division, if it is to be honoured. A group that it divides
            goes to the first of train, val, calib, test that holds a part of it.

    Returns:
        The split of each group. Each split holds reals and fakes.

    Raises:
        InputError: There are too few groups with reals or with fakes for four splits; gives the numbers.
    """
    groups = sorted(samples["group_id"].unique())
    place = {group: i for i, group in enumerate(groups)}
    member_of = samples["group_id"].map(place).to_numpy(np.int64)
    has_label = np.zeros((len(groups), len(LABELS)), bool)
    has_label[member_of, samples["label"].to_numpy(np.int64)] = True
    _check_enough(has_label, len(samples))
    strata = _strata(samples, member_of, has_label, fractions)
    kept, moved = _kept(samples["sample_id"], member_of, len(groups), earlier or {})
    published, _ = _kept(samples["sample_id"], member_of, len(groups), official or {})
    # A sample whose group is divided officially counts with the group, so of all published places the first is taken.
    allowed = _allowed(kept, published, set((official or {}).values()))
    splits = np.where(kept >= 0, kept, _hashed(groups, fractions, seed, allowed))
    _mend(splits, allowed, strata, groups, seed)
    against = _against(samples["sample_id"], splits[member_of], allowed, official or {})
    return SplitResult({group: SPLITS[splits[i]] for group, i in place.items()}, moved, against)


def _allowed(kept: NDArray[np.int64], published: NDArray[np.int64], known: set[str]) -> NDArray[np.bool_]:
    """Say where each group may go: ``(G, 4)``."""
    allowed = np.ones((len(kept), len(SPLITS)), bool)
    into_train = np.array([split == "train" or split not in known for split in SPLITS])
    allowed[published == 0] = into_train
    for fixed in (published, kept):
        decided = fixed > 0 if fixed is published else fixed >= 0
        allowed[decided] = np.arange(len(SPLITS)) == fixed[decided, None]
    return allowed


def _against(
    sample_ids: Iterable[str], placed: NDArray[np.int64], allowed: NDArray[np.bool_], official: Mapping[str, str]
) -> int:
    """Count the samples that are neither where the official division puts them nor in a split that it lacks."""
    known = set(official.values())
    count = 0
    for sample_id, split in zip(sample_ids, placed, strict=True):
        wanted, got = official.get(sample_id), SPLITS[split]
        count += wanted is not None and got != wanted and not (wanted == "train" and got not in known)
    return count


def _strata(
    samples: pd.DataFrame, member_of: NDArray[np.int64], has_label: NDArray[np.bool_], fractions: SplitFractions
) -> _Strata:
    shares = np.array([fractions.train, fractions.val, fractions.calib, fractions.test])
    columns: list[Floats] = [*has_label.T.astype(np.float64)]
    for keys in _stratum_keys(samples):
        largest = [key for key, _ in Counter(key for key in keys if key is not None).most_common(MAX_STRATA)]
        column_of = {key: i for i, key in enumerate(largest)}
        codes = np.array([column_of.get(key, -1) for key in keys])
        counts = np.zeros((len(has_label), len(largest)))
        np.add.at(counts, (member_of[codes >= 0], codes[codes >= 0]), 1)
        columns += [*counts.T]
    totals = np.array([column.sum() for column in columns])
    # A share of less than one sample or group cannot be asked for.
    wanted = np.floor(TOLERATED_SHARE * shares * totals[:, None]) / totals[:, None]
    return _Strata(np.stack(columns, axis=1) / totals, wanted, has_label)


def _stratum_keys(samples: pd.DataFrame) -> Iterable[Sequence[Hashable]]:
    """Name the stratum of each sample: by label, by label within source and modality, by manipulation."""
    yield list(samples["label"])
    yield list(zip(samples["label"], samples["source"], samples["modality"], strict=True))
    yield [None if pd.isna(name) else name for name in samples["manipulation"]]


def _check_enough(has_label: NDArray[np.bool_], n_samples: int) -> None:
    """Four splits with both classes exist exactly if four groups have reals and four have fakes.

    A group with both fills a split alone; of b such groups, 4 - b splits are left, each of which takes one group with
    reals only and one with fakes only.
    """
    with_real, with_fake = has_label.sum(axis=0)
    if min(with_real, with_fake) >= len(SPLITS):
        return
    raise InputError(
        f"Too few groups for four splits: {n_samples} usable files form {len(has_label)} groups; {with_real} of them "
        f"hold reals and {with_fake} hold fakes, and train, val, calib and test need at least one of each, that is "
        f"{len(SPLITS)}.",
        "Add media of other videos or people. What shares a source video, a name or its content is one group and "
        "cannot be divided; where face swaps join everybody, ingest.relate=target groups by whose body is seen.",
    )


def _kept(
    sample_ids: Iterable[str], member_of: NDArray[np.int64], n_groups: int, earlier: Mapping[str, str]
) -> tuple[NDArray[np.int64], int]:
    """Find the split that an earlier table gave each group: -1 for none, the first if there are several."""
    kept = np.full(n_groups, -1)
    before = np.array([SPLITS.index(earlier[s]) if earlier.get(s) in SPLITS else -1 for s in sample_ids], np.int64)
    for group, split in zip(member_of, before, strict=True):
        if split >= 0 and (kept[group] < 0 or split < kept[group]):
            kept[group] = split
    return kept, int(((before >= 0) & (before != kept[member_of])).sum())


def _hash(*parts: object) -> float:
    """Turn words into a number in [0, 1) that looks random and is the same everywhere."""
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _hashed(
    groups: Sequence[str], fractions: SplitFractions, seed: int, allowed: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """Send each group where its hash points among the splits that it may go to, in proportion to their shares."""
    shares = np.array([fractions.train, fractions.val, fractions.calib, fractions.test]) * allowed
    edges = np.cumsum(shares, axis=1) / shares.sum(axis=1, keepdims=True)
    points = np.array([_hash(seed, group) for group in groups])
    places = (edges <= points[:, None]).sum(axis=1)
    # Rounding may leave the last edge below 1, and the point beyond it.
    last = len(SPLITS) - 1 - np.argmax(allowed[:, ::-1], axis=1)
    found: NDArray[np.int64] = np.minimum(places, last).astype(np.int64)
    return found


def _mend(
    splits: NDArray[np.int64], allowed: NDArray[np.bool_], strata: _Strata, groups: Sequence[str], seed: int
) -> None:
    """Move groups where they may go, one at a time and each time the one that helps most, until none helps (in place).

    A split that lacks a class can always be helped by one move if all groups are free and enough have each class: some
    other split has two groups with that class, and either one of them holds nothing else, or both hold both classes.
    """
    held = np.stack([strata.amounts[splits == s].sum(axis=0) for s in range(len(SPLITS))], axis=1)
    classes = np.stack([strata.has_label[splits == s].sum(axis=0) for s in range(len(SPLITS))], axis=1)
    while True:
        gains = _gains(splits, allowed, strata, held, classes)
        best = gains.max(initial=0.0)
        if best <= SMALLEST_GAIN:
            break
        ties = np.argwhere(gains > best - SMALLEST_GAIN)
        group, target = min(ties.tolist(), key=lambda tie: _hash(seed, "move", groups[tie[0]], SPLITS[tie[1]]))
        source = splits[group]
        splits[group] = target
        for table, row in ((held, strata.amounts[group]), (classes, strata.has_label[group])):
            table[:, source] -= row
            table[:, target] += row
    if (classes == 0).any():
        _refuse(classes, strata.has_label.sum(axis=0), allowed)


def _gains(
    splits: NDArray[np.int64],
    allowed: NDArray[np.bool_],
    strata: _Strata,
    held: Floats,
    classes: NDArray[np.int64],
) -> Floats:
    """Compute by how much each move of a group to a split lowers what is missing: ``(G, 4)``."""
    gains = np.zeros((len(splits), len(SPLITS)))
    short = strata.wanted - held
    if not (allowed.sum(axis=1) > 1).any() or not ((short > SMALLEST_GAIN).any() or (classes == 0).any()):
        return gains
    missing, has = np.maximum(short, 0), strata.has_label
    # What the split that a group leaves would then lack more than now.
    loss = (np.maximum(short[:, splits].T + strata.amounts, 0) - missing[:, splits].T).sum(axis=1)
    loss += MISSING_CLASS * (has & (classes[:, splits].T == 1)).sum(axis=1)
    for target in range(len(SPLITS)):
        gain = (missing[:, target] - np.maximum(short[:, target] - strata.amounts, 0)).sum(axis=1)
        gain += MISSING_CLASS * (has & (classes[:, target] == 0)).sum(axis=1)
        gains[:, target] = np.where(allowed[:, target] & (splits != target), gain - loss, 0)
    return gains


def _refuse(classes: NDArray[np.int64], groups: NDArray[np.int64], allowed: NDArray[np.bool_]) -> None:
    lacking = [
        f"{split} without {name}"
        for s, split in enumerate(SPLITS)
        for label, name in enumerate(("reals", "fakes"))
        if classes[label, s] == 0
    ]
    free = int((allowed.sum(axis=1) > 1).sum())
    raise InputError(
        f"Samples that were split earlier, or by the publishers of the data, keep their split, and this leaves "
        f"{', '.join(lacking)} ({groups[0]} groups with reals, {groups[1]} with fakes, {free} of {len(allowed)} groups "
        f"may still move).",
        "Restore the files that were removed, set ingest.official_splits to ignore, or ingest into a new folder to "
        "split everything anew.",
    )
