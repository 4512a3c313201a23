"""The daemon's end of the process that passes consoles on (logs.servant): starts it, and tells it which containers there
are."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lxcfleet.containers.container import Container, Running
from lxcfleet.errors import HostError
from lxcfleet.host.kernel import tree
from lxcfleet.host.process.servant import Servant, readable, send_datagram
from lxcfleet.logs import messages
from lxcfleet.paths import Paths
from lxcfleet.runtime.bus import Told
from lxcfleet.spec.container.logs import USUAL_LOGS
from lxcfleet.spec.files.settings import LogsSettings, LogTarget

log = logging.getLogger(__name__)

NAME = "log forwarder"
IDENTIFIER = "lxcfleet"
"""The name under which events are in the host's log."""
_WARNING, _INFO = 4, 6
_LONGEST = 4096
"""Characters of an event's message there."""
TAG = "tag"
"""The label whose value is CONTAINER_TAG."""
_FACILITY = "3"
"""syslog's "daemon"."""
_MOST_TOLD = 1000
"""The events that wait for the next process, if that can't be started."""
RENEWAL_SECONDS = 10.0
_REPORT = 4096
"""Bytes of what the process has to say."""


def target(settings: LogsSettings) -> tuple[str, str]:
    """The receiver of the lines (journal, syslog or none), and its socket."""
    usual = {LogTarget.SYSLOG: "/dev/log"}.get(settings.to, "/run/systemd/journal/socket")
    path = settings.socket or usual
    if settings.to is LogTarget.AUTO:
        return (LogTarget.JOURNAL.value if os.path.exists(path) else LogTarget.NONE.value), path
    return settings.to.value, path


def fields(container: Container, running: Running | None) -> dict[str, str]:
    """The fields of a container's entries, by the names that shippers of journals know from Docker, and our own. Pure."""
    spec = container.spec
    said = {
        "CONTAINER_NAME": container.name,
        "CONTAINER_TAG": container.labels.get(TAG, container.name),
        "SYSLOG_IDENTIFIER": container.name,
        "SYSLOG_FACILITY": _FACILITY,
        "LXCFLEET_GROUP": (spec.group or "") if spec else "",
        "LXCFLEET_FLEET": (spec.fleet or "") if spec else "",
        "LXCFLEET_RUN": running.identity if running else "",
        "OBJECT_PID": str(running.pid) if running else "",
    }
    return {key: value for key, value in said.items() if value}


class Keeper:
    """Keeps the process, and has it follow consoles. Its methods never wait; ``run`` sends what they leave behind."""

    def __init__(self, paths: Paths, settings: LogsSettings, containers: Iterable[Container]) -> None:
        """``containers``: all of them, whenever they are asked for."""
        self._paths = paths
        self._settings = settings
        self._containers = containers
        self._orders: list[Mapping[str, Any]] = []
        self._news = asyncio.Event()
        self._servant: Servant | None = None
        self._anew = False
        self._to = ""
        """The receiver of the lines of the process that runs."""
        self.trouble = ""
        """Why lines can't be passed on; empty: they can."""

    @property
    def pid(self) -> int | None:
        """Of the process, while it runs."""
        return None if self._servant is None else self._servant.pid

    # -- what happens ----------------------------------------------------------------------------------------

    def began(self, container: Container) -> None:
        """A container began to run, or was found running."""
        self._tell(self._follow(container, container.running))

    def ended(self, container: Container, running: Running | None) -> None:
        """A container ended. Its last line may have no end."""
        self._tell(self._follow(container, running, over=True))

    def respecified(self, container: Container) -> None:
        """A container that runs has another spec: its fields or its limits may be others."""
        self._tell(self._follow(container, container.running))

    def acted(self, container: Container) -> None:
        """An action on a container is over: it may have run for so short that nobody saw it."""
        if container.running is None:
            self._tell(self._follow(container, None, over=True))

    def forget(self, container: Container) -> None:
        """A container is no more."""
        self._tell({"do": "forget", "name": container.name})

    def take_over(self, settings: LogsSettings) -> None:
        """Use other settings."""
        if settings != self._settings:
            self._settings = settings
            self._begin_anew()

    async def renew(self) -> None:
        """Have another process, as it is on disk now, go on, and return once it does, or after some seconds."""
        before, deadline = self.pid, time.monotonic() + RENEWAL_SECONDS
        self._begin_anew()
        while self.pid in (before, None) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    def _begin_anew(self) -> None:
        self._anew = True
        self._news.set()

    def tell(self, told: Told, container: Container | None) -> None:
        """An event that users are to see. ``container``: the one that it happened to, while there is one."""
        if self._to == LogTarget.NONE.value:
            return
        own = {} if container is None else fields(container, container.running)
        said = {
            **own, "SYSLOG_IDENTIFIER": IDENTIFIER, "SYSLOG_FACILITY": _FACILITY,
            **({"CONTAINER_NAME": told.container} if told.container else {}),
            "LXCFLEET_EVENT": told.what, "MESSAGE_ID": messages.message_id(told.what),
        }  # fmt: skip
        subject = f"{told.container}: " if told.container else ""
        text = f"{subject}{told.what}{f': {told.message}' if told.message else ''}"
        priority = _WARNING if messages.is_warning(told.what) else _INFO
        self._tell({"do": "tell", "fields": said, "message": text[:_LONGEST], "priority": priority})

    @property
    def journaled(self) -> bool:
        """Whether events reach the journal as entries of their own, and the daemon's log is in the journal, too."""
        return self._to == LogTarget.JOURNAL.value and "JOURNAL_STREAM" in os.environ and self.pid is not None

    # -- work ------------------------------------------------------------------------------------------------

    async def run(self, lock: int) -> None:
        """Keep the process for as long as the daemon runs. ``lock``: the daemon's lock. Raises HostError if it ends."""
        package = str(Path(__file__).resolve().parents[2])
        environment = {**os.environ, **self._paths.environment(), "PYTHONPATH": package}
        arguments = ["-P", "-s", "-m", "lxcfleet.logs.servant", "{requests}", "{lock}"]
        # Of each container that runs it has two files open: the usual limit is enough for five hundred.
        self._servant = servant = Servant(NAME, arguments, lock, environment, wide=True)
        while True:
            await servant.end()
            # What happened meanwhile the next process tells, once it knows all the rest anew.
            told = [order for order in self._orders if order["do"] == "tell"][-_MOST_TOLD:]
            self._anew, self._orders = False, []
            self._begin()
            self._orders += told
            connection = servant.start()
            reports = asyncio.create_task(self._hear(connection))
            reports.add_done_callback(lambda _: self._news.set())
            try:
                await self._send_all(connection, reports)
            finally:
                reports.cancel()

    def close(self) -> None:
        """The daemon ends, and with it the process."""
        if self._servant is not None:
            self._servant.close()

    def _begin(self) -> None:
        """Leave everything behind that a new process has to know."""
        to, path = target(self._settings)
        self._to = to
        self._tell({"do": "settings", "to": to, "socket": path})
        first = not self._paths.logs_begun.exists()
        for container in self._containers:
            # What stood in files before there was any passing on is old.
            running = container.running
            self._tell(self._follow(container, running, over=running is None, skip=first))
        if first:
            try:
                self._paths.state.mkdir(mode=0o755, parents=True, exist_ok=True)
                tree.write(self._paths.logs_begun, "")
            except OSError as error:
                log.warning("what containers print now may not be passed on after a restart of lxcfleetd: %s", error)

    async def _send_all(self, connection: socket.socket, reports: asyncio.Task[None]) -> None:
        while not self._anew:
            self._news.clear()
            orders, self._orders = self._orders, []
            for order in orders:
                await send_datagram(connection, json.dumps(order).encode(), ())
            await self._news.wait()
            if reports.done():
                reports.result()
                raise HostError(f"the {NAME} has ended", why="what containers print waits in their consoles' files")

    async def _hear(self, connection: socket.socket) -> None:
        """Until the process has ended."""
        while True:
            await readable(connection)
            try:
                data = connection.recv(_REPORT)
            except BlockingIOError:
                continue
            except ConnectionError:
                return
            if not data:
                return
            self._report(json.loads(data))

    def _report(self, report: Mapping[str, Any]) -> None:
        self.trouble = str(report["trouble"])
        if self.trouble:
            log.warning("what containers print waits in their consoles' files: %s", self.trouble)
        else:
            log.info("what containers print is passed on again")

    def _tell(self, order: Mapping[str, Any]) -> None:
        self._orders.append(order)
        self._news.set()

    def _follow(
        self, container: Container, running: Running | None, *, over: bool = False, skip: bool = False
    ) -> dict[str, Any]:
        mark = None if over or container.console is None else list(container.console)
        return {
            "do": "follow",
            "name": container.name,
            "directory": str(self._paths.container(container.name).directory),
            "fields": fields(container, running),
            "mark": mark,
            "over": over,
            "skip": skip,
            **self._limits(container),
        }

    def _limits(self, container: Container) -> dict[str, Any]:
        """The limits for its lines that are passed on: as its spec says, or else the settings."""
        spec = container.spec or container.wanted
        own = spec.logs if spec is not None else USUAL_LOGS
        rate = self._settings.rate if own.rate is None else own.rate
        return {"journal": own.journal, "rate": rate, "burst": own.burst or self._settings.burst}
