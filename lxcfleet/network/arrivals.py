"""Containers that come: admitted before they start, found once they run; also those that plain lxc-start began."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError, HostError, WrongState
from lxcfleet.network import needs
from lxcfleet.network.admission import Admission
from lxcfleet.network.bridge import Bridge
from lxcfleet.network.context import Context
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.leases import Leases
from lxcfleet.network.uplinks import Uplinks
from lxcfleet.runtime.soon import Soon
from lxcfleet.spec.container.spec import Spec

log = logging.getLogger(__name__)


TRIES = 4
"""So often rules are loaded for a container that starts, if somebody flushes them meanwhile."""
MANY = 1000
"""A fleet of fewer containers needs no look at how many ports the bridge has left."""


class Arrivals:
    """Gives a container what it has of the network."""

    def __init__(
        self, context: Context, bridge: Bridge, admission: Admission, discovery: Discovery, leases: Leases, uplinks: Uplinks
    ) -> None:
        self._context = context
        self._bridge = bridge
        self._admission = admission
        self._discovery = discovery
        self._leases = leases
        self._uplinks = uplinks
        self._settled = False
        self._met: set[str] = set()
        """The names of those that were published in their present run."""
        self._told: set[str] = set()
        """The names of those of which the log says already that they can't be connected."""
        self._welcome_soon = Soon(context.tasks, "arrivals", self.welcome, "not all that run are connected")
        complaint = "not admitted ahead of their start"
        self._admit_soon = Soon(context.tasks, "admission", admission.admit_all, complaint, level=logging.DEBUG)

    async def connect(self, spec: Spec) -> None:
        """Have all that a container needs which is about to start; quick if it is there. Raises FleetError."""
        if spec.on_uplink:
            await self._uplinks.ensure(spec)
        if spec.connected:
            self._check_kind(spec)
            await self._bridge.wait_until_there()
            await self._bridge.ensure(spec)
            if self._context.settings.dhcp and len(self._context.registry) >= MANY:
                needs.check_ports(self._context.settings.bridge, 1)
            await self._admit(partial(self._admission.admit, spec), spec)

    async def _admit(self, admit: Callable[[], Awaitable[None]], spec: Spec | None = None) -> None:
        """Come back once the bridge lets in what ``admit`` is for, also if others flush the rules just before they are added
        to. Raises FleetError.

        The rules are made anew with all that is wanted, so the next try mostly finds its container let in.
        """
        for _ in range(TRIES - 1):
            try:
                await admit()
                return
            except HostError as error:
                log.info("the packet filter's rules are loaded anew, as they can't be added to: %s", error)
            self._bridge.distrust()
            await self._bridge.ensure(spec)
        await admit()

    def check_start(self, spec: Spec) -> None:
        """See that what the operator has to see to is there for a container's next start. Raises FleetError."""
        if spec.on_uplink:
            self._uplinks.check_start(spec)
        if spec.connected:
            self._check_kind(spec)
            needs.check(self._context.settings)

    def _check_kind(self, spec: Spec) -> None:
        if (spec.hardware is not None) != self._context.settings.dhcp:
            raise WrongState(
                f"{spec.name} can't start", why="it was made for another network than lxcfleet.yaml now has",
                hint="set network.addresses as it was, or destroy it and create it anew",
            )  # fmt: skip

    def expect(self, specs: Iterable[Spec]) -> None:
        """These will start soon: admit all of them at once."""
        if self._context.up and any(spec.connected for spec in specs):
            self._admit_soon.kick()

    def publish(self, container: Container) -> None:
        """Let a container that runs be found: by its name, and if it is a member also by its groups and ports.

        Raises HostError if its port of the bridge can't be set up.
        """
        self._bridge.set_up_port(container)
        try:
            self._discovery.publish(container)
        except OSError as error:
            self._tell(container, f"it is found by no name yet: {error}")  # welcome() tries again
        else:
            self._met.add(container.name)
        if container.waits_for_address:
            self._leases.kick()

    # -- containers that others start ------------------------------------------------------------------------

    def settle(self) -> None:
        """After a restart of the daemon, when all that run are found again."""
        self._met = {container.name for container in self._context.running()}
        self._settled = True

    def began(self, container: Container) -> None:
        """The daemon sees it run. A start by the daemon itself publishes its container when that is booted."""
        if self._settled and container.busy is None:
            self._welcome_soon.kick()
            if container.waits_for_address:
                self._leases.kick()

    def ended(self, name: str) -> None:
        """It has ended: its next run is another arrival."""
        self._met.discard(name)
        self._told.discard(name)

    async def welcome(self) -> None:
        """Connect all containers that run and are not connected, as plain lxc-start began them. Raises FleetError, OSError.

        What can't be done for one container is logged, and tried again the next time.
        """
        new = [c for c in self._context.running() if c.busy is None and c.name not in self._met]
        if not new:
            return
        await self._bridge.ensure()
        await self._admit(self._admission.admit_all)
        for container in new:
            if container.running is not None and container.busy is None and container.spec is not None:
                try:
                    self._check_kind(container.spec)
                    self.publish(container)
                except FleetError as error:
                    self._tell(container, str(error).replace("\n", "; "))

    def _tell(self, container: Container, problem: str) -> None:
        """Once in each run."""
        if container.name not in self._told:
            self._told.add(container.name)
            log.error("%s runs, and %s", container.name, problem)
