"""Flows of datagrams that the kernel remembers (conntrack), and which of them lead to the wrong place. Pure.

The kernel asks the rules about the first packet of a flow only, and each datagram renews its flow. A client that keeps
sending from one socket would for ever send to a member that is gone, or to the host itself, if no member was behind the
port when it began.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from ipaddress import ip_address
from typing import NamedTuple

from lxcfleet.launcher.items.network import DatagramPort
from lxcfleet.network.rules.rules import Published
from lxcfleet.spec.container.ports import meet


class Flow(NamedTuple):
    """Addresses as texts. Answers come from ``source`` and ``source_port`` before they are translated back."""

    target: str
    port: int
    source: str
    source_port: int


def changed(before: Iterable[Published] | None, after: Iterable[Published]) -> list[DatagramPort]:
    """The UDP ports whose members are others than before, with the members behind them now.

    ``before``: None if it is not known; then all ports count as changed.
    """
    former = {each.publication: each for each in before or ()}
    present = {each.publication: each for each in after}
    found: list[DatagramPort] = []
    for publication in {**former, **present}:
        now = present.get(publication)
        if publication.protocol == "udp" and (before is None or former.get(publication) != now):
            members = [str(address) for address in (*now.ipv4, *now.ipv6)] if now is not None else []
            found.append(
                {"address": publication.address, "port": publication.host, "to": publication.container, "members": members}
            )
    return found


def is_wrong(flow: Flow, ports: Sequence[DatagramPort], local: Collection[str]) -> bool:
    """Whether the flow is one to a port of the host, and leads to none of its members. ``local``: the host's addresses."""
    if flow.target not in local and not ip_address(flow.target).is_loopback:
        return False  # it only passes through, to a port of that number elsewhere
    return any(
        flow.port == port["port"]
        and meet(port["address"], flow.target)
        and (flow.source not in port["members"] or flow.source_port != port["to"])
        for port in ports
    )
