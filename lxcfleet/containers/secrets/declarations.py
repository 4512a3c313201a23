"""The secrets that the settings and fleets declare, and the containers that have each: references only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from lxcfleet.containers.container import Container
from lxcfleet.containers.registry import Registry
from lxcfleet.data import secrets
from lxcfleet.errors import FleetError
from lxcfleet.spec.container.secrets import SecretSource, key_of
from lxcfleet.spec.container.spec import Spec

Sources = Mapping[str, SecretSource]


@dataclass(frozen=True)
class Declared:
    """A secret that somebody declared."""

    key: str
    fleet: str | None
    """The fleet whose file declares it; None: the settings of the host do."""
    name: str
    source: SecretSource


class Declarations:
    """The secrets that the settings of the host and the files of fleets declare."""

    def __init__(self, registry: Registry, settings: Sources, fleets: Callable[[], Mapping[str, Sources]]) -> None:
        """``fleets``: gives what each fleet's file declares, by fleet."""
        self._registry = registry
        self.settings = settings
        self._fleets = fleets

    def all(self) -> list[Declared]:
        """All that are declared: the host's first."""
        found = [Declared(name, None, name, source) for name, source in sorted(self.settings.items())]
        for fleet, sources in sorted(self._fleets().items()):
            found += [Declared(key_of(fleet, name), fleet, name, each) for name, each in sorted(sources.items())]
        return found

    def find(self, name: str, spec: Spec) -> list[tuple[secrets.Item, SecretSource]]:
        """Each secret of a container with its source; ``name``: for complaints. Raises NotFound."""
        own = self._fleets().get(spec.fleet, {}) if spec.fleet is not None else {}
        known = secrets.both(spec.fleet, own, self.settings)
        found = []
        for use in spec.secrets:
            if use.secret not in known:
                raise secrets.undeclared(name, use, spec.fleet)
            key, source = known[use.secret]
            found.append((secrets.Item(key, use), source))
        return found

    def users(self, keys: Collection[str] | None = None) -> dict[str, list[Container]]:
        """The containers that have each secret, by its key; ``keys``: of these alone."""
        found: dict[str, list[Container]] = {}
        for container in self._registry:
            for spec in {id(each): each for each in (container.spec, container.wanted) if each is not None}.values():
                with contextlib.suppress(FleetError):
                    for item, _ in self.find(container.name, spec):
                        if (keys is None or item.key in keys) and container not in found.setdefault(item.key, []):
                            found[item.key].append(container)
        return found
