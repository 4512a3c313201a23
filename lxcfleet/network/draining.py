"""How a container leaves: nobody finds it any more, and those it serves have time to be done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable

from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError
from lxcfleet.network import handover
from lxcfleet.network.bridge import Bridge
from lxcfleet.network.context import Context
from lxcfleet.network.discovery import Discovery
from lxcfleet.network.handover import MemberPlace
from lxcfleet.network.membership import Membership
from lxcfleet.network.publishing import Publishing
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.files.settings import NetworkSettings
from lxcfleet.spec.states import Action

log = logging.getLogger(__name__)

AWAITED_SECONDS = 60.0
"""For so long after its drain time the only member stays for another one that is on its way."""
LOOK_SECONDS = 0.2
"""Between two looks at whether others have its place."""


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

        One that nobody could take the place of is withdrawn later: until then, its clients would be refused. If another
        one is on its way, as in a restart of both, that one is waited for; if there is none, the drain time is over first.
        ``seconds``: the drain time; None: as its spec and the settings say.
        """
        wait = drain_seconds(container.spec, self._context.settings) if seconds is None else seconds
        alone = bool(wait) and await self._stay(container, wait)
        await self._withdraw(container)
        if wait and not alone:
            await _ended_within(container, wait)

    async def _stay(self, container: Container, wait: float) -> bool:
        """Return when others have its place, or nobody is waited for any longer. Whether it is still the only one."""
        own = container.spec
        if own is None or not self._membership.serves(container):
            return False
        if self._place(container, own, (c for c in self._context.registry if c is not container)) is MemberPlace.SHARED:
            return False
        others = [c for c in self._context.registry if c is not container and c.spec and handover.meets(own, c.spec)]
        begun = time.monotonic()
        while (where := self._place(container, own, others)) is not MemberPlace.SHARED:
            limit = wait + AWAITED_SECONDS if where is MemberPlace.AWAITED else wait
            left = begun + limit - time.monotonic()
            if left <= 0 and where is MemberPlace.AWAITED:
                log.warning("%s is stopped, though none like it was back after %g s", container.name, limit)
            if left <= 0 or await _ended_within(container, min(left, LOOK_SECONDS)):
                return True
        return False

    def _place(self, container: Container, own: Spec, others: Iterable[Container]) -> MemberPlace:
        young = AWAITED_SECONDS if container.busy == Action.RESTART else 0.0
        known = list(others)
        members = (c.spec for c in known if self._membership.serves(c) and c.spec is not None)
        coming = (c.spec for c in known if c.spec is not None and self._comes(c, young))
        return handover.place(own, members, coming)

    def _comes(self, container: Container, young: float) -> bool:
        """Whether it is not a member, and will be soon if all goes well.

        ``young``: for so many seconds after its start it may become healthy.
        """
        if self._membership.serves(container) or self._membership.is_frozen(container.name):
            return False
        starts = container.running is not None and container.busy is None and container.running.age < young
        return starts or container.busy in (Action.START, Action.RESTART, "create")

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


async def _ended_within(container: Container, seconds: float) -> bool:
    if container.running is None:
        return True
    try:
        await asyncio.wait_for(container.running.gone.wait(), seconds)
    except TimeoutError:
        return False
    return True
