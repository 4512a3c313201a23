"""Where the fleet's containers can be found: by their own names, and by the names of their groups."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.network.hosts import hosts_lines
from lxcfleet.paths import Paths
from lxcfleet.spec.settings import NetworkSettings

log = logging.getLogger(__name__)


class Discovery:
    """Keeps one file per container that is to be found, which the name server watches.

    A container that runs has its own name. It is a *member* of its groups, and so found by their names too, unless
    somebody said that it is not healthy, or it is frozen.
    """

    def __init__(
        self, paths: Paths, settings: NetworkSettings, registry: Registry, changed: Callable[[str], None]
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._registry = registry
        self._changed = changed
        self._found: set[str] = set()
        self._unfit: set[str] = set()
        self._frozen: set[str] = set()

    def take_over(self, settings: NetworkSettings) -> None:
        """The settings are others now: so may the names be."""
        self._settings = settings
        for container in self._registry:
            if self.is_found(container.name):
                self._write(container)

    def is_member(self, container: Container) -> bool:
        """Whether it would be found by its groups' names, if it is found at all."""
        return container.name not in self._unfit and container.name not in self._frozen

    def set_member(self, container: Container, healthy: bool) -> None:
        """Have it among the answers for its groups, or not. Holds over its restarts until the next call."""
        self._mark(self._unfit, container, not healthy)

    def set_frozen(self, container: Container, frozen: bool) -> None:
        """A frozen container answers nobody, and is no member."""
        self._mark(self._frozen, container, frozen)

    def look(self) -> None:
        """Take note of who was frozen or thawed by somebody else, such as plain lxc-freeze."""
        for container in self._registry:
            if container.name in self._found and container.busy is None:
                self.look_at(container)

    def look_at(self, container: Container) -> None:
        """Take note of whether it is frozen, by whoever did it."""
        self.set_frozen(container, container.running is not None and container.running.payload.frozen)

    def _mark(self, names: set[str], container: Container, marked: bool) -> None:
        if marked != (container.name in names):
            (names.add if marked else names.discard)(container.name)
            if self.is_found(container.name):
                self.publish(container)

    def is_found(self, name: str) -> bool:
        """Whether it is published at the moment."""
        return name in self._found

    def members(self) -> list[Container]:
        """All that stand for their groups, and behind the host's ports."""
        return [c for c in self._registry if c.name in self._found and c.addresses and self.is_member(c)]

    def publish(self, container: Container) -> None:
        """Let the container be found; if it has no address yet, as soon as ``moved`` says that it has."""
        if container.spec is None or not container.spec.connected:
            return
        self._found.add(container.name)
        self._write(container)
        self._changed(container.name)

    def moved(self, container: Container) -> None:
        """It has other addresses, or none any more."""
        if self.is_found(container.name):
            self.publish(container)

    def _write(self, container: Container) -> None:
        text = self._text(container, self.is_member(container))
        if text is None:
            self._file(container.name).unlink(missing_ok=True)
            return
        with contextlib.suppress(FileNotFoundError):
            if self._file(container.name).read_text(encoding="ascii") == text:
                return
        # By a rename: the name server must never read half a file.
        self._paths.hosts.mkdir(mode=0o755, parents=True, exist_ok=True)
        new = self._paths.run / f"hosts.{container.name}"
        new.write_text(text, encoding="ascii")
        os.rename(new, self._file(container.name))

    def _text(self, container: Container, member: bool) -> str | None:
        spec = container.spec
        addresses = container.addresses
        if spec is None or not addresses or not self._settings.dns:
            return None
        return hosts_lines(container.name, spec.labels if member else {}, addresses, self._settings.domain, spec.ports)

    def withdraw(self, name: str) -> None:
        """Let it no longer be found."""
        self._file(name).unlink(missing_ok=True)
        if name in self._found:
            self._found.discard(name)
            self._changed(name)

    def ended(self, name: str) -> None:
        """It has ended: however it is started again, it is not frozen then."""
        self._frozen.discard(name)

    def forget(self, name: str) -> None:
        """It is no more: another one of that name begins as a member."""
        self.withdraw(name)
        self._unfit.discard(name)
        self._frozen.discard(name)

    def _file(self, name: str) -> Path:
        return self._paths.hosts / name

    def settle(self) -> None:
        """After a restart of the daemon: names for what runs and for nothing else, members as they were."""
        alive = {c.name: c for c in self._registry if c.running is not None}
        for container in alive.values():
            if container.running is not None and container.running.payload.frozen:
                self._frozen.add(container.name)
        if self._paths.hosts.is_dir():
            self._read_back(alive)
        for container in alive.values():
            self.publish(container)

    def _read_back(self, alive: Mapping[str, Container]) -> None:
        """Who was no member can be told from what is written of it."""
        for file in self._paths.hosts.iterdir():
            container = alive.get(file.name)
            if container is None:
                file.unlink(missing_ok=True)
                continue
            alone = self._text(container, False)
            seen = alone != self._text(container, True) and file.read_text(encoding="ascii") == alone
            # One without a check was frozen, and whether it still is has been looked at.
            checked = container.spec is not None and container.spec.health is not None
            if seen and checked and container.name not in self._frozen:
                self._unfit.add(container.name)
