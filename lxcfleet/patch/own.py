"""lxcfleet's own parts, which run on the host: whether they run old code, and their renewal.

The parts are the daemon, its launcher, booter and attacher, the forwarder of consoles, dnsmasq and the responder behind it. A
monitor belongs to its container, see stale.scan. Sessions of `exec` and `shell` have processes on the host, too, which are
copies of the attacher. They are looked at, and end with their commands: nothing renews them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import sysconfig
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from lxcfleet.api.findings import PartRecord
from lxcfleet.errors import FleetError
from lxcfleet.host.kernel import syscalls
from lxcfleet.host.packages import lists
from lxcfleet.host.packages.database import OwningPackage
from lxcfleet.host.process import outdated, proc, sessions
from lxcfleet.launcher.client import ATTACHER, LAUNCHER, SERVANTS, Launcher
from lxcfleet.patch.events import PartRenewed
from lxcfleet.patch.owners import Owners, file_record
from lxcfleet.patch.stale.judge import OldFile, Process, Why, replaced_at
from lxcfleet.runtime.bus import Bus
from lxcfleet.runtime.tasks import Tasks

log = logging.getLogger(__name__)

DAEMON, DNSMASQ, RESPONDER, FORWARDER = "lxcfleetd", "dnsmasq", "responder", "forwarder"
SESSION = "exec"
"""The name of all sessions, whether of `exec` or `shell`."""
_PYTHON = (DAEMON, LAUNCHER, ATTACHER, RESPONDER, FORWARDER)
"""The parts that read modules of packages."""
_LAYER = "base"
"""The host's root, as records of old files name it."""
_STANDARD = sysconfig.get_path("stdlib") + "/"
_PACKAGES = "/usr/lib/python3/dist-packages/"
_OWN = f"{_PACKAGES}lxcfleet/"
"""Left out: when lxcfleet itself is upgraded, its package restarts the daemon, and the responder is told by its version."""
_DNSPYTHON = f"{_PACKAGES}dns/"


@dataclass(frozen=True)
class OwnProcess:
    """A process of lxcfleet's own."""

    name: str
    pid: int
    files: tuple[OldFile, ...] = ()
    """The old files that it runs."""
    container: str = ""
    """The container in which it serves a command, if it is a session."""
    began: float = 0.0
    """The start of a session, in seconds since the epoch."""

    @property
    def stale(self) -> bool:
        """Whether it runs old code."""
        return bool(self.files)


class Programs(Protocol):
    """The network, as far as it has programs on the host."""

    def programs(self) -> dict[str, int]:
        """The pids of the programs that run, by name."""

    async def renew(self, program: str) -> None:
        """Have one of them run as it is on disk now. Raises FleetError."""


class Forwarder(Protocol):
    """The process that passes consoles on."""

    @property
    def pid(self) -> int | None:
        """Its pid, while it runs."""

    async def renew(self) -> None:
        """Have it run as it is on disk now."""


class OwnParts:
    """Looks at the parts, and renews them."""

    def __init__(
        self, launcher: Launcher, network: Programs, owners: Owners, bus: Bus, tasks: Tasks, sessions_noted: Path,
        forwarder: Forwarder,
    ) -> None:  # fmt: skip
        """``sessions_noted``: the directory of notes of sessions."""
        self._launcher, self._network, self._owners, self._bus, self._tasks = launcher, network, owners, bus, tasks
        self._sessions_noted, self._forwarder = sessions_noted, forwarder
        self._servants = asyncio.Lock()
        self._renewal: asyncio.Task[None] | None = None
        self.renewing: Collection[str] = ()
        """The names of the parts that are being renewed, or will be soon."""
        self.awaited = False
        """Whether packages of the host change now, after which all that runs old code is renewed."""
        self.daemon_due = False
        """Whether the daemon is to be started anew as soon as nothing is under way."""

    def begin(self, *, daemon: bool) -> None:
        """Begin to renew the parts that run old code. ``daemon``: also the daemon itself."""
        if self._renewal is None or self._renewal.done():
            self._renewal = self._tasks.do("own-parts", lambda: self.renew(daemon=daemon))

    async def renew(self, *, daemon: bool) -> None:
        """Renew the parts that run old code, one after the other. Containers run on."""
        old = {part.name for part in await self.look() if part.stale}
        if not daemon:
            old.discard(DAEMON)
        self.renewing = old
        try:
            await self.renew_servants()
            if FORWARDER in old:
                await self._forwarder.renew()
                self._bus.publish(PartRenewed(FORWARDER))
            for name in (RESPONDER, DNSMASQ):
                if name in old:
                    await self._renew_program(name)
        finally:
            self.renewing = old & {DAEMON}
            self.daemon_due = self.daemon_due or DAEMON in old

    async def _renew_program(self, name: str) -> None:
        try:
            await self._network.renew(name)
        except (FleetError, OSError) as error:
            log.error("%s runs old code and can't be renewed: %s", name, str(error).replace("\n", "; "))
        else:
            self._bus.publish(PartRenewed(name))

    async def look(self) -> list[OwnProcess]:
        """All parts that run, without sessions."""
        pids = {DAEMON: os.getpid(), **self._launcher.processes, **self._network.programs()}
        if (forwarder := self._forwarder.pid) is not None:
            pids[FORWARDER] = forwarder
        return await asyncio.to_thread(_look, pids)

    async def renew_servants(self) -> None:
        """Have the launcher, the booter and the attacher started anew if they run old code: monitors of containers are copies
        of the booter. Containers run on."""
        async with self._servants:
            old = [part.name for part in await self.look() if part.stale and part.name in SERVANTS]
            await self._launcher.renew(old)
        for name in old:
            self._bus.publish(PartRenewed(name))

    async def records(self, packages: Collection[str] = ()) -> list[PartRecord]:
        """The parts and sessions in the API's form. ``packages``: only files of these count; none: all count."""
        parts = [*await self.look(), *await asyncio.to_thread(_sessions, self._sessions_noted)]
        owners = await self._owners.find(file.path for part in parts for file in part.files if not file.package)
        return [self._record(part, owners, packages) for part in parts]

    def _record(self, part: OwnProcess, owners: dict[str, OwningPackage], packages: Collection[str]) -> PartRecord:
        files = [file_record(file, owners.get(file.path)) for file in part.files]
        counted = [file for file in files if not packages or file["package"] in packages or file["why"] == Why.REMOVED]
        renewing = part.name in self.renewing
        return {
            "name": part.name,
            "pid": part.pid,
            "container": part.container or None,
            "since": _when(part.began) if part.container else None,
            "stale": bool(counted),
            "renewing": renewing,
            "files": counted,
            "hint": hint(part.name, renewing=renewing, awaited=self.awaited) if counted else "",
        }


def hint(name: str, *, renewing: bool, awaited: bool) -> str:
    """The renewal of a part that runs old code, in words. ``awaited``: packages of the host change now. Pure."""
    if name == SESSION:
        return "it ends with its command, and nothing restarts it"
    if awaited and not renewing:
        return "it is renewed once the host's packages stop changing"
    if name == DAEMON:
        if renewing:
            return "it starts itself anew as soon as nothing is under way"
        return "systemctl restart lxcfleet renews it; containers run on"
    return "it is being renewed" if renewing else "lxcfleet patch notify has it renewed once the host is quiet"


def _when(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _look(pids: dict[str, int]) -> list[OwnProcess]:
    began = {name: time for name, pid in pids.items() if name in _PYTHON and (time := _began(pid)) is not None}
    modules = _Modules(min(began.values(), default=None))
    return [
        OwnProcess(name, pid, (*_mapped(name, pid), *modules.old(name, Process(pid, name), began.get(name))))
        for name, pid in pids.items()
    ]


def _sessions(noted: Path) -> list[OwnProcess]:
    found = sessions.running(noted)
    modules = _Modules(min((proc.as_time(each.loaded) for each in found), default=None))
    return [
        OwnProcess(
            SESSION, each.pid,
            (*_mapped(SESSION, each.pid), *modules.old(ATTACHER, Process(each.pid, SESSION), proc.as_time(each.loaded))),
            each.container, proc.as_time(each.began),
        )
        for each in found
    ]  # fmt: skip


class _Modules:
    """Python modules of packages that were installed lately."""

    def __init__(self, since: float | None) -> None:
        """``since``: seconds since the epoch; None: nobody asks."""
        self._lately = {} if since is None else lists.changed_since(since)
        self._loaded = _loaded()

    def old(self, name: str, process: Process, began: float | None) -> Iterable[OldFile]:
        """Modules that were replaced since the part ``name`` began, one of each package: the part may have read them."""
        for package, paths in self._lately.items() if began is not None else ():
            for path in paths:
                if may_have_read(name, path, self._loaded) and began is not None and _changed(path) > began:
                    yield OldFile(path, Why.MODULES, _LAYER, (process,), package)
                    break


def _mapped(name: str, pid: int) -> Iterable[OldFile]:
    for path, removed in outdated.files(pid):
        yield OldFile(path, Why.REMOVED if removed else Why.REPLACED, _LAYER, (Process(pid, name),))


def _began(pid: int) -> float | None:
    """When the process began to run its program, in seconds since the epoch."""
    since = proc.began(pid)
    return None if since is None else max(proc.as_time(since), proc.ran_anew(pid) or 0.0)


def may_have_read(name: str, path: str, loaded: Collection[str]) -> bool:
    """Whether a part may have read this Python module. Pure.

    ``loaded``: the modules of the daemon. The other parts share the standard library with it, and little else.
    """
    if path.startswith(_OWN):
        return False
    if name == DAEMON:
        return path in loaded
    if name == RESPONDER and path.startswith(_DNSPYTHON):
        return path.endswith(".py")
    return name in (LAUNCHER, ATTACHER, RESPONDER, FORWARDER) and path.startswith(_STANDARD) and path in loaded


def _loaded() -> set[str]:
    return {file for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}


def _changed(path: str) -> float:
    try:
        status = os.lstat(path)
    except OSError:
        return 0.0
    return replaced_at(syscalls.born(path) if status.st_nlink > 1 else None, status.st_ctime, status.st_nlink)
