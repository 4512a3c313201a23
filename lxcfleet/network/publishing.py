"""Ports of the host, published: the packet filter's rules follow who is behind each."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from lxcfleet.host.net import sockets
from lxcfleet.launcher.operations import PUBLISH, DatagramPort, PublishItem
from lxcfleet.network import flows, rules, shared_ports
from lxcfleet.network.context import Context
from lxcfleet.network.membership import Membership
from lxcfleet.network.rules import Published
from lxcfleet.runtime.soon import Soon
from lxcfleet.spec.ports import Publication
from lxcfleet.spec.spec import Spec

RETRY_SECONDS = 5.0


class Publishing:
    """Keeps the rules as they should be. Changes of one moment become one transaction."""

    def __init__(self, context: Context, membership: Membership) -> None:
        self._context = context
        self._membership = membership
        self._applied: list[Published] | None = None
        self._lock = asyncio.Lock()
        self._forwards = False
        complaint = "ports of the host can't be published"
        self._soon = Soon(context.tasks, "publishing", self.apply, complaint, retry=RETRY_SECONDS)

    def wanted(self) -> list[Published]:
        """The ports that are published at this moment, with the members behind each."""
        return shared_ports.published(self._context.specs(), self._membership.members())

    async def check(self, like: Spec, count: int) -> None:
        """Refuse ports of the host that ``count`` new containers like ``like`` can't have.

        Nothing else is done meanwhile, unless a port is in use: a thread finds out by which program.
        Raises InvalidInput, HostError.
        """
        others = self._context.specs()
        shared_ports.check_shared(like, count, others)
        shared = {publication for spec in others for publication in spec.publish}
        await _check_free(publication for publication in like.publish if publication not in shared)

    async def check_changed(self, changed: Sequence[tuple[Spec, Spec]]) -> None:
        """Refuse ports of the host that containers can't have by their new specs; pairs of former and new ones.

        Raises InvalidInput, HostError.
        """
        names = {former.name for former, _ in changed}
        present = self._context.specs()
        shared = {publication for spec in present for publication in spec.publish}
        others = [spec for spec in present if spec.name not in names]
        for former, spec in changed:
            if (spec.publish, spec.labels) != (former.publish, former.labels):
                shared_ports.check_shared(spec, 1, others)
                await _check_free(publication for publication in spec.publish if publication not in shared)
            others.append(spec)

    def kick(self) -> None:
        """Have the rules follow soon."""
        self._soon.kick()

    def distrust(self) -> None:
        """The whole table was made anew: do it once more, as members may have changed meanwhile."""
        self._applied = None
        self.kick()

    async def apply(self) -> None:
        """Come back once the rules are as they should be at this moment. Raises FleetError."""
        async with self._lock:
            while (wanted := self.wanted()) != self._applied:
                await self._carry_out(wanted, flows.changed(self._applied, wanted))
                self._applied = wanted

    async def _carry_out(self, wanted: list[Published], datagrams: list[DatagramPort]) -> None:
        if not self._context.up:
            return  # the bridge is set up with what is wanted then
        bridge, dhcp = self._context.settings.bridge, self._context.settings.dhcp
        await self._context.ask(
            PUBLISH,
            PublishItem(
                bridge=bridge,
                rules=rules.publish(bridge, wanted),
                localhost=bool(wanted) and not dhcp,
                forward=bool(wanted) and dhcp and not self._forwards,
                datagrams=datagrams,
            ),
        )
        self._forwards = self._forwards or bool(wanted)


async def _check_free(publications: Iterable[Publication]) -> None:
    for publication in publications:
        try:
            sockets.check_free(publication)
        except sockets.PortInUse as error:
            raise await asyncio.to_thread(sockets.told_by_whom, error, publication) from error
