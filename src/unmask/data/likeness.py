"""Near-duplicates of a data set: found among new files, remembered among old ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from unmask.data.inspection import NOTHING, Earlier, Inspection
from unmask.data.near_duplicates import Pair, near_duplicates, without_chains
from unmask.data.sources import SourceFile


@dataclass(frozen=True)
class Likeness:
    """Which files are alike though their bytes differ.

    Attributes:
        pairs: All pairs; positions of files.
        joined: Those that put their files into one group; the others would have made a chain.
    """

    pairs: list[Pair]
    joined: list[Pair]


def likeness_of(
    files: Sequence[SourceFile],
    inspections: Sequence[Inspection],
    read_now: Collection[str],
    earlier: Earlier | None,
) -> Likeness:
    """Find the files that are alike; pairs of files that were compared before are not compared again.

    Args:
        files: Media files.
        inspections: Of each.
        read_now: Ids of files that are new or changed.
        earlier: What an earlier run found.
    """
    marks, first_of = [], set()
    for inspection in inspections:
        # Copies share a group by their hash already; one of them stands for all.
        usable = inspection.reason is None and inspection.sha256 not in first_of
        marks.append(inspection.marks if usable else NOTHING)
        if usable:
            first_of.add(inspection.sha256)
    compared = _compared(earlier) - set(read_now)
    fresh = np.array([file.sample_id not in compared for file in files], bool)
    found = near_duplicates(marks, fresh) if fresh.any() else []
    if earlier:
        place = {file.sample_id: i for i, file in enumerate(files) if not fresh[i]}
        for (a, b), value in earlier.pairs.items():
            if a in place and b in place and marks[place[a]] is not NOTHING and marks[place[b]] is not NOTHING:
                found.append(Pair(min(place[a], place[b]), max(place[a], place[b]), value))
    pairs = sorted(found)
    return Likeness(pairs, without_chains(marks, pairs))


def _compared(earlier: Earlier | None) -> set[str]:
    """Give the ids of the files that an earlier run compared with each other."""
    if earlier is None or not earlier.index.near_duplicates:
        return set()
    first_of: set[str] = set()
    compared = set()
    for sample_id, row in earlier.rows.items():
        if row["status"] == "ok" and row["sha256"] not in first_of:
            first_of.add(row["sha256"])
            compared.add(sample_id)
    return compared


def pairs_table(files: Sequence[SourceFile], pairs: Sequence[Pair]) -> pa.Table:
    """Write pairs with the ids of their files."""
    rows = sorted((*sorted((files[p.first].sample_id, files[p.second].sample_id)), min(1.0, p.likeness)) for p in pairs)
    return pa.table(
        {
            "first": pa.array([row[0] for row in rows], pa.string()),
            "second": pa.array([row[1] for row in rows], pa.string()),
            "likeness": pa.array([row[2] for row in rows], pa.float32()),
        }
    )
