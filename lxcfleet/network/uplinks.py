"""Containers that are on networks of the host's by themselves: what they need before they start, and what is mended after the
host's interface was away. Interfaces for VLANs are made for the first container of each, and go with the last one."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Sequence

from lxcfleet.capacity.needs import Finding
from lxcfleet.containers import store
from lxcfleet.containers.container import Container
from lxcfleet.errors import FleetError, InvalidInput, Unsupported
from lxcfleet.host.kernel import tree
from lxcfleet.host.net import dhcp, interfaces, resolved, sysctl, uplink
from lxcfleet.host.net.dhcp import DhcpClient
from lxcfleet.launcher.items.network import RejoinItem, UplinkItem
from lxcfleet.launcher.operations import LEAVE_UPLINK, REJOIN, UPLINK
from lxcfleet.network.context import Context
from lxcfleet.network.events import NetworkRepaired, UplinkGone
from lxcfleet.spec.container.spec import Spec
from lxcfleet.spec.container.uplinks import Uplink
from lxcfleet.spec.reading import ondisk

log = logging.getLogger(__name__)

_LINK = re.compile(r"^\s*lxc\.net\.\d+\.link\s*=\s*(\S+)", re.MULTILINE | re.ASCII)
"""lxc.container.conf(5)."""


class Uplinks:
    """The interfaces of the host's that containers are on."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._seen: dict[str, int] = {}
        """The number that each interface had when the containers on it were last looked at."""
        self._lock = asyncio.Lock()
        self._gone: set[str] = set()
        """Interfaces of the host's of which it was told that they are away."""

    @property
    def _user(self) -> str:
        """The name of this fleet in the alias of an interface that several may use."""
        return str(self._context.paths.run)

    def _specs(self) -> list[Spec]:
        """The specs that containers have, and those that they will have after a restart."""
        return [s for c in self._context.registry for s in (c.spec, c.desired) if s is not None and s.on_uplink]

    def _running(self) -> list[Container]:
        return [c for c in self._context.registry if c.running is not None and c.spec is not None and c.spec.on_uplink]

    # -- containers that are to be -----------------------------------------------------------------------------

    def check(self, wanted: Sequence[Spec]) -> None:
        """Refuse new specs with a place on a network of the host's that can't be had. Raises FleetError."""
        names = {spec.name for spec in wanted}
        present = [spec for spec in self._specs() if spec.name not in names]
        for number, spec in enumerate(wanted):
            if not spec.on_uplink:
                continue
            self.check_start(spec)
            if spec.uplink.address6 is not None and not sysctl.ipv6_available():
                raise Unsupported(
                    f"{spec.name} can't have {spec.uplink.address6.ip}", why="the kernel has no IPv6, or it is switched off",
                    hint="`sysctl net.ipv6.conf.all.disable_ipv6` tells; or leave out address6",
                )  # fmt: skip
            self._check_free(spec, [*present, *wanted[:number]])

    def check_start(self, spec: Spec) -> None:
        """See that the host has what a container needs that starts on a network of the host's. Raises FleetError."""
        uplink.check_parent(spec.uplink)
        if not spec.uplink.addresses:
            dhcp.check_installed()

    def _check_free(self, spec: Spec, others: Iterable[Spec]) -> None:
        wanted = {address.ip for address in spec.uplink.addresses}
        for taken in wanted:
            if interfaces.has_address(spec.uplink.device, taken):
                raise InvalidInput(
                    f"{spec.name} can't have {taken} on {spec.uplink.words}", why="the host itself has it there",
                    hint="choose another address, or none for one of the DHCP server's",
                )  # fmt: skip
        for other in others if wanted else ():
            if other.uplink.device != spec.uplink.device:
                continue
            for taken in wanted & {address.ip for address in other.uplink.addresses}:
                raise InvalidInput(
                    f"{spec.name} can't have {taken} on {spec.uplink.words}", why=f"{other.name} has it",
                    hint="choose another address, or none for one of the DHCP server's",
                )  # fmt: skip

    async def ensure(self, spec: Spec) -> None:
        """Have what a container needs that is about to start. Raises FleetError, OSError."""
        uplink.check_parent(spec.uplink)
        await self._have(spec.uplink)
        await self._context.ask(UPLINK, self._item(spec.uplink, spec.mac))
        write_names(self._context, spec.name, resolved.servers())

    async def _have(self, wanted: Uplink) -> None:
        async with self._lock:  # of many that start at once, the first one makes it
            await self._make(wanted)

    async def _make(self, wanted: Uplink) -> None:
        device = wanted.device
        number = uplink.index(device)
        known = number is not None and self._seen.get(device) == number
        if known and (not wanted.vlan or self._user in uplink.users(device)):
            return
        await self._context.ask(UPLINK, self._item(wanted))
        if not any(c.spec is not None and c.spec.uplink.device == device for c in self._running()):
            self._note(device)

    def _item(self, wanted: Uplink, hardware: str = "") -> UplinkItem:
        return UplinkItem(
            parent=wanted.parent, vlan=wanted.vlan, device=wanted.device, user=self._user, words=wanted.words,
            hardware=hardware,
        )  # fmt: skip

    def _note(self, device: str) -> None:
        number = uplink.index(device)
        if number is not None:
            self._seen[device] = number

    # -- watched and mended ------------------------------------------------------------------------------------

    async def look(self) -> bool:
        """Mend what somebody took away from containers that run, and remove what none needs. Whether there are any.

        Raises FleetError, OSError."""
        running = self._running()
        for device in {c.spec.uplink.device for c in running if c.spec is not None}:
            containers = [c for c in running if c.spec is not None and c.spec.uplink.device == device]
            try:
                await self._look_at(device, containers)
            except (FleetError, OSError) as error:  # one of several, which must not keep the others from being mended
                log.error("containers on %s can't be mended, which is tried again: %s", device, error)
        await self.release()
        return bool(running)

    async def _look_at(self, device: str, containers: Sequence[Container]) -> None:
        number = uplink.index(device)
        spec = containers[0].spec
        assert spec is not None
        if number is not None and self._seen.get(device) == number:
            if device in self._gone:  # it had another name meanwhile
                self._gone.discard(device)
                self._context.bus.publish(NetworkRepaired((f"{spec.uplink.words} was gone",)))
            return
        try:
            uplink.check_parent(spec.uplink)
            await self._have(spec.uplink)
        except FleetError as error:
            if device not in self._gone:
                self._gone.add(device)
                why = error.why or error.message
                names, lost = tuple(c.name for c in containers), any(self._is_cut(c) for c in containers)
                self._context.bus.publish(UplinkGone(spec.uplink.words, names, why, cut=lost))
            return
        cut = [c for c in containers if self._is_cut(c)]
        for container in cut:
            DhcpClient(container.name, self._context.paths).forget()  # it holds on to the interface that is gone
        if cut:
            await self._context.ask(REJOIN, [item for item in map(_rejoin, cut) if item is not None])
        self._note(device)
        if cut or device in self._gone:
            self._context.bus.publish(NetworkRepaired((f"{spec.uplink.words} was gone",)))
        self._gone.discard(device)

    def _is_cut(self, container: Container) -> bool:
        """Whether it runs and has no interface, or one that was not finished, as whoever gave it was killed."""
        running = container.running
        if running is None:
            return False
        half = uplink.has_half(self._context.paths.joining(container.name), running.pid, running.began)
        return half or not uplink.has_card(running.pid)

    async def release(self) -> None:
        """Remove the interfaces for VLANs that no container has any more. Raises FleetError."""
        async with self._lock:
            for device in uplink.made(self._user):
                if not self._is_needed(device):  # looked at anew for each: a container may be made while one is removed
                    item = UplinkItem(parent="", vlan=0, device=device, user=self._user, words=device, hardware="")
                    await self._context.ask(LEAVE_UPLINK, item)
                    self._seen.pop(device, None)

    def _is_needed(self, device: str) -> bool:
        if any(spec.uplink.device == device for spec in self._specs()):
            return True
        # What a container is on whose spec can't be read says its configuration, if anything does; and it may run.
        broken = [store.config(self._context.paths, c.name) for c in self._context.registry if c.spec is None]
        return not all(broken) or any(device in _LINK.findall(text) for text in broken)

    def forget(self, name: str) -> None:
        """A container is destroyed, or was not made."""
        try:
            self._context.paths.uplink_names(name).unlink(missing_ok=True)
            self._context.paths.joining(name).unlink(missing_ok=True)
        except OSError as error:  # the next container of that name replaces it, and nothing that is gone waits for this
            log.error("%s is gone, and the list of its name servers can't be removed: %s", name, error)

    def findings(self) -> list[Finding]:
        """Whether containers can be on the networks that they are to be on, as ``doctor`` tells it."""
        found = []
        for each in {spec.uplink.words: spec.uplink for spec in self._specs()}.values():
            try:
                uplink.check_parent(each)
            except FleetError as error:
                found.append(Finding("uplink", "fail", f"{error.message}: {error.why}", hint=error.hint or "", feature=True))
            else:
                found.append(Finding("uplink", "ok", f"containers can be on {each.words}", feature=True))
        if any(spec.by_dhcp for spec in self._specs()):
            try:
                dhcp.check_installed()
            except FleetError as error:
                found.append(Finding("uplink", "fail", f"{error.message}: {error.why}", hint=error.hint or "", feature=True))
        return found


def _rejoin(container: Container) -> RejoinItem | None:
    spec, running = container.spec, container.running
    if spec is None or running is None:
        return None
    address = spec.uplink.address
    return RejoinItem(
        name=container.name, pid=running.pid, began=running.began, device=spec.uplink.device, hardware=spec.mac,
        isolated=spec.isolated, address="" if address is None else str(address),
        broadcast="" if address is None else str(address.network.broadcast_address),
        gateway="" if spec.uplink.gateway is None else str(spec.uplink.gateway),
        address6="" if spec.uplink.address6 is None else str(spec.uplink.address6),
        gateway6="" if spec.uplink.gateway6 is None else str(spec.uplink.gateway6),
    )  # fmt: skip


def write_names(context: Context, name: str, text: str) -> None:
    """Write the resolv.conf of a container, in place, as it is mounted there. Raises OSError."""
    file = context.paths.uplink_names(name)
    if not file.exists():
        file.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        tree.write(file, text)
    elif ondisk.text(file, errors="replace") != text:  # damaged or not
        file.write_text(text, encoding="utf-8")
