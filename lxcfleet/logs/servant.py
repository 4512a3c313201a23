"""The process that passes on what containers print: it follows their consoles, and sends each line to the host's log.

It belongs to the daemon and ends with it, whatever way the daemon ends: where it was is on disk, and the next one goes on
there. While nothing is printed it sleeps. The daemon tells it by datagrams of JSON which containers there are; see Orders.

    servant SOCKET LOCK
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from lxcfleet.host.kernel.inotify import RenamedWatches
from lxcfleet.host.process.log_socket import RETRY_SECONDS, LogSocket
from lxcfleet.logs.console import Console, ConsoleRun, LineLimits, StepOutcome
from lxcfleet.logs.entries import EntryHead, LogForm

LONGEST = 1 << 18
"""Bytes of an order."""
GATHER_SECONDS = 0.005
"""From one round to the next, so that lines which come one by one are dealt with some at a time."""
ADRIFT_SECONDS = 0.2
"""Seconds between two looks for a console's file that is not there yet."""
ROUND_SECONDS = 0.2
"""Seconds after which orders have their turn."""
MOST_ENTRIES = 1000
"""Entries of the daemon's own that wait for the host's log; later ones are dropped."""


class Follower:
    """All consoles, and the host's log."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._form: LogForm | None = None
        self._log: LogSocket | None = None
        self._consoles: dict[str, Console] = {}
        self._watched: dict[int, str] = {}
        self._watch_of: dict[str, tuple[int, int]] = {}
        """By container: the watch, and the inode of the file that it is on."""
        self._watches = RenamedWatches()
        self._dirty: dict[str, None] = {}
        self._due: dict[str, None] = {}
        """Containers whose console waits for a file, or has something to tell."""
        self._entries: deque[bytes] = deque(maxlen=MOST_ENTRIES)
        self._look_at = 0.0
        """When the next look at these is due, by the monotonic clock."""
        self._unread: dict[str, str] = {}
        """Why consoles can't be read, by container."""
        self._blocked = False

    @property
    def trouble(self) -> str:
        """Why nothing can be sent, or why one of the consoles can't be read."""
        sending = "" if self._log is None else self._log.trouble
        return sending or next(iter(self._unread.values()), "")

    @property
    def watches(self) -> int:
        """The descriptor that tells of changed files."""
        return self._watches.descriptor

    # -- orders ----------------------------------------------------------------------------------------------

    def obey(self, order: Mapping[str, Any]) -> None:
        """Carry out one order of the daemon's."""
        kind = order["do"]
        if kind == "settings":
            self._settle(order)
        elif kind == "follow":
            self._follow(order)
        elif kind == "forget":
            self._forget(order["name"])
        elif kind == "tell" and self._form is not None:
            head = EntryHead(self._form, order["fields"], self._host)
            self._entries.append(head.entry(order["message"].encode(), {}, order["priority"]))

    def _settle(self, order: Mapping[str, Any]) -> None:
        """Settings come first, and at most once: other ones are for another process."""
        self._form = None if order["to"] == "none" else LogForm(order["to"])
        self._log = None if self._form is None else LogSocket(order["socket"])

    def _follow(self, order: Mapping[str, Any]) -> None:
        name, form = order["name"], self._form or LogForm.JOURNAL
        mark = order["mark"]
        head = EntryHead(form, order["fields"], self._host)
        run = ConsoleRun(head) if mark is None else ConsoleRun(head, (mark[0], mark[1]), mark[2])
        limits = LineLimits(order["rate"], order["burst"], wanted=order["journal"])
        console = self._consoles.get(name)
        if console is None:
            self._consoles[name] = Console(
                order["directory"], run, form, limits, over=order["over"], skip=order["skip"]
            )
        else:
            console.follow(run, limits, over=order["over"])
        self._dirty[name] = None

    def _forget(self, name: str) -> None:
        console = self._consoles.pop(name, None)
        if console is not None:
            self._unwatch(name)
            console.close()
        self._dirty.pop(name, None)
        self._due.pop(name, None)
        self._unread.pop(name, None)

    # -- work ------------------------------------------------------------------------------------------------

    def note_changes(self) -> None:
        """Take note of files that were written to."""
        for watch in self._watches.changed():
            if watch == RenamedWatches.OVERFLOW:
                names = [*self._consoles]
            else:
                names = [self._watched[watch]] if watch in self._watched else []
            for name in names:
                self._consoles[name].wake()
                self._dirty[name] = None

    def round(self) -> None:
        """Give each console with something new its turn, until all are at rest, the log takes nothing, or time is up."""
        self._blocked = False
        self.tell()
        if self._blocked:
            return
        deadline = time.monotonic() + ROUND_SECONDS
        while self._dirty and time.monotonic() < deadline:
            name = next(iter(self._dirty))
            del self._dirty[name]
            outcome = self._step(name)
            if outcome is StepOutcome.MORE:
                self._dirty[name] = None  # behind the others
            elif outcome is StepOutcome.BLOCKED:
                self._dirty[name] = None
                return

    def tell(self) -> None:
        """Send the daemon's own entries, as far as the log takes them."""
        while self._entries and self._send(self._entries[0]):
            self._entries.popleft()

    def look_for_files(self) -> None:
        """Have consoles looked at that wait for a file, or with something to tell.

        Not in each round: while many containers start or end there is a round for each, and a look at all of them.
        """
        now = time.monotonic()
        if self._due and now >= self._look_at:
            self._look_at = now + ADRIFT_SECONDS
            self._dirty.update(self._due)

    def pause(self) -> float | None:
        """Seconds to sleep at most; None: until something comes."""
        if self._blocked:
            return RETRY_SECONDS
        if self._dirty:
            return 0.0
        return max(0.0, self._look_at - time.monotonic()) if self._due else None

    @property
    def waiting(self) -> int | None:
        """The descriptor to poll for room in the host's log; None: there is nothing to send, or nowhere to."""
        return self._log.waiting if self._blocked and self._log is not None else None

    def _step(self, name: str) -> StepOutcome:
        console = self._consoles[name]
        try:
            outcome = StepOutcome.REST
            if console.open():
                if not console.over:
                    self._watch(name, console)
                outcome = console.step(self._send)
        except OSError as error:
            self._unread[name] = f"the console of {name} can't be read: {error.strerror}"
            return StepOutcome.REST
        else:
            self._unread.pop(name, None)
        finally:
            if console.adrift or console.untold or name in self._unread:
                self._due[name] = None
            else:
                self._due.pop(name, None)
        if outcome is StepOutcome.REST and console.over and not console.untold:
            self._forget(name)
        return outcome

    def _watch(self, name: str, console: Console) -> None:
        """Watch the file that the console is about to be read from, and no other one: what comes after that is told."""
        if self._watch_of.get(name, (-1, -1))[1] == console.file:
            return
        self._unwatch(name)
        if console.descriptor is not None:
            with contextlib.suppress(OSError):
                watch = self._watches.add(console.descriptor)
                self._watched[watch] = name
                self._watch_of[name] = watch, console.file

    def _unwatch(self, name: str) -> None:
        if name in self._watch_of:
            watch, _ = self._watch_of.pop(name)
            del self._watched[watch]
            self._watches.remove(watch)

    def _send(self, entry: bytes) -> bool:
        if self._log is None:
            return True
        sent = self._log.send(entry)
        self._blocked = self._blocked or not sent
        return sent


def serve(requests: socket.socket, follower: Follower) -> None:
    """Until the daemon has ended."""
    requests.setblocking(False)
    told, earliest = "", 0.0
    while True:
        poller = select.poll()
        poller.register(requests, select.POLLIN)
        poller.register(follower.watches, select.POLLIN)
        if (room := follower.waiting) is not None:
            poller.register(room, select.POLLOUT)
        pause = follower.pause()
        poller.poll(None if pause is None else pause * 1000)
        if (early := earliest - time.monotonic()) > 0:
            time.sleep(early)
        for order in _orders(requests):
            if order is None:
                follower.tell()
                return
            follower.obey(order)
        follower.note_changes()
        follower.look_for_files()
        follower.round()
        if follower.trouble != told:
            told = follower.trouble
            with contextlib.suppress(OSError):  # it hears of the next one
                requests.send(json.dumps({"trouble": told}).encode())
        rests = follower.pause() != 0.0 and follower.waiting is None
        earliest = time.monotonic() + GATHER_SECONDS if rests else 0.0


def _orders(requests: socket.socket) -> Iterator[Mapping[str, Any] | None]:
    """The orders that the daemon has sent; None once it has ended."""
    while True:
        try:
            data = requests.recv(LONGEST)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            yield None
            return
        yield json.loads(data)


def main() -> None:
    """The program. It inherits the daemon's lock, so that the next daemon, and its servant, begin after it has ended."""
    number, _ = sys.argv[1:]
    serve(socket.socket(fileno=int(number)), Follower(os.uname().nodename))


if __name__ == "__main__":
    main()
