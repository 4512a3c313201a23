"""Where the fleet's containers can be found: by their own names, and by the names of their groups."""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from lxcfleet.config import NetworkSettings
from lxcfleet.fleet.registry import Container, Registry
from lxcfleet.names import Paths
from lxcfleet.net.names import hosts_lines

log = logging.getLogger(__name__)


class Discovery:
    """Keeps one file per container that is to be found, which the name server watches.

    A container that runs has its own name. It is a *member* of its groups, and so found by their names too, unless
    somebody said that it is not healthy, or it is frozen.
    """

    def __init__(self, paths: Paths, settings: NetworkSettings, registry: Registry) -> None:
        self._paths = paths
        self.settings = settings
        self._registry = registry
        self._unfit: set[str] = set()
        self._frozen: set[str] = set()

    def is_member(self, container: Container) -> bool:
        """Whether it would be found by its groups' names, if it is found at all."""
        return container.name not in self._unfit and container.name not in self._frozen

    def set_member(self, container: Container, healthy: bool) -> None:
        """Have it among the answers for its groups, or not. Holds over its restarts until the next call."""
        self._mark(self._unfit, container, not healthy)

    def set_frozen(self, container: Container, frozen: bool) -> None:
        """A frozen container answers nobody, and is no member."""
        self._mark(self._frozen, container, frozen)

    def _mark(self, names: set[str], container: Container, marked: bool) -> None:
        if marked != (container.name in names):
            (names.add if marked else names.discard)(container.name)
            if self.is_found(container.name):
                self.publish(container)

    def is_found(self, name: str) -> bool:
        """Whether it is published at the moment."""
        return self._file(name).exists()

    def publish(self, container: Container) -> None:
        """Let the container be found."""
        text = self._text(container, self.is_member(container))
        if text is None:
            return
        with contextlib.suppress(FileNotFoundError):
            if self._file(container.name).read_text(encoding="ascii") == text:
                return
        # By a rename: the name server must never read half a file.
        new = self._paths.run / f"hosts.{container.name}"
        new.write_text(text, encoding="ascii")
        os.rename(new, self._file(container.name))

    def _text(self, container: Container, member: bool) -> str | None:
        spec = container.spec
        if spec is None or spec.address is None or not self.settings.dns:
            return None
        addresses = [a.ip for a in (spec.address, spec.address6) if a is not None]
        return hosts_lines(container.name, spec.labels if member else {}, addresses, self.settings.domain, spec.ports)

    def withdraw(self, name: str) -> None:
        """Let it no longer be found."""
        self._file(name).unlink(missing_ok=True)

    def forget(self, name: str) -> None:
        """It is no more: another one of that name begins as a member."""
        self.withdraw(name)
        self._unfit.discard(name)
        self._frozen.discard(name)

    def _file(self, name: str) -> Path:
        return self._paths.hosts / name

    def settle(self) -> None:
        """After a restart of the daemon: names for what runs and for nothing else, members as they were."""
        if not self._paths.hosts.is_dir():
            return
        alive = {c.name: c for c in self._registry if c.running is not None}
        for file in self._paths.hosts.iterdir():
            container = alive.get(file.name)
            if container is None:
                file.unlink(missing_ok=True)
                continue
            if container.running is not None and container.running.payload.frozen:
                self._frozen.add(container.name)
                continue
            alone = self._text(container, False)
            if alone != self._text(container, True) and file.read_text(encoding="ascii") == alone:
                self._unfit.add(container.name)
        for container in alive.values():
            self.publish(container)
