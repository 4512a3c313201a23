"""The fleet's names as a hosts file: each container's own, and one per label that all with it share. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from ipaddress import IPv4Address, IPv6Address

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def group_names(labels: Mapping[str, str], domain: str) -> list[str]:
    """VALUE.KEY.DOMAIN for each label that makes a good name: all containers with role=web are web.role.fleet."""
    names = []
    for key, value in sorted(labels.items()):
        if _LABEL.fullmatch(value.lower()) and _LABEL.fullmatch(key.lower()):
            names.append(f"{value.lower()}.{key.lower()}.{domain}")
    return names


def hosts_lines(
    name: str, labels: Mapping[str, str], addresses: Iterable[IPv4Address | IPv6Address], domain: str
) -> str:
    """The lines of one container; its own name comes first, as the reverse look-up gives that."""
    names = " ".join([f"{name}.{domain}", *group_names(labels, domain)])
    return "".join(f"{address} {names}\n" for address in addresses)
