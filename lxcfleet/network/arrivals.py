"""Containers that come: admitted before they start, found once they run; also those that plain lxc-start began."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from lxcfleet.containers.container import Container
from lxcfleet.errors import WrongState
from lxcfleet.network.admission import Admission
from lxcfleet.network.bridge import Bridge
from lxcfleet.network.context import Context
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.leases import Leases
from lxcfleet.runtime.soon import Soon
from lxcfleet.spec.spec import Spec

log = logging.getLogger(__name__)


class Arrivals:
    """Gives a container what it has of the network."""

    def __init__(
        self, context: Context, bridge: Bridge, admission: Admission, discovery: Discovery, leases: Leases
    ) -> None:
        self._context = context
        self._bridge = bridge
        self._admission = admission
        self._discovery = discovery
        self._leases = leases
        complaint = "not admitted ahead of their start"
        self._admit_soon = Soon(context.tasks, "admission", admission.admit_all, complaint, level=logging.DEBUG)

    async def connect(self, spec: Spec) -> None:
        """Have all that a container needs which is about to start; quick if it is there. Raises FleetError."""
        if spec.connected:
            self._check_kind(spec)
            await self._bridge.wait_until_there()
            await self._bridge.ensure()
            await self._admission.admit(spec)

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
            log.error("%s runs, and is found by no name until it starts again: %s", container.name, error)
        if container.waits_for_address:
            self._leases.kick()
