"""How a container leaves: nobody finds it any more, and those it serves have time to be done."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError
from lxcfleet.network import shared_ports
from lxcfleet.network.bridge import Bridge
from lxcfleet.network.context import Context
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.membership import Membership
from lxcfleet.network.publishing import Publishing
from lxcfleet.spec.settings import NetworkSettings
from lxcfleet.spec.spec import Spec

log = logging.getLogger(__name__)


def drain_seconds(spec: Spec | None, settings: NetworkSettings) -> float:
    """How many seconds such a container stays up after it was withdrawn. Pure."""
    if spec is None or not spec.connected:
        return 0.0
    if spec.drain is not None:
        return spec.drain
    return settings.drain if spec.ports or spec.publish else 0.0


class Draining:
    """Withdraws containers that are to be stopped."""

    def __init__(
        self, context: Context, bridge: Bridge, membership: Membership, discovery: Discovery, publishing: Publishing
    ) -> None:
        self._context = context
        self._membership = membership
        self._bridge = bridge
        self._discovery = discovery
        self._publishing = publishing

    async def leave(self, container: Container, seconds: float | None = None) -> None:
        """Withdraw it, and come back after its drain time, or when it ends, whichever comes first.

        One that nobody could take the place of is withdrawn after its drain time: until then, its clients would be refused.
        ``seconds``: the drain time; None: as its spec and the settings say.
        """
        wait = drain_seconds(container.spec, self._context.settings) if seconds is None else seconds
        last = bool(wait) and self._is_last(container)
        if not last:
            await self._withdraw(container)
        running = container.running
        if running is not None and wait:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(running.gone.wait(), wait)
        if last:
            await self._withdraw(container)

    def _is_last(self, container: Container) -> bool:
        members = self._membership.members()
        others = [each.spec for each in members if each is not container and each.spec is not None]
        return container.spec is not None and container in members and shared_ports.is_alone(container.spec, others)

    async def _withdraw(self, container: Container) -> None:
        self._discovery.withdraw(container.name)
        if container.spec is not None and container.spec.publish:
            try:
                await self._leave_ports()
            except (FleetError, OSError) as error:  # a failure must keep nobody from stopping it
                log.error("%s is stopped, and ports of the host still lead to it: %s", container.name, error)

    async def _leave_ports(self) -> None:
        await self._bridge.ensure()
        await self._publishing.apply()
