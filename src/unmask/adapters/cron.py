"""Cron expressions: read, checked, told in words.

Kubeflow Pipelines wants six fields, the first one seconds; people write five. Both are accepted here.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from unmask.errors import InputError

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTH_NAMES = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)
DAY_NAMES = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
SHORT = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
# Leap days come every eight years at worst.
HORIZON_DAYS = 366 * 8 + 2


@dataclass(frozen=True)
class _Field:
    name: str
    low: int
    high: int
    words: tuple[str, ...] = ()
    first_word: int = 0


FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of the month", 1, 31),
    _Field("month", 1, 12, MONTHS, 1),
    _Field("day of the week", 0, 6, DAYS, 0),
)


@dataclass(frozen=True)
class Schedule:
    """When runs start, in the time zone of the cluster's scheduler (UTC unless it was told otherwise).

    Attributes:
        expression: Six fields, as Kubeflow Pipelines takes them.
        minutes: Minutes of the hour.
        hours: Hours of the day.
        days: Days of the month; None if any.
        months: 1 is January; None if any.
        weekdays: 0 is Sunday; None if any.
        second: Of the minute.
    """

    expression: str
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...] | None
    months: tuple[int, ...] | None
    weekdays: tuple[int, ...] | None
    second: int

    def __str__(self) -> str:
        """Tell the schedule in words."""
        words = [self._time_in_words()]
        if self.days is not None:
            words.append(f"on day {_listed([str(day) for day in self.days])} of the month")
        if self.weekdays is not None:
            # Cron's own rule: with both given, either is enough.
            joint = "or on" if self.days is not None else "on"
            words.append(f"{joint} {_weekdays_in_words(self.weekdays)}")
        if self.months is not None:
            words.append(f"in {_listed([MONTH_NAMES[month - 1] for month in self.months])}")
        if self.days is self.weekdays is self.months is None and len(self.hours) < 24:
            words.append("every day")
        return " ".join(words)

    def next_times(self, after: datetime, count: int = 3) -> list[datetime]:
        """Work out when the next runs start.

        Args:
            after: Moment with a time zone.
            count: How many.

        Returns:
            The moments, in UTC; fewer if the schedule does not come up so often within eight years.
        """
        moment = after.astimezone(UTC)
        found: list[datetime] = []
        for offset in range(HORIZON_DAYS):
            day = (moment + timedelta(days=offset)).replace(hour=0, minute=0, second=0, microsecond=0)
            if not self._runs_on(day):
                continue
            for hour in self.hours:
                for minute in self.minutes:
                    time = day.replace(hour=hour, minute=minute, second=self.second)
                    if time > moment:
                        found.append(time)
                        if len(found) == count:
                            return found
        return found

    def _runs_on(self, day: datetime) -> bool:
        if self.months is not None and day.month not in self.months:
            return False
        weekday = (day.weekday() + 1) % 7
        if self.days is not None and self.weekdays is not None:
            return day.day in self.days or weekday in self.weekdays
        if self.days is not None:
            return day.day in self.days
        return self.weekdays is None or weekday in self.weekdays

    def _time_in_words(self) -> str:
        if len(self.hours) * len(self.minutes) <= 4:
            second = f":{self.second:02d}" if self.second else ""
            return "at " + _listed(
                [f"{hour:02d}:{minute:02d}{second}" for hour in self.hours for minute in self.minutes]
            )
        minutes = f"at minute {_listed([str(minute) for minute in self.minutes])}"
        hours = "of every hour" if len(self.hours) == 24 else f"of hour {_listed([str(hour) for hour in self.hours])}"
        return f"{minutes} {hours}"


def parse_cron(text: str) -> Schedule:
    """Read a cron expression.

    Args:
        text: Five fields (minute, hour, day of the month, month, day of the week), six (second first), or one of
            @hourly, @daily, @weekly, @monthly. Names of months and days may be shortened to three letters.

    Returns:
        The schedule.

    Raises:
        InputError: The expression is wrong, never comes up, or would start runs every few seconds.
    """
    parts = SHORT.get(text.strip().lower(), text).split()
    if len(parts) == 5:
        parts = ["0", *parts]
        parts[5] = re.sub(r"\b7\b", "0", parts[5]) if re.fullmatch(r"[\d,]+", parts[5]) else parts[5]
    if len(parts) != 6:
        raise InputError(
            f"The schedule {text!r} has {len(parts)} fields.",
            "Write minute, hour, day of the month, month, day of the week: '0 2 * * 0' is Sunday at 02:00.",
        )
    second, minutes, hours, days, months, weekdays = (
        _values(part, field, text) for part, field in zip(parts, FIELDS, strict=True)
    )
    if second is None or len(second) != 1:
        raise InputError(
            f"The schedule {text!r} would start several runs a minute.", "Write 0 in the first of six fields."
        )
    schedule = Schedule(
        " ".join(parts),
        minutes if minutes is not None else tuple(range(60)),
        hours if hours is not None else tuple(range(24)),
        days,
        months,
        weekdays,
        second[0],
    )
    if not schedule.next_times(datetime.now(UTC), 1):
        raise InputError(f"The schedule {text!r} never comes up.", "Check day and month.")
    return schedule


def _values(part: str, field: _Field, text: str) -> tuple[int, ...] | None:
    """Read one field; None stands for any value."""
    if part in ("*", "?"):
        return None
    values: set[int] = set()
    for piece in part.split(","):
        span, slash, step_text = piece.partition("/")
        step = int(step_text) if step_text.isdigit() else 0
        if slash and step < 1:
            raise _wrong(piece, field, text)
        if span in ("*", "?"):
            first, last = field.low, field.high
        else:
            first_text, dash, last_text = span.partition("-")
            first = _number(first_text, field, text, piece)
            last = _number(last_text, field, text, piece) if dash else (field.high if slash else first)
        if first > last:
            raise _wrong(piece, field, text)
        values.update(range(first, last + 1, step or 1))
    return tuple(sorted(values))


def _number(word: str, field: _Field, text: str, piece: str) -> int:
    lowered = word.lower()
    if lowered in field.words:
        return field.words.index(lowered) + field.first_word
    if word.isdigit() and field.low <= int(word) <= field.high:
        return int(word)
    raise _wrong(piece, field, text)


def _wrong(piece: str, field: _Field, text: str) -> InputError:
    return InputError(
        f"{piece!r} in the schedule {text!r} is no {field.name}.",
        f"Use {field.low} to {field.high}, a range (1-5), a list (1,3), a step (*/2) or *.",
    )


def _weekdays_in_words(weekdays: Sequence[int]) -> str:
    if tuple(weekdays) == (1, 2, 3, 4, 5):
        return "weekdays"
    return _listed([DAY_NAMES[day] for day in weekdays])


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
