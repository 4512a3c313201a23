"""Which containers the bridge lets in: each is admitted before its first start, with the addresses that are its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable

from lxcfleet.network.guard import AnyGuest, Guest, differences
from lxcfleet.network.lan import LanGuest
from lxcfleet.spec.spec import Spec


def guest(spec: Spec) -> AnyGuest | None:
    """The container as the bridge knows it; None: it is not connected."""
    if spec.hardware is not None:
        return LanGuest(spec.hardware, spec.isolated)
    if spec.address is None:
        return None
    return Guest(spec.address.ip, spec.address6.ip if spec.address6 is not None else None, spec.isolated)


class Admission:
    """Keeps the sets of network.guard. All that came meanwhile is admitted at once: one transaction for a hundred."""

    def __init__(
        self, specs: Callable[[], Iterable[Spec]], carry_out: Callable[[list[AnyGuest], list[AnyGuest]], Awaitable[None]]
    ) -> None:
        self._specs = specs
        self._carry_out = carry_out
        self._admitted: dict[str, AnyGuest] = {}
        self._lock = asyncio.Lock()

    def wanted(self) -> dict[str, AnyGuest]:
        """All that should be let in at this moment, by their ports of the bridge."""
        return {each.port: each for each in map(guest, self._specs()) if each is not None}

    def assume(self, admitted: dict[str, AnyGuest]) -> None:
        """The sets were just made, with these."""
        self._admitted = admitted

    async def admit(self, spec: Spec) -> None:
        """Come back once the bridge lets this container in. Raises FleetError."""
        if self._knows(spec):
            return
        async with self._lock:
            if self._knows(spec):
                return
            wanted = self.wanted()
            new, gone = differences(wanted, self._admitted)
            await self._carry_out(new, gone)
            self._admitted = wanted

    def _knows(self, spec: Spec) -> bool:
        wanted = guest(spec)
        return wanted is None or self._admitted.get(wanted.port) == wanted
