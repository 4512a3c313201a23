"""Networks: bridges, the packet filter, DHCP clients. pyroute2 is large, so only functions that need it import it."""

from __future__ import annotations

import json
import logging
from ipaddress import ip_interface

from lxcfleet.errors import FleetError, HostError
from lxcfleet.launcher.children.answer import Reply, answer, answer_large, fail, say
from lxcfleet.launcher.items.network import (
    BridgeAddress,
    BridgeItem,
    ChangedPort,
    DhcpItem,
    DisconnectItem,
    Foreign,
    HostRoutes,
    JoinItem,
    LeasedItem,
    LookedUp,
    LookupItem,
    NetworkItem,
    PublishItem,
    RejoinItem,
    RoutesItem,
    RulesItem,
    UplinkItem,
)
from lxcfleet.launcher.operations import BRIDGE, LOOKUP, ROUTES
from lxcfleet.network.rules import flows, rules
from lxcfleet.paths import Paths

log = logging.getLogger(__name__)


def routes(argument: RoutesItem, reply: Reply, _: Paths) -> None:
    """The networks that the host uses, and whether it has IPv6."""
    from lxcfleet.host.net import netlink, sysctl  # netlink takes 30 MB

    try:
        used = [str(network) for network in netlink.networks_in_use(argument["except"])]
        say(reply, ROUTES, HostRoutes(networks=used, ipv6=sysctl.ipv6_available(), error=None))
    except FleetError as error:
        fail(reply, error)


def network(argument: NetworkItem, reply: Reply, _: Paths) -> None:
    """Set up the fleet's bridge, and the packet filter's rules for it."""
    from lxcfleet.host.net import interfaces, netlink, nft, resolved, sysctl

    try:
        addresses = [ip_interface(text) for text in argument["addresses"]]
        netlink.ensure_bridge(argument["bridge"], argument["hardware"], addresses, argument["ports"], argument["mtu"])
        for further, ports in argument["further"].items():
            netlink.extend_bridge(argument["bridge"], further, ports)
        nft.apply(argument["rules"])
        if argument["forward"]:
            sysctl.forward([argument["bridge"], *interfaces.routed()])
        if argument["localhost"]:
            sysctl.route_localhost(argument["bridge"])
        answer(reply, "network")
    except FleetError as error:
        answer(reply, "network", error)
        return
    reply.close()  # so that the client does not wait for the rest
    resolved.tell(argument["bridge"], str(addresses[0].ip), argument["domain"])


def bridge(argument: BridgeItem, reply: Reply, _: Paths) -> None:
    """The host's address on the operator's bridge."""
    from lxcfleet.host.net import netlink

    try:
        address = netlink.bridge_address(argument["bridge"])
        say(reply, BRIDGE, BridgeAddress(address=None if address is None else str(address), error=None))
    except FleetError as error:
        fail(reply, error)


def join(argument: JoinItem, reply: Reply, _: Paths) -> None:
    """Load the packet filter's rules for the operator's bridge, and put containers on it."""
    from lxcfleet.host.net import interfaces, netlink, nft, sysctl

    try:
        nft.apply(argument["rules"])
        netlink.join_bridge(argument["bridge"], argument["ports"])
        if argument["forward"]:
            sysctl.forward([argument["bridge"], *interfaces.routed()])
        answer(reply, "join")
    except FleetError as error:
        answer(reply, "join", error)


def dhcp(items: list[DhcpItem], reply: Reply, paths: Paths) -> None:
    """Start containers' DHCP clients."""
    from lxcfleet.host.net import dhcp

    failure = None
    for item in items:
        try:
            client = dhcp.DhcpClient(item["name"], paths)
            client.start(item["pid"], item["began"], item["daemon"], privileged=item["privileged"])
        except (OSError, FleetError) as error:
            failure = failure or error
    answer(reply, "dhcp", failure)


def uplink(argument: UplinkItem, reply: Reply, _: Paths) -> None:
    """Have a network of the host's that containers are to be on."""
    from lxcfleet.host.net import macvlan

    try:
        place = macvlan.UplinkPlace(**argument)
        if place.hardware:
            macvlan.await_free(place)
        else:
            macvlan.ensure(place)
        answer(reply, "uplink")
    except FleetError as error:
        answer(reply, "uplink", error)


def leave_uplink(argument: UplinkItem, reply: Reply, _: Paths) -> None:
    """Remove an interface for a VLAN."""
    from lxcfleet.host.net import macvlan

    try:
        macvlan.release(argument["device"], argument["user"])
        answer(reply, "leave_uplink")
    except FleetError as error:
        answer(reply, "leave_uplink", error)


def rejoin(items: list[RejoinItem], reply: Reply, paths: Paths) -> None:
    """Give containers their interfaces on a network of the host's again."""
    from lxcfleet.host.net import macvlan

    failure = None
    for item in items:
        try:
            macvlan.rejoin(macvlan.Card(**item), paths.joining(item["name"]))
        except FleetError as error:
            failure = failure or error
    answer(reply, "rejoin", failure)


def leased(argument: LeasedItem, reply: Reply, _: Paths) -> None:
    """The addresses that the packet filter saw given to containers."""
    from lxcfleet.host.net import nft

    body, text = None, b"[]"
    try:
        text = json.dumps(nft.pairs("bridge", argument["table"], "leased")).encode()
    except FleetError as error:
        body = error.body()
    answer_large(reply, body, text)


def published(own: str, reply: Reply, _: Paths) -> None:
    """The ports of the host that other fleets publish, and where their name servers keep theirs."""
    from lxcfleet.host.net import nft

    body, found = None, Foreign(ports=[], name_servers=[])
    try:
        for table in nft.tables("inet"):
            if rules.is_fleets(table) and table != own:
                for chain in rules.PUBLISHED:
                    found["ports"] += rules.read_published(table, chain, nft.chain("inet", table, chain))
                found["name_servers"] += rules.read_kept(nft.chain("inet", table, rules.KEPT))
    except FleetError as error:
        body = error.body()
    answer_large(reply, body, json.dumps(found).encode())


def forward(bridge: str, reply: Reply, _: Paths) -> None:
    """The chains of firewalls that drop what the host passes on from the bridge, or to it."""
    from lxcfleet.host.net import legacy, nft
    from lxcfleet.network.rules import forwarding

    body, found = None, []
    try:
        chains = nft.chains()
        for chain in forwarding.dropping(chains):
            if not rules.is_fleets(chain["table"]):
                own = nft.rules(chain["family"], chain["table"])
                found.append(forwarding.closed(chain, own, chains, bridge))
        found += [forwarding.closed_legacy(family, text, bridge) for family, text in legacy.filters().items()]
    except FleetError as error:
        body = error.body()
    answer_large(reply, body, json.dumps([each for each in found if each is not None]).encode())


def publish(argument: PublishItem, reply: Reply, _: Paths) -> None:
    """Make ports of the host lead where they should."""
    from lxcfleet.host.net import interfaces, nft, sysctl

    try:
        nft.apply(argument["rules"])
        if argument["localhost"]:
            sysctl.route_localhost(argument["bridge"])
        if argument["forward"]:
            sysctl.forward([argument["bridge"], *interfaces.routed()])
        if argument["changed"]:
            _forget_flows(argument["changed"])
        answer(reply, "publish")
    except FleetError as error:
        answer(reply, "publish", error)


def _forget_flows(ports: list[ChangedPort]) -> None:
    """Make the kernel forget flows to these ports that do not lead to their members: their next packets do."""
    from lxcfleet.host.net import conntrack, interfaces

    names = {number: protocol for protocol, number in conntrack.PROTOCOLS.items()}

    def is_wrong(flow: conntrack.Flow) -> bool:
        told = flows.Flow(names[flow.protocol], flow.target, flow.port, flow.source, flow.source_port)
        return flows.is_wrong(told, ports, local)

    try:
        local = interfaces.addresses()
        conntrack.forget({port["protocol"] for port in ports}, is_wrong)
    except (HostError, OSError) as error:  # the ports themselves are published
        log.warning("clients that keep sending to %s may get no answer: %s", [port["port"] for port in ports], error)


def load_rules(argument: RulesItem, reply: Reply, _: Paths) -> None:
    """Have nft load these rules."""
    from lxcfleet.host.net import nft

    try:
        nft.apply(argument["rules"])
        answer(reply, "rules")
    except FleetError as error:
        answer(reply, "rules", error)


def lookup(argument: LookupItem, reply: Reply, _: Paths) -> None:
    """Ask a name server from a container's network."""
    from lxcfleet.host.net import lookup

    try:
        found = lookup.answered_inside(
            argument["pid"], argument["began"], argument["server"], argument["question"], argument["seconds"]
        )
        say(reply, LOOKUP, LookedUp(answered=found, error=None))
    except FleetError as error:
        fail(reply, error)


def disconnect(argument: DisconnectItem, reply: Reply, _: Paths) -> None:
    """Take the fleet's bridge and its rules away."""
    from lxcfleet.host.net import netlink, nft

    try:
        if argument["bridge"]:
            netlink.remove_bridge(argument["bridge"])
        nft.apply(argument["rules"])
        answer(reply, "network")
    except FleetError as error:
        answer(reply, "network", error)
