"""Bridges, addresses and routes, over netlink (pyroute2). Only children of the launcher use this, as pyroute2 is large."""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_network
from typing import Any

from pyroute2 import IPRoute, NetlinkError
from pyroute2.netlink.exceptions import NetlinkDumpInterrupted

from lxcfleet.errors import HostError, InvalidInput
from lxcfleet.host.net import bridge_port, interfaces, sysctl
from lxcfleet.spec.container.addresses import OUR_HARDWARE, bridge_behind, cable

_MTU_DEFAULT = 1500
_NO_DAD = 0x02
"""IFA_F_NODAD; linux/if_addr.h."""
_LISTS = ("get_addr", "get_default_routes", "get_links", "get_routes", "link_lookup")
_BRIDGE_SWITCHES = {
    "stp_state": "br_stp_state", "vlan_filtering": "br_vlan_filtering", "multicast_querier": "br_mcast_querier",
    "multicast_snooping": "br_mcast_snooping",
}  # fmt: skip
_TRIES = 30
_PAUSE_SECONDS = 0.02


class _Whole:
    """Reads each list again that changed while the kernel told it: it may be wrong then.

    With hundreds of containers that start, that is nothing unusual. The kernel says so by NLM_F_DUMP_INTR; see
    Documentation/userspace-api/netlink/intro.rst, "Dump consistency".
    """

    def __init__(self, netlink: Any) -> None:
        self._netlink = netlink

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._netlink, name)
        return partial(read_whole, method) if name in _LISTS else method


def read_whole(read: Callable[..., Iterable[Any]], *arguments: Any, **options: Any) -> list[Any]:
    """The entries of a list of the kernel's; raises NetlinkDumpInterrupted if it changes whenever it is read."""
    for _ in range(_TRIES - 1):
        with contextlib.suppress(NetlinkDumpInterrupted):
            return list(read(*arguments, **options))
        time.sleep(_PAUSE_SECONDS)
    return list(read(*arguments, **options))


@contextlib.contextmanager
def session(what: str) -> Iterator[Any]:
    """A netlink socket; turns the kernel's errors into HostError (NetlinkError is no OSError)."""
    try:
        with IPRoute() as netlink:
            yield _Whole(netlink)
    except NetlinkError as error:
        raise HostError(f"{what} failed", why=f"netlink: {error.args[-1]} (errno {error.code})") from error
    except OSError as error:
        raise HostError.from_os_error(f"{what} failed", error) from error


@contextlib.contextmanager
def unless_gone() -> Iterator[None]:
    """For what is done to an interface that was there a moment ago: a veth goes with its container, and any other one with
    its tool. Then there is nothing to be done about it, and what was asked for others goes on."""
    try:
        yield
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise


def index_of(netlink: Any, name: str) -> int | None:
    """The number of the interface; None: it is not there."""
    found = netlink.link_lookup(ifname=name)
    return int(found[0]) if found else None


def networks_in_use(except_for: str) -> list[IPv4Network | IPv6Network]:
    """All networks that the host's routes and interfaces reach, without those of the interface ``except_for``."""
    found: set[IPv4Network | IPv6Network] = set()
    with session("reading the host's routes") as netlink:
        own = index_of(netlink, except_for)
        for family, bits in ((socket.AF_INET, 32), (socket.AF_INET6, 128)):
            for route in netlink.get_routes(family=family):
                target = route.get_attr("RTA_DST")
                if target is not None and route.get_attr("RTA_OIF") != own:
                    found.add(ip_network(f"{target}/{route['dst_len']}", strict=False))
            for entry in netlink.get_addr(family=family):
                if entry["index"] != own and entry.get_attr("IFA_ADDRESS") is not None:
                    prefix = min(entry["prefixlen"], bits)
                    found.add(ip_network(f"{entry.get_attr('IFA_ADDRESS')}/{prefix}", strict=False))
    return sorted(found, key=lambda network: (network.version, network.network_address, network.prefixlen))


def ensure_bridge(
    name: str, hardware: str, addresses: Sequence[IPv4Interface | IPv6Interface], ports: Iterable[str], mtu: int = 0
) -> None:
    """Make sure that a bridge is up, with these addresses and those of the veths ``ports`` that exist.

    ``hardware``: its MAC address. Without one of its own, a bridge takes the address of a port, and another one when that
    port goes: neighbours then use the old one for a while. The address also tells our bridge from other people's, which are
    refused, because ours is removed with the last container.
    ``mtu``: 0: a bridge that is made has the uplink's, and one that is there keeps its own.
    """
    with session(f"setting up the bridge {name}") as netlink:
        index = index_of(netlink, name)
        if index is None:
            # Its MTU is set below: one that it is made with changes when a port comes or the last one goes, and one that is
            # changed stays.
            netlink.link("add", ifname=name, kind="bridge", address=hardware)
            index, mtu = index_of(netlink, name), mtu or _uplink_mtu(netlink)
        elif not _ours(netlink, index):
            raise InvalidInput(
                f"network.bridge: {name} is there already and not lxcfleet's",
                hint=f"to use it with addresses from a DHCP server: `network: {{bridge: {name}, addresses: dhcp}}`; "
                "else choose another name in lxcfleet.yaml: without that, lxcfleet makes the bridge itself",
            )
        own = [address for address in addresses if address.version == 4 or sysctl.takes_ipv6(name)]
        for address in own:
            _have_address(netlink, index, address)
        # An MTU that was asked for stays. Else it would be the smallest of the ports', and one would change it for all.
        size = {"mtu": mtu} if mtu else {}
        netlink.link("set", index=index, address=hardware, ifalias=interfaces.MADE_BY, state="up", **size)
        _switch_off(netlink, name, index)
        for address in own:
            _have_route(netlink, name, index, address)
        _attach(netlink, index, ports)


def _switch_off(netlink: Any, name: str, index: int | None) -> None:
    for switch in interfaces.switched_on(name):
        netlink.link("set", index=index, kind="bridge", **{_BRIDGE_SWITCHES[switch]: 0})


def _have_address(netlink: Any, index: int | None, address: IPv4Interface | IPv6Interface) -> None:
    """Give the interface an address, unless it has it. To look for it, all addresses of the host would have to be read."""
    how: dict[str, int] = {"family": socket.AF_INET}
    if address.version != 4:
        # Without the look for duplicates, which the bridge's rules make impossible, the host itself reaches containers by
        # IPv6 at once, and not only after the two seconds that the look takes.
        how = {"family": socket.AF_INET6, "flags": _NO_DAD}
    try:
        netlink.addr("add", index=index, address=str(address.ip), prefixlen=address.network.prefixlen, **how)
    except NetlinkError as error:
        if error.code != errno.EEXIST:
            raise


def _have_route(netlink: Any, name: str, index: int | None, address: IPv4Interface | IPv6Interface) -> None:
    """The one that the kernel makes with the address, if somebody has removed it since."""
    if interfaces.has_route(name, address.network):
        return
    how: dict[str, Any] = {"scope": "link", "prefsrc": str(address.ip)} if address.version == 4 else {"priority": 256}
    netlink.route("replace", dst=str(address.network), oif=index, proto="kernel", **how)


def _attach(netlink: Any, bridge: int | None, ports: Iterable[str]) -> None:
    """Put those of the interfaces that exist on the bridge; none if that is gone."""
    for port in ports:
        index = index_of(netlink, port)
        if index is not None and bridge is not None:
            with unless_gone():
                netlink.link("set", index=index, master=bridge, state="up")


def extend_bridge(name: str, further: str, ports: Iterable[str]) -> None:
    """Make sure that a further bridge hangs on ours by a cable, with those of the veths ``ports`` that exist.

    The kernel lets a bridge have 1,023 ports. The host has no address on the further one.
    """
    with session(f"extending the bridge {name}") as netlink:
        bridge, here, there = index_of(netlink, name), *cable(further)
        mtu = next((link.get_attr("IFLA_MTU") for link in netlink.get_links(bridge) if bridge), _MTU_DEFAULT)
        if index_of(netlink, further) is None:
            netlink.link("add", ifname=further, kind="bridge", address=f"{OUR_HARDWARE}00:00:00:00", mtu=mtu)
        if index_of(netlink, here) is None:
            netlink.link("add", ifname=here, kind="veth", mtu=mtu, peer={"ifname": there, "mtu": mtu})
        for each in (further, here, there):
            sysctl.refuse_ipv6(each)
        own = index_of(netlink, further)
        _switch_off(netlink, further, own)
        for index, master in ((own, None), (index_of(netlink, here), bridge), (index_of(netlink, there), own)):
            if master is not None:
                netlink.link("set", index=index, master=master)
            netlink.link("set", index=index, mtu=mtu, state="up")
        _attach(netlink, own, ports)


def join_bridge(name: str, ports: Iterable[str]) -> None:
    """Put those of the veths ``ports`` that exist on somebody else's bridge, and change nothing else of it."""
    with session(f"connecting to the bridge {name}") as netlink:
        index = _bridge(netlink, name)
        for port in ports:
            with unless_gone():
                for link in netlink.get_links(ifname=port) if index_of(netlink, port) else ():
                    if link.get_attr("IFLA_MASTER") != index or not link["flags"] & interfaces.UP:
                        netlink.link("set", index=link["index"], master=index, state="up")


def bridge_address(name: str) -> IPv4Address | None:
    """The host's own address on somebody else's bridge; None if it has none there."""
    with session(f"reading the addresses of the bridge {name}") as netlink:
        for entry in netlink.get_addr(index=_bridge(netlink, name), family=socket.AF_INET):
            return IPv4Address(entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"))
    return None


def _bridge(netlink: Any, name: str) -> int:
    bridge_port.check_bridge(name)
    index = index_of(netlink, name)
    if index is None or _ours(netlink, index):
        raise InvalidInput(
            f"network.bridge: {name} was made by lxcfleet, and has no DHCP server",
            hint="name a bridge of the host's, or leave network.addresses out",
        )
    return index


def _uplink_mtu(netlink: Any) -> int:
    """The MTU of the interface that has the default route: it would drop larger packets."""
    for route in netlink.get_default_routes(family=socket.AF_INET):
        index = route.get_attr("RTA_OIF")
        with unless_gone():
            for link in netlink.get_links(index) if index else ():
                return int(link.get_attr("IFLA_MTU") or _MTU_DEFAULT)
    return _MTU_DEFAULT


def _ours(netlink: Any, index: int) -> bool:
    """Whether lxcfleet made the interface, by the beginning of its MAC address, or its alias."""
    return all(
        str(link.get_attr("IFLA_ADDRESS")).startswith(OUR_HARDWARE) or link.get_attr("IFLA_IFALIAS") == interfaces.MADE_BY
        for link in netlink.get_links(index)
    )


def remove_bridge(name: str) -> None:
    """Remove our bridge, if it exists; other people's bridges stay."""
    with session(f"removing the bridge {name}") as netlink, unless_gone():
        index = index_of(netlink, name)
        if index is None or not _ours(netlink, index):
            return
        for port in interfaces.ports(name):
            further = bridge_behind(port)
            for each in (port, further) if further is not None else ():
                found = index_of(netlink, each)
                if found is not None:
                    with unless_gone():
                        netlink.link("del", index=found)
        netlink.link("del", index=index)
