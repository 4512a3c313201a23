"""When the fleet may act on a patch by itself: policies and maintenance windows. Values only, but for the time zones."""

from __future__ import annotations

import re
import time as clock
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from lxcfleet.errors import InvalidInput
from lxcfleet.spec.reading.durations import Seconds
from lxcfleet.spec.reading.rows import CheckedSection, row
from lxcfleet.spec.reading.types import Choice, Flag, Text, Texts, Whole

MAX_QUIET = 86400.0
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_WINDOW = re.compile(r"(?:(\S+) +)?(\d\d):(\d\d)-(\d\d):(\d\d)")
_RULE = "write it as 'Sat,Sun 02:00-05:00', 'Mon-Fri 22:00-01:30' or '03:00-04:00' for every day"


class PatchPolicy(StrEnum):
    """The daemon's answer to containers that a patch made stale."""

    AUTO = "auto"
    """The daemon restarts them in waves as soon as no package of the host changes any more."""
    WINDOW = "window"
    """The daemon restarts them in the next maintenance window."""
    NOTIFY = "notify"
    """The daemon names them, in the events and as a warning in its log, and restarts nothing."""
    MANUAL = "manual"
    """The daemon does nothing by itself; it does not even look for stale containers."""


class Reboot(StrEnum):
    """The daemon's answer to a package that takes effect only with a reboot of the host."""

    NEVER = "never"
    """The daemon tells of it, and leaves it to the operator."""
    WINDOW = "window"
    """The daemon reboots the host in a maintenance window, once the patch is dealt with."""


@dataclass(frozen=True)
class Window:
    """A maintenance window: some hours on some days, in local time. It may go past midnight."""

    days: frozenset[int]
    """The days on which the window begins; Monday is 0."""
    begin: time
    end: time

    @classmethod
    def parse(cls, text: str) -> Window:
        """A window from its text in the settings; raises InvalidInput."""
        found = _WINDOW.fullmatch(text.strip())
        if found is None:
            raise InvalidInput(f"{text!r} is not a maintenance window", hint=_RULE)
        days, *numbers = found.groups()
        try:
            begin = time(int(numbers[0]), int(numbers[1]))
            end = time() if numbers[2:] == ["24", "00"] else time(int(numbers[2]), int(numbers[3]))
        except ValueError as error:
            raise InvalidInput(f"{text!r} is not a maintenance window", why=str(error), hint=_RULE) from error
        if begin == end and numbers[:2] == numbers[2:]:
            raise InvalidInput(f"{text!r} is empty", hint="00:00-24:00 is a whole day")
        return cls(_days(days, text), begin, end)

    def on(self, day: date, zone: ZoneInfo | None) -> tuple[datetime, datetime] | None:
        """When the window that begins on ``day`` begins and ends, in UTC; None if no window begins on that day.

        When clocks go forward, a part of the window or all of it may not exist. In the latter case it ends when it begins.
        """
        if day.weekday() not in self.days:
            return None
        last = day if self.end > self.begin else day + timedelta(days=1)
        return _utc(datetime.combine(day, self.begin), zone), _utc(datetime.combine(last, self.end), zone)


def _utc(wall: datetime, zone: ZoneInfo | None) -> datetime:
    """A local time of ``zone`` in UTC; None: the host's own zone."""
    return wall.replace(tzinfo=zone).astimezone(UTC) if zone else wall.astimezone(UTC)


def take_up_zone() -> None:
    """Have local times be those of the host's time zone as it is now: the C library keeps the one that it has read."""
    clock.tzset()


def _days(text: str | None, whole: str) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    found: set[int] = set()
    for part in text.lower().split(","):
        first, dash, last = part.partition("-")
        if first not in _DAYS or (dash and last not in _DAYS):
            raise InvalidInput(f"{whole!r} is not a maintenance window", why=f"{part!r} is no day", hint=_RULE)
        begin, end = _DAYS.index(first), _DAYS.index(last or first)
        found.update(day % 7 for day in range(begin, (end if end >= begin else end + 7) + 1))
    return frozenset(found)


@dataclass(frozen=True)
class PatchSettings(CheckedSection):
    """The fleet's own reaction when the host is patched."""

    policy: PatchPolicy = row(
        Choice(PatchPolicy), "auto: restart what is stale, in waves; window: do so in the next maintenance window; notify:"
        " only tell; manual: do nothing until `lxcfleet patch apply`.", default=PatchPolicy.AUTO,
    )
    quiet: float = row(
        Seconds(0, MAX_QUIET), "Seconds without a change of packages, after which a patch counts as done.", default=10.0
    )
    windows: tuple[str, ...] = row(Texts(), "Maintenance windows, such as `Sat,Sun 02:00-05:00`.", default=())
    time_zone: str = row(Text(), "The windows' time zone, such as Europe/Vienna; empty: the host's.", default="")  # fmt: skip

    reboot: Reboot = row(
        Choice(Reboot), "Whether the host is rebooted for packages that take effect only then, such as a kernel. never: only"
        " tell; window: stop the fleet and reboot the host in a maintenance window, after the rollout.",
        default=Reboot.NEVER,
    )
    freeze: bool = row(
        Flag(), "Whether the host's root is frozen before each patch, so that what fails after it gets its former base back"
        " by itself. The first time gives each file below /usr and /opt one link more: docs/generations.md.", default=False,
    )
    keep: int = row(
        Whole(1, 100), "The generations from before patches that are kept, besides those that containers stand on.", default=3
    )

    def problems(self) -> Iterator[tuple[str, str]]:
        """See Checked."""
        for number, window in enumerate(self.windows):
            try:
                Window.parse(window)
            except InvalidInput as error:
                yield f"windows[{number}]", f"{error.message}: {error.hint}"
        try:
            _ = self.zone
        except InvalidInput as error:
            yield "time_zone", f"{error.message}: {error.hint}"
        if self.policy is PatchPolicy.WINDOW and not self.windows:
            yield "windows", "with policy window there has to be one"
        if self.reboot is Reboot.WINDOW and not self.windows:
            yield "windows", "with reboot: window there has to be one"

    @property
    def zone(self) -> ZoneInfo | None:
        """The time zone; None: the host's. Raises InvalidInput."""
        if not self.time_zone:
            take_up_zone()
            return None
        try:
            return ZoneInfo.no_cache(self.time_zone)  # an upgrade may have brought other rules of it
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise InvalidInput(f"no time zone {self.time_zone!r}", hint="they are below /usr/share/zoneinfo") from error

    def is_open(self, now: datetime) -> bool:
        """Whether ``now`` is within a maintenance window."""
        return any(begin <= now < end for begin, end in self._around(now))

    def opened(self, now: datetime) -> datetime | None:
        """When the maintenance window that is open began; None if none is open."""
        return max((begin for begin, end in self._around(now) if begin <= now < end), default=None)

    def next_opening(self, now: datetime) -> datetime | None:
        """When the next window begins, not counting one that has begun; None without windows."""
        return min((begin for begin, end in self._around(now) if now < begin < end), default=None)

    def _around(self, now: datetime) -> Iterable[tuple[datetime, datetime]]:
        """All windows from yesterday to a week from now. Some more days are looked at, as time zones differ, and as a change
        of the clocks can leave one window out."""
        today, zone = now.date(), self.zone
        for window in map(Window.parse, self.windows):
            for offset in range(-2, 16):
                span = window.on(today + timedelta(days=offset), zone)
                if span is not None:
                    yield span
