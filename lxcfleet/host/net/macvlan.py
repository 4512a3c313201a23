"""Interfaces of containers on those of the host (macvlan), and interfaces for VLANs, over netlink (pyroute2)."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pyroute2 import NetlinkError

from lxcfleet.errors import HostError, Unsupported
from lxcfleet.host.kernel import locks, tree
from lxcfleet.host.net import sysctl, uplink
from lxcfleet.host.net.netlink import index_of, session, unless_gone
from lxcfleet.host.process import entering

_INSIDE = "eth0"
_PROBE = "lt"
"""The name of an interface that is there for a moment begins so; the pid of its maker follows."""
FREE_SECONDS = 5.0
_LOCK = Path("/run/lxcfleet-vlans.lock")
"""One for all fleets of the host. In a directory that only root can write to, and a file that only root can open."""


class UplinkPlace(NamedTuple):
    """A network of the host's that containers are to be on; see launcher.items.network.UplinkItem."""

    parent: str
    vlan: int
    device: str
    user: str
    words: str
    hardware: str


class Card(NamedTuple):
    """A container's interface there; see launcher.items.network.RejoinItem."""

    name: str
    pid: int
    began: float
    device: str
    hardware: str
    isolated: bool
    address: str
    broadcast: str
    gateway: str
    address6: str
    gateway6: str


@contextlib.contextmanager
def _alone(what: str) -> Iterator[Any]:
    """A netlink socket while no other fleet's process reads or changes who uses an interface for a VLAN: what two write at
    once, one of them would lose."""
    with session(what) as netlink, locks.held(_LOCK):
        yield netlink


def ensure(place: UplinkPlace) -> None:
    """Have the interface that containers are to be on, and make sure that they can be. Raises HostError, Unsupported."""
    device, words = place.device, place.words
    if place.vlan:
        with _alone(f"setting up {words}") as netlink:
            _ensure_vlan(netlink, place)
    try:
        with session(f"putting a container on {words}") as netlink:
            _remove_left(netlink)
            netlink.link("add", ifname=_probe(), kind="macvlan", link=index_of(netlink, device), macvlan_mode="bridge")
            netlink.link("del", ifname=_probe())
    except HostError as error:
        raise Unsupported(
            f"containers can't be on {words}", why=f"the kernel refuses an interface of theirs (macvlan): {error.why}",
            hint="`modprobe macvlan` and `ip -d link show` tell more; --network bridge works without",
        ) from error  # fmt: skip


def _ensure_vlan(netlink: Any, place: UplinkPlace) -> None:
    device, user = place.device, place.user
    if index_of(netlink, device) is None:
        parent = index_of(netlink, place.parent)
        try:
            with session(f"making VLAN {place.vlan}") as maker:
                maker.link("add", ifname=device, kind="vlan", link=parent, vlan_id=place.vlan)
        except HostError as error:
            raise Unsupported(
                f"{place.words} can't be made", why=f"{error.why}; the kernel may have no VLANs",
                hint="`modprobe 8021q` tells; so does `ip link add … type vlan`",
            ) from error  # fmt: skip
    users = uplink.users(device)
    index = index_of(netlink, device)
    if user not in users:
        netlink.link("set", index=index, ifalias=uplink.MARK + " ".join([*users, user]))
    sysctl.refuse_ipv6(device)  # the host is not to be on that network
    netlink.link("set", index=index, state="up")


def await_free(place: UplinkPlace) -> None:
    """Come back once no interface there has the container's MAC address: that of its last run goes a moment after its
    processes, and until then the kernel refuses another one. Raises HostError."""
    deadline = time.monotonic() + FREE_SECONDS
    with session(f"putting {place.hardware} on {place.words}") as netlink:
        _remove_left(netlink)
        while True:
            netlink.link(
                "add", ifname=_probe(), kind="macvlan", link=index_of(netlink, place.device), macvlan_mode="bridge",
                address=place.hardware,
            )  # fmt: skip
            try:
                sysctl.refuse_ipv6(_probe())
                netlink.link("set", index=index_of(netlink, _probe()), state="up")
                return
            except NetlinkError as error:
                if error.code != errno.EADDRINUSE or time.monotonic() > deadline:
                    raise
            finally:
                netlink.link("del", ifname=_probe())
            time.sleep(0.02)


def _remove(netlink: Any, name: str) -> None:
    """Remove an interface, unless it is gone. What else goes wrong is told by what went wrong before."""
    with contextlib.suppress(NetlinkError, OSError):
        netlink.link("del", ifname=name)


def _probe() -> str:
    """The name of this process's own."""
    return f"{_PROBE}{os.getpid()}"


def _remove_left(netlink: Any) -> None:
    """Remove what processes left that were killed meanwhile: each keeps its MAC address from the container that has it."""
    for name in uplink.names(_PROBE):
        pid = name.removeprefix(_PROBE)
        if not pid.isdecimal() or (int(pid) != os.getpid() and os.path.exists(f"/proc/{pid}")):
            continue
        with unless_gone():  # another start may remove it at the same moment
            for link in netlink.get_links(ifname=name):
                if link.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "macvlan":
                    _remove(netlink, name)


def release(device: str, user: str) -> None:
    """This fleet no longer uses an interface for a VLAN: remove it, unless another fleet does. Raises HostError."""
    with _alone(f"removing {device}") as netlink:
        index, users = index_of(netlink, device), uplink.users(device)
        if index is None or user not in users:
            return
        left = [each for each in users if each != user]
        if left:
            netlink.link("set", index=index, ifalias=uplink.MARK + " ".join(left))
        else:
            netlink.link("del", index=index)


def rejoin(card: Card, mark: Path) -> None:
    """Give a container that runs its interface again, as the host's own was away and took it along. Does nothing if it has
    one, or has ended. Raises HostError.

    ``mark`` is there from before the interface is made until it has all that it needs. Whoever finds it knows that a process
    was killed in between, and makes the interface anew.
    """
    try:
        with entering.process(card.pid, card.began) as container:
            if uplink.has_half(mark, card.pid, card.began):
                with entering.network(container), session(f"taking half an interface from {card.name}") as netlink:
                    _remove(netlink, _INSIDE)
            elif uplink.has_card(card.pid):
                return
            mark.parent.mkdir(mode=0o700, exist_ok=True)
            tree.write(mark, uplink.joining(card.pid, card.began))
            with session(f"connecting {card.name}") as netlink:
                netlink.link(
                    "add", ifname=_INSIDE, kind="macvlan", link=index_of(netlink, card.device), address=card.hardware,
                    macvlan_mode="private" if card.isolated else "bridge", net_ns_pid=card.pid,
                )  # fmt: skip
            with entering.network(container):
                _set_up(card)
            mark.unlink(missing_ok=True)
    except ProcessLookupError:
        return
    except OSError as error:
        raise HostError.from_os_error(f"{card.name} can't be connected", error) from error


def _set_up(card: Card) -> None:
    """In the container's network namespace."""
    with session(f"setting up the interface of {card.name}") as netlink:
        try:
            index = index_of(netlink, _INSIDE)
            if card.address:
                address, _, length = card.address.partition("/")
                netlink.addr("add", index=index, address=address, prefixlen=int(length), broadcast=card.broadcast)
            if card.address6:
                address, _, length = card.address6.partition("/")
                netlink.addr("add", family=socket.AF_INET6, index=index, address=address, prefixlen=int(length))
            netlink.link("set", index=index, state="up")
            if card.gateway:
                netlink.route("add", family=socket.AF_INET, dst="0.0.0.0/0", gateway=card.gateway, oif=index)
            if card.gateway6:
                with _there_already():  # a router has told of itself
                    netlink.route("add", family=socket.AF_INET6, dst="::/0", gateway=card.gateway6, oif=index)
        except (NetlinkError, OSError):
            _remove(netlink, _INSIDE)  # with half a one it would count as connected
            raise


@contextlib.contextmanager
def _there_already() -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise
