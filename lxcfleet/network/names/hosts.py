"""The fleet's names as hosts files: each container's own, and one per label that all with it share. Pure.

Lines that begin with ``#srv`` are comments for dnsmasq and SRV records for the responder: one file, one truth.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the responder, which is to be small, imports this module
    from lxcfleet.spec.container.ports import Port

MARK = "#srv"
"""Begins the line of an SRV record. Not in network.dns: the daemon, which writes these files, has no use for dnspython."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MAX_NAME = 253
"""RFC 1035: 255 bytes on the wire."""


def group_names(labels: Mapping[str, str], domain: str) -> list[str]:
    """VALUE.KEY.DOMAIN for each label that makes a good name: all containers with role=web are web.role.fleet."""
    names = []
    for key, value in sorted(labels.items()):
        if _LABEL.fullmatch(value.lower()) and _LABEL.fullmatch(key.lower()):
            names.append(f"{value.lower()}.{key.lower()}.{domain}")
    return [name for name in names if len(name) <= _MAX_NAME]


def hosts_lines(
    name: str,
    labels: Mapping[str, str],
    addresses: Iterable[IPv4Address | IPv6Address],
    domain: str,
    ports: Sequence[Port] = (),
    aliases: Sequence[str] = (),
) -> str:
    """The lines of one container; its own name comes first, as the reverse look-up gives that."""
    own = f"{name}.{domain}"
    further = (f"{alias}.{domain}" for alias in aliases)
    names = [own, *(alias for alias in further if len(alias) <= _MAX_NAME), *group_names(labels, domain)]
    lines = [f"{address} {' '.join(names)}\n" for address in addresses]
    for port in ports:
        for each in names:
            service = f"_{port.service}._{port.protocol}.{each}"
            if len(service) <= _MAX_NAME:
                lines.append(f"{MARK} {service} {port.number} {own}\n")
    return "".join(lines)
