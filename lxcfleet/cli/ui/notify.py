"""Telling systemd, or whoever else set NOTIFY_SOCKET, how the container is; sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time

from lxcfleet.api.client import Client
from lxcfleet.errors import FleetError, NotFound
from lxcfleet.spec.states import Health, State

LOOK_SECONDS = 0.25
"""Seconds between two looks at the container while it starts."""
_CALM_SECONDS = 2.0
"""The same once it is healthy."""
EXTEND_SECONDS = 30.0
"""A start that is still going on may take so much longer, again and again."""
_EXTEND_PAUSE = 10.0


def tell(state: str) -> None:
    """Send it, if anybody wants to hear. Does not wait: what nobody reads is lost."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(state.encode(), socket.MSG_DONTWAIT, address.replace("@", "\0", 1))


class Teller(threading.Thread):
    """Looks at the container and tells: READY=1 once it is healthy, how it is, and that it lives (WATCHDOG=1).

    Before the container has begun, it asks for more time as long as the daemon answers: the daemon makes or starts it, and
    has limits of its own for that. While the container only waits for something else, as for one that it depends on, it does
    not: that may never come.
    While the daemon is away nothing new is known, and the container runs on: so it counts as it was.
    """

    def __init__(self, client: Client, name: str) -> None:
        super().__init__(daemon=True)
        self._client, self._name = client, name
        self._begun = self._over = False
        self._turn = threading.Event()
        """It has begun, or is over: there is no need to wait for the next look."""
        self._ready = False
        self._told = ""
        self._extended = -_EXTEND_PAUSE
        self._health: str | None = None
        limit = os.environ.get("WATCHDOG_USEC", "")
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(limit) / 3e6 if limit.isdigit() and mine else None

    def run(self) -> None:
        """The thread."""
        while not self._over:
            self._look()
            pause = _CALM_SECONDS if self._ready or not self._begun else LOOK_SECONDS
            self._turn.wait(pause if self._watchdog is None else min(pause, self._watchdog))
            self._turn.clear()

    def begin(self) -> None:
        """The container has begun: from now on its health counts, and not that of a former run."""
        self._begun = True
        self._turn.set()

    def end(self) -> None:
        """The container ends."""
        self._over = True
        self._turn.set()

    def _look(self) -> None:
        begun = self._begun
        try:
            record = self._client.info(self._name)
        except NotFound:
            if not begun:
                self._extend()  # it is being made
            return
        except FleetError:
            record = None
        if self._over:
            return
        if not begun:
            if record is not None and record["state"] != State.BLOCKED:
                self._extend()
            return
        if record is not None:
            self._health = record["health"]
            reason = record["health_reason"]
            self._status(f"{record['state']}{f', {self._health}' if self._health else ''}{f': {reason}' if reason else ''}")
        if self._health == Health.HEALTHY and not self._ready:
            self._ready = True
            tell("READY=1")
        if self._health == Health.STARTING and not self._ready:
            self._extend()
        if self._watchdog is not None and self._health != Health.UNHEALTHY:
            tell("WATCHDOG=1")

    def _extend(self) -> None:
        if time.monotonic() - self._extended > _EXTEND_PAUSE:
            self._extended = time.monotonic()
            tell(f"EXTEND_TIMEOUT_USEC={EXTEND_SECONDS * 1e6:.0f}")

    def _status(self, text: str) -> None:
        line = " ".join(text.split())[:200]
        if line != self._told:
            self._told = line
            tell(f"STATUS={line}")
