"""Parts of a data set, so that several machines share the work."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

from unmask.errors import InputError


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

    def has(self, digest: str) -> bool:
        """Whether what this hexadecimal hash stands for is in this part; every hash is in exactly one of the n."""
        return int(digest[:8], 16) % self.of == self.number - 1

    def holds(self, row: dict[str, Any]) -> bool:
        """Whether a row of ``samples`` is in this part; files of the same bytes are always in the same one."""
        return self.has(row["sha256"] or row["sample_id"])

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.number}/{self.of}"
