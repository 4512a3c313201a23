"""Which containers the bridge lets in: each is admitted before its first start, with the addresses that are its own."""

from __future__ import annotations

import asyncio

from lxcfleet.launcher.items.network import RulesItem
from lxcfleet.launcher.operations import RULES
from lxcfleet.network.context import Context
from lxcfleet.network.rules import guard
from lxcfleet.network.rules.bandwidth import Bandwidth
from lxcfleet.network.rules.guard import AnyGuest, Guest
from lxcfleet.network.rules.lan import LanGuest
from lxcfleet.runtime.soon import Soon
from lxcfleet.spec.container.spec import Spec

RETRY_SECONDS = 5.0


def guest(spec: Spec) -> AnyGuest | None:
    """The container as the bridge knows it; None: it is not connected."""
    if spec.hardware is not None:
        return LanGuest(spec.hardware, spec.isolated, Bandwidth(spec.receive_mbit, spec.send_mbit))
    if spec.address is None:
        return None
    address6 = spec.address6.ip if spec.address6 is not None else None
    return Guest(spec.address.ip, address6, spec.isolated, Bandwidth(spec.receive_mbit, spec.send_mbit))


class Admission:
    """Keeps the sets of network.guard. All containers that came meanwhile are admitted in one transaction."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._admitted: dict[str, AnyGuest] = {}
        self._lock = asyncio.Lock()
        complaint = "changed limits of bandwidth are not in force"
        self._soon = Soon(context.tasks, "admission-change", self.admit_all, complaint, retry=RETRY_SECONDS)

    def wanted(self) -> dict[str, AnyGuest]:
        """All that should be let in at this moment, by their ports of the bridge."""
        return {each.port: each for each in map(guest, self._context.specs()) if each is not None}

    def assume(self, admitted: dict[str, AnyGuest]) -> None:
        """The sets were just made, with these."""
        self._admitted = admitted

    def kick(self) -> None:
        """Some that run have other specs: have the bridge follow soon."""
        self._soon.kick()

    def knows(self, spec: Spec) -> bool:
        """Whether the bridge lets this container in already; also if it is not connected."""
        wanted = guest(spec)
        return wanted is None or self._admitted.get(wanted.port) == wanted

    async def admit(self, spec: Spec) -> None:
        """Come back once the bridge lets this container in. Raises FleetError."""
        if self.knows(spec):
            return
        async with self._lock:
            if not self.knows(spec):
                await self._catch_up()

    async def admit_all(self) -> None:
        """Come back once the bridge lets in all that there are. Raises FleetError."""
        async with self._lock:
            await self._catch_up()

    async def _catch_up(self) -> None:
        wanted = self.wanted()
        new, gone = guard.differences(wanted, self._admitted)
        if new or gone:
            await self._context.ask(RULES, RulesItem(rules=guard.admit(self._context.settings.bridge, new, gone)))
            self._admitted = wanted
