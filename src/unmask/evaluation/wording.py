"""How figures are written: always with their interval and n, the same in HTML, Markdown and charts."""

from __future__ import annotations

import math
import re
from typing import Literal

from unmask.schemas import Estimate

Unit = Literal["", "%"]


def number(value: float | None, unit: Unit = "", digits: int = 3) -> str:
    """Write a number.

    Args:
        value: What to write; None is undefined.
        unit: ``%`` writes a share as per cent.
        digits: Decimals of a plain number.

    Returns:
        For example ``0.873``, ``87 %`` or ``undefined``.
    """
    if value is None or not math.isfinite(value):
        return "undefined"
    return f"{_percent(value)} %" if unit == "%" else f"{value:.{digits}f}"


def _percent(value: float) -> str:
    # Whole per cents hide the difference between 99.6 and 100, where it matters most.
    if 0.01 <= value <= 0.99 or value in (0, 1):
        return f"{100 * value:.0f}"
    if abs(value) < 0.0005:
        return "<0.1" if value > 0 else ">-0.1"
    return ">99.9" if 0.9995 <= value < 1 else f"{100 * value:.1f}"


def interval(estimate: Estimate, unit: Unit = "", digits: int = 3) -> str:
    """Write the interval of a figure.

    Returns:
        For example ``0.810–0.920``, or ``no interval``.
    """
    if estimate.value is None:
        return "no interval"
    if estimate.low is None or estimate.high is None:
        return "no interval"
    join = " to " if estimate.low < 0 else "–"
    if unit == "%":
        low, high = _percent(estimate.low), _percent(estimate.high)
        join = " to " if "<" in low or ">" in high else join
        return f"{low}{join}{high} %"
    return f"{estimate.low:.{digits}f}{join}{estimate.high:.{digits}f}"


def full(estimate: Estimate, unit: Unit = "", digits: int = 3) -> str:
    """Write a figure with interval and n.

    Returns:
        For example ``0.873 (0.810–0.920, n = 38)``.
    """
    return f"{number(estimate.value, unit, digits)} ({interval(estimate, unit, digits)}, n = {estimate.n})"


def inner(estimate: Estimate, unit: Unit = "", digits: int = 3) -> str:
    """Write a figure with interval and n for a place that is in brackets already.

    Returns:
        For example ``0.873, 0.810–0.920, n = 38``.
    """
    return f"{number(estimate.value, unit, digits)}, {interval(estimate, unit, digits)}, n = {estimate.n}"


def tied(text: str) -> str:
    """Keep what belongs together on one line: ``n = 38``, ``5 %``, ``0.81–0.92``."""
    text = re.sub(r"\bn = (?=\d)", "n\u00a0=\u00a0", text)
    text = re.sub(r"(?<=\d) %", "\u00a0%", text)
    return re.sub(r"(?<=\d)–(?=\d)", "\u2060–\u2060", text)


def count(n: int, one: str, many: str | None = None) -> str:
    """Write a number of things: ``1 video``, ``3 videos``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}".replace(",", " ")


def listing(items: list[str]) -> str:
    """Join words: ``a``, ``a and b``, ``a, b and c``."""
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""


def readable(name: str) -> str:
    """Turn a name of the code into words: ``gaussian_blur`` becomes ``gaussian blur``."""
    return name.replace("_", " ")


AIMS = {
    "max_f1": "the threshold with the best F1",
    "youden": "the threshold with the best balance of fakes found and false alarms",
    "target_fpr": "the threshold that limits false alarms",
    "fixed_precision": "the threshold that makes alarms sure",
}


def aim(name: str) -> str:
    """Say what an operating point aims at.

    Args:
        name: Of the operating point.

    Returns:
        For example ``the threshold with the best F1``.
    """
    return AIMS.get(name, f"the threshold “{readable(name)}”")
