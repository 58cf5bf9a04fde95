"""How figures read in the messages of `unmask ensemble` and `unmask fuse`; nothing is fitted here."""

from __future__ import annotations

from unmask.ensemble.folds import counted
from unmask.schemas import Estimate


def share_of(estimate: Estimate, one: str) -> str:
    """Write a share with its interval and what it is of.

    Args:
        estimate: In [0, 1].
        one: What is counted, in the singular.

    Returns:
        For example ``10% [0.3%, 45%] of 10 reals``.
    """
    if estimate.value is None:
        return f"none of {counted(estimate.n, one)}"
    if estimate.low is None or estimate.high is None:
        return f"{_percent(estimate.value)} of {counted(estimate.n, one)}"
    ends = f"[{_percent(estimate.low)}, {_percent(estimate.high)}]"
    return f"{_percent(estimate.value)} {ends} of {counted(estimate.n, one)}"


def _percent(value: float) -> str:
    # Whole per cents hide what matters most near 0 and 1.
    return f"{value:.0%}" if value in (0, 1) or 0.01 <= value <= 0.99 else f"{value:.1%}"
