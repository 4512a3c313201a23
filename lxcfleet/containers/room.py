"""The host's room for containers: ids, addresses, the mask and the bridge. They are taken, given back and checked here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

from lxcfleet.api.records import DoctorRecord, FindingRecord
from lxcfleet.capacity import needs
from lxcfleet.capacity.ids import IdPool, installer_line
from lxcfleet.capacity.needs import Finding
from lxcfleet.containers import store
from lxcfleet.containers.container import Container
from lxcfleet.containers.host_keeper import HostKeeper
from lxcfleet.containers.masks import MaskKeeper
from lxcfleet.containers.outside import Network
from lxcfleet.containers.registry import Registry
from lxcfleet.data import volumes
from lxcfleet.errors import FleetError, Unsupported
from lxcfleet.host.facts import limits
from lxcfleet.paths import Paths
from lxcfleet.runtime.operations import now
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.reading.terms import Init


class Room:
    """The host's room for containers, and the share of it that each container holds."""

    def __init__(
        self,
        paths: Paths,
        registry: Registry,
        mask: MaskKeeper,
        network: Network,
        host: HostKeeper,
    ) -> None:
        self._paths = paths
        self._registry = registry
        self._mask = mask
        self._network = network
        self._host = host
        self._held: set[int] = set()
        """First ids of ranges for volumes whose records may not be on the disk yet."""
        self._files: tuple[str, ...] = ()
        """The files that say which ids are root's, as they were when ``_ids`` was made of them."""
        self._ids = self._read_ids()
        self._builders = 0

    def _read_ids(self) -> IdPool:
        own = [*self._registry.ids(), *volumes.ids(self._paths), *self._held]
        files = limits.id_files()
        self._files = files
        return IdPool(*files, own=own, foreign=self._foreign())

    def _current_ids(self) -> IdPool:
        """The free ranges after the files as they are now: an administrator may have given root more ids."""
        if limits.id_files() != self._files:
            self._ids = self._read_ids()
        return self._ids

    def _foreign(self) -> list[str]:
        """Configurations of containers without a spec that names their ids: containers of others, and broken ones of ours."""
        return store.foreign_configs(self._paths, {c.name for c in self._registry if c.spec is not None})

    def reload(self) -> None:
        """Read /etc/subuid and /etc/subgid again, and which ids volumes have."""
        self._ids = self._read_ids()

    # -- taking and giving back ------------------------------------------------------------------------------

    def take(self, names: Sequence[str], like: Spec) -> list[Spec]:
        """Specs like ``like`` with id ranges and addresses of their own, for all names or for none."""
        specs: list[Spec] = []
        ids = self._current_ids()
        try:
            for name in names:
                specs.append(replace(like, name=name, first_id=None, created=now()))
                if not like.privileged:
                    specs[-1] = replace(specs[-1], first_id=ids.take())
                if like.connected or like.on_uplink:
                    specs[-1] = self._network.place(specs[-1], specs[:-1])
        except FleetError:
            for spec in specs:
                self._give_back(spec)
            raise
        return specs

    @contextmanager
    def ids(self) -> Iterator[Callable[[], int]]:
        """A function that takes ranges of ids for volumes: it gives the first id of each, and raises NoCapacity.

        Nobody else gets them before the block ends. Then they are free again, but for those that a volume has by then.
        """
        mine: list[int] = []

        def take() -> int:
            mine.append(self._current_ids().take())
            self._held.add(mine[-1])
            return mine[-1]

        try:
            yield take
        finally:
            self._held.difference_update(mine)
            if mine:
                self._ids = self._read_ids()

    def forget(self, container: Container) -> None:
        """Forget a container that no longer exists, and release what it held."""
        self._network.forget(container.name)
        self._registry.forget(container.name)
        if container.spec is not None:
            self._give_back(container.spec)
        else:
            self._ids = self._read_ids()
            self._network.give_back(None)

    def _give_back(self, spec: Spec) -> None:
        if spec.first_id is not None:
            self._ids.give_back(spec.first_id)
        if spec.address is not None:
            self._network.give_back(spec)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Keep everything from being released while an operation relies on it."""
        self._builders += 1
        try:
            yield
        finally:
            self._builders -= 1

    async def release_unused(self) -> None:
        """Release what only containers need: the bridge if none is connected, the mask if there is none."""
        if self._builders:
            return
        await self._network.release()
        if not len(self._registry):
            await self._mask.release()

    # -- checking --------------------------------------------------------------------------------------------

    async def check_new(self, count: int, like: Spec) -> None:
        """Refuse, with the numbers, ``count`` new containers that this host has no room for or can't run."""
        if count:
            features = await self._host.features()
            free = None if like.privileged else self._current_ids().free
            found = needs.assess(count, like.init, limits.read(self._paths), features, free)
            self._refuse(found, count, like.init)

    async def check_addresses(self, count: int) -> None:
        """Refuse more containers than there are addresses, or a bridge that does not exist."""
        await self._network.check_new(count)

    def expect(self, specs: Sequence[Spec]) -> None:
        """Prepare for the start of these."""
        self._network.expect(specs)

    async def check_found(self, like: Spec, names: Sequence[str]) -> None:
        """Refuse names that clash with others, addresses that can't be had, and ports of the host that can't be published.
        Raises FleetError."""
        self._network.check_names(like, names)
        if like.static_addresses or like.on_uplink:
            await self.check_static(dict.fromkeys(names, like))
        await self._network.check_ports(like, len(names))

    async def check_static(self, wanted: Mapping[str, Spec]) -> None:
        """Refuse addresses that were chosen for new containers, whose specs these are by name. Raises FleetError."""
        await self._network.check_static([replace(spec, name=name) for name, spec in wanted.items()])

    async def check_start(self, containers: Sequence[Container]) -> None:
        """Refuse before the first of many is started, not only when the host is full."""
        features = await self._host.features()
        for init, privileged in ((each, flag) for each in Init for flag in (False, True)):
            alike = [c for c in containers if c.spec and (c.spec.init, c.spec.privileged) == (init, privileged)]
            count = len(alike)
            if count:
                free = None if privileged else count
                found = needs.assess(count, init, limits.read(self._paths), features, free)
                self._refuse(found, count, init)

    def _refuse(self, found: Sequence[Finding], count: int, init: Init) -> None:
        try:
            needs.refuse(found, count, init)
        except Unsupported:
            self._host.forget()  # The administrator mends the host, and asks again.
            raise

    async def doctor(self, count: int, init: Init) -> DoctorRecord:
        """Compare what ``count`` more containers need with what the host has now: its features are tried anew."""
        self._host.forget()
        features = await self._host.features()
        have, free = limits.read(self._paths), self._current_ids().free
        connected = self._network.findings(count)
        firewalls = await self._network.firewall_findings()
        found = [*needs.assess(count, init, have, features, free), *connected, *firewalls]
        amounts = [finding.have for finding in connected if finding.have is not None]
        room = min([needs.fits(init, have, features, free), *amounts])
        return {"findings": [cast(FindingRecord, finding.to_json()) for finding in found], "fits": room}

    async def fix(self, count: int, init: Init) -> DoctorRecord:
        """Raise what can be raised safely, persistently."""
        self._host.forget()
        features = await self._host.features()
        found = needs.assess(count, init, limits.read(self._paths), features, self._current_ids().free)
        values = needs.fixes(found)
        if values:
            limits.apply(values, self._paths.sysctl_file)
        if any(finding.check == "uid-ranges" and finding.level != "ok" for finding in found):
            await self._give_root_ids()
        return await self.doctor(count, init)

    async def _give_root_ids(self) -> None:
        """Give root a range of ids for containers in /etc/subuid and /etc/subgid, unless it has room."""
        line = installer_line(*limits.id_files(), foreign=self._foreign())
        if line is not None:
            _, first_id, count = line.split(":")
            await self._host.give_root_ids(int(first_id), int(first_id) + int(count) - 1)
            self._ids = self._read_ids()
