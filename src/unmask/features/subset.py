"""Which samples of a data set are measured: a shard of n, or a few of each kind to try something out."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any, Self

from unmask.errors import InputError

Row = dict[str, Any]


@dataclass(frozen=True)
class Shard:
    """One of n parts of a data set.

    Attributes:
        number: From 1 to ``of``.
        of: How many parts there are.
    """

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``i/n``.

        Raises:
            InputError: It is not of this form, or i is not from 1 to n.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        shard = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise InputError(f"{text!r} is no shard.", "Give i/n with i from 1 to n, for example 1/4.")
        return shard

    def holds(self, row: Row) -> bool:
        """Whether a sample is in this part; files of the same bytes are always in the same one."""
        name = row["sha256"] or row["sample_id"]
        return int(name[:8], 16) % self.of == self.number - 1


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
