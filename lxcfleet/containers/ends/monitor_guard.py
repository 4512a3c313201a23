"""Keeps users of the host, and containers in the host's network, from ending or filling what monitors need.

Who connects to a monitor again and again would use up its descriptors, and with that end its container; who asks it again and
again would have it write refusals into the container's log until the disk is full. See host.lxc.strangers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from lxcfleet.containers.container import Container
from lxcfleet.host.kernel.inotify import RenamedWatches
from lxcfleet.host.lxc import liblxc, strangers
from lxcfleet.host.process import descriptors, proc
from lxcfleet.paths import Paths
from lxcfleet.runtime.pace import until_step

log = logging.getLogger(__name__)

CROWD = 256
"""Descriptors from which on a monitor's are looked at; without strangers it has about 40."""
_CONNECTS = 200_000
"""As many connections as a monitor accepts in a second."""
_SHORTEST, _LONGEST = 0.02, 1.0
"""Seconds until sockets are counted again, at least and at most."""
_LOOK_SECONDS = 0.5
"""Seconds until a log that is written to is looked at again, however few sockets there are. A log can grow by 14 MB in a
second."""
_QUIET_SECONDS = 5.0
"""Seconds until the descriptors of each monitor are looked at again, while there are no more sockets than before; and seconds
after a connection until sockets are counted only that often, for as long as the kernel tells of none."""
_MORE = 64
"""So many sockets more than at the last look are more."""
_FEW = 2000
"""So many sockets of all kinds do not change how often anything is looked at."""
_SHARE = 0.01
"""The share of one processor that looking may take, while nobody attacks."""
_ATTACKED = 0.01
"""Seconds for which a monitor may accept connections while strangers come."""
_OVER_SECONDS = 10.0
"""Seconds without strangers after which an attack counts as over, and is told of as a whole."""


@dataclass
class _Attack:
    """Connections of strangers to one container's monitor, which were shut down."""

    shut: Counter[int]
    last: float


class _Logs:
    """The monitors' logs. The kernel tells which are written to; those for which it can't are looked at again and again."""

    def __init__(self) -> None:
        self._watches: RenamedWatches | None = None
        self._poll = select.poll()
        self._logs: dict[str, str] = {}
        self._watched: dict[str, int] = {}
        self._written: set[int] = set()
        """Watches of logs that were written to since each of them was looked at."""
        self._next = 0.0
        """When to look again."""

    def begin(self) -> None:
        with contextlib.suppress(OSError):  # the host has no more of them
            self._watches = RenamedWatches()
            self._poll.register(self._watches.descriptor, select.POLLIN)

    def add(self, name: str, log: str) -> None:
        """From now on. What the log grew by before, while no daemon ran, is cut at once: nobody may write to it any more."""
        self.remove(name)
        self._logs[name] = log
        with contextlib.suppress(OSError):  # there is no log yet, or the host has no more watches
            if self._watches is not None:
                descriptor = os.open(log, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    self._watched[name] = self._watches.add(descriptor)
                finally:
                    os.close(descriptor)
        with contextlib.suppress(OSError):
            liblxc.cut_log(log)

    def remove(self, name: str) -> None:
        self._logs.pop(name, None)
        watch = self._watched.pop(name, None)
        if watch is not None and self._watches is not None:
            self._watches.remove(watch)

    def cut(self, moment: float) -> None:
        """Empty those that are far beyond their size, if it is time to."""
        if self._watches is not None:
            self._written.update(self._watches.changed())
        if moment < self._next:
            return
        written, self._written = self._written, set()
        for name, log in list(self._logs.items()):
            watch = self._watched.get(name)
            if watch is None or watch in written or RenamedWatches.OVERFLOW in written:
                self._next = moment + _LOOK_SECONDS
                with contextlib.suppress(OSError):  # there is no log any more
                    liblxc.cut_log(log)

    @property
    def descriptor(self) -> int | None:
        """Can be read once a log was written to; None: the kernel does not tell."""
        return None if self._watches is None else self._watches.descriptor

    @property
    def rest(self) -> float:
        """Seconds until it is time to look at logs that were written to, or less than 0."""
        return self._next - time.monotonic()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until it is time to look at a log. threading.Event.wait() would take several times as long."""
        rest = self.rest
        if rest > 0:
            time.sleep(min(seconds, rest))
        else:
            self._poll.poll(seconds * 1000)


class MonitorGuard:
    """Looks at the monitors of all containers that run, for ever."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._monitors: dict[str, int] = {}
        """Their pids, by the name of the container."""
        self._attacks: dict[str, _Attack] = {}
        self._limits: dict[int, int] = {}
        """How many descriptors each monitor may have. A daemon of a former version started some with few."""
        self._least: Sequence[int] = ()
        """The least of them; nothing if there are none."""
        self._logs = _Logs()
        self._callers: strangers.Callers | None = None
        self._unheard: set[str] = set()
        """Containers of whose monitors the kernel can't tell when somebody connects."""

    def begin(self) -> None:
        """The daemon starts. Raises OSError."""
        strangers.let_go_on(str(self._paths.lxc))
        self._logs.begin()
        self._callers = strangers.Callers(self._logs.descriptor)

    def began(self, container: Container) -> None:
        """A container runs; its monitor gets all descriptors that the host allows."""
        if container.running is not None:
            self._limit(container.running.monitor)
            self._monitors[container.name] = container.running.monitor
            self._logs.add(container.name, str(self._paths.container(container.name).lxc_log))
            self._listen(container.name, container.running.monitor)

    def _listen(self, name: str, monitor: int) -> None:
        self._unheard.discard(name)
        if self._callers is not None and not self._callers.add(monitor, self._address(name)):
            self._unheard.add(name)
            self._callers.poke()  # sockets are counted all the time from now on

    def _address(self, name: str) -> str:
        return f"{self._paths.lxc}/{name}/command"

    def ended(self, name: str) -> None:
        """It has ended."""
        self._monitors.pop(name, None)
        self._unheard.discard(name)
        self._logs.remove(name)

    async def run(self) -> None:
        """Look, for ever, in a thread of its own: an attacker needs less time than the event loop may take for other things,
        and its own threads may all wait for a disk."""
        loop = asyncio.get_running_loop()
        failure: asyncio.Future[None] = loop.create_future()
        over = threading.Event()

        def work() -> None:
            try:
                self._watch(over)
            except Exception as error:
                loop.call_soon_threadsafe(failure.set_exception, error)

        threading.Thread(target=work, name="monitor-guard", daemon=True).start()
        try:
            await failure
        finally:
            over.set()
            if self._callers is not None:
                self._callers.poke()

    def _watch(self, over: threading.Event) -> None:
        proc.make_thread_urgent()
        with contextlib.closing(strangers.SocketCount()) as count:
            next_look, quiet_until, before = 0.0, 0.0, 0
            called = time.monotonic()
            while not over.is_set():
                began = time.monotonic()
                sockets = count.most(_FEW)
                before = min(before, sockets or 0)
                urgent = crowded(self._least, sockets)
                self._logs.cut(began)
                if began >= next_look or urgent:
                    found: dict[str, Counter[int]] = {}
                    if urgent or began >= quiet_until or (sockets or 0) > before + _MORE:
                        found = self._look_at_all()
                        quiet_until, before = began + until_step(_QUIET_SECONDS, began), sockets or 0
                    took = time.monotonic() - began
                    # While strangers come, they are looked for again at once.
                    next_look = began if found else began + max(_LOOK_SECONDS, took / _SHARE)
                    if found:
                        quiet_until = began
                    self._note(found, began)
                calm = not (urgent or self._attacks or self._unheard) and began >= called + _QUIET_SECONDS
                if self._wait(pause(self._least, sockets), calm=calm):
                    called = time.monotonic()

    def _wait(self, seconds: float, *, calm: bool) -> bool:
        """Wait until the next count; returns whether somebody connected to a monitor meanwhile.

        While nobody does, the kernel is counted upon to tell of some of the first few thousand connections. What it does not
        tell of, would have to come very slowly not to be told of: so a look now and then finds that.
        """
        if self._callers is None:
            self._logs.wait(seconds)
            return True
        if calm:
            rest, quiet = self._logs.rest, until_step(_QUIET_SECONDS, time.monotonic())
            return self._callers.wait(min(quiet, rest) if rest > 0 else quiet, read=rest <= 0)
        self._logs.wait(seconds)  # and not for the next connection, as thousands may come
        return self._callers.wait(0.0, read=False)

    def _look_at_all(self) -> dict[str, Counter[int]]:
        monitors = dict(self._monitors)
        self._limits = {pid: self._limit(pid) for pid in monitors.values()}
        self._least = [min(self._limits.values())] if self._limits else []
        return self._look(monitors)

    def _look(self, monitors: Mapping[str, int]) -> dict[str, Counter[int]]:
        """Shut strangers out; returns how many connections of each uid that were, by container."""
        found = {}
        for name, pid in monitors.items():
            with contextlib.suppress(OSError):  # the monitor has ended
                if descriptors.count(pid) >= CROWD and (shut := self._shut_out(name, pid)):
                    found[name] = shut
        return found

    def _shut_out(self, name: str, pid: int) -> Counter[int]:
        """Shut strangers out until no more come at once, or for some seconds: then the others are looked at, too."""
        shut: Counter[int] = Counter()
        deadline = time.monotonic() + _LONGEST
        while some := strangers.shut_out(pid, self._address(name)):
            shut += some
            if some.total() < CROWD or time.monotonic() > deadline:
                break
            time.sleep(_ATTACKED)  # the monitor closes them now, and answers root
        return shut

    def _limit(self, pid: int) -> int:
        if pid not in self._limits:
            try:
                self._limits[pid] = descriptors.widen(pid)
            except OSError:  # it has ended
                return descriptors.usual()[1]
            self._least = [min([*self._least, self._limits[pid]])]
        return self._limits[pid]

    def _note(self, found: Mapping[str, Counter[int]], moment: float) -> None:
        """Log an attack when it begins and when it is over, not for each connection."""
        for name, shut in found.items():
            attack = self._attacks.setdefault(name, _Attack(Counter(), 0.0))
            if not attack.shut:
                log.warning(
                    "%s: processes of uid %s crowd its monitor's socket: their connections are closed; `ss -xap | grep -F"
                    " @%s/%s/command` shows them",
                    name, _uids(shut), self._paths.lxc, name,
                )  # fmt: skip
            attack.shut += shut
            attack.last = moment
        for name, attack in list(self._attacks.items()):
            if moment - attack.last >= _OVER_SECONDS:
                del self._attacks[name]
                count = attack.shut.total()
                log.warning("%s: %d connections of uid %s to its monitor were closed", name, count, _uids(attack.shut))


def crowded(limits: Iterable[int], sockets: int | None) -> bool:
    """Whether a monitor may have used up half of its descriptors; ``sockets``: all that there are, None: not known."""
    return sockets is None or sockets >= min(limits, default=_CONNECTS) / 2


def pause(limits: Iterable[int], sockets: int | None) -> float:
    """Seconds until the next count: a quarter of the descriptors of the monitor with the fewest is free then, however quickly
    it accepts. So with half of them used, from which on it is looked at, this is as long as another quarter takes."""
    rest = min(limits, default=_CONNECTS) * 3 / 4 - (sockets or 0)
    return max(_SHORTEST, min(_LONGEST, rest / _CONNECTS))


def _uids(shut: Counter[int]) -> str:
    return ", ".join(str(uid) for uid, _ in shut.most_common(3)) + (", …" if len(shut) > 3 else "")
