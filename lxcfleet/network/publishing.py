"""Ports of the host, published: the packet filter's rules follow who is behind each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence

from lxcfleet.errors import FleetError, InvalidInput
from lxcfleet.host.net import dnsmasq, sockets
from lxcfleet.launcher.items.network import ChangedPort, PublishItem
from lxcfleet.launcher.operations import PUBLISH, PUBLISHED
from lxcfleet.network import name_server
from lxcfleet.network.context import Context
from lxcfleet.network.events import PortsShared
from lxcfleet.network.membership import Membership
from lxcfleet.network.rules import flows, rules, shared_ports
from lxcfleet.network.rules.member_maps import LoadedMaps
from lxcfleet.network.rules.rules import Published
from lxcfleet.runtime.soon import Soon
from lxcfleet.spec.container.ports import Publication
from lxcfleet.spec.container.spec import Spec

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0


class Publishing:
    """Keeps the rules as they should be. Changes of one moment become one transaction."""

    def __init__(self, context: Context, membership: Membership) -> None:
        self._context = context
        self._membership = membership
        self._applied: list[Published] | None = None
        self._standing = LoadedMaps()
        self._lock = asyncio.Lock()
        self._asked = self._done = 0
        """How often the rules were asked for, and up to which time they are as they should be."""
        self._forwards = False
        self._made_anew = False
        self._shared: tuple[str, ...] = ()
        """The ports that another fleet publishes, too, as they were told last."""
        complaint = "ports of the host can't be published"
        self._soon = Soon(context.tasks, "publishing", self.apply, complaint, retry=RETRY_SECONDS)

    def wanted(self) -> list[Published]:
        """The ports that are published at this moment, with the members behind each."""
        return shared_ports.published(self._context.specs(), self._membership.members())

    async def check(self, like: Spec, count: int) -> None:
        """Refuse ports of the host that ``count`` new containers like ``like`` can't have.

        After the question about other fleets nothing else is done meanwhile, unless a port is in use: a thread finds out by
        which program. Raises InvalidInput, HostError.
        """
        kept = await self._check_foreign(like.publish)
        others = self._context.specs()
        shared_ports.check_shared(like, count, others)
        shared = {publication for spec in others for publication in spec.publish}
        await self._check_free((publication for publication in like.publish if publication not in shared), kept)

    async def check_changed(self, changed: Sequence[tuple[Spec, Spec]]) -> None:
        """Refuse ports of the host that containers can't have by their new specs; pairs of former and new ones.

        Raises InvalidInput, HostError.
        """
        new = [each for former, spec in changed for each in spec.publish if each not in former.publish]
        kept = await self._check_foreign(new)
        names = {former.name for former, _ in changed}
        present = self._context.specs()
        shared = {publication for spec in present for publication in spec.publish}
        others = [spec for spec in present if spec.name not in names]
        for former, spec in changed:
            if (spec.publish, spec.labels, spec.affinity) != (former.publish, former.labels, former.affinity):
                shared_ports.check_shared(spec, 1, others)
                await self._check_free((publication for publication in spec.publish if publication not in shared), kept)
            others.append(spec)

    def kick(self) -> None:
        """Have the rules follow soon."""
        self._soon.kick()

    def made_anew(self, loaded: Sequence[Published]) -> None:
        """The whole table was, with these. If there are any, do it once more, as members may have changed meanwhile."""
        self._standing = LoadedMaps(frozenset(rules.member_maps(loaded)))
        if loaded:
            self._applied, self._made_anew = None, True
            self.kick()

    async def apply(self) -> None:
        """Come back once the rules are as they should be at this moment. Raises FleetError.

        Of many that wait, as when all members of a large group leave at once, one looks at what is wanted, for all of them.
        """
        self._asked = turn = self._asked + 1
        async with self._lock:
            if turn <= self._done:
                return
            while (wanted := self.wanted()) != self._applied:
                await self._carry_out(wanted, flows.changed(self._applied, wanted))
                self._applied = wanted
            self._done = self._asked
            if self._made_anew and self._applied:
                self._made_anew = False
                await self._tell_shared(self._applied)

    async def _tell_shared(self, wanted: Sequence[Published]) -> None:
        """Say which ports another fleet publishes, too: its table was not there when ours were asked for, as after a boot of
        the host."""
        try:
            others = await self._context.ask_large(PUBLISHED, rules.table(self._context.settings.bridge))
        except FleetError as error:
            log.warning("whether another fleet publishes the same ports can't be told: %s", error)
            return
        found = tuple(shared_ports.clashes((each.publication for each in wanted), others["ports"]))
        if found and found != self._shared:
            self._context.bus.publish(PortsShared(found))
        self._shared = found

    async def _carry_out(self, wanted: list[Published], changed: list[ChangedPort]) -> None:
        if not self._context.up:
            return  # the bridge is set up with what is wanted then
        bridge, dhcp = self._context.settings.bridge, self._context.settings.dhcp
        text, standing = rules.publish(bridge, wanted, self._standing), self._standing.after(rules.member_maps(wanted))
        unknown = self._standing = LoadedMaps()  # should this fail, so that the next try leads to no map that is not there
        await self._context.ask(
            PUBLISH,
            PublishItem(
                bridge=bridge,
                rules=text,
                localhost=bool(wanted) and not dhcp,
                forward=bool(wanted) and not self._forwards,
                changed=changed,
            ),
        )
        if self._standing is unknown:
            self._standing = standing
        self._forwards = self._forwards or bool(wanted)

    async def _check_foreign(self, publications: Sequence[Publication]) -> list[str]:
        """Where other fleets' name servers keep their port."""
        if not publications:
            return []
        others = await self._context.ask_large(PUBLISHED, rules.table(self._context.settings.bridge))
        shared_ports.check_foreign(publications, others["ports"])
        return others["name_servers"]

    async def _check_free(self, publications: Iterable[Publication], kept: Collection[str]) -> None:
        for publication in publications:
            if publication.host == dnsmasq.PORT:
                self._check_name_server(publication)
            try:
                sockets.check_free(publication)
            except sockets.PortInUse as error:
                ours = name_server.programs(self._context.paths).get(name_server.DNSMASQ)
                users = await asyncio.to_thread(sockets.users, publication)
                others = {pid: held for pid, held in users.items() if pid != ours}
                # The rules leave the name servers of all fleets alone: each keeps the port at its own addresses.
                asked = kept if publication.host == dnsmasq.PORT and publication.everywhere else ()
                if users and publication.everywhere and all(sockets.only_at(asked, held) for held in others.values()):
                    continue
                if users and not others:
                    raise _is_name_servers(publication) from error
                raise sockets.told_by_whom(error, others) from error

    def _check_name_server(self, publication: Publication) -> None:
        """On the operator's bridge, the name server is at the host's own address."""
        settings = self._context.settings
        if settings.dhcp and settings.dns and publication.everywhere and 4 in publication.versions:
            raise _is_name_servers(publication, f"containers ask it at the host's address on {settings.bridge}")


def _is_name_servers(publication: Publication, why: str = "") -> InvalidInput:
    return InvalidInput(
        f"the host's port {publication.host}/{publication.protocol} is the fleet's name server's",
        why=why or f"containers ask it at {publication.address}",
        hint="publish it at another address of the host (ADDRESS:53:PORT), or set network.dns: false",
    )
