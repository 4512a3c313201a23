"""Whether containers get answers from the fleet's name server: a firewall of the host's may drop their queries silently.

Now and then one container's network is asked from. Only if several containers get no answer, as far as there are several, is
something wrong with the fleet: what one container does in its own network is its own affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError
from lxcfleet.host.net import firewalls, lookup
from lxcfleet.launcher.items.network import LookupItem
from lxcfleet.launcher.operations import LOOKUP
from lxcfleet.network.addressing import Addressing
from lxcfleet.network.context import Context
from lxcfleet.network.events import LookupsAnswered, LookupsFail

log = logging.getLogger(__name__)

LOOK_SECONDS = 60.0
"""Seconds between two looks while nothing changes."""
PAUSE_SECONDS = 10.0
"""Seconds between two looks when the packet filter's rules change all the time."""
ANSWER_SECONDS = 3.0
"""Seconds that an answer may take."""
YOUNG_SECONDS = 3.0
"""A container that began to run only now may not have its address yet."""
ASKED = 3
"""So many containers have to get no answer, if there are so many."""


@dataclass(frozen=True)
class Trouble:
    """Why containers get no answer."""

    names: tuple[str, ...]
    """The containers that got none."""
    why: str
    hint: str


def verdict(answers: Iterable[bool | None]) -> bool | None:
    """Whether the fleet's look-ups work, by the answers that single containers got; None: nobody knows."""
    known = [answer for answer in answers if answer is not None]
    return any(known) if known else None


def explain(names: Iterable[str], bridge: str, *, on_host: bool, ufw: bool) -> Trouble:
    """The likely cause and its cure. ``on_host``: whether the host itself gets an answer."""
    if not on_host:
        why = "the name server itself does not answer"
        return Trouble(tuple(names), why, "`journalctl -t dnsmasq` may say why; lxcfleetd starts it again if it ends")
    if ufw:
        why = "the host gets an answer and containers get none: ufw is on, and drops what comes in by the bridge"
        return Trouble(tuple(names), why, f"let it in: ufw allow in on {bridge}; see docs/network.md, Beside other tools")
    why = "the host gets an answer and containers get none: a firewall on the host drops what comes in by the bridge"
    hint = f"let port 53 in from {bridge}: `nft list ruleset` shows the rules; see docs/network.md, Beside other tools"
    return Trouble(tuple(names), why, hint)


class Lookups:
    """Looks again and again, and knows how it was last."""

    def __init__(self, context: Context, addressing: Addressing) -> None:
        self._context, self._addressing = context, addressing
        self._changed = asyncio.Event()
        self._last = ""
        """The container that was asked from last."""
        self._trouble: Trouble | None = None
        self.work: bool | None = None
        """Whether containers got answers at the last look; None: there is no name server, or nobody to ask for it."""

    def wake(self) -> None:
        """The packet filter's rules have changed: look soon."""
        self._changed.set()

    def findings(self) -> list[Finding]:
        """The findings for ``doctor``; none while all is well."""
        trouble = self._trouble
        if trouble is None:
            return []
        message = f"containers can't look up names: {trouble.why} (asked from {', '.join(trouble.names)})"
        return [Finding("names", "fail", message, hint=trouble.hint, feature=True)]

    async def run(self) -> None:
        """Look again and again, for ever."""
        while True:
            began = time.monotonic()
            self._changed.clear()
            try:
                await self.look()
            except (FleetError, OSError) as error:
                log.warning("whether containers can look up names can't be told: %s", str(error).replace("\n", "; "))
            unknown = self.work is None and self._context.running()  # those that have just begun can be asked from soon
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), PAUSE_SECONDS if unknown else LOOK_SECONDS)
            await asyncio.sleep(max(1.0, began + PAUSE_SECONDS - time.monotonic()))

    async def look(self) -> None:
        """Look once, and tell if it is otherwise than before. Raises FleetError, OSError."""
        settings = self._context.settings
        if not settings.dns or not self._context.running():
            self.work, self._trouble = None, None
            return
        chosen = self._choose()
        server = await self._addressing.gateway() if chosen and self._context.up else None
        if server is None:
            return
        answers: dict[str, bool | None] = {}
        for container in chosen:
            answers[container.name] = await self._ask(container, server)
            if answers[container.name]:
                break
        works = verdict(answers.values())
        if works is None:
            return
        trouble = None
        if not works:
            silent = [name for name, answer in answers.items() if answer is False]
            name = f"{silent[0]}.{settings.domain}"
            on_host = await asyncio.to_thread(lookup.answered, str(server), name, ANSWER_SECONDS)
            trouble = explain(silent, settings.bridge, on_host=on_host, ufw=firewalls.ufw_enabled())
        before, self.work, self._trouble = self._trouble, works, trouble
        if trouble is not None and before is None:
            self._context.bus.publish(LookupsFail(trouble.names, trouble.why, trouble.hint))
        elif trouble is None and before is not None:
            self._context.bus.publish(LookupsAnswered())

    def _choose(self) -> list[Container]:
        """The containers to ask from: others than the last time, as far as there are others."""
        ready = [
            c for c in self._context.running()
            if c.running is not None and c.busy is None and c.addresses and c.running.age >= YOUNG_SECONDS
        ]  # fmt: skip
        names = [c.name for c in ready]
        start = names.index(self._last) + 1 if self._last in names else 0
        chosen = [*ready[start:], *ready[:start]][:ASKED]
        if chosen:
            self._last = chosen[0].name
        return chosen

    async def _ask(self, container: Container, server: IPv4Address) -> bool | None:
        running = container.running
        if running is None:
            return None
        item: LookupItem = {
            "pid": running.pid, "began": running.began, "server": str(server),
            "question": f"{container.name}.{self._context.settings.domain}", "seconds": ANSWER_SECONDS,
        }  # fmt: skip
        return (await self._context.ask(LOOKUP, item))["answered"]
