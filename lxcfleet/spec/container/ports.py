"""Ports that a container declares, and ports of the host that lead to a container. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from lxcfleet.errors import InvalidInput

PROTOCOLS = ("tcp", "udp")
_SERVICE = re.compile(r"(?=.{1,15}\Z)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*")
"""The syntax of service names: RFC 6335, section 5.1."""
_PORT_HINT = "write it as SERVICE=PORT or SERVICE=PORT/udp, for example http=8080"
_PUBLISH_HINT = "write it as [ADDRESS:]HOST:CONTAINER[/udp], for example 8080:80, 8000-8010:8000-8010 or [::]:8080:80"
ALL4, ALL6 = "0.0.0.0", "::"
"""The words for all of the host's addresses of one kind."""
_RANGE = re.compile(r"(?P<address>.*:)?(?P<host>[^:]*):(?P<container>[^:/]*)(?P<protocol>/.*)?", re.DOTALL)
MAX_RANGE = 1024
"""The most ports of one range, and of one container: each is a rule of the packet filter."""


@dataclass(frozen=True, order=True)
class Port:
    """A port that a container's program listens on, by the name of its service."""

    service: str
    number: int
    protocol: str = "tcp"

    def __str__(self) -> str:
        return f"{self.service}={self.number}/{self.protocol}"


@dataclass(frozen=True, order=True)
class Publication:
    """A port of the host that leads to one of a container."""

    host: int
    container: int
    protocol: str = "tcp"
    address: str | None = None
    """The host's address on which the port is open; None: all of the host's addresses; ALL4 and ALL6: all of one kind."""

    def __str__(self) -> str:
        return f"{self.begin}{self.host}:{self.container}/{self.protocol}"

    @property
    def begin(self) -> str:
        """The address as it stands before the ports."""
        if self.address is None:
            return ""
        return f"[{self.address}]:" if ":" in self.address else f"{self.address}:"

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions of IP in which it is reached."""
        return (4, 6) if self.address is None else (6,) if ":" in self.address else (4,)

    @property
    def everywhere(self) -> bool:
        """Whether it is open on all of the host's addresses, or on all of one kind."""
        return self.address in (None, ALL4, ALL6)

    @property
    def name(self) -> tuple[str, int, bool]:
        """The values that tell it from a container's other ones: one of IPv6 alone may stand beside one of IPv4."""
        return self.protocol, self.host, 4 not in self.versions

    @property
    def key(self) -> tuple[str, int]:
        """Protocol and the host's port."""
        return self.protocol, self.host


def parse_port(text: str) -> Port:
    """``SERVICE=PORT[/PROTOCOL]``; raises InvalidInput."""
    service, equals, rest = text.partition("=")
    if not equals:
        raise InvalidInput(f"{text!r} does not say which service and which port", hint=_PORT_HINT)
    number, protocol = _number(rest, text, _PORT_HINT)
    if not _SERVICE.fullmatch(service):
        raise InvalidInput(
            f"{text!r} is not a port",
            why="a service's name has 1 to 15 lower-case letters, digits and hyphens, one letter at least",
            hint=_PORT_HINT,
        )
    return Port(service, number, protocol)


def parse_publication(text: str) -> Publication:
    """``[ADDRESS:]HOST:CONTAINER[/PROTOCOL]``; raises InvalidInput."""
    begin, colon, last = text.rpartition(":")
    address, _, first = begin.rpartition(":")
    if not colon:
        raise InvalidInput(f"{text!r} does not say which port of the host leads to which inside", hint=_PUBLISH_HINT)
    container, protocol = _number(last, text, _PUBLISH_HINT)
    host, plain = _number(first, text, _PUBLISH_HINT)
    if "/" in first or plain != "tcp":
        raise InvalidInput(f"{text!r}: the protocol stands at the end", hint=_PUBLISH_HINT)
    return Publication(host, container, protocol, _address(address, text) if address else None)


def _address(address: str, text: str) -> str:
    try:
        if not (address.startswith("[") and address.endswith("]")):
            return str(IPv4Address(address))
        found = IPv6Address(address[1:-1])
    except ValueError as error:
        hint = _PUBLISH_HINT if ":" not in address or "[" in address else "an IPv6 address stands in brackets: [::]:8080:80"
        raise InvalidInput(f"{text!r}: {address} is not an address of a host", hint=hint) from error
    if found.is_loopback:
        raise InvalidInput(
            f"{text!r}: a port can't be published at ::1", why="the kernel lets no packet to ::1 leave the host",
            hint="publish it at 127.0.0.1, or at all addresses of the host",
        )  # fmt: skip
    if found.is_link_local or found.scope_id is not None or found.ipv4_mapped is not None:
        raise InvalidInput(f"{text!r}: a port can't be published at {found}", hint="name a global or unique local address")
    return str(found)


def meet(one: str | None, other: str | None) -> bool:
    """Whether some address is both of these; see Publication.address."""
    if one is None or other is None or one == other:
        return True
    same = (":" in one) == (":" in other)
    return same and (one in (ALL4, ALL6) or other in (ALL4, ALL6))


def spread_publication(text: str) -> tuple[str, ...]:
    """The single publications that a text with ranges stands for: ``8000-8002:9000-9002`` for three of them.

    Any other text is returned as it is. Raises InvalidInput.
    """
    parts = _RANGE.fullmatch(text)
    if parts is None or "-" not in parts["host"] + parts["container"]:
        return (text,)
    hosts, containers = _range(parts["host"], text), _range(parts["container"], text)
    if len(hosts) != len(containers):
        raise InvalidInput(
            f"{text!r}: {len(hosts)} ports of the host can't lead to {len(containers)} inside", hint=_PUBLISH_HINT
        )
    if len(hosts) > MAX_RANGE:
        raise InvalidInput(
            f"{text!r}: {len(hosts)} ports are more than {MAX_RANGE}", why="each is a rule of the packet filter",
            hint="publish fewer, or give the container the host's network: --network host",
        )  # fmt: skip
    begin, end = parts["address"] or "", parts["protocol"] or ""
    return tuple(f"{begin}{host}:{inside}{end}" for host, inside in zip(hosts, containers, strict=True))


def gather_publications(publications: Iterable[Publication]) -> list[str]:
    """The texts of publications in their order, with a range in place of three or more that follow each other."""
    runs: list[list[Publication]] = []
    for each in publications:
        last = runs[-1][-1] if runs else None
        if last is not None and replace(last, host=last.host + 1, container=last.container + 1) == each:
            runs[-1].append(each)
        else:
            runs.append([each])
    return [text for run in runs for text in ([_ranged(run)] if len(run) > 2 else map(str, run))]


def _ranged(run: Sequence[Publication]) -> str:
    first, last = run[0], run[-1]
    return f"{first.begin}{first.host}-{last.host}:{first.container}-{last.container}/{first.protocol}"


def _range(text: str, whole: str) -> range:
    if "/" in text:
        raise InvalidInput(f"{whole!r}: the protocol stands at the end", hint=_PUBLISH_HINT)
    first, dash, last = text.partition("-")
    begin, _ = _number(first, whole, _PUBLISH_HINT)
    end = _number(last, whole, _PUBLISH_HINT)[0] if dash else begin
    if end < begin:
        raise InvalidInput(f"{whole!r}: the range {text} ends before it begins", hint=_PUBLISH_HINT)
    return range(begin, end + 1)


def _number(text: str, whole: str, hint: str) -> tuple[int, str]:
    number, slash, protocol = text.partition("/")
    if slash and protocol not in PROTOCOLS:
        raise InvalidInput(f"{whole!r}: the protocol is none of {', '.join(PROTOCOLS)}", hint=hint)
    if not re.fullmatch(r"[0-9]{1,5}", number) or not 1 <= int(number) <= 65535:
        raise InvalidInput(f"{whole!r}: {number or 'nothing'} is not a port from 1 to 65535", hint=hint)
    return int(number), protocol or "tcp"


def check_ports(ports: Sequence[Port]) -> None:
    """Raise InvalidInput if a service is declared twice: its SRV record would be ambiguous."""
    seen: set[tuple[str, str]] = set()
    for port in ports:
        if (port.service, port.protocol) in seen:
            raise InvalidInput(f"the port {port.service}/{port.protocol} is declared twice")
        seen.add((port.service, port.protocol))


def check_publications(publications: Sequence[Publication]) -> None:
    """Raise InvalidInput if one port of the host is to lead to two ports of the container, or if there are too many."""
    if len(publications) > MAX_RANGE:
        raise InvalidInput(f"{len(publications)} published ports are more than {MAX_RANGE}")
    seen: dict[tuple[str, int], list[Publication]] = {}
    for publication in publications:
        same = seen.setdefault(publication.key, [])
        if any(meet(each.address, publication.address) for each in same):
            raise InvalidInput(f"the host's port {publication.host}/{publication.protocol} is published twice")
        same.append(publication)
