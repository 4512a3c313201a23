"""Which containers are found, and which of them are *members*: stand for their groups, and behind the host's ports."""

from __future__ import annotations

from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry


class Membership:
    """Facts about each container, by its name. A container that is found is a member too, unless somebody said
    that it is not healthy, it is frozen, or its published ports are closed."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._found: set[str] = set()
        self._unfit: set[str] = set()
        self._frozen: set[str] = set()
        self._closed: set[str] = set()

    def is_found(self, name: str) -> bool:
        """Whether it is published at the moment."""
        return name in self._found

    def is_member(self, name: str) -> bool:
        """Whether it stands for its groups whenever it is found."""
        return name not in self._unfit and name not in self._frozen and name not in self._closed

    def is_frozen(self, name: str) -> bool:
        """Whether it was frozen when somebody last looked."""
        return name in self._frozen

    def members(self) -> list[Container]:
        """All that stand for their groups at the moment, and have an address."""
        return [container for container in self._registry if self.serves(container)]

    def serves(self, container: Container) -> bool:
        """Whether this one stands for its groups at the moment, and has an address."""
        return container.name in self._found and bool(container.addresses) and self.is_member(container.name)

    def find(self, name: str) -> None:
        """It is found from now on."""
        self._found.add(name)

    def lose(self, name: str) -> bool:
        """It is found no longer; whether it was."""
        if name not in self._found:
            return False
        self._found.discard(name)
        return True

    def set_fit(self, name: str, fit: bool) -> bool:
        """Its health as somebody else judges it, until the next call. Whether that is news."""
        return _mark(self._unfit, name, not fit)

    def set_frozen(self, name: str, frozen: bool) -> bool:
        """Whether it is frozen. Whether that is news."""
        return _mark(self._frozen, name, frozen)

    def set_closed(self, name: str, closed: bool) -> bool:
        """Whether its program does not listen yet. Whether that is news."""
        return _mark(self._closed, name, closed)

    def forget(self, name: str) -> None:
        """It is destroyed: another one of that name begins as a member."""
        for names in (self._found, self._unfit, self._frozen, self._closed):
            names.discard(name)


def _mark(names: set[str], name: str, marked: bool) -> bool:
    if marked == (name in names):
        return False
    (names.add if marked else names.discard)(name)
    return True
