"""Moments as people give them: "10m" ago, "yesterday", "18:30", or a date; and days to come. Pure."""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

from lxcfleet.errors import InvalidInput

_AGO = re.compile(
    r"([0-9]{1,9})\s*(?:(s)(?:ec(?:ond)?s?)?|(m)(?:in(?:ute)?s?)?|(h)(?:ours?)?|(d)(?:ays?)?|(w)(?:eeks?)?)(?:\s+ago)?"
)
"""As journalctl and date take them, too: "2h", "2 hours ago"."""
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
_CLOCK = re.compile(r"[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?")
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_HINT = "write it as 10m, 2h, today, yesterday, 18:30 or 2026-02-28 18:30"


_DAYS = re.compile(r"([0-9]{1,4})\s*(d|w)")
_LONGEST = 3660
"""Days."""


def parse_until(text: str, today: date) -> date:
    """The day for ``text``: 2027-01-31, or a number of days or weeks from ``today``, as 30d and 2w. Raises InvalidInput."""
    word = text.strip().lower()
    found = _DAYS.fullmatch(word)
    if found is not None:
        days = int(found[1]) * (7 if found[2] == "w" else 1)
        if days > _LONGEST:
            raise InvalidInput(f"{text!r} is too long", why="at most ten years are allowed")
        return today + timedelta(days=days)
    return read_day(word)


def read_day(text: str) -> date:
    """The day that is written as 2027-01-31; raises InvalidInput."""
    try:
        if _DAY.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise InvalidInput(f"{text!r} is no day", hint="write it as 2027-01-31, 30d or 2w")


def parse_since(text: str, now: datetime) -> float:
    """Seconds since the epoch for ``text``; ``now`` has the time zone of times that tell none. Raises InvalidInput."""
    word = text.strip().lower()
    found = _AGO.fullmatch(word)
    if found:
        return now.timestamp() - int(found[1]) * _UNITS[next(filter(None, found.groups()[1:]))]
    if word in ("today", "yesterday"):
        day = now if word == "today" else now - timedelta(days=1)
        return day.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    if word == "now":
        return now.timestamp()
    try:
        if _CLOCK.fullmatch(word):
            time = datetime.strptime(word, "%H:%M:%S" if word.count(":") == 2 else "%H:%M").time()
            return datetime.combine(now.date(), time, now.tzinfo).timestamp()
        moment = datetime.fromisoformat(text.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)).timestamp()
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{text!r} is no time", hint=_HINT) from error
