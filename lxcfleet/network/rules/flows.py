"""Flows of packets that the kernel remembers (conntrack), and which of them lead to the wrong place. Pure.

The kernel asks the rules about the first packet of a flow only. Each datagram renews its flow: a client that keeps
sending from one socket would for ever send to a member that is gone, or to the host itself, if no member was behind the
port when it began. A connection that a member did not answer any more would be asked of that one again and again until the
client gives up, though others would answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from lxcfleet.launcher.items.network import ChangedPort
from lxcfleet.network.rules.rules import Published
from lxcfleet.spec.container.ports import meet


class Flow(NamedTuple):
    """Addresses as texts. Answers come from ``source`` and ``source_port`` before they are translated back."""

    protocol: str
    target: str
    port: int
    source: str
    source_port: int


def changed(before: Iterable[Published] | None, after: Iterable[Published]) -> list[ChangedPort]:
    """The ports with flows that may lead to the wrong place, with the members behind them now: UDP ports whose members are
    others than before, and TCP ports that members have left.

    ``before``: None if it is not known; then all ports count.
    """
    former = {each.publication: each for each in before or ()}
    present = {each.publication: each for each in after}
    found: list[ChangedPort] = []
    for publication in {**former, **present}:
        then, now = former.get(publication), present.get(publication)
        members = _members(now)
        if before is None or (then != now and (publication.protocol == "udp" or {*_members(then)} - {*members})):
            found.append({"protocol": publication.protocol, "address": publication.address, "port": publication.host,
                          "to": publication.container, "members": members})  # fmt: skip
    return found


def _members(port: Published | None) -> list[str]:
    return [] if port is None else [str(address) for address in (*port.ipv4, *port.ipv6)]


def is_wrong(flow: Flow, ports: Sequence[ChangedPort], local: Collection[str]) -> bool:
    """Whether the flow is one to a port of the host, and leads to none of its members. ``local``: the host's addresses."""
    if flow.target not in local and not ip_address(flow.target).is_loopback:
        return False  # it only passes through, to a port of that number elsewhere
    return any(
        (flow.protocol, flow.port) == (port["protocol"], port["port"])
        and meet(port["address"], flow.target)
        and (flow.source not in port["members"] or flow.source_port != port["to"])
        for port in ports
    )
