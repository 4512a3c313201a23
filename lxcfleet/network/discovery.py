"""Where the fleet's containers can be found: by their own names, by the names of their groups, and behind ports."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import time
from collections.abc import Mapping
from pathlib import Path

from lxcfleet.containers.container import Container
from lxcfleet.host.net import dhcp, sockets
from lxcfleet.network import opening
from lxcfleet.network.addresses.ranges import is_tentative
from lxcfleet.network.context import Context
from lxcfleet.network.membership import Membership
from lxcfleet.network.names.hosts import hosts_lines
from lxcfleet.network.publishing import Publishing
from lxcfleet.runtime.soon import Soon
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

TENTATIVE_SECONDS = 0.5
"""Where a container's kernel looks whether somebody else has its IPv6 address, that takes up to two seconds."""
CLOSED_SECONDS = 0.1
"""Between two looks at whether programs listen."""
_LOOK_SHARE = 5
"""A look is followed by a pause of at least so many times the time of the processor that it took. It ends with the first
seconds of a container."""


class Discovery:
    """Keeps one file per container that is to be found, which the name server watches, and has ports follow."""

    def __init__(self, context: Context, membership: Membership, publishing: Publishing) -> None:
        self._context = context
        self._membership = membership
        self._publishing = publishing
        self._tentative: dict[str, Container] = {}
        complaint = "IPv6 addresses of containers are not found"
        self._tentative_soon = Soon(context.tasks, "tentative-addresses", self._await_addresses, complaint)
        self._closed: dict[str, Container] = {}
        complaint = "containers that listen now are not found"
        self._closed_soon = Soon(context.tasks, "closed-ports", self._await_ports, complaint)

    def publish(self, container: Container) -> None:
        """Let a container that runs be found; if it has no address yet, as soon as ``moved`` is called. Raises OSError."""
        if container.spec is None or not container.spec.connected:
            return
        self._membership.find(container.name)
        self._look_at_address(container)
        self._look_at_ports(container)
        try:
            self._write(container)
        finally:
            self._tell_ports(container.name)

    def withdraw(self, name: str) -> None:
        """Let it no longer be found: it ended, or is about to."""
        try:
            self._file(name).unlink(missing_ok=True)
        except OSError as error:  # nothing that ends, or is destroyed, waits for this
            log.error("%s is still found by its name, as that can't be removed: %s", name, error)
        if self._membership.lose(name):
            self._tell_ports(name)

    def _look_at_address(self, container: Container) -> None:
        """An IPv6 address is found once it answers: who asks for it before waits for two seconds."""
        spec, running = container.spec, container.running
        container.tentative = (
            spec is not None and spec.address6 is not None and running is not None
            and is_tentative(dhcp.addresses6(running.pid), spec.address6.ip)
        )  # fmt: skip
        if container.tentative:
            self._tentative[container.name] = container
            self._tentative_soon.kick()

    async def _await_addresses(self) -> None:
        """Publish addresses that answer meanwhile."""
        while self._tentative:
            await asyncio.sleep(TENTATIVE_SECONDS)
            waiting, self._tentative = self._tentative, {}
            for container in waiting.values():
                if self._membership.is_found(container.name):
                    self._publish_later(container)

    def _publish_later(self, container: Container) -> None:
        """Publish one of several, which must not keep the others from that."""
        try:
            self.publish(container)
        except OSError as error:
            self._complain(container, error)

    def _complain(self, container: Container, error: OSError) -> None:
        log.error("%s is not found by all of its names, as they can't be written: %s", container.name, error)

    def _look_at_ports(self, container: Container) -> bool:
        """Nobody is led to ports of the host's that no program listens behind yet. Whether that changed."""
        spec, running = container.spec, container.running
        closed = False
        if spec is not None and running is not None and opening.is_watched(spec) and running.age < opening.OPEN_SECONDS:
            protocols = {publication.protocol for publication in spec.publish}
            closed = not opening.is_open(spec, sockets.listening(running.pid, protocols), running.age)
        if closed:
            self._closed[container.name] = container
            self._closed_soon.kick()
        return self._membership.set_closed(container.name, closed)

    async def _await_ports(self) -> None:
        """Lead clients to programs that listen meanwhile."""
        pause = CLOSED_SECONDS
        while self._closed:
            await asyncio.sleep(pause)
            waiting, self._closed = self._closed, {}
            spent = 0.0
            for container in waiting.values():
                begun = time.thread_time()
                if self._membership.is_found(container.name) and self._look_at_ports(container):
                    self._publish_later(container)
                spent += time.thread_time() - begun
                await asyncio.sleep(0)  # nobody else waits for the looks at all of them
            # Time of the processor, and not that for which others had it: on a busy host nobody was led anywhere for seconds.
            pause = max(CLOSED_SECONDS, _LOOK_SHARE * spent)

    def moved(self, container: Container) -> None:
        """It has other addresses than before, or none any more."""
        if self._membership.is_found(container.name):
            self.publish(container)

    def set_member(self, container: Container, healthy: bool) -> None:
        """Have it among the answers for its groups, or not. Holds over its restarts until the next call."""
        if self._membership.set_fit(container.name, healthy):
            self.moved(container)

    def set_frozen(self, container: Container, frozen: bool) -> None:
        """A frozen container answers nobody, and is no member."""
        if self._membership.set_frozen(container.name, frozen):
            self.moved(container)

    def look_at(self, container: Container) -> None:
        """Take note of whether it is frozen; somebody else may have done that."""
        self.set_frozen(container, container.running is not None and container.running.payload.frozen)

    def look(self) -> None:
        """Take note of containers that somebody else froze or thawed, as plain lxc-freeze does.

        Only where that matters: one without groups and ports is found by its own name alone, which stays.
        """
        for container in self._context.registry:
            if self._membership.is_found(container.name) and container.busy is None and _may_stand_for_others(container):
                self.look_at(container)

    def ended(self, name: str) -> None:
        """It has ended, however: nobody finds it, and when it is started again it is not frozen."""
        self.withdraw(name)
        self._membership.set_frozen(name, False)
        self._membership.set_closed(name, False)

    def forget(self, name: str) -> None:
        """It is destroyed."""
        self.withdraw(name)
        self._membership.forget(name)

    def write_all(self) -> None:
        """Other settings are in force: so may the names be. A name that can't be written keeps no other from that."""
        for container in self._context.registry:
            if self._membership.is_found(container.name):
                try:
                    self._write(container)
                except OSError as error:
                    self._complain(container, error)

    def _tell_ports(self, name: str) -> None:
        registry = self._context.registry
        spec = registry[name].spec if name in registry else None
        if spec is not None and spec.publish:
            self._publishing.kick()

    # -- files -----------------------------------------------------------------------------------------------

    def _file(self, name: str) -> Path:
        return self._context.paths.hosts / name

    def _text(self, container: Container, *, member: bool) -> str | None:
        spec, settings, addresses = container.spec, self._context.settings, container.answering
        if spec is None or not addresses or not settings.dns:
            return None
        labels, aliases = (spec.labels, spec.aliases) if member else ({}, ())
        return hosts_lines(container.name, labels, addresses, settings.domain, spec.ports, aliases)

    def _write(self, container: Container) -> None:
        text = self._text(container, member=self._membership.is_member(container.name))
        file = self._file(container.name)
        if text is None:
            _remove(file, self._context.paths.run)
            return
        with contextlib.suppress(FileNotFoundError):
            if self._content(file) == text:
                return
        # By a rename: the name server must never read half a file.
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = self._context.paths.run / f"hosts.{container.name}"
        _remove(new, self._context.paths.run)
        with open(new, "x", encoding="ascii", opener=_opened) as fresh:
            fresh.write(text)
        os.rename(new, file)

    def _content(self, file: Path) -> str:
        """The text of a file that somebody may have damaged; empty: another thing is in its place, which makes room."""
        try:
            if stat.S_ISREG(os.lstat(file).st_mode):
                return ondisk.text(file, "ascii", "replace")
        except IsADirectoryError:
            pass
        _remove(file, self._context.paths.run)
        return ""

    # -- over a restart of the daemon ------------------------------------------------------------------------

    def settle(self) -> None:
        """Have names for what runs and for nothing else; members are those that were."""
        alive = {c.name: c for c in self._context.registry if c.running is not None}
        for container in alive.values():
            self.look_at(container)
            self._look_at_address(container)
        if self._context.paths.hosts.is_dir():
            self._read_back(alive)
        for container in alive.values():
            self._publish_later(container)

    def _is_unseen(self, name: str) -> bool:
        """Whether it may run: then its name stays."""
        return name in self._context.registry and self._context.registry[name].unseen

    def _read_back(self, alive: Mapping[str, Container]) -> None:
        """Containers that were no members are told by what is written of them."""
        for file in self._context.paths.hosts.iterdir():
            container = alive.get(file.name)
            try:
                if container is None:
                    if not self._is_unseen(file.name):
                        _remove(file, self._context.paths.run)
                    continue
                found = self._content(file)
            except OSError as error:
                log.error("%s, where the name server looks for names, can't be taken over: %s", file, error)
                continue
            alone = self._text(container, member=False)
            seen = found == alone != self._text(container, member=True)
            # One without a check was no member because it was frozen, and whether it still is has been looked at.
            checked = container.spec is not None and container.spec.check is not None
            if seen and checked and not self._membership.is_frozen(container.name):
                self._membership.set_fit(container.name, False)


def _may_stand_for_others(container: Container) -> bool:
    own = container.spec
    return own is not None and bool(own.labels or own.aliases or own.publish)


def _opened(file: str, flags: int) -> int:
    return os.open(file, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)


def _remove(file: Path, aside: Path) -> None:
    """Remove what is in the place of a file. A directory, which is not ours, goes ``aside``: the name server reads none."""
    try:
        file.unlink(missing_ok=True)
    except IsADirectoryError:
        os.rename(file, aside / f".not-a-file.{file.name}.{time.time_ns()}")
        log.warning("%s was a directory, and is in %s now", file, aside)
