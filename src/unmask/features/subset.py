"""Which samples of a data set are measured when something is only tried out: a few of each kind."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import chain, zip_longest
from typing import Any

Row = dict[str, Any]


def few_of_each(rows: Sequence[Row], limit: int) -> list[Row]:
    """Take a few samples, as evenly as can be from each split and class.

    Args:
        rows: Samples; only those of status ok are taken.
        limit: How many.

    Returns:
        The samples in their order.
    """
    kinds: dict[tuple[Any, Any], list[Row]] = defaultdict(list)
    for row in rows:
        if row["status"] == "ok":
            kinds[row["split"], row["label"]].append(row)
    in_turn = [row for row in chain.from_iterable(zip_longest(*kinds.values())) if row is not None]
    taken = {row["sample_id"] for row in in_turn[:limit]}
    return [row for row in rows if row["sample_id"] in taken]
